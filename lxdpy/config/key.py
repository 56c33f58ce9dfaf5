"""What a config key is, and the tables they stand in.

An entity's keys are in `lxdpy/config/<entity>.py`, a driver's keys in a `KeyTable` on the driver; both are
documented from here, so a key without a sentence for users does not exist.
"""

import re
from collections.abc import Iterable, Mapping

import msgspec

from cluster.errors import Invalid
from lxdpy.config.types import Parse, text


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One config key.

    A name that ends in ".*" stands for all names with that prefix, "*" alone for any; a "*" elsewhere stands
    for one part without a dot (`tunnel.*.remote`).
    """

    name: str
    doc: str  # one sentence for users, markdown
    parse: Parse = text
    default: str | None = None  # None: unset, and the code that reads it says what unset means
    live: bool = False  # takes effect without a restart
    needs: str = ""  # the condition under which it means something, for the docs
    secret: bool = False  # never shown, never logged
    per_member: bool = False  # its value differs between members (a pool's source, a bridge's parent)


class UnknownKey(Invalid):
    """The entity has no such key."""


class BadValue(Invalid):
    """The key does not take this value."""


class KeyTable:
    """The keys of one kind of entity, device, pool or network. Immutable."""

    def __init__(self, name: str, keys: Iterable[Key]) -> None:
        self.name = name  # for users: "instance", "gpu device"
        self.keys = tuple(keys)
        self._plain = {key.name: key for key in self.keys if "*" not in key.name}
        self._wild = tuple((_pattern(key.name), key) for key in self.keys if "*" in key.name)
        if len({key.name for key in self.keys}) != len(self.keys):
            raise ValueError(f"a key stands twice among those of {name}")

    def __or__(self, other: "KeyTable") -> "KeyTable":
        """Both tables' keys under this one's name: a pool's own and its driver's. Theirs win over ours."""
        theirs = {key.name for key in other.keys}
        return KeyTable(self.name, [*(key for key in self.keys if key.name not in theirs), *other.keys])

    def find(self, name: str) -> Key | None:
        """The key of that name, or the wildcard that covers it, the most specific first."""
        if plain := self._plain.get(name):
            return plain
        fits = [key for pattern, key in self._wild if pattern.fullmatch(name)]
        return max(fits, key=lambda key: len(key.name), default=None)

    def key(self, name: str) -> Key:
        """Raises UnknownKey."""
        if found := self.find(name):
            return found
        raise UnknownKey(f"Unknown configuration key: {name}", key=name)

    def check(self, config: Mapping[str, str]) -> None:
        """Raises UnknownKey or BadValue for the first key, by name, that is wrong. Empty means unset."""
        for name in sorted(config):
            self._parse(self.key(name), name, config[name])

    def checked(self, config: Mapping[str, str] | None) -> dict[str, str]:
        """What is set of it. Raises as `check` does, also for an unknown key that is to be unset."""
        self.check(config or {})
        return {name: value for name, value in (config or {}).items() if value}

    def parsed(self, config: Mapping[str, str], name: str) -> object:
        """What the value of `name` means; its default's if unset; None if that is unset too."""
        key = self.key(name)
        return self._parse(key, name, config.get(name) or key.default or "")

    def default(self, name: str) -> str | None:
        """Raises UnknownKey."""
        return self.key(name).default

    @property
    def defaults(self) -> dict[str, str]:
        return {key.name: key.default for key in self.keys if key.default is not None}

    def shown(self, config: Mapping[str, str]) -> dict[str, str]:
        """The config as users may see it: set keys only, a secret as `true`."""
        return {
            name: "true" if (key := self.find(name)) and key.secret else value
            for name, value in config.items()
            if value
        }

    def local(self, config: Mapping[str, str]) -> dict[str, str]:
        """The part whose values differ between members."""
        return {name: config[name] for name in config if (key := self.find(name)) and key.per_member}

    @staticmethod
    def _parse(key: Key, name: str, value: str) -> object:
        if not value:
            return None
        try:
            return key.parse(value)
        except ValueError as wanted:
            shown = "the value" if key.secret else f'"{value[:200]}"'
            raise BadValue(f"Invalid value for {name}: {shown} is not {wanted}", key=name) from None


def _pattern(name: str) -> re.Pattern[str]:
    """A star that ends the name takes any rest but none; one before that takes one part."""
    head, star = (name[:-1], ".+") if name == "*" or name.endswith(".*") else (name, "")
    return re.compile(re.escape(head).replace(r"\*", r"[^.]+") + star, re.DOTALL)
