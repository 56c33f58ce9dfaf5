"""Instances on their way: copied or moved, between pools and between members.

Files travel as streams (`lxdpy.host.storage.stream`), which the member that needs them fetches from the one
that has them. What is being fetched is not there for anybody until all of it is; so whichever member dies, a
copy is built again or given up, and a move ends with the instance where it was, or where it was to go.

A move is in the row: `move` says where to. The member named there fetches the files, then one entry in the
log changes the owner. Both look at the row, not at each other, so both know after a crash what is to be done.
What lies about in the end, on either side, is a residue: a row that says what to remove, until it is.
"""
