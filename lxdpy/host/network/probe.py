"""Whether anybody on an interface's network has an address already: asked before an instance gets it.

By ARP and by neighbour discovery, as for an address that is not ours yet (RFC 5227, RFC 4862): nobody who
hears the question takes us for its owner. Packets are written and read whole: the kernel has no part in it.
"""

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address

from cluster.errors import Unavailable

ASKED_AGAIN = 0.5  # seconds; a question may be lost
ANSWERED_WITHIN = 1.0  # seconds; who answers for others, as hosts of routed NICs do, takes up to 0.8
LONGEST = 2048  # bytes
AT_ONCE = 1024  # packets read before others' turn; a socket's buffer has no room for more
ETH_P_ARP, ETH_P_IPV6, ARPHRD_ETHER = 0x0806, 0x86DD, 1  # linux/if_ether.h, if_arp.h
SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_MR_ALLMULTI = 263, 1, 2  # linux/socket.h, if_packet.h
ARP = struct.Struct("!HHBBH6s4s6s4s")  # hardware, protocol, their lengths, what, sender's both, target's both
REQUEST = 1
SOLICITATION, ADVERTISEMENT, ICMPV6 = 135, 136, 58
IPV6 = struct.Struct("!IHBB16s16s")  # version and flow, length, next header, hops, from, to
NEIGHBOUR = struct.Struct("!BBHI16s")  # what, code, checksum, flags, target
BROADCAST = b"\xff" * 6

Address = IPv4Address | IPv6Address
Asked = tuple[socket.socket, list[Address]]
"""A socket, and what is asked for by it."""


async def first_in_use(interface: str, addresses: Iterable[str]) -> str:
    """The first that is heard of, "" if none is; takes a second then, however many are asked for.

    Nobody is asked where there is no Ethernet, or it is down. Raises Unavailable without the interface.
    """
    wanted = [ip_address(one) for one in addresses]
    with ExitStack() as stack:
        found = []
        for version, protocol in ((4, ETH_P_ARP), (6, ETH_P_IPV6)):
            asked = [one for one in wanted if one.version == version]
            if asked and (end := _open(interface, protocol)):
                stack.enter_context(end)
                found.append((end, asked))
        if not found:
            return ""
        return await _ask(found)


def _open(interface: str, protocol: int) -> socket.socket | None:
    end = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
    try:
        end.bind((interface, protocol))
        if end.getsockname()[3] == ARPHRD_ETHER:
            # Also where IPv6 is off, and the kernel listens to none of its groups.
            all_groups = struct.pack("=iHH8s", socket.if_nametoindex(interface), PACKET_MR_ALLMULTI, 0, b"")
            end.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, all_groups)
            return end
    except OSError as error:
        end.close()
        if error.errno != errno.ENETDOWN:
            message = f"{interface}: {os.strerror(error.errno or 0)}"
            raise Unavailable(
                f"Nobody can be asked for addresses on {message}", interface=interface
            ) from None
        return None
    end.close()
    return None


async def _ask(ends: list[Asked]) -> str:
    """Counted from the first question on; what has come by the end is read, however late we are."""
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    _send_all(ends)
    try:
        async with asyncio.timeout(ANSWERED_WITHIN), asyncio.TaskGroup() as group:
            tasks = [group.create_task(_hear(end, asked, answer)) for end, asked in ends]
            tasks.append(group.create_task(_repeat(ends)))
            await asyncio.wait([answer])
            for task in tasks:
                task.cancel()
    except TimeoutError:
        for end, asked in ends:
            _read(end, asked, answer)
    return answer.result() if answer.done() else ""


async def _repeat(ends: list[Asked]) -> None:
    while True:
        await asyncio.sleep(ASKED_AGAIN)
        _send_all(ends)


def _send_all(ends: list[Asked]) -> None:
    for end, asked in ends:
        for address in asked:
            _send(end, address)


def _send(end: socket.socket, address: Address) -> None:
    interface, protocol, _, _, own = end.getsockname()
    packet, to = question(address, own)
    with suppress(OSError):  # it is lost, as others may be: the interface went down, or its queue is full
        end.sendto(packet, (interface, protocol, 0, 0, to))


async def _hear(end: socket.socket, asked: list[Address], answer: asyncio.Future[str]) -> None:
    loop, heard = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(end, heard.set)
    try:
        while not answer.done():
            await heard.wait()
            heard.clear()
            if not _read(end, asked, answer):
                return
    finally:
        loop.remove_reader(end)


def _read(end: socket.socket, asked: list[Address], answer: asyncio.Future[str]) -> bool:
    """What has come; False if the interface went down."""
    for _ in range(AT_ONCE):
        try:
            packet, (_, _, direction, *_) = end.recvfrom(LONGEST)
        except BlockingIOError:
            return True
        except OSError:
            return False
        heard = told_of(packet) if direction != socket.PACKET_OUTGOING else None
        if heard in asked and not answer.done():
            answer.set_result(str(heard))
    return True


def question(address: Address, hwaddr: bytes) -> tuple[bytes, bytes]:
    """The packet without Ethernet's own header, and the hardware address it is for. Pure."""
    if isinstance(address, IPv4Address):
        unknown = bytes(4)
        return ARP.pack(1, 0x0800, 6, 4, REQUEST, hwaddr, unknown, bytes(6), address.packed), BROADCAST
    last = address.packed[-3:]
    group = IPv6Address("ff02::1:ff00:0").packed[:-3] + last
    bare = NEIGHBOUR.pack(SOLICITATION, 0, 0, 0, address.packed)
    whole = NEIGHBOUR.pack(SOLICITATION, 0, _checksum(bytes(16), group, bare), 0, address.packed)
    header = IPV6.pack(6 << 28, len(whole), ICMPV6, 255, bytes(16), group)
    return header + whole, b"\x33\x33\xff" + last


def told_of(packet: bytes) -> Address | None:
    """Whose owner a packet is from, or about; None for what is neither. Pure."""
    if len(packet) >= ARP.size and packet[:6] == b"\x00\x01\x08\x00\x06\x04":
        return IPv4Address(ARP.unpack_from(packet)[6])
    if len(packet) < IPV6.size + NEIGHBOUR.size or packet[0] >> 4 != 6 or packet[6] != ICMPV6:
        return None
    kind, _, _, _, target = NEIGHBOUR.unpack_from(packet, IPV6.size)
    return IPv6Address(target) if kind == ADVERTISEMENT and packet[7] == 255 else None


def _checksum(source: bytes, target: bytes, body: bytes) -> int:
    """RFC 4443, with the header that is only counted."""
    data = source + target + struct.pack("!II", len(body), ICMPV6) + body
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
