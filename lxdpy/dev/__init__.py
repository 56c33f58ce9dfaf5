"""Clusters on one host, for development, tests and the quickstart; nothing of the product uses it.

Each member is a real daemon in a network and mount namespace of its own; a switch in one more namespace joins
them. There is no link to the host and no default route, so no packet can leave the machine.

The mount namespace outlives the daemon, as a host's does: what it mounted is there after its restart,
and all of it is gone once the namespace is. It has a sysfs of its own, because liblxc looks for bridges in
/sys/class/net, which shows the network namespace of whoever mounted it; the host's cgroups stay in sight.

Plain and synchronous, by the standard library only: it must work when what it tests does not.
"""
