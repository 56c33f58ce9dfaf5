"""/1.0/projects."""
