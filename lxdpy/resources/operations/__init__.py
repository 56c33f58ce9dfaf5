"""/1.0/operations: asynchronous work, kept in the memory of the member that does it.

An operation is not cluster state: it ends with the daemon that runs it. Its id says which member that is, so
any member finds it. Only tokens are made from rows (`resources.cluster.tokens`), and so are the same
everywhere.
"""
