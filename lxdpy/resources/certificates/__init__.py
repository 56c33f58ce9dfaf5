"""/1.0/certificates."""
