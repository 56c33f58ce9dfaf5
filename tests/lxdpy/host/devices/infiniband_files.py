"""A host's sysfs with an InfiniBand card of one port and virtual functions, for tests."""

from pathlib import Path

from lxdpy.host.paths import HostRoot, under


def card(folder: Path, functions: int = 2) -> HostRoot:
    """Interfaces ib0 (the card), ib1, …: each a PCI function with device files of its own."""
    root = under(folder)
    for number in range(functions + 1):
        device = root.sys / f"devices/pci/{number}"
        (device / f"net/ib{number}").mkdir(parents=True)
        (device / f"net/ib{number}/type").write_text("32\n")
        _link(root.sys / f"class/net/ib{number}", device / f"net/ib{number}")
        _link(device / f"net/ib{number}/device", device)
        for file, minor in ((f"issm{number}", 64 + number), (f"umad{number}", number)):
            _file(root, "infiniband_mad", file, f"231:{minor}", device)
        _file(root, "infiniband_verbs", f"uverbs{number}", f"231:{192 + number}", device)
        if number:
            _link(root.sys / f"devices/pci/0/virtfn{number - 1}", device)
    return root


def _file(root: HostRoot, folder: str, name: str, numbers: str, device: Path) -> None:
    entry = root.sys / "class" / folder / name
    entry.mkdir(parents=True)
    (entry / "dev").write_text(f"{numbers}\n")
    _link(entry / "device", device)


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
