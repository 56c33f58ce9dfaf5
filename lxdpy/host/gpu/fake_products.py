"""What can be made up: models of GPUs, and whole machines full of them. Data."""

import msgspec

GIB = 2**30


class Product(msgspec.Struct, frozen=True):
    """A model that is known well enough to be made up."""

    name: str
    product_id: str
    memory: int  # bytes
    driver: str
    architecture: str = ""


PRODUCTS: dict[str, tuple[Product, ...]] = {
    "nvidia": (
        Product("NVIDIA A100-SXM4-40GB", "20b0", 40 * GIB, "nvidia", "8.0"),
        Product("NVIDIA A100-SXM4-80GB", "20b2", 80 * GIB, "nvidia", "8.0"),
        Product("NVIDIA H100 80GB HBM3", "2330", 80 * GIB, "nvidia", "9.0"),
        Product("NVIDIA L4", "27b8", 24 * GIB, "nvidia", "8.9"),
        Product("Tesla T4", "1eb8", 16 * GIB, "nvidia", "7.5"),
    ),
    "amd": (
        Product("AMD Instinct MI210", "740f", 64 * GIB, "amdgpu"),
        Product("AMD Instinct MI300X", "74a1", 192 * GIB, "amdgpu"),
    ),
    "intel": (
        Product("Intel Data Center GPU Flex 170", "56c0", 16 * GIB, "i915"),
        Product("Intel Data Center GPU Max 1550", "0bd5", 128 * GIB, "xe"),
    ),
}
"""The first of a vendor is the default, and lends an unknown model what it does not say."""

VENDOR_IDS = {"nvidia": "10de", "amd": "1002", "intel": "8086"}


class Machine(msgspec.Struct, frozen=True):
    """The GPUs of one kind of machine: where each sits, and how any two of them are joined."""

    vendor: str
    model: str
    seats: tuple[tuple[str, int], ...]  # PCI address, NUMA node
    all_linked: str = ""  # kind of link between any two
    mig: tuple[str, ...] = ()

    def links(self, place: int) -> dict[int, str]:
        """By place, the kind of link to each other card. PCIe: pairs behind a switch, then the NUMA node."""
        found = {}
        for other, (_, numa) in enumerate(self.seats):
            if other == place:
                continue
            if self.all_linked:
                found[other] = self.all_linked
            elif other // 2 == place // 2:
                found[other] = "pix"
            elif numa == self.seats[place][1]:
                found[other] = "node"
        return found


def _seats(buses: str, numa: str) -> tuple[tuple[str, int], ...]:
    return tuple((f"0000:{bus}:00.0", int(n)) for bus, n in zip(buses.split(), numa.split(), strict=True))


DGX_A100 = _seats("07 0f 47 4e 87 90 b7 bd", "3 3 1 1 7 7 5 5")
DGX_H100 = _seats("1b 43 52 61 9d c3 d1 df", "0 0 0 0 1 1 1 1")
OAM = _seats("05 26 46 65 85 a6 c6 e5", "0 0 0 0 1 1 1 1")

MACHINES: dict[str, Machine] = {
    "dgx-a100": Machine("nvidia", "NVIDIA A100-SXM4-80GB", DGX_A100, "nvlink"),
    "dgx-h100": Machine("nvidia", "NVIDIA H100 80GB HBM3", DGX_H100, "nvlink"),
    "mig-a100": Machine("nvidia", "NVIDIA A100-SXM4-40GB", DGX_A100[:2], "nvlink", ("1g.5gb",) * 7),
    "pcie-l4": Machine("nvidia", "NVIDIA L4", _seats("17 18 65 66 ca cb e3 e4", "0 0 0 0 1 1 1 1")),
    "mi300x": Machine("amd", "AMD Instinct MI300X", OAM, "xgmi"),
    "max-1550": Machine("intel", "Intel Data Center GPU Max 1550", OAM[::2]),
}
"""`profile` of an entry of the file."""
