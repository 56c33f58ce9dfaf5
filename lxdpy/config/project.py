"""Config keys of projects: what they have of their own, how much they may use, what they may not do."""

from lxdpy.config.key import Key, KeyTable
from lxdpy.config.types import (
    absolute_path,
    architecture,
    boolean,
    compression,
    integer,
    list_of,
    one_of,
    size,
    text,
)
from lxdpy.config.types import number_set as ids

ALLOW_OR_BLOCK = one_of("allow", "block")
MANAGED = one_of("allow", "block", "managed")
COUNT = integer(0, 2**31)

# Key → what `block` keeps a restricted project from.
BLOCKED = {
    "restricted.backups": "Whether it may make backups",
    "restricted.cluster.target": "Whether a request may name the member to use",
    "restricted.containers.interception": "Whether instances may have system calls intercepted",
    "restricted.containers.lowlevel": "Whether `raw.*` and other low-level keys may be used",
    "restricted.containers.nesting": "Whether instances may run containers of their own",
    "restricted.devices.gpu": "Whether instances may have `gpu` devices",
    "restricted.devices.infiniband": "Whether instances may have `infiniband` devices",
    "restricted.devices.pci": "Whether instances may have `pci` devices",
    "restricted.devices.proxy": "Whether instances may have `proxy` devices",
    "restricted.devices.unix-block": "Whether instances may have `unix-block` devices",
    "restricted.devices.unix-char": "Whether instances may have `unix-char` devices",
    "restricted.devices.unix-hotplug": "Whether instances may have `unix-hotplug` devices",
    "restricted.devices.usb": "Whether instances may have `usb` devices",
    "restricted.snapshots": "Whether it may make snapshots",
    "restricted.virtual-machines.lowlevel": "Whether low-level keys of virtual machines may be used",
}

FEATURES = (
    Key(name="features.images", parse=boolean, default="true", doc="Whether the project has its own images."),
    Key(name="features.networks", parse=boolean, default="false",
        doc="Whether the project has its own networks."),
    Key(name="features.profiles", parse=boolean, default="true",
        doc="Whether the project has its own profiles."),
    Key(name="features.storage.volumes", parse=boolean, default="true",
        doc="Whether the project has its own storage volumes."),
)  # fmt: skip

LIMITS = (
    Key(name="limits.containers", parse=COUNT, doc="Most containers in the project."),
    Key(name="limits.cpu", parse=COUNT, doc="Most CPUs, summed over the `limits.cpu` of its instances."),
    Key(name="limits.disk", parse=size, doc="Most space, summed over the sizes of its volumes."),
    Key(name="limits.gpu", parse=COUNT, doc="Most GPUs its instances may hold at one time."),
    Key(name="limits.instances", parse=COUNT, doc="Most instances of any type in the project."),
    Key(name="limits.memory", parse=size, doc="Most memory, summed over the `limits.memory` of instances."),
    Key(name="limits.networks", parse=COUNT, doc="Most networks in the project."),
    Key(name="limits.processes", parse=COUNT,
        doc="Most processes, summed over the `limits.processes` of its instances."),
    Key(name="limits.virtual-machines", parse=COUNT, doc="Most virtual machines, of which there are none."),
)  # fmt: skip

RESTRICTED = (
    Key(name="restricted", parse=boolean, default="false",
        doc="Whether the `restricted.*` keys bind; without it they mean nothing."),
    *(Key(name=name, parse=ALLOW_OR_BLOCK, default="block", needs="restricted", doc=f"{what}.")
      for name, what in BLOCKED.items()),
    Key(name="restricted.cluster.groups", parse=list_of(text), needs="restricted",
        doc="Cluster groups that may be asked for, by commas."),
    Key(name="restricted.containers.privilege", parse=one_of("allow", "isolated", "unprivileged"),
        default="unprivileged", needs="restricted",
        doc="The most an instance may be: privileged too, unprivileged, or only with an isolated id map."),
    Key(name="restricted.devices.disk", parse=MANAGED, default="managed", needs="restricted",
        doc="Which disks instances may have: any, none but the root, or those of pools."),
    Key(name="restricted.devices.disk.paths", parse=list_of(absolute_path), needs="restricted",
        doc="Folders of the host, by commas, below which a disk's source must lie."),
    Key(name="restricted.devices.nic", parse=MANAGED, default="managed", needs="restricted",
        doc="Which network cards instances may have: any, none, or those on managed networks."),
    Key(name="restricted.idmap.gid", parse=ids, needs="restricted",
        doc="Host group ids that `raw.idmap` may name."),
    Key(name="restricted.idmap.uid", parse=ids, needs="restricted",
        doc="Host user ids that `raw.idmap` may name."),
    Key(name="restricted.networks.access", parse=list_of(text), needs="restricted",
        doc="Networks, by commas, that the project may use."),
    Key(name="restricted.networks.subnets", parse=list_of(text), needs="restricted",
        doc="Subnets, by commas as `uplink:subnet`, that the project may hand out."),
    Key(name="restricted.networks.uplinks", parse=list_of(text), needs="restricted",
        doc="Networks, by commas, that may be uplinks of the project's."),
    Key(name="restricted.networks.zones", parse=list_of(text), needs="restricted",
        doc="DNS zones, by commas, that the project may use."),
)  # fmt: skip

PROJECT = KeyTable("project", [
    Key(name="backups.compression_algorithm", parse=compression,
        doc="How its backups are compressed; unset as the server says."),
    Key(name="images.auto_update_cached", parse=boolean,
        doc="Whether its images from remotes are kept up to date; unset as the server says."),
    Key(name="images.auto_update_interval", parse=integer(0, 8760),
        doc="Hours between looks for newer images; unset as the server says."),
    Key(name="images.compression_algorithm", parse=compression,
        doc="How its new images are compressed; unset as the server says."),
    Key(name="images.default_architecture", parse=architecture,
        doc="Architecture meant when a request names none; unset as the server says."),
    Key(name="images.remote_cache_expiry", parse=integer(0, 36500),
        doc="Days after which an unused image from a remote is dropped; unset as the server says."),
    Key(name="user.*", doc="Anything you like."),
    *FEATURES,
    *LIMITS,
    *RESTRICTED,
])  # fmt: skip
