"""Names of vendors and products, from the list that distributions ship as pci.ids."""

import re
from functools import lru_cache
from pathlib import Path

WHERE = (Path("/usr/share/misc/pci.ids"), Path("/usr/share/hwdata/pci.ids"))


class PciIds:
    """The names of one file; without a file every name is empty."""

    def __init__(self, path: Path | None) -> None:
        self._vendors: dict[str, str] = {}
        self._products: dict[tuple[str, str], str] = {}
        if path:
            self._read(path)

    @staticmethod
    def of_this_host() -> "PciIds":
        """Read once a process: 1.4 MB of text, some 50 ms."""
        return _read_once(next((path for path in WHERE if path.exists()), None))

    def vendor(self, vendor: str) -> str:
        return self._vendors.get(vendor, "")

    def product(self, vendor: str, product: str) -> str:
        return self._products.get((vendor, product), "")

    def _read(self, path: Path) -> None:
        """Lines: `vendor  name`, below it, by one tab, `product  name`. Classes follow the vendors."""
        vendor = ""
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if found := re.match(r"([0-9a-f]{4})  (.+)", line):
                vendor = found[1]
                self._vendors[vendor] = found[2]
            elif found := re.match(r"\t([0-9a-f]{4})  (.+)", line):
                self._products[vendor, found[1]] = found[2]
            elif line.startswith("C "):
                break


@lru_cache(maxsize=2)
def _read_once(path: Path | None) -> PciIds:
    return PciIds(path)
