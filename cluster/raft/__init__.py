"""Raft: the only code that knows PySyncObj.

The library elects leaders and commits; everything at its edges is ours, because out of the box it never
syncs, unpickles what strangers send, and can lose or invent acknowledged writes. Read from the edge inwards:

    store       what the rest of the program sees: propose, read_index, state, watch; in it
                session (one life of the thread), asking (until there is an answer), voting,
                listeners and waiters (who is told, who waits)
    thread      the Raft thread: one loop, one pass after whatever happened; bridge: calls between the loops
    carrier     links to all members over mutual TLS; link: one connection; mux: one port, told apart by ALPN
    forward     proposals and reads that a follower hands to the leader
    node        one member of the group, without threads or sockets: what the simulator in the tests drives
    batches     many proposals, one log entry          compaction  snapshots out of and into the library
    guard       the transport that repairs the protocol at message level; its parts are
                leading and following (the log; appends: what a follower may believe),
                elections (with prevotes), reads (ReadIndex); and what they share:
                desk (log, library, ways to speak), connections (whom the library may talk to),
                dialect (its words and ours), messages (what is said)
    journal     the log on disk, over frames; snapshot: the state on disk; background: writing both
    core        the library itself, with the options it must have; codec: msgpack in place of pickle
    recover     offline, when the quorum is lost for good

The library is pinned: its private behaviour is relied upon. After an upgrade, read its diff, then run
tests/cluster/raft; every repair has a test that fails without it.
"""

import socket

_inet_ntop = socket.inet_ntop
import pysyncobj  # noqa: E402, F401

# The library puts a Windows function of its own in the place of this one, on every system, and so breaks
# whoever reads addresses in this process (pyroute2, for one).
socket.inet_ntop = _inet_ntop
