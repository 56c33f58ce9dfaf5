"""Config keys of the server, `PUT /1.0`: those of one member are marked so, the rest are the cluster's."""

from lxdpy.config.key import Key, KeyTable
from lxdpy.config.types import (
    absolute_path,
    address,
    architecture,
    boolean,
    cidr,
    compression,
    either,
    expiry,
    integer,
    list_of,
    listen_address,
    matching,
    one_of,
    url,
    volume_path,
)


def odd_voters(value: str) -> int:
    """An even number of voters survives no more losses than one fewer, so it is refused, as LXD does."""
    if not value.isascii() or not value.isdecimal() or not 3 <= int(value) <= 99 or int(value) % 2 == 0:
        raise ValueError("an odd number from 3 to 99")
    return int(value)


XID_MEANINGS = matching(
    r"(?:[0-9]{1,3}=(?:ok|suspect|failed!?)(?:[ ,]+|$))*", "words such as 94=ok 109=suspect 79=failed!"
)

CORE = (
    Key(name="core.https_address", parse=listen_address, per_member=True, live=True,
        doc="Where the API listens for HTTPS, as `:8443`; unset for the local socket only."),
    Key(name="core.debug_address", parse=listen_address, per_member=True, live=True,
        doc="Taken for LXD's clients, without effect: there are no traces to serve."),
    Key(name="core.metrics_address", parse=listen_address, per_member=True, live=True,
        doc="Where to serve metrics besides the API's own address."),
    Key(name="core.metrics_authentication", parse=boolean, default="true", live=True,
        doc="Whether reading metrics needs a trusted certificate."),
    Key(name="core.https_allowed_credentials", parse=boolean, default="false", live=True,
        doc="Whether browsers may send credentials from other origins."),
    Key(name="core.https_allowed_headers", live=True, doc="Headers that browsers of other origins may send."),
    Key(name="core.https_allowed_methods", live=True, doc="Methods that browsers of other origins may use."),
    Key(name="core.https_allowed_origin", live=True,
        doc="The other origin whose pages may call the API; they get no files, which are streamed."),
    Key(name="core.https_trusted_proxy", parse=list_of(either(address(), cidr())), live=True,
        doc="Taken for LXD's clients, without effect: no proxy's word on an address is believed."),
    Key(name="core.proxy_http", parse=url, live=True, doc="Proxy for plain HTTP that the daemon requests."),
    Key(name="core.proxy_https", parse=url, live=True, doc="Proxy for HTTPS that the daemon requests."),
    Key(name="core.proxy_ignore_hosts", live=True, doc="Hosts, by commas, that are asked without the proxy."),
    Key(name="core.remote_token_expiry", parse=expiry, live=True,
        doc="How long a client's token to be trusted is good for; unset for ever."),
    Key(name="core.shutdown_timeout", parse=integer(0, 1440), default="5", live=True,
        doc="Taken for LXD's clients, without effect: running operations have 10 seconds to end at a stop."),
    Key(name="core.trust_ca_certificates", parse=boolean, default="false", live=True,
        doc="Taken for LXD's clients, without effect: each client is trusted by its own certificate."),
    Key(name="core.trust_password", secret=True, live=True,
        doc="Password by which a client may have its certificate trusted; kept as a hash only."),
)  # fmt: skip

CLUSTER = (
    Key(name="cluster.https_address", parse=listen_address, per_member=True,
        doc="Where this member talks to the others; it must be reachable from them."),
    Key(name="cluster.images_minimal_replica", parse=either(one_of("-1"), integer(1, 1000)), default="3",
        live=True, doc="Taken for LXD's clients, without effect: members get an image when they need it."),
    Key(name="cluster.join_token_expiry", parse=expiry, default="3H", live=True,
        doc="How long a token to join is good for."),
    Key(name="cluster.max_standby", parse=integer(0, 5), default="2", live=True,
        doc="How many members follow the log without a vote, ready to take one."),
    Key(name="cluster.max_voters", parse=odd_voters, default="3", live=True,
        doc="How many members vote on the log."),
    Key(name="cluster.offline_threshold", parse=integer(2, 86400), default="20", live=True,
        doc="Seconds of silence after which a member counts as offline."),
    Key(name="gpu.fence_after", parse=integer(5, 86400), live=True,
        doc="Seconds after which a member that is cut off ends its containers with GPUs; unset, never."),
    Key(name="gpu.health.every", parse=integer(1, 3600), default="30", live=True,
        doc="Seconds between the good looks at a GPU that recovers."),
    Key(name="gpu.health.probes", parse=integer(1, 100), default="3", live=True,
        doc="How many good looks in a row make a GPU that recovers well again."),
    Key(name="gpu.health.xids", parse=XID_MEANINGS, live=True,
        doc="What XIDs of NVIDIA's driver mean, as `94=ok 79=failed!`; `!` is until the machine restarts."),
    Key(name="gpu.job_mapping", parse=absolute_path, live=True,
        doc="Folder on each member for files that tell NVIDIA's dcgm-exporter who holds which GPU."),
    Key(name="gpu.policy", parse=one_of("spread", "pack", "spare-gpus"), default="spread", live=True,
        doc="How to choose among members that fit an instance: emptiest, fullest, or sparing GPU members."),
    Key(name="gpu.policy.*", parse=one_of("spread", "pack", "spare-gpus"), live=True,
        doc="The same, for instances that are launched with `--target=@` and this cluster group."),
)  # fmt: skip

IMAGES = (
    Key(name="backups.compression_algorithm", parse=compression, default="gzip", live=True,
        doc="How backups are compressed."),
    Key(name="images.auto_update_cached", parse=boolean, default="true", live=True,
        doc="Whether images fetched from remotes are kept up to date."),
    Key(name="images.auto_update_interval", parse=integer(0, 8760), default="6", live=True,
        doc="Hours between looks for newer images; 0 for never."),
    Key(name="images.compression_algorithm", parse=compression, default="gzip", live=True,
        doc="How new images are compressed."),
    Key(name="images.default_architecture", parse=architecture, live=True,
        doc="Architecture meant when a request names none and members differ."),
    Key(name="images.remote_cache_expiry", parse=integer(0, 36500), default="10", live=True,
        doc="Days after which an unused image from a remote is dropped."),
    Key(name="storage.backups_volume", parse=volume_path, per_member=True,
        doc="Taken for LXD's clients, without effect: backups are kept below `$LXD_DIR`."),
    Key(name="storage.images_volume", parse=volume_path, per_member=True,
        doc="Taken for LXD's clients, without effect: images are kept below `$LXD_DIR`."),
)  # fmt: skip

SERVER = KeyTable(
    "server", [*CORE, *CLUSTER, *IMAGES, Key(name="user.*", live=True, doc="Anything you like.")]
)
