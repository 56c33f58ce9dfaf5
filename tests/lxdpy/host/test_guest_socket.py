import os
import socket
from pathlib import Path

from lxdpy.host import guest_socket


def test_a_new_daemon_puts_its_socket_where_the_old_one_was(tmp_path: Path) -> None:
    folder = guest_socket.folder_of(tmp_path, "project_" + "x" * 120)  # longer than an address may be
    folder.parent.mkdir()
    before = guest_socket.listen(folder)
    inode = folder.stat().st_ino
    before.close()
    with guest_socket.listen(folder) as sock, socket.socket(socket.AF_UNIX) as client:
        assert folder.stat().st_ino == inode
        handle = os.open(folder, os.O_PATH)
        client.connect(f"/proc/self/fd/{handle}/sock")
        os.close(handle)
        connection, _ = sock.accept()
        with connection:
            assert guest_socket.uid_of_peer(connection) == os.getuid()
    guest_socket.remove(folder)
    guest_socket.remove(folder)
    assert not folder.exists()
