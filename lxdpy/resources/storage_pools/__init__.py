"""/1.0/storage-pools."""
