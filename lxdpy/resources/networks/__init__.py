"""/1.0/networks."""
