"""Asks a namespace's kernel what it would do with a packet: which route, neighbour and forwarding entry, over which link.

Formats: linux/rtnetlink.h, neighbour.h, if_link.h.  The answers are worded as ip-route(8), ip-neighbour(8) and bridge(8)
print them, so that what a trace says can be found, and changed, by hand.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from emulab.kernel import netlink as nl
from emulab.kernel.namespaces import Namespace
from emulab.kernel.netlink import attribute, attributes, ifinfomsg, mac_bytes, ndmsg, rtmsg, u32

AF_BRIDGE = 7
_AF = {4: 2, 6: 10}
_KINDS = {1: "unicast", 2: "local", 3: "broadcast", 4: "anycast", 5: "multicast", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_PROTOCOLS = {1: "redirect", 2: "kernel", 4: "static", 9: "ra"}
_SCOPES = {253: "link", 254: "host"}
_STATES = {0x01: "INCOMPLETE", 0x02: "REACHABLE", 0x04: "STALE", 0x08: "DELAY", 0x10: "PROBE"}
_STATES |= {0x20: "FAILED", 0x40: "NOARP", 0x80: "PERMANENT"}
_RTM_F_FIB_MATCH, _RTNH_F_ONLINK = 0x2000, 4
_NTF_SELF, _NUD_PERMANENT = 0x02, 0x80
_IFF_LOWER_UP = 0x10000
LOCAL_TABLE = 255


class Link(NamedTuple):
    """An interface: ``up`` is what the administrator wants, ``carrier`` whether the other end is there."""

    name: str
    number: int
    kind: str
    mac: str
    mtu: int
    up: bool
    carrier: bool
    master: int
    lower: int
    vni: int = 0
    port: int = 0
    remote: bytes = b""  # of a point-to-point tunnel

    @property
    def dead(self) -> str:
        """Why nothing passes here, or ""; a bridge without ports that carry has no carrier either."""
        return "is down" if not self.up else "has no carrier (its other end is down)" if not self.carrier else ""


class Route(NamedTuple):
    """The entry that matches, in the words of ``ip route``, and what the lookup made of it."""

    text: str
    kind: str
    device: int
    gateway: bytes
    mtu: int
    network: ipaddress.IPv4Network | ipaddress.IPv6Network
    metric: int = 0
    table: int = 254


class Refusal(NamedTuple):
    """A lookup without a way: the kernel's error number and words, and the entry that says so, if one does."""

    errno: int
    words: str
    entry: Route | None


class Neighbour(NamedTuple):
    text: str
    state: str
    mac: str


class Forwarding(NamedTuple):
    """A bridge's or VXLAN device's entry for a MAC: the port, or the remote VTEP."""

    text: str
    device: int
    remote: bytes
    local: bool


