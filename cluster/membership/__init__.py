"""Members of the cluster: rows, commands, tokens, who is alive, who votes.

A fresh daemon is a cluster of one member named "none" (LXD's word for "not clustered"); clustering is enabled
by giving that member a name and an address. There is no second code path for a single host.

An odd number of members vote, chosen over failure domains (`voters`); all others follow the log without a
vote, stand-bys and spares alike, and cost a commit nothing. A member is removed in two steps: `leaving`, it
loses its vote; then its row goes, and a note stays by which whoever it dials later can tell it.

Rows elsewhere refer to a member by its id, never by its name or address: renaming a member or moving it to
another address changes one row.
"""
