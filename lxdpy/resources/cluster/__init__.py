"""/1.0/cluster."""
