"""Bundles on a store, the indexes beside them, their last members and the database: any one makes the others again."""
