"""Storage pools and their volumes on this host.

Files lie on disk with the owners the container sees (its root is uid 0), whatever its id map: the mount
shifts them, so a volume can be given to any map, copied and exported without a chown. It follows that a
setuid file made inside a container is setuid *root* on the host's disk. So no other user of the host may ever
reach such files by path: they lie below folders of mode 0700, or 0100 and the container root's own
(`layout.py`).
"""
