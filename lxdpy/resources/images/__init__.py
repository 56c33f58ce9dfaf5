"""/1.0/images."""
