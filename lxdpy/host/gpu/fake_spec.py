"""The file of `--fake-gpus`: which GPUs a host shall seem to have, and what ails them.

    gpus:
      - {vendor: nvidia, count: 2}
      - {vendor: amd, model: AMD Instinct MI210, memory: 64GiB, numa: 1}
      - {vendor: nvidia, uuid: GPU-1, pci: "0000:07:00.0", links: {GPU-2: nvlink}, mig: [1g.5gb, 2g.10gb]}
      - {profile: dgx-a100}               # a whole machine's cards: links, NUMA nodes, MIG
    faults:                               # by uuid, PCI address, or place in the list of cards
      "0000:b7:00.0": {xid: 79, lost: true}
      3: {ecc: 1, remapped: pending, busy: 0.9, processes: [{pid: 4711, memory: 2GiB}]}
    nvml: true                            # answered by a libnvidia-ml.so.1 that is built for it
    cdi: true                             # with CDI specs, and files to mount, below etc/cdi
    boot: 2                               # another number: the machine was started anew

Of an entry only `vendor` or `profile` is required. What is left out is made up from the member and the
entry's place, the same each time, and never the same for two members. What is a fault may also stand in an
entry, for all cards of it. The daemon reads the file again whenever it changes.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
import yaml

from cluster.errors import Invalid
from lxdpy.host.gpu.facts import Mig, Process
from lxdpy.host.gpu.fake_products import GIB, MACHINES, PRODUCTS, Product
from lxdpy.host.gpu.fake_values import FAULTS, MOST, READERS, SIGNS, WHOLE, checked
from lxdpy.host.gpu.figures import Figures
from lxdpy.host.gpu.health import Signs

SLICES = 7  # of a card's processors, for MIG devices to have


class FakeGpu(msgspec.Struct, frozen=True, kw_only=True):
    """One card, with nothing left open but the numbers of its device files."""

    uuid: str
    vendor: str
    model: str
    product: Product
    memory: int  # bytes
    pci: str
    numa: int
    mig: tuple[Mig, ...] = ()
    links: dict[str, str] = {}
    signs: Signs = Signs()
    busy: float | None = None
    processes: tuple[Process, ...] = ()
    gone: bool = False  # from the bus

    @property
    def figures(self) -> Figures:
        """Busier is hotter; what its processes do not use is free."""
        busy = self.busy or 0.0
        percent = round(100 * busy)
        return Figures(
            busy=None if self.mig else busy,
            memory_used=sum(process.memory for process in self.processes),
            temperature=30.0 + percent // 2,
            power=60.0 + 3.4 * percent,
        )


class FakeHost(msgspec.Struct, frozen=True):
    """The whole file."""

    gpus: tuple[FakeGpu, ...]
    nvml: bool = False
    cdi: bool = False
    boot: int = 1


def parse(written: str, member: str, origin: str = "fake GPUs") -> FakeHost:
    """What the file's text says. Raises Invalid naming `origin`, entry, key and value."""
    try:
        document = yaml.safe_load(written)
    except yaml.YAMLError as wrong:
        raise Invalid(f"{origin}: not YAML: {' '.join(str(wrong).split())}") from None
    document = document or {"gpus": []}
    entries, faults = _parts(document, origin)
    rest = checked({key: document[key] for key in WHOLE if key in document}, WHOLE, origin)
    found = [
        gpu
        for place, entry in enumerate(entries)
        for gpu in _Entry(entry, place, member, f"{origin}: gpus[{place}]").gpus()
    ]
    if len(found) > MOST:
        raise Invalid(f"{origin}: {len(found)} GPUs, a host has at most {MOST}")
    for what, values in (("uuid", [gpu.uuid for gpu in found]), ("pci", [gpu.pci for gpu in found])):
        if twice := next((value for value in values if values.count(value) > 1), None):
            raise Invalid(f"{origin}: two GPUs have {what} {twice}", key=what, value=twice)
    for name, fault in faults.items():
        place = _named(str(name), found, origin)
        found[place] = _faulty(found[place], checked(fault, FAULTS, f"{origin}: faults[{name}]"))
    return FakeHost(tuple(gpu for gpu in found if not gpu.gone), **rest)


def _parts(document: Any, origin: str) -> tuple[list[Any], dict[Any, Any]]:
    if not isinstance(document, dict) or "gpus" not in document or set(document) - {"gpus", "faults", *WHOLE}:
        raise Invalid(
            f'{origin}: there must be the key "gpus", and at most "faults", "nvml", "cdi" and "boot"'
        )
    entries, faults = document["gpus"], document.get("faults") or {}
    if not isinstance(entries, list):
        raise Invalid(f'{origin}: "gpus" must be a list')
    if not isinstance(faults, dict):
        raise Invalid(f'{origin}: "faults" must be a mapping from a GPU to what ails it')
    return entries, faults


