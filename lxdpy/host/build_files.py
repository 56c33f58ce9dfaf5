"""The files that built images get besides what their packages bring."""

import re

FOLDERS = {
    "bin": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "mnt": 0o755, "proc": 0o555, "root": 0o700,
    "run": 0o755, "sbin": 0o755, "sys": 0o555, "tmp": 0o1777, "usr": 0o755, "usr/bin": 0o755,
    "usr/sbin": 0o755, "usr/share": 0o755, "usr/share/udhcpc": 0o755, "var": 0o755, "var/log": 0o755,
    "var/tmp": 0o1777,
}  # fmt: skip

# init obeys SIGPWR, which LXC sends to stop a container.
INITTAB = """\
::sysinit:/etc/rc
::once:/etc/network
::askfirst:-/bin/sh
::ctrlaltdel:/sbin/reboot
::shutdown:/etc/halt
"""

RC = """\
#!/bin/sh
# LXC has mounted everything and set the hostname.
rm -f /run/reboot
ifconfig lo 127.0.0.1 up
mkdir -p /run/lock
"""

HALT = """\
#!/bin/sh
# init itself would sleep for two seconds. All get half of one to end, and the kernel ends the rest.
kill -TERM -1
for _ in 1 2 3 4 5 6 7 8 9 10; do
    set -- /proc/[0-9]*
    [ $# -gt 2 ] || break # init and this
    sleep 0.05
done
[ -e /run/reboot ] && exec busybox reboot -f
exec busybox poweroff -f
"""

REBOOT = """\
#!/bin/sh
# Tells /etc/halt what is wanted, as init does not.
touch /run/reboot
exec busybox reboot "$@"
"""

NETWORK = """\
#!/bin/sh
# Stays as the DHCP client of eth0, which is there from the start if the container has one.
[ -e /sys/class/net/eth0 ] || exit 0
ifconfig eth0 up
exec udhcpc -f -i eth0 -t 5 -T 1 -A 2 -x "hostname:$(hostname)" -s /usr/share/udhcpc/default.script
"""

UDHCPC = """\
#!/bin/sh
# Called by udhcpc with a lease in the environment.
case "$1" in
deconfig)
    ifconfig "$interface" 0.0.0.0 up
    ;;
bound | renew)
    ifconfig "$interface" "$ip" netmask "${subnet:-255.255.255.0}" broadcast "${broadcast:-+}" up
    for gateway in $router; do
        ip route replace default via "$gateway" dev "$interface"
        break
    done
    {
        [ -z "$domain" ] || echo "search $domain"
        for server in $dns; do echo "nameserver $server"; done
    } >/etc/resolv.conf.new
    mv /etc/resolv.conf.new /etc/resolv.conf
    ;;
esac
"""

HOSTS = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"

BUSYBOX_FILES: dict[str, tuple[int, str]] = {
    "etc/halt": (0o755, HALT),
    "etc/group": (0o644, "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
    "etc/hosts": (0o644, HOSTS),
    "etc/inittab": (0o644, INITTAB),
    "etc/network": (0o755, NETWORK),
    "etc/os-release": (0o644, 'NAME="BusyBox"\nID=busybox\nPRETTY_NAME="BusyBox"\n'),
    "etc/passwd": (
        0o644,
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    ),
    "etc/profile": (0o644, "export PATH=/usr/sbin:/usr/bin:/sbin:/bin\n"),
    "etc/rc": (0o755, RC),
    "etc/shadow": (0o600, "root:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n"),
    "etc/shells": (0o644, "/bin/sh\n/bin/ash\n"),
    "sbin/reboot": (0o755, REBOOT),
    "usr/share/udhcpc/default.script": (0o755, UDHCPC),
}

# The address belongs to the network card, not to /etc/machine-id: copies of a container get their own. The
# hostname is the container's own; a container must not ask for one it may not set.
DEBIAN_NETWORK = """\
[Match]
Name=eth0

[Network]
DHCP=yes

[DHCPv4]
ClientIdentifier=mac
UseDomains=yes
UseHostname=no
"""

DEBIAN_FILES: dict[str, str] = {
    "etc/hosts": HOSTS,
    "etc/machine-id": "",  # systemd makes one at the first start
    "etc/systemd/network/eth0.network": DEBIAN_NETWORK,
}


def debian_sources(suite: str) -> str:
    """What Debian's installer writes to sources.list."""
    return (
        f"deb http://deb.debian.org/debian {suite} main\n"
        f"deb http://deb.debian.org/debian {suite}-updates main\n"
        f"deb http://security.debian.org/debian-security {suite}-security main\n"
    )


def version_of(busybox: bytes) -> str:
    """The version a busybox binary carries: `1.35.0`."""
    found = re.search(rb"BusyBox v(\d+(?:\.\d+)+)", busybox)
    return found[1].decode() if found else "unknown"
