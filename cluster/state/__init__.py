"""PURE: the replicated state machine. What a log entry is, and what it does to the tables.

A `State` is an immutable snapshot, published by one reference assignment, so that any thread reads it without
a lock. Tables are dicts copied once per command that writes them (4 µs at 1,000 rows, 0.8 ms at 50,000), not
persistent maps: reads dominate, and a plain dict reads fastest.
"""
