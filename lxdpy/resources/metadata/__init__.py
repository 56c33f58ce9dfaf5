"""/1.0/metadata."""