class View:
    """One namespace's tables.  Links are read once, all else when asked."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self._socket = namespace.socket()

    @cached_property
    def links(self) -> dict[str, Link]:
        found = {}
        for _, payload in self._socket.dump(nl.RTM_GETLINK, ifinfomsg.pack(0, 0, 0, 0, 0)):
            link = _link(payload)
            found[link.name] = link
        return found

    @cached_property
    def _numbered(self) -> dict[int, Link]:
        return {link.number: link for link in self.links.values()}

    def at(self, index: int) -> Link | None:
        return self._numbered.get(index)

    def name(self, index: int) -> str:
        link = self.at(index)
        return link.name if link else f"if{index}"

    def route(self, destination: bytes, source: bytes = b"", iif: str = "") -> Route | Refusal:
        """What becomes of a packet: sent from here, or arriving over ``iif``."""
        try:
            found = self._lookup(destination, source, iif, 0)
        except OSError as error:
            entry = self._most_specific(destination)
            return Refusal(error.errno or 0, (error.strerror or "").lower(), entry)
        try:
            matched = self._lookup(destination, source, iif, _RTM_F_FIB_MATCH)
        except OSError:  # nothing but the routing rules decided
            return found
        return found._replace(text=matched.text, network=matched.network, metric=matched.metric, table=matched.table)

    def _lookup(self, destination: bytes, source: bytes, iif: str, flags: int) -> Route:
        bits = len(destination) * 8
        family = 4 if bits == 32 else 6
        body = rtmsg.pack(_AF[family], bits, bits if source else 0, 0, 0, 0, 0, 0, flags) + attribute(1, destination)
        body += attribute(2, source) if source else b""
        body += u32(3, self.links[iif].number) if iif in self.links else b""
        return self._route(self._socket.ask(nl.RTM_GETROUTE, body))

    def routes(self, family: int) -> Iterator[Route]:
        """Every route, of all tables."""
        # All at once: naming their devices asks the same socket.
        for _, payload in [*self._socket.dump(nl.RTM_GETROUTE, rtmsg.pack(_AF[family], 0, 0, 0, 0, 0, 0, 0, 0))]:
            yield self._route(payload)

    def _most_specific(self, destination: bytes) -> Route | None:
        """The lookup's error does not say which entry it came from: the longest match does."""
        address = ipaddress.ip_address(destination)
        matching = [route for route in self.routes(address.version) if address in route.network]
        return max(matching, key=lambda route: (route.network.prefixlen, -route.metric), default=None)

    def _route(self, payload: bytes) -> Route:
        family, length, _, _, table, protocol, scope, kind, flags = rtmsg.unpack_from(payload)
        values = dict(attributes(payload[rtmsg.size :]))
        size = 4 if family == 2 else 16
        network = ipaddress.ip_network((values.get(1, bytes(size)), length))
        device, gateway = _u32(values, 4), values.get(5, b"") or values.get(18, b"")[2:]
        metric, mtu = _u32(values, 6), _u32(dict(attributes(values.get(8, b""))), 2)
        table = _u32(values, 15) or table
        words = [] if kind == 1 else [_KINDS.get(kind, str(kind))]
        words.append("default" if not length else str(network.network_address) if length == size * 8 else str(network))
        hops = list(self._hops(values.get(9, b"")))
        if not hops:
            words += self._next_hop(gateway, device if kind in (1, 2, 3, 4, 5) or family == 10 else 0)
        words += ["table", "local"] if table == LOCAL_TABLE else ["table", str(table)] if table not in (0, 254) else []
        words += ["proto", _PROTOCOLS.get(protocol, str(protocol))] if protocol not in (0, 3) else []
        words += ["scope", _SCOPES[scope]] if scope in _SCOPES and family == 2 else []
        words += ["src", str(ipaddress.ip_address(values[7]))] if 7 in values else []
        words += ["metric", str(metric)] if 6 in values else []
        words += ["onlink"] if flags & _RTNH_F_ONLINK and not hops else []
        words += ["mtu", str(mtu)] if mtu else []
        words += ["pref", "medium"] if values.get(20, b"")[:1] == b"\0" else []
        for hop in hops:
            words += ["nexthop", *hop]
        return Route(" ".join(words), _KINDS.get(kind, str(kind)), device, gateway, mtu, network, metric, table)

    def _next_hop(self, gateway: bytes, device: int) -> list[str]:
        via = ["via", str(ipaddress.ip_address(gateway))] if gateway else []
        return via + (["dev", self.name(device)] if device else [])

    def _hops(self, data: bytes) -> Iterator[list[str]]:
        """struct rtnexthop: length, flags, weight - 1, interface; then attributes."""
        while len(data) >= 8:
            length, _, weight, device = struct.unpack_from("=HBBi", data)
            if length < 8:
                return
            gateway = dict(attributes(data[8:length])).get(5, b"")
            yield [*self._next_hop(gateway, device), "weight", str(weight + 1)]
            data = data[(length + 3) & ~3 :]

    def neighbour(self, device: int, address: bytes) -> Neighbour | None:
        """The entry for a next hop, None if there is none."""
        family = _AF[4 if len(address) == 4 else 6]
        try:
            payload = self._socket.ask(nl.RTM_GETNEIGH, ndmsg.pack(family, device, 0, 0, 0) + attribute(1, address))
        except OSError:
            return None
        _, _, bits, _, _ = ndmsg.unpack_from(payload)
        mac = dict(attributes(payload[ndmsg.size :])).get(2, b"").hex(":")
        state = _STATES.get(bits, "NONE")
        words = [str(ipaddress.ip_address(address)), "dev", self.name(device), *(["lladdr", mac] if mac else []), state]
        return Neighbour(" ".join(words), state, mac)

    def bridge_entry(self, bridge: int, mac: str) -> Forwarding | None:
        """Where a bridge sends a MAC; None: it is unknown, and flooded."""
        return self._forwarding(ndmsg.pack(AF_BRIDGE, 0, 0, 0, 0) + u32(9, bridge), mac)

    def tunnel_entry(self, device: int, mac: str) -> Forwarding | None:
        """Which VTEP a VXLAN device sends a MAC to."""
        return self._forwarding(ndmsg.pack(AF_BRIDGE, device, 0, _NTF_SELF, 0), mac)

    def _forwarding(self, body: bytes, mac: str) -> Forwarding | None:
        try:
            payload = self._socket.ask(nl.RTM_GETNEIGH, body + attribute(2, mac_bytes(mac)))
        except OSError:
            return None
        _, device, state, _, _ = ndmsg.unpack_from(payload)
        values = dict(attributes(payload[ndmsg.size :]))
        remote = values.get(1, b"")
        words = [mac, "dev", self.name(device)]
        words += ["dst", str(ipaddress.ip_address(remote)), "self"] if remote else []
        words += ["master", self.name(_u32(values, 9))] if 9 in values else []
        words += ["permanent"] if state & _NUD_PERMANENT else []
        link = self.at(device)
        local = not remote and bool(state & _NUD_PERMANENT) and link is not None and link.mac == mac
        return Forwarding(" ".join(words), device, remote, local)


def _u32(values: dict[int, bytes], kind: int) -> int:
    return int(struct.unpack("=I", values[kind])[0]) if len(values.get(kind, b"")) == 4 else 0


def _link(payload: bytes) -> Link:
    _, _, index, flags, _ = ifinfomsg.unpack_from(payload)
    values = dict(attributes(payload[ifinfomsg.size :]))
    info = dict(attributes(values.get(nl.IFLA_LINKINFO, b"")))
    kind = info.get(nl.IFLA_INFO_KIND, b"").rstrip(b"\0").decode()
    data = dict(attributes(info.get(nl.IFLA_INFO_DATA, b""))) if kind == "vxlan" else {}
    return Link(
        values[nl.IFLA_IFNAME].rstrip(b"\0").decode(),
        index,
        kind,
        values.get(nl.IFLA_ADDRESS, b"").hex(":"),
        _u32(values, nl.IFLA_MTU),
        bool(flags & nl.IFF_UP),
        bool(flags & _IFF_LOWER_UP),
        _u32(values, nl.IFLA_MASTER),
        _u32(values, nl.IFLA_LINK),
        _u32(data, 1),
        int.from_bytes(data.get(15, b""), "big"),
        data.get(2, b"") or data.get(16, b""),
    )
