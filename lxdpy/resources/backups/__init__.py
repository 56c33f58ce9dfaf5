"""/1.0/instances/<name>/backups: instances as one file, in LXD's layout (`lxdpy.host.backup_archive`).

A backup lies on its instance's owner. As with snapshots the row comes first: what is found unfinished after a
crash is taken away. An import is a create whose source is the file that the client sent.
"""
