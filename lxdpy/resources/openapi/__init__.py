"""/1.0/openapi.json."""
