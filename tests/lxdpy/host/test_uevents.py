import pytest

from lxdpy.host.uevents import Uevents, concerns


@pytest.mark.parametrize(
    ("message", "about"),
    [
        (b"add@/devices/pci0000:00/0000:07:00.0\0ACTION=add\0SUBSYSTEM=pci\0SEQNUM=7\0", True),
        (b"remove@/devices/x/drm/card0\0ACTION=remove\0SUBSYSTEM=drm\0", True),
        (b"change@/devices/virtual/block/loop0\0SUBSYSTEM=block\0", False),
        (b"libudev\0\xfe\xed\xca\xfe", False),
        (b"", False),
    ],
)
def test_messages_on_cards_are_told_from_others(message: bytes, about: bool) -> None:
    assert concerns(message, {"pci", "drm"}) is about


def test_listening_never_waits_and_a_closed_ear_hears_nothing() -> None:
    ear = Uevents({"drm"})
    ear.pending()
    ear.close()
    assert ear.pending() is False
    assert ear.fileno() == -1
