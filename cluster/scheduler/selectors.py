"""From an instance's config and devices to asks for GPUs.

A `gpu` device that says `count`, `match`, `sharing`, `memory` or `mig.profile` is counted, exclusive unless
it says otherwise. One with LXD's own selectors only (`pci`, `id`, `vendorid`, `productid`, `mig.uuid`,
`mig.gi` and `mig.ci`, or none of them) keeps LXD's meaning: every GPU of the member that fits, shared with
whoever else is given it. `gputype=mig` asks for MIG devices, parts of GPUs, in the same words.
"""

import re
from collections.abc import Mapping

from cluster.errors import Conflict, Invalid, Unsupported
from cluster.scheduler.match import BadMatch, checked, parse, size
from cluster.scheduler.types import GpuAsk, Kind, Sharing, Term

SHORT_FORM = "gpu"  # name of the device that `limits.gpu` stands for
KEYS = {"gpu.match": "match", "gpu.sharing": "sharing", "gpu.memory": "memory"}
SELECTORS = ("pci", "id", "vendorid", "productid")
MIG_SELECTORS = ("mig.uuid", "mig.gi", "mig.ci", "mig.profile")
COUNTED = ("count", "match", "sharing", "memory", "mig.profile")
MOST = 64  # GPUs a device may ask for; no host has more

Devices = Mapping[str, Mapping[str, str]]


class TwoGpuDevices(Conflict):
    """`limits.gpu` is set, and a device of the name it expands to says something else."""


def expand_gpu(config: Mapping[str, str], devices: Devices) -> dict[str, dict[str, str]]:
    """The devices, with the one that `limits.gpu` and its companions stand for. Idempotent.

    Raises Invalid for a bad count, TwoGpuDevices if the name `gpu` is taken by another device.
    """
    expanded = {name: dict(options) for name, options in devices.items()}
    wanted = config.get("limits.gpu", "")
    if not wanted or _count(wanted, "limits.gpu", low=0) == 0:
        return expanded
    options = {"type": "gpu", "count": wanted}
    options |= {option: config[key] for key, option in KEYS.items() if config.get(key)}
    if any(_is_mig(term) for term in _terms(SHORT_FORM, options.get("match", ""))):
        options["gputype"] = "mig"
    if expanded.setdefault(SHORT_FORM, options) != options:
        raise TwoGpuDevices(
            f'limits.gpu makes a device named "{SHORT_FORM}", but there is another one of that name',
            key="limits.gpu",
            device=SHORT_FORM,
        )
    return expanded


def asks_of(devices: Devices, config: Mapping[str, str]) -> tuple[GpuAsk, ...]:
    """What the (expanded) devices and the short form want, by name of device.

    Raises Invalid naming device, option and value; Unsupported for a `gputype` that is not counted yet.
    """
    expanded = expand_gpu(config, devices)
    return tuple(
        ask_of(name, options) for name, options in sorted(expanded.items()) if options.get("type") == "gpu"
    )


def ask_of(name: str, options: Mapping[str, str]) -> GpuAsk:
    """What one `gpu` device wants. Raises as `asks_of`."""
    kind = _kind(name, options)
    sharing = options.get("sharing") or ""
    if sharing not in ("", "exclusive", "shared"):
        raise Invalid(f'{name}: sharing: "{sharing}" is not exclusive or shared', device=name, key="sharing")
    selectors = (*SELECTORS, *MIG_SELECTORS) if kind == "mig" else SELECTORS
    terms = tuple(_selector(name, key, options[key]) for key in selectors if options.get(key))
    if not any(options.get(key) for key in COUNTED):
        return GpuAsk(device=name, count=0, kind=kind, match=terms, sharing="shared")
    how: Sharing = "shared" if sharing == "shared" else "exclusive"
    conditions = _terms(name, options.get("match") or "")
    if kind == "physical" and any(_is_mig(term) for term in conditions):
        raise BadMatch(f"{name}: gpu match: conditions on MIG devices need gputype=mig", device=name)
    return GpuAsk(
        device=name,
        count=_count(options.get("count") or "1", f"{name}: count"),
        kind=kind,
        match=terms + conditions,
        sharing=how,
        memory=_memory(name, options.get("memory") or "0"),
    )


def _kind(name: str, options: Mapping[str, str]) -> Kind:
    match options.get("gputype") or "physical":
        case "physical":
            return "physical"
        case "mig":
            return "mig"
        case other:
            raise Unsupported(f'{name}: gputype "{other}" is not supported: physical, mig', device=name)


def _is_mig(term: Term) -> bool:
    return term.attribute.startswith("mig.")


def _terms(name: str, expression: str) -> tuple[Term, ...]:
    try:
        return parse(expression)
    except BadMatch as bad:
        raise BadMatch(f"{name}: {bad.message}", device=name, **bad.facts) from None


def _selector(name: str, key: str, value: str) -> Term:
    try:
        return checked(Term(key, "=", value.strip()))
    except BadMatch as bad:
        raise BadMatch(f"{name}: {bad.message}", device=name, **bad.facts) from None


def _count(written: str, what: str, low: int = 1) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", written) or not low <= int(written) <= MOST:
        raise Invalid(f'{what}: "{written[:200]}" is not a whole number from {low} to {MOST}', key=what)
    return int(written)


def _memory(name: str, written: str) -> int:
    try:
        return size(written)
    except ValueError as what:
        raise Invalid(f'{name}: memory: "{written}" is not {what}', device=name, key="memory") from None
