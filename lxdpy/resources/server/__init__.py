"""/1.0/server."""