def _named(name: str, gpus: list[FakeGpu], origin: str) -> int:
    """The place of a card in the list."""
    for place, gpu in enumerate(gpus):
        if name in (gpu.uuid, gpu.pci, str(place)):
            return place
    there = ", ".join(f"{gpu.pci} ({gpu.uuid})" for gpu in gpus) or "none"
    raise Invalid(f'{origin}: faults: no GPU "{name}"; there are: {there}', key="faults", value=name)


def _faulty(gpu: FakeGpu, fault: Mapping[str, Any]) -> FakeGpu:
    """The card with what ails it, on top of what it has."""
    renamed = {"remapped": "remapping", "health": "said"}
    signs = {renamed.get(key, key): value for key, value in fault.items() if key in SIGNS}
    rest = {key: value for key, value in fault.items() if key in FAULTS and key not in SIGNS}
    return msgspec.structs.replace(gpu, signs=msgspec.structs.replace(gpu.signs, **signs), **rest)


class _Entry:
    """One entry of the list."""

    def __init__(self, entry: Any, place: int, member: str, where: str) -> None:
        self._values = checked(entry, READERS, where)
        self._place, self._member, self._where = place, member, where
        if ("vendor" in self._values) == ("profile" in self._values):
            missing = "vendor is missing" if "vendor" not in self._values else "vendor is the profile's"
            raise Invalid(f"{where}: {missing}; known profiles: {', '.join(MACHINES)}", key="vendor")

    def gpus(self) -> list[FakeGpu]:
        if profile := self._values.get("profile"):
            return self._machine(profile)
        count = self._values.get("count", 1)
        for key in ("uuid", "pci"):
            if count != 1 and key in self._values:
                raise Invalid(f"{self._where}: {key} names one GPU, so count must be 1, not {count}", key=key)
        return [self._gpu(number, self._values) for number in range(count)]

    def _machine(self, profile: str) -> list[FakeGpu]:
        machine = MACHINES[profile]
        if taken := sorted({"count", "uuid", "pci", "links"} & set(self._values)):
            raise Invalid(f"{self._where}: {taken[0]} is the profile's to say", key=taken[0])
        whole = {"vendor": machine.vendor, "model": machine.model, "mig": machine.mig} | self._values
        found = [
            self._gpu(number, {"pci": pci, "numa": numa} | whole)
            for number, (pci, numa) in enumerate(machine.seats)
        ]
        return [
            msgspec.structs.replace(
                gpu, links={found[other].uuid: kind for other, kind in machine.links(number).items()}
            )
            for number, gpu in enumerate(found)
        ]

    def _gpu(self, number: int, given: Mapping[str, Any]) -> FakeGpu:
        vendor: str = given["vendor"]
        product = _product(vendor, given.get("model", ""))
        address = given.get("pci") or f"{self._place:04x}:{number + 1:02x}:00.0"
        uuid = given.get("uuid") or _uuid(vendor, self._member, address, f"{self._place}/{number}")
        memory = given.get("memory", product.memory)
        gpu = FakeGpu(
            uuid=uuid,
            vendor=vendor,
            model=given.get("model") or product.name,
            product=product,
            memory=memory,
            pci=address,
            numa=given.get("numa", 0),
            mig=self._parts(uuid, given.get("mig", ()), memory),
            links=given.get("links", {}),
        )
        return _faulty(gpu, given)

    def _parts(self, uuid: str, profiles: tuple[str, ...], memory: int) -> tuple[Mig, ...]:
        """What a card is cut into: of each profile one GPU and one compute instance."""
        found = tuple(
            Mig(
                uuid=f"MIG-{_dashed(hashlib.sha256(f'{uuid}/{number}'.encode()).hexdigest())}",
                profile=profile,
                gi=number,
                memory=int(profile.partition(".")[2].partition("gb")[0]) * GIB,
            )
            for number, profile in enumerate(profiles, 1)
        )
        slices, wanted = sum(int(part.profile[0]) for part in found), sum(part.memory for part in found)
        if slices > SLICES or wanted > memory:
            raise Invalid(
                f"{self._where}: mig: {', '.join(profiles)} is {slices} slices and {wanted // GIB}GiB, "
                f"a card has {SLICES} and this one {memory / GIB:.4g}GiB",
                key="mig",
            )
        return found


def _product(vendor: str, model: str) -> Product:
    """The one of that name, or that has it in its name, or the vendor's first."""
    known = PRODUCTS[vendor]
    return next((one for one in known if model and model.lower() in one.name.lower()), known[0])


def _uuid(vendor: str, member: str, address: str, place: str) -> str:
    """As the vendor would make it: NVIDIA's form, AMD's 16 digits; Intel's cards have no number."""
    digits = hashlib.sha256(f"{member}/{place}".encode()).hexdigest()
    if vendor == "nvidia":
        return f"GPU-{_dashed(digits)}"
    return digits[:16] if vendor == "amd" else f"{member}-{address}"


def _dashed(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:32]}"
