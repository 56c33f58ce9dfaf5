"""/1.0/instances/<name>/snapshots.

The row is the intent: "Creating" before anything is on disk, "Deleting" before anything is taken from it.
What is found in between after a crash is taken away (`actions.tidy`): a snapshot is there whole or not at
all. On disk it goes by its id, so that a rename changes nothing there.
"""
