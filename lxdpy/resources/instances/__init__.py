"""/1.0/instances."""
