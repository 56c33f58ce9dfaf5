"""System calls that a container may not make itself, made for it where that is safe: seccomp's notifications.

A policy (`lxdpy.host.lxc.seccomp`) says which calls the kernel holds up. LXC's monitor passes each on to a
process of ours beside the container (`program`, started by `control`; see `lxdpy.host.companion`), one after
the other, and waits for the answer. Nothing of it touches the daemon, and it goes on while that is away. When
the process itself is away LXC answers ENOSYS at once, and connects again with the next call; the daemon, told
of the end by a pidfd, starts another. A call that takes too long is cut short
(`answering.WITHIN`), before LXC gives up and takes a late answer for that to the next call.

What the container says is believed as little as it can be. A forked child works on each call, and ends. It
has the arguments from the caller's memory once, and asks the kernel afterwards whether the call still waits:
else the memory may be another's by now. Paths are looked up by a child of its own that has become the caller
(`caller.look`): its user namespace, ids, groups, capabilities, root and working directory. So the caller's
rights decide what is found, and no link leads anywhere but where it would lead the caller; what is found goes
on as a descriptor. Only the last step is done with the host's rights. The right to it must be the caller's in
the container's own user namespace, not in one that it made. What we do not do is left to the kernel, which
does it with the caller's rights: `Leave`.

Programs that are started inside from outside do not ask LXC: `joining`. One that mounts a file system is
started by us, and must be what the caller would have started: `fuse`, `confining`.

Calls of 32-bit programs are left so, too.
"""
