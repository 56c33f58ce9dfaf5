"""What importing the library must not do to the rest of the process."""

import socket

import cluster.raft


def test_importing_raft_leaves_the_socket_module_as_it_was() -> None:
    assert cluster.raft.__doc__
    assert socket.inet_ntop(socket.AF_INET, b"\x0a\x00\x00\x01") == "10.0.0.1"
