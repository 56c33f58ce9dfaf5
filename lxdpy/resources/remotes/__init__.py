"""Instances and volumes copied between servers that are not of one cluster, LXD's own among them.

The client asks the source for an operation, or the target, or both; gives one of them the address,
certificate and secrets of the other's; and that one opens its two websockets. So `pull`, `push` and `relay`
differ only in who calls whom: on the `control` socket both ends agree on what is sent (`header`), on `fs` an
rsync goes through for each snapshot, oldest first, and one for what it is now.

What comes is stopped in the end, and whoever brings it does not wait. So one that may wait for GPUs
(`gpu.wait`) comes without, if there are none that it could have at once: its start queues.

What a new instance is sent is known to its owner only, in memory (`arrivals`): if that dies the row is taken
back, as a transfer cannot be taken up again.
"""
