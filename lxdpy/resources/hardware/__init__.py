"""/1.0/resources: the one noun that could not keep its name, as this package already has it."""
