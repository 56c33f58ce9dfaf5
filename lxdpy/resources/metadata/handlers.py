"""/1.0/metadata/configuration: every config key there is, in the form of LXD's extension of that name."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from aiohttp import web

from lxdpy.config import everything, types
from lxdpy.config.key import Key, KeyTable
from lxdpy.host.storage.registry import DRIVERS
from lxdpy.rest.replies import sync
from lxdpy.rest.route import AnyCall, Call, Routes

routes = Routes("/1.0/metadata/configuration")

WORDS: dict[Callable[[str], object], str] = {types.boolean: "bool"}
INTEGER = types.integer().__qualname__  # all that `integer` makes have the same name


@routes.on("GET", entitlement="can_view")
async def show_configuration(call: Call[None]) -> web.Response:
    return sync({"configs": {table.name: groups(table.keys) for table in tables(call)}})


def tables(call: AnyCall) -> Iterator[KeyTable]:
    drivers: list[KeyTable] = [
        keys for driver in DRIVERS.values() for keys in (driver.pool_keys, driver.volume_keys)
    ]
    drivers += [driver.options for driver in call.daemon.devices.drivers]
    yield from everything(*drivers).values()


def groups(keys: Iterable[Key]) -> dict[str, Any]:
    """By the first part of the keys' names; those of one part are together as "options"."""
    found: dict[str, Any] = {}
    for key in keys:
        first, dot, _ = key.name.partition(".")
        found.setdefault(first if dot else "options", {"keys": []})["keys"].append({key.name: shown(key)})
    return found


def shown(key: Key) -> dict[str, str]:
    described = {
        "shortdesc": key.doc,
        "longdesc": "",
        "type": type_of(key),
        "liveupdate": "yes" if key.live else "no",
        "scope": "local" if key.per_member else "global",
    }
    if key.default is not None:
        described["defaultdesc"] = key.default
    if key.needs:
        described["condition"] = key.needs
    return described


def type_of(key: Key) -> str:
    """LXD's word for it."""
    if getattr(key.parse, "__qualname__", "") == INTEGER:
        return "integer"
    return WORDS.get(key.parse, "string")
