"""Bundles of small files on their way to a store: what is packed together, when, and what is written of it."""
