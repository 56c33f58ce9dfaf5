"""Config keys of a cluster member, `PUT /1.0/cluster/members/<name>`."""

from lxdpy.config.key import Key, KeyTable
from lxdpy.config.types import one_of

MEMBER = KeyTable("cluster member", [
    Key(name="scheduler.instance", parse=one_of("all", "group", "manual"), default="all", live=True,
        doc="Which instances may be placed here: `all`, those that ask for its `group`, or only (`manual`) "
            "those that name it."),
    Key(name="user.*", live=True, doc="Anything you like."),
])  # fmt: skip
