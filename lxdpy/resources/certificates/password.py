"""The trust password: kept as a salted scrypt hash, compared in constant time."""

import asyncio
import hashlib
import hmac
import os

# 16 MiB and some 50 ms a guess: RFC 7914's interactive setting.
COST = {"n": 1 << 14, "r": 8, "p": 1}


async def hashed(password: str) -> str:
    """ "<salt>:<hash>" in hex, to be stored."""
    salt = os.urandom(16)
    return f"{salt.hex()}:{(await _scrypt(password, salt)).hex()}"


async def matches(password: str, stored: str) -> bool:
    salt, _, wanted = stored.partition(":")
    return hmac.compare_digest((await _scrypt(password, bytes.fromhex(salt))).hex(), wanted)


async def _scrypt(password: str, salt: bytes) -> bytes:
    return await asyncio.to_thread(lambda: hashlib.scrypt(password.encode(), salt=salt, **COST))
