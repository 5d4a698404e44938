"""Moves and verifies bytes between hosts. Knows neither manifests nor the database."""
