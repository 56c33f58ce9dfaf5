"""Processes that live beside a container, and outlive the daemon as it does: proxies, interceptors.

Each has a file that it locks, and writes into what it does; the lock tells whose it is, so that no number of
a process that is gone is ever believed. `control` is the daemon's side: it starts the process, finds it again
and ends it. `process` is what all such programs begin with; it uses the standard library only.
"""
