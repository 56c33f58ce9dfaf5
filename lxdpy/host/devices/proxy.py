"""Device type `proxy`: connections to an address of the host passed into the instance, or out of it.

By a process of its own (`lxdpy.host.proxy`), or with `nat` by the kernel alone, to a fixed address.
"""

import hashlib
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar

from cluster.errors import Invalid
from lxdpy.config.key import Key, KeyTable
from lxdpy.config.types import boolean, integer, matching, one_of
from lxdpy.host.devices.driver import Attachment, Options, Seat
from lxdpy.host.devices.nic import fixed_addresses
from lxdpy.host.network import nftables
from lxdpy.host.network.redirect import Redirect, redirect_of
from lxdpy.host.proxy import control
from lxdpy.host.proxy.addresses import Endpoint, Forward, endpoint, is_wildcard

ids = integer(0, 2**32 - 2)
FILE_OPTIONS = ("uid", "gid", "mode")


class Proxy:
    """See DeviceDriver and Forwarding."""

    type: ClassVar[str] = "proxy"
    hotplug: ClassVar[bool] = True
    options: ClassVar[KeyTable] = KeyTable("proxy device", [
        Key(name="type", doc="`proxy`."),
        Key(name="listen", doc="Where it listens, such as `tcp:0.0.0.0:80,8000-8009`.", parse=endpoint),
        Key(name="connect", doc="Where it connects, such as `unix:/run/app`.", parse=endpoint),
        Key(
            name="bind",
            doc="Side that listens: the host's, or the instance's with connections going out to the host.",
            parse=one_of("host", "instance", "guest", "container"),
            default="host",
        ),
        Key(
            name="nat",
            doc="Whether the kernel rewrites packets in place of a process, for a fixed address of a NIC.",
            parse=boolean,
            default="false",
            needs="a NIC with a fixed address",
        ),
        Key(
            name="proxy_protocol",
            doc="Whether a first line of the PROXY protocol tells who is connected.",
            parse=boolean,
            default="false",
        ),
        Key(name="uid", doc="Owner of a unix socket that is listened on.", parse=ids, default="0"),
        Key(name="gid", doc="Group of a unix socket that is listened on.", parse=ids, default="0"),
        Key(
            name="mode",
            doc="Mode of a unix socket that is listened on, octal.",
            parse=matching(r"0?[0-7]{3}", "a mode of three octal digits"),
            default="0644",
        ),
        Key(name="security.uid", doc="User that connects, on the side it connects.", parse=ids, default="0"),
        Key(name="security.gid", doc="Group that connects.", parse=ids, default="0"),
    ])  # fmt: skip

    def check(self, options: Options) -> None:
        self.options.check(options)
        for side in ("listen", "connect"):
            if not options.get(side):
                raise _invalid(f'"{side}" is needed, such as tcp:127.0.0.1:80', side)
        listen, connect = sides(options)
        _check_ports(options, listen, connect)
        if not listen.is_path:
            for key in FILE_OPTIONS:
                if options.get(key):
                    raise _invalid(f'"{key}={options[key]}" is only for a unix socket at a path', key)
        nat = self.options.parsed(options, "nat") is True
        if self.options.parsed(options, "proxy_protocol") and (connect.kind == "udp" or nat):
            raise _invalid(
                '"proxy_protocol=true" is only for connections, not for udp, nor with nat', "proxy_protocol"
            )
        if nat:
            _check_nat(options, listen, connect)

    async def start(self, seat: Seat) -> Attachment:
        """The kernel's rules, where they do it all; the process comes once the container runs."""
        if self.options.parsed(seat.options, "nat"):
            listen, connect = sides(seat.options)
            target = nat_target(connect, seat.addresses)
            ports = tuple(zip(listen.ports, _paired(listen, connect), strict=True))
            rules = redirect_of(_table(seat), Redirect(listen.kind, listen.host, target, ports))
            await nftables.apply(rules)
        return Attachment()

    def forward(self, seat: Seat) -> Forward | None:
        if self.options.parsed(seat.options, "nat"):
            return None
        options = seat.options
        listen, connect = sides(options)
        return Forward(
            bind="host" if options.get("bind", "host") in ("", "host") else "instance",
            listen=listen,
            connect=connect,
            owner=(_number(options, "uid"), _number(options, "gid"), int(options.get("mode") or "0644", 8)),
            security=(_number(options, "security.uid"), _number(options, "security.gid")),
            header=self.options.parsed(options, "proxy_protocol") is True,
        )

    async def detach(self, seat: Seat) -> Attachment:
        """Nothing of it is the container's."""
        return Attachment()

    async def stop(self, seat: Seat) -> None:
        if self.options.parsed(seat.options, "nat"):
            await nftables.remove("inet", _table(seat))
        if not seat.folder:
            return
        await control.stop(file_of(seat))
        forward = self.forward(seat)
        if forward and forward.bind == "host" and forward.listen.is_path:
            await control.remove_socket(forward.listen.host)


