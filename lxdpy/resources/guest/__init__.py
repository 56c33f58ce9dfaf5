"""The guest API: what an instance may ask of us, at `/dev/lxd/sock`. LXD 5.0's, version 1.0.

LXD has one socket for all containers and finds out who asks by the pid of the peer. Here every container has
a socket of its own, and only its own is mounted into it. So the kernel's mount namespaces say who asks, and
not a pid that may belong to another by the time it is looked up, nor a walk through parents and control
groups that programs started from outside do not pass. A container can name no other's socket, and what it
opens, asks and sends is counted for itself alone: it can use up its own limits, nobody else's. The price is a
descriptor for each running container.

Containers outlive the daemon, and so do the folders that are mounted; the next daemon puts new sockets into
them. Connections end with the daemon, as with LXD.

What is inside is not trusted. Only the container's root is answered (the uid of the peer, mapped). Nothing is
told that its own config and devices do not say. Requests, connections and listeners are limited in number,
speed and size.
"""
