"""What becomes of a backup that a client sends."""

from lxdpy.resources.backups.restore import notes_of
from tests.lxdpy.resources.instances.scene import instance, ready_store


def test_of_notes_come_those_that_say_something_still() -> None:
    store = ready_store()
    instance(store, "c1", config={"volatile.eth0.hwaddr": "00:16:3e:00:00:01"})
    kept = {
        "volatile.base_image": "f" * 64,
        "volatile.apply_template": "create",  # it never ran
        "volatile.eth1.hwaddr": "00:16:3e:00:00:02",
    }
    gone = {"volatile.eth0.hwaddr": "00:16:3e:00:00:01", "volatile.uuid": "u", "user.x": "y"}
    assert notes_of(store.state, kept | gone) == kept
