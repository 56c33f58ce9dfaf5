"""/1.0/profiles."""
