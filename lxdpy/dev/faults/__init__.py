"""Trouble for a real cluster on this host while clients use it, and whether the cluster kept its word.

`scripts/fault-run` is the way in. Three to five daemons as of `lxdpy.dev.members`, each with its log on a
small file system of its own; clients on all members (`load`); random faults from a seed (`acts`); then all is
healed and what the clients were told is compared with what is there (`verdict`):

- no acknowledged write is lost, none is done twice, what was refused or answered 503 is never found;
- reads, writes and swaps of each key are linearizable; an answer is never older than the index asked for;
- all members hold the same state, and no daemon ended that was not made to.

What a wall clock shows to the daemon's Python is changed by `clock/sitecustomize.py`, process by process.
OpenSSL looks at the true one, so certificates do not expire by it.
"""
