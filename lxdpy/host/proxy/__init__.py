"""Connections passed on between the host and an instance, for devices of type `proxy`.

Each device has a process of its own beside the container (`program`): it goes on while the daemon is away,
and nothing that passes touches the daemon. `control` is the daemon's side: see `lxdpy.host.companion`.

What the process does after it has told that it is ready, it does without rights: bound on the host, it has
become root of the container's user namespace, in the container's mounts and network, where it connects; bound
in the instance, it stays on the host, as the user of `security.uid`. It sees no bytes but those it copies.
"""
