"""/1.0/storage-pools/<pool>/volumes/custom/<name>/backups: custom volumes as one file, in LXD's layout.

As backups of instances, whose way of writing and reading files they share; the rows stand in the volume's.
"""
