"""Reads a namespace's connection tracking table, the kernel's own record of what it has translated.

Formats: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from typing import NamedTuple

from emulab.kernel.namespaces import Namespace, entered
from emulab.kernel.netlink import NetlinkSocket, attribute, attributes

_NETFILTER = 12
_CT_GET = 1 << 8 | 1
_SRC_NAT, _DST_NAT = 1 << 4, 1 << 5
_STATUS, _STATUS_MASK = 3, 26
_MANY = 2000
_NAT = _SRC_NAT | _DST_NAT


class Tuple(NamedTuple):
    """One direction of a connection; for ICMP ``sport`` is the identifier."""

    source: str
    destination: str
    protocol: int
    sport: int
    dport: int


class Entry(NamedTuple):
    """A translated connection: ``reply`` is not the mirror of ``original``."""

    original: Tuple
    reply: Tuple
    source_nat: bool
    destination_nat: bool

    def __str__(self) -> str:
        kind = "+".join(word for word, on in (("SNAT", self.source_nat), ("DNAT", self.destination_nat)) if on)
        return f"conntrack {kind} {_show(self.original)}, replies {_show(self.reply)}"


def translated(namespace: Namespace) -> list[Entry]:
    """All entries with a source or destination translation, of both families."""
    with entered(namespace.net):
        count = _count()
        if not count:
            return []  # a dump walks the table of the whole machine, 9 ms however little of it is ours
        table = NetlinkSocket(_NETFILTER)
    try:
        found: dict[Entry, None] = {}
        wanted = [b""]
        if count > _MANY:  # older kernels take no notice of a filter and send everything
            bits = [struct.pack("!I", bit) for bit in (_SRC_NAT, _DST_NAT)]
            wanted = [attribute(_STATUS, bit) + attribute(_STATUS_MASK, bit) for bit in bits]
        for only in wanted:
            dump = table.dump(_CT_GET, struct.pack("!BBH", 0, 0, 0) + only)
            found.update((entry, None) for _, data in dump for entry in _entry(data[4:]))
        return list(found)
    finally:
        table.close()


def _count() -> int:
    try:
        with open("/proc/sys/net/netfilter/nf_conntrack_count") as file:
            return int(file.read())
    except FileNotFoundError:
        return 1


def _entry(data: bytes) -> Iterator[Entry]:
    values = dict(attributes(data))
    status = struct.unpack("!I", values.get(3, b"\0\0\0\0"))[0]
    if status & _NAT and 1 in values and 2 in values:
        yield Entry(_tuple(values[1]), _tuple(values[2]), bool(status & _SRC_NAT), bool(status & _DST_NAT))


def _tuple(data: bytes) -> Tuple:
    parts = dict(attributes(data))
    addresses = dict(attributes(parts[1]))
    protocol = dict(attributes(parts[2]))
    source, destination = (str(ipaddress.ip_address(addresses.get(v4) or addresses[v6])) for v4, v6 in ((1, 3), (2, 4)))
    identifier = protocol.get(4) or protocol.get(7)  # ICMP and ICMPv6 identifiers
    sport, dport = (struct.unpack("!H", protocol.get(kind, b"\0\0"))[0] for kind in (2, 3))
    return Tuple(source, destination, protocol[1][0], struct.unpack("!H", identifier)[0] if identifier else sport, dport)


def _show(one: Tuple) -> str:
    return f"{one.source}:{one.sport} > {one.destination}:{one.dport}"
