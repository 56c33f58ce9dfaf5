"""/1.0/metrics."""
