"""Snapshots of custom storage volumes: part of their volume's row, so that they go where it goes."""
