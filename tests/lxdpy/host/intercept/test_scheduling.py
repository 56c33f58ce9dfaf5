import os

from lxdpy.host.intercept.scheduling import is_within


def test_a_user_namespace_is_within_itself_and_no_other() -> None:
    ours = os.open("/proc/self/ns/user", os.O_RDONLY)
    try:
        assert is_within(ours, os.fstat(ours).st_ino)
        assert not is_within(ours, os.fstat(ours).st_ino + 1)
    finally:
        os.close(ours)
