"""A made-up host: two sockets, four CPUs with one offline, a NIC, two disks, a USB stick, firmware."""

from pathlib import Path

from lxdpy.host.paths import HostRoot

CPUINFO = """processor\t: {id}
vendor_id\t: GenuineIntel
model name\t: Xeon 9000
cpu MHz\t\t: 2100.500
flags\t\t: fpu {flags}
"""
NIC = "devices/pci0000:00/0000:00:03.0"
NVME = "devices/pci0000:00/0000:00:05.0/nvme/nvme0"
USB = "devices/pci0000:00/0000:00:14.0/usb1/1-2"


def write(base: Path, **files: str) -> None:
    base.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (base / name).write_text(value + "\n")


def link(path: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def built(folder: Path, *, hypervisor: bool = False) -> HostRoot:
    root = HostRoot(sys=folder / "sys", proc=folder / "proc", dev=folder / "dev")
    _processors(root, "hypervisor" if hypervisor else "sse")
    _memory(root)
    _network(root.sys)
    _disks(root)
    _usb(root.sys)
    write(
        root.sys / "class/dmi/id",
        product_uuid="7fa1c0cc", sys_vendor="LENOVO", product_name="20HR", product_family="X1",
        product_version="5th", product_sku="sku", product_serial="PY3", bios_vendor="Lenovo",
        bios_date="10/14/2020", bios_version="N1M", chassis_vendor="Lenovo", chassis_type="23",
        chassis_serial="S", chassis_version="V",
        board_vendor="Lenovo", board_name="B", board_serial="BS", board_version="BV",
    )  # fmt: skip
    write(root.proc / "sys/kernel", osrelease="6.1.0-test", ostype="Linux")
    write(root.proc / "sys/kernel/seccomp", actions_avail="kill_process user_notif allow")
    return root


def _processors(root: HostRoot, flags: str) -> None:
    folder = root.sys / "devices/system/cpu"
    write(folder, online="0-2", isolated="2")
    for cpu, socket, core in ((0, 0, 0), (1, 0, 0), (2, 1, 5)):
        write(folder / f"cpu{cpu}/topology", physical_package_id=str(socket), core_id=str(core), die_id="-1")
        link(folder / f"cpu{cpu}/node{socket}", root.sys / f"devices/system/node/node{socket}")
    write(folder / "cpu3", online="0")
    write(
        folder / "cpu0/cpufreq",
        scaling_cur_freq="3000000",
        cpuinfo_min_freq="800000",
        cpuinfo_max_freq="4200000",
    )
    write(folder / "cpu0/cache/index0", level="1", type="Data", size="32K")
    write(folder / "cpu0/cache/index2", level="2", type="Unified", size="1M")
    write(root.proc, cpuinfo="\n".join(CPUINFO.format(id=cpu, flags=flags) for cpu in range(3)))


def _memory(root: HostRoot) -> None:
    write(
        root.proc,
        meminfo="MemTotal: 1000 kB\nMemFree: 300 kB\nMemAvailable: 600 kB\nHugePages_Total: 4\n"
        "HugePages_Free: 1\nHugepagesize: 2048 kB",
    )
    for node in (0, 1):
        lines = ("MemTotal: 500 kB", "MemFree: 100 kB", "FilePages: 150 kB", "HugePages_Total: 2")
        text = "\n".join(f"Node {node} {line}" for line in (*lines, "HugePages_Free: 2"))
        write(root.sys / f"devices/system/node/node{node}", meminfo=text)


def _network(sys: Path) -> None:
    device = sys / NIC
    write(device, vendor="0x8086", device="0x1572", numa_node="1")
    write(device, **{"class": "0x020000", "sriov_numvfs": "1", "sriov_totalvfs": "64"})
    link(device / "driver", sys / "bus/pci/drivers/i40e")
    write(sys / "bus/pci/drivers/i40e/module", version="2.8")
    port = device / "net/eth0"
    write(
        port, address="00:11:22:33:44:55", type="1", dev_port="0", carrier="1", speed="10000", duplex="full"
    )
    link(port / "device", device)
    link(sys / "class/net/eth0", port)
    function = sys / "devices/pci0000:00/0000:00:03.1"
    write(function, vendor="0x8086", device="0x154c", numa_node="-1", **{"class": "0x020000"})
    link(function / "physfn", device)
    for path in (device, function):
        link(sys / "bus/pci/devices" / path.name, path)
    link(device / "iommu_group", sys / "kernel/iommu_groups/20")
    write(sys / "devices/virtual/net/lo", address="00:00:00:00:00:00", type="772")
    link(sys / "class/net/lo", sys / "devices/virtual/net/lo")


def _disks(root: HostRoot) -> None:
    sys = root.sys
    disk = sys / NVME / "nvme0n1"
    write(disk, dev="259:0", ro="0", size="2000", removable="0", wwid="eui.01")
    write(disk / "queue", physical_block_size="4096", rotational="0")
    write(disk / "nvme0n1p1", dev="259:1", ro="1", size="1000", partition="1")
    write(sys / NVME, model="INTEL SSD  ", firmware_rev="PSF", serial="BTP", numa_node="1")
    link(sys / NVME / "subsystem", sys / "class/nvme")
    link(disk / "device", sys / NVME)
    link(sys / "class/block/nvme0n1", disk)
    link(sys / "class/block/nvme0n1p1", disk / "nvme0n1p1")
    target = sys / USB / "1-2:1.0/host0/target0/0:0:0:0"
    stick = target / "block/sda"
    write(stick, dev="8:0", ro="0", size="8", removable="1")
    write(stick / "queue", physical_block_size="512", rotational="1")
    link(stick / "device", target)
    link(target / "subsystem", sys / "bus/scsi")
    link(sys / "class/block/sda", stick)
    write(sys / "devices/virtual/block/loop0", dev="7:0", ro="0", size="0")
    link(sys / "class/block/loop0", sys / "devices/virtual/block/loop0")
    aliases = root.dev / "disk/by-id"
    aliases.mkdir(parents=True)
    (aliases / "nvme-eui.01").symlink_to("../../nvme0n1")


def _usb(sys: Path) -> None:
    write(
        sys / USB,
        busnum="1", devnum="7", idVendor="0951", idProduct="1666", manufacturer="Kingston",
        product="DataTraveler", speed="480",
    )  # fmt: skip
    interface = sys / USB / "1-2:1.0"
    write(interface, bInterfaceClass="08", bInterfaceSubClass="06", bInterfaceNumber="00")
    link(interface / "driver", sys / "bus/usb/drivers/usb-storage")
    hub = sys / "devices/pci0000:00/0000:00:14.0/usb1"
    write(hub, busnum="1", devnum="1", idVendor="1d6b", idProduct="0002")
    write(hub / "1-0:1.0", bInterfaceClass="09", bInterfaceSubClass="00", bInterfaceNumber="00")
    for path in (sys / USB, interface, hub, hub / "1-0:1.0"):
        link(sys / "bus/usb/devices" / path.name, path)
