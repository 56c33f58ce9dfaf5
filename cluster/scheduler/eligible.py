"""One GPU, or many, against one ask: named by it, usable now, or why not, in words for users."""

from collections import Counter
from collections.abc import Iterable, Sequence

from cluster.scheduler.match import matching
from cluster.scheduler.types import GpuAsk, GpuView, Kind


def held(ask: GpuAsk, gpus: Iterable[GpuView]) -> str | None:
    """For an ask for GPUs by name or selector: who is in the way, in words; None if nobody is."""
    return next((why for gpu in wanted(ask, gpus) if gpu.holders and (why := unusable(ask, gpu))), None)


def usable(ask: GpuAsk, gpus: Iterable[GpuView]) -> list[GpuView]:
    """Those of `gpus` that `ask` could get now."""
    return [gpu for gpu in wanted(ask, gpus) if not unusable(ask, gpu)]


def by_address(gpu: GpuView) -> tuple[str, str]:
    return (gpu.pci, gpu.uuid)


def wanted(ask: GpuAsk, gpus: Iterable[GpuView]) -> list[GpuView]:
    """Those the ask names, whatever state they are in. A card is no MIG device, nor the reverse."""
    parts = ask.kind == "mig"
    found = matching(ask.match, [gpu for gpu in gpus if (gpu.parent != "") == parts])
    if ask.uuids:
        found = [gpu for gpu in found if gpu.uuid in ask.uuids]
    if ask.sharing == "exclusive" and ask.memory:
        found = [gpu for gpu in found if gpu.memory >= ask.memory]
    return found


def unusable(ask: GpuAsk, gpu: GpuView) -> str | None:
    """Why this GPU, though asked for, may not be had now."""
    keeps = gpu.uuid in ask.held and gpu.health != "failed"
    if gpu.health != "ok" and not keeps:
        return f"{_name(gpu)} is {gpu.health}" + (f": {gpu.reason}" if gpu.reason else "")
    for hold in gpu.holders:
        if hold.sharing == "exclusive":
            return f"{_name(gpu)} is held exclusively by {hold.holder}"
        if ask.sharing == "exclusive":
            return f"{_name(gpu)} is held by {hold.holder}"
    if gpu.state == "partitioned":
        return f"{_name(gpu)} is cut into MIG devices"
    if gpu.state != "free" and not (
        gpu.state == ask.sharing == "shared" or (keeps and gpu.state == "draining")
    ):
        return f"{_name(gpu)} is {gpu.state}"
    room = gpu.memory - sum([hold.memory for hold in gpu.holders])
    if ask.memory > room:
        return f"{_name(gpu)} has {_size(max(room, 0))} left, {_size(ask.memory)} wanted"
    return None


def shortage(ask: GpuAsk, gpus: Sequence[GpuView]) -> str | None:
    """Why these GPUs are not enough for `ask` alone, or None."""
    named = wanted(ask, gpus)
    return short(ask, gpus, named, [unusable(ask, gpu) for gpu in named])


def short(
    ask: GpuAsk, gpus: Sequence[GpuView], named: Sequence[GpuView], whys: Sequence[str | None]
) -> str | None:
    """`shortage`, for who knows already which are named by it, and of each why it may not be had."""
    if not named:
        return _nothing_like(ask, gpus)
    free = whys.count(None)
    by_holders = [why for gpu, why in zip(named, whys, strict=True) if gpu.holders and why]
    if free >= ask.count if ask.count else free and not by_holders:
        return None
    obstacle = next(filter(None, [*by_holders, *whys]), None)
    if obstacle and (not ask.count or names_cards(ask)):
        return obstacle
    kind = f" matching {asked(ask)}" if ask.match else ""
    ill = Counter(
        gpu.health if gpu.health != "ok" else gpu.state
        for gpu in named
        if gpu.health != "ok" or gpu.state not in ("free", "shared", "exclusive")
    )
    notes = f" ({', '.join(f'{n} {what}' for what, n in sorted(ill.items()))})" if ill else ""
    room = f" with {_size(ask.memory)} to share" if ask.sharing == "shared" and ask.memory else ""
    there = _gpus(len(named), ask.kind)
    return f"{free} of {there}{kind} free{room}{notes}, {ask.count} wanted"


def _nothing_like(ask: GpuAsk, gpus: Sequence[GpuView]) -> str:
    if not gpus:
        return "no GPU"
    if ask.kind == "mig" and not any(gpu.parent for gpu in gpus):
        return f"no MIG device (has: {models(gpus)})"
    what = "MIG device" if ask.kind == "mig" else "GPU"
    return f"no {what} matches {asked(ask)} (has: {cdi_names(ask, gpus) or models(gpus)})"


def _name(gpu: GpuView) -> str:
    return f"MIG device {gpu.uuid}" if gpu.parent else f"GPU {gpu.pci or gpu.uuid}"


def names_cards(ask: GpuAsk) -> bool:
    """Whether it says which cards it wants, and not only of what kind."""
    terms = {term.attribute for term in ask.match if term.operator == "="}
    return bool(ask.uuids) or bool(terms & {"uuid", "pci"})


def asked(ask: GpuAsk) -> str:
    """The conditions of an ask, as a user writes them."""
    words = [str(term) for term in ask.match]
    if ask.sharing == "exclusive" and ask.memory:
        words.append(f"memory>={_size(ask.memory)}")
    words.extend(f"uuid={uuid}" for uuid in ask.uuids)
    return " ".join(words) or "anything"


def cdi_names(ask: GpuAsk, gpus: Iterable[GpuView]) -> str:
    """What names of CDI devices there are, if it asks by such a name and there are any."""
    if not any(term.attribute == "id" and "=" in term.value for term in ask.match):
        return ""
    return ", ".join(sorted({name for gpu in gpus if gpu.kind == ask.kind for name in gpu.cdi}))


def models(gpus: Iterable[GpuView]) -> str:
    """What there is: `2 × NVIDIA A100, 1 × AMD MI210`."""
    count = Counter(gpu.model or gpu.vendor for gpu in gpus)
    return ", ".join(f"{number} × {model}" for model, number in sorted(count.items())) or "nothing"


def _gpus(count: int, kind: Kind) -> str:
    return f"{count} {'MIG device' if kind == 'mig' else 'GPU'}" + ("" if count == 1 else "s")


def _size(count: int) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= factor:
            return f"{count / factor:.4g}{unit}"
    return f"{count}B"
