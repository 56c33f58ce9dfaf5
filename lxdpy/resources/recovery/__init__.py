"""Instances and custom volumes registered anew from what lies in the pools, when the database is lost.

Each owner keeps a record with each of its volumes (`lxdpy.host.storage.records`): for an instance the
`backup.yaml` that LXD keeps, with one section more, of what is not in LXD's. It is written from the applied
state, soon after that has changed (`lxdpy.daemon.records`), so of the last moments before a crash it may
not tell. What is found without a record, or in one without that section, is not taken for an instance; a
custom volume without one gets the name of its folder.

Two steps, as in LXD, on the member whose pools they are: `validate` says what would be registered, and what
is in its way (`plan`); `import` does it, by commands, if nothing is. GPUs are not among it: what is recovered
is stopped, and asks for GPUs when it starts.
"""
