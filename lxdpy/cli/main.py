"""`lxdpy`: the group of all verbs."""

import click

from lxdpy import VERSION
from lxdpy.cli.verbs import Late, Said


class Verbs(Said, Late):
    late = {
        "init": "lxdpy.cli.init:init",
        "waitready": "lxdpy.cli.server:waitready",
        "shutdown": "lxdpy.cli.server:shutdown",
        "cluster": "lxdpy.cli.cluster:cluster",
        "image": "lxdpy.cli.image:image",
        "recover": "lxdpy.cli.recover:recover",
        "gpu": "lxdpy.cli.gpu:gpu",
    }


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, message="%(version)s")
def cli() -> None:
    """Set up the daemon on this host, join it to others, make images, look at GPUs.

    For everything else there is the stock client `lxc`. Both find the daemon by $LXD_DIR, by default
    /var/lib/lxdpy, or by $LXD_SOCKET.
    """
