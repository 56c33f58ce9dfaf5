"""The language of `gpu.match`: a conjunction of terms, `vendor=nvidia model~A100 memory>=40GiB`.

Terms are separated by blanks or commas; a value with blanks stands in quotes. `=` and `!=` compare whole
values, `~` and `!~` look for a part, without regard to case; `>=` `<=` `>` `<` compare numbers, sizes and
versions. A version is compared as far as it is written: `driver=550` is true of 550.54.14.
"""

import operator
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from operator import attrgetter
from typing import Any

from cluster.errors import Invalid
from cluster.scheduler.types import GpuView, Term, pci_address

UNITS = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
LONGEST = 1000  # characters of an expression; the longest sensible one, 16 uuids, has 700

_TERM = re.compile(
    r"""\s*,?\s*(?P<attribute>[A-Za-z][A-Za-z_.-]*)\s*(?P<operator>>=|<=|!=|!~|=|~|>|<)\s*"""
    r"""(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<bare>[^\s,"'<>=~!]+))(?=[\s,]|$)"""
)
_ORDER = ("=", "!=", ">=", "<=", ">", "<")
_TEXT = ("=", "!=", "~", "!~")
_VERSION = re.compile(r"[0-9]+(\.[0-9]+)*")

Predicate = Callable[[GpuView], bool]


class BadMatch(Invalid):
    """An expression that cannot be read; the message says what can be asked."""


def size(written: str) -> int:
    """Bytes, from `40GiB`; GB is 10**9. Raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,15})(\.[0-9]{1,6})? ?([A-Za-z]*)", written)
    if not found or found[3].lower() not in UNITS:
        raise ValueError("a size such as 40GiB")
    return int(float(found[1] + (found[2] or "")) * UNITS[found[3].lower()])


def parse(expression: str) -> tuple[Term, ...]:
    """The terms of an expression, none for an empty one. Raises BadMatch."""
    text = expression.strip().rstrip(",")
    if len(text) > LONGEST:
        raise BadMatch(f"gpu match: the expression is longer than {LONGEST} characters", key="match")
    terms: list[Term] = []
    at = 0
    while at < len(text):
        found = _TERM.match(text, at)
        if not found:
            raise BadMatch(
                f'gpu match: cannot read "{text[at:].strip()}"; write terms such as '
                "vendor=nvidia model~A100 memory>=40GiB",
                key="match",
            )
        value = next(part for part in found.group("double", "single", "bare") if part is not None)
        terms.append(checked(Term(found["attribute"].lower(), found["operator"], value)))
        at = found.end()
    return tuple(terms)


def checked(term: Term) -> Term:
    """The term itself, if it means something. Raises BadMatch naming what would."""
    if term.attribute not in ATTRIBUTES:
        raise BadMatch(
            f'gpu match: unknown attribute "{term.attribute}"; known are: {", ".join(sorted(ATTRIBUTES))}',
            key="match",
            attribute=term.attribute,
        )
    _predicate(term)
    return term


def fulfils(gpu: GpuView, terms: Iterable[Term]) -> bool:
    """Whether all terms are true of `gpu`. What is not known of a GPU is never true of it."""
    return all(_predicate(term)(gpu) for term in terms)


def matching(terms: tuple[Term, ...], gpus: Iterable[GpuView]) -> list[GpuView]:
    """Those of `gpus` that fulfil all terms, in their order."""
    found = list(gpus)
    for term in terms:
        found = list(filter(_predicate(term), found))
    return found


@lru_cache(maxsize=1024)
def _predicate(term: Term) -> Predicate:
    return ATTRIBUTES[term.attribute](term)


def _text(
    read: Callable[[GpuView], str], normal: Callable[[str], str] = str.lower
) -> Callable[[Term], Predicate]:
    def compiled(term: Term) -> Predicate:
        _operator(term, _TEXT)
        wanted = normal(term.value)
        if not wanted:
            raise BadMatch(f"gpu match: {term.attribute} needs a value", key="match")
        part = term.value.lower()
        ways: dict[str, Predicate] = {  # what is empty is neither equal to something nor has a part
            "=": lambda gpu: normal(read(gpu)) == wanted,
            "!=": lambda gpu: (have := read(gpu)) != "" and normal(have) != wanted,
            "~": lambda gpu: part in read(gpu).lower(),
            "!~": lambda gpu: (have := read(gpu)) != "" and part not in have.lower(),
        }
        return ways[term.operator]

    return compiled


def _number(
    read: Callable[[GpuView], int], convert: Callable[[str], int], unknown: int
) -> Callable[[Term], Predicate]:
    def compiled(term: Term) -> Predicate:
        _operator(term, _ORDER)
        try:
            wanted = convert(term.value)
        except ValueError as what:
            raise BadMatch(
                f'gpu match: {term.attribute}: "{term.value}" is not {what}', key="match"
            ) from None
        compare = _COMPARE[term.operator]
        return lambda gpu: (have := read(gpu)) != unknown and compare(have, wanted)

    return compiled


def _driver(term: Term) -> Predicate:
    """`driver>=550` is about its version, `driver=amdgpu` about its name."""
    if not _VERSION.fullmatch(term.value):
        return _text(attrgetter("driver"))(term)
    _operator(term, _ORDER)
    wanted = tuple(int(part) for part in term.value.split("."))
    compare = _COMPARE[term.operator]

    def true_of(gpu: GpuView) -> bool:
        found = _VERSION.match(gpu.driver_version)
        if not found:
            return False
        have = [int(part) for part in found[0].split(".")][: len(wanted)]
        return compare((*have, *(0 for _ in wanted[len(have) :])), wanted)

    return true_of


def _id(term: Term) -> Predicate:
    """LXD's `id`: the number of the DRM card, or the name of a CDI device, which stands for several."""
    if "=" not in term.value:
        return _text(attrgetter("drm"))(term)
    _operator(term, ("=",))
    return lambda gpu: term.value in gpu.cdi


def _operator(term: Term, allowed: tuple[str, ...]) -> None:
    if term.operator not in allowed:
        raise BadMatch(
            f'gpu match: "{term.operator}" does not apply to {term.attribute}; '
            f"use one of {' '.join(allowed)}",
            key="match",
            attribute=term.attribute,
        )


def _whole(written: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,9}", written):
        raise ValueError("a whole number")
    return int(written)


def _pci_id(written: str) -> str:
    """PCI ids come as `0x10DE` and as `10de`."""
    return written.strip().lower().removeprefix("0x")


def _mig_uuid(written: str) -> str:
    """LXD takes it with and without the letters in front."""
    return written.strip().lower().removeprefix("mig-")


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}

ATTRIBUTES: dict[str, Callable[[Term], Predicate]] = {
    "vendor": _text(attrgetter("vendor")),
    "model": _text(attrgetter("model")),
    "memory": _number(attrgetter("memory"), size, unknown=0),
    "driver": _driver,
    "numa": _number(attrgetter("numa"), _whole, unknown=-1),
    "uuid": _text(attrgetter("uuid")),
    "pci": _text(attrgetter("pci"), pci_address),
    "id": _id,
    "vendorid": _text(attrgetter("vendor_id"), _pci_id),
    "productid": _text(attrgetter("product_id"), _pci_id),
    "mig.profile": _text(attrgetter("profile")),
    "mig.uuid": _text(lambda gpu: gpu.uuid if gpu.parent else "", _mig_uuid),
    "mig.gi": _number(attrgetter("gi"), _whole, unknown=-1),
    "mig.ci": _number(attrgetter("ci"), _whole, unknown=-1),
}
