"""This member's own certificate gives way to another one, while all others trust it at every moment.

Level-triggered: `settle` reads from the member's row and from the files how far it is. It may be stopped and
begun again anywhere; a member that is down is waited for.
"""

import asyncio
import contextlib
from typing import TYPE_CHECKING

from cluster.errors import Error, Invalid, Unavailable
from cluster.membership.certificates import AdoptCertificate, AnnounceCertificate
from cluster.membership.model import MEMBERS, Member, members
from cluster.tls import certificates
from cluster.tls.certificates import KeyPair
from lxdpy.resources.cluster.model import Trust

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

LOCK = "certificate"
LINGER = 2.0  # seconds for what still runs over connections with the old certificate
RENEWED_WITHIN = 60.0  # seconds a caller waits; the work goes on after that


async def begin(daemon: "Daemon", certificate: str, key: str) -> str:
    """Announce another certificate, a new one if none is given; returns its fingerprint. Raises Invalid."""
    if not certificate:
        address = daemon.membership.own_address().rpartition(":")[0].strip("[]")
        hosts = [address] if address else []
        certificate, key = await asyncio.to_thread(certificates.make, daemon.membership.hostname(), hosts)
    certificate = certificates.der_to_pem(certificates.pem_to_der(certificate))
    fingerprint = certificates.fingerprint_of(certificate)
    async with daemon.lock(LOCK):
        if fingerprint == daemon.keys.fingerprint():
            raise Invalid("This is the certificate that the member has", key="certificate")
        fresh = certificates.prepared(daemon.keys)
        await asyncio.to_thread(certificates.write, fresh, certificate, key)
        await daemon.store.propose(AnnounceCertificate(daemon.member_id, certificate, fingerprint))
    return fingerprint


async def renewed(daemon: "Daemon", fingerprint: str) -> None:
    """Wait until the certificate is this member's only one. Raises Unavailable; it goes on nevertheless."""
    me = daemon.member_id
    try:
        await daemon.until(lambda state: state.get(MEMBERS, me).fingerprint == fingerprint, RENEWED_WITHIN)
    except TimeoutError:
        raise Unavailable("Not all members know the new certificate yet: it is used when they do") from None


async def settle(daemon: "Daemon") -> None:
    """Do what is next. Raises Unavailable while some member does not know the new certificate."""
    async with daemon.lock(LOCK):
        row = daemon.state.find(MEMBERS, daemon.member_id)
        if row is None or not row.next_fingerprint:
            return
        if daemon.keys.fingerprint() != row.next_fingerprint:
            if not is_prepared(daemon.keys, row.next_fingerprint):
                await daemon.store.propose(AnnounceCertificate(row.id, "", ""))  # its key is lost
                return
            await all_trust(daemon, row)
            await asyncio.to_thread(certificates.adopt, daemon.keys)
            await daemon.membership.rekeyed()
            await asyncio.sleep(LINGER)
        await daemon.store.propose(AdoptCertificate(row.id, row.next_fingerprint))


def is_prepared(keys: KeyPair, fingerprint: str) -> bool:
    fresh = certificates.prepared(keys)
    with contextlib.suppress(Invalid, OSError):
        certificates.check(fresh)
        return fresh.fingerprint() == fingerprint
    return False


async def all_trust(daemon: "Daemon", row: Member) -> None:
    """Every member says itself that it does. Raises Unavailable."""
    for other in members(daemon.state):
        if other.id != row.id:
            try:
                await daemon.forwarder.ask(
                    other.id, "POST", "/internal/1.0/cluster/trust", Trust(row.id, row.next_fingerprint)
                )
            except Error as failure:
                why = f"Member {other.name} does not know the new certificate yet: {failure.message}"
                raise Unavailable(why) from failure


def offline(daemon: "Daemon") -> list[str]:
    """Names of members that could not be told."""
    return [row.name for row in members(daemon.state) if not daemon.beat.online(row.id)]
