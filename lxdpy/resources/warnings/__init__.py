"""/1.0/warnings."""
