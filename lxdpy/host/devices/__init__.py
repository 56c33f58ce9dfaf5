"""Devices of instances: one driver a file, found by `registry`. `driver` says what a driver is."""