def file_of(seat: Seat) -> Path:
    """The lock of the device's process."""
    return Path(seat.folder) / f"proxy.{seat.name}"


def sides(options: Options) -> tuple[Endpoint, Endpoint]:
    """Of options that were checked."""
    return endpoint(options["listen"]), endpoint(options["connect"])


def nat_target(connect: Endpoint, addresses: tuple[str, ...]) -> str:
    """The fixed address among those of the instance's NICs that packets go to. Raises Invalid."""
    wanted = ip_address(connect.host)
    known = [one for one in addresses if ip_address(one).version == wanted.version]
    if not known:
        raise _invalid(f"nat needs a NIC with a fixed ipv{wanted.version}.address", "nat")
    if is_wildcard(connect):
        return known[0]
    if str(wanted) not in known:
        fixed = ", ".join(known)
        raise _invalid(
            f'"connect" is {wanted}, not a fixed address of a NIC, as nat needs: {fixed}', "connect"
        )
    return str(wanted)


def check_nat_targets(devices: Mapping[str, Options]) -> None:
    """Whether the proxies with nat among all of an instance's devices have where to go. Raises Invalid."""
    for name, options in sorted(devices.items()):
        if options.get("type") == "proxy" and Proxy.options.parsed(options, "nat"):
            try:
                nat_target(sides(options)[1], fixed_addresses(devices))
            except Invalid as wrong:
                message = f'Device validation failed for "{name}": {wrong.message}'
                raise Invalid(message, **wrong.facts) from None


def _check_ports(options: Options, listen: Endpoint, connect: Endpoint) -> None:
    there, here = len(listen.ports) or 1, len(connect.ports) or 1
    if here not in (1, there):
        raise _invalid(
            f'"connect" has {here} ports, "listen" has {there}: there must be one, or as many', "connect"
        )


def _check_nat(options: Options, listen: Endpoint, connect: Endpoint) -> None:
    if options.get("bind", "host") not in ("", "host"):
        raise _invalid(f'"bind={options["bind"]}" does not go with nat: only the host can listen', "bind")
    if listen.kind == "unix" or listen.kind != connect.kind:
        raise _invalid(f"nat is from tcp to tcp or udp to udp, not {listen.kind} to {connect.kind}", "nat")
    if ip_address(listen.host).version != ip_address(connect.host).version:
        raise _invalid(
            f'"connect" is {connect.host}, but with nat must be of the IP version of "listen"', "connect"
        )
    if is_wildcard(listen) or ip_address(listen.host).is_loopback:
        raise _invalid(f'"listen" is {listen.host}, but with nat must be one address of the host', "listen")
    for key in ("security.uid", "security.gid"):
        if options.get(key):
            raise _invalid(f'"{key}={options[key]}" does not go with nat: there is no process', key)


def _paired(listen: Endpoint, connect: Endpoint) -> tuple[int, ...]:
    return connect.ports * len(listen.ports) if len(connect.ports) == 1 else connect.ports


def _number(options: Options, key: str) -> int:
    return int(options.get(key) or 0)


def _table(seat: Seat) -> str:
    """Of its nftables rules: the same at each start."""
    return f"proxy_{hashlib.sha256(f'{seat.instance} {seat.name}'.encode()).hexdigest()[:12]}"


def _invalid(message: str, option: str) -> Invalid:
    return Invalid(f"proxy device: {message}", key=option)
