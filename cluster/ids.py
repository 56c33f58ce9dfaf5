"""Ids that are made here and travel with what they name."""

import itertools
import re
import secrets
import uuid

from cluster.errors import Invalid

_MEMBER = re.compile(r"[0-9a-f]{12}")
_PROCESS = secrets.token_hex(10)  # once: to ask the kernel for every request costs more than its proposal
_requests = itertools.count()


def new_request_id() -> str:
    """For one proposal and all its retries: a request id seen before is answered, not applied again."""
    return f"{_PROCESS}.{next(_requests):x}"


def new_member_id() -> str:
    """12 lower-case hex digits, never used twice: a member that joins again is a new member."""
    return secrets.token_hex(6)


def operation_id(member_id: str) -> str:
    """A UUID whose last 12 hex digits are the member that runs the operation, so that anyone can find it."""
    if not _MEMBER.fullmatch(member_id):
        raise Invalid(f"not a member id: {member_id!r}", member=member_id)
    return str(uuid.uuid4())[:-12] + member_id


def member_of(operation_id: str) -> str:
    """The member that runs the operation. Raises Invalid if it is no UUID."""
    try:
        return uuid.UUID(operation_id).hex[-12:]
    except ValueError:
        raise Invalid(f"not an operation id: {operation_id!r}", operation=operation_id) from None
