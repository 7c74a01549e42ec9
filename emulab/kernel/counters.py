"""What the kernel counts and what its switches say, in one namespace: the silent drops show nowhere else.

Sources: /proc/net/snmp, /proc/net/snmp6, /proc/net/netstat (proc(5), RFC 4293), Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

import sys

from emulab.kernel.namespaces import Namespace, entered
from emulab.kernel.netlink import RTM_GETNEIGHTBL, attributes

Counters = tuple[tuple[str, ...], ...]  # the lines of _TABLES
_FAMILIES = {2: 4, 10: 6}
_STATISTICS = 7  # NDTA_STATS, linux/neighbour.h
_TABLES = ("snmp", "netstat", "snmp6")


def read(namespace: Namespace) -> Counters:
    """What all counters show; `rose` tells them apart, which few who read them need in the end."""
    with entered(namespace.net):
        return tuple(tuple(_lines(f"/proc/thread-self/net/{table}")) for table in _TABLES)


def rose(before: Counters, after: Counters) -> dict[str, int]:
    """The counters that went up, and by how much."""
    was = _named(before)
    return {name: value - was.get(name, 0) for name, value in _named(after).items() if value > was.get(name, 0)}


def _named(counters: Counters) -> dict[str, int]:
    """Every counter by name: ``IpOutNoRoutes``, ``Ip6InAddrErrors``, ``TcpExtIPReversePathFilter``, ``UdpInCsumErrors``."""
    *tables, singly = counters
    found: dict[str, int] = {}
    for lines in tables:
        for names, values in zip(lines[::2], lines[1::2], strict=False):
            group, *keys = names.split()
            numbers = values.split()[1:]
            found |= {group.rstrip(":") + key: int(number) for key, number in zip(keys, numbers, strict=False)}
    for line in singly:
        key, _, number = line.partition(" ")
        found[key.strip()] = int(number)
    return found


def tables_full(namespace: Namespace) -> dict[int, int]:
    """By family, how often a neighbour was refused since the table, which is the whole machine's, was full (ndt_stats)."""
    found = {}
    for _, payload in namespace.socket().dump(RTM_GETNEIGHTBL, bytes(4)):
        values = dict(attributes(payload[4:]))
        if len(values.get(_STATISTICS, b"")) >= 88 and payload[0] in _FAMILIES:
            found[_FAMILIES[payload[0]]] = int.from_bytes(values[_STATISTICS][80:88], sys.byteorder)
    return found


def sysctl(namespace: Namespace, key: str) -> str | None:
    """A switch's value; None when this namespace has none of that name.  ``/`` separates: a device name may have dots."""
    with entered(namespace.net):
        lines = _lines(f"/proc/sys/{key}")
    return lines[0].strip() if lines else None


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().splitlines()
    except OSError:
        return []
