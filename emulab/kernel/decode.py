"""rtnetlink dumps as objects of `emulab.state`: the way back from `emulab.kernel.encode`.

What the kernel makes and learns by itself is left out.  What no plan can express becomes a `Foreign`.

Formats: linux/if_link.h, if_addr.h, rtnetlink.h, neighbour.h, pkt_sched.h.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from emulab.drift import RTPROT_KERNEL, Foreign, Found
from emulab.kernel import netlink as nl
from emulab.kernel.encode import (
    BRPORT_FLOOD,
    BRPORT_HAIRPIN,
    BRPORT_ISOLATED,
    BRPORT_LEARNING,
    NUD_NOARP,
    NUD_PERMANENT,
    RT_TABLE_MAIN,
    RTNH_F_ONLINK,
)
from emulab.model import IPAddress, IPInterface, IPNetwork
from emulab.state import ALL_ZERO_MAC, Address, Bridge, BridgePort, FdbEntry, Neighbor, RateLimit, Route, Vxlan

IFF_LOOPBACK = 0x8
IFLA_AF_SPEC, IFLA_LINK_NETNSID, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 26, 37, 4, 5
NDA_DST, NDA_LLADDR, NDA_MASTER, NTF_PROXY = 1, 2, 9, 0x08
RTM_F_CLONED, RTPROT_RA = 0x200, 9
TC_H_ROOT, TC_H_INGRESS = 0xFFFFFFFF, 0xFFFFFFF1
# Some modules put a device of theirs into every new namespace (net.core.fb_tunnels_only_for_init_net).
FALLBACK_TUNNELS = {"tunl0", "gre0", "gretap0", "erspan0", "sit0", "ip6tnl0", "ip6gre0", "ip_vti0", "ip6_vti0"}
_FAMILIES = (2, 10)
_SCOPES = {0: "global", 253: "link", 254: "host"}
_ROUTE_KINDS = {1: "unicast", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
RTA_MULTIPATH = 9
# RTA_DST, OIF, GATEWAY, PRIORITY, PREFSRC, METRICS, MULTIPATH, and three that say nothing more: CACHEINFO, TABLE, PREF
_PLAIN_ROUTE = {1, 4, 5, 6, 7, 8, RTA_MULTIPATH, 12, 15, 20}
_ROUTE_EXTRAS = {18: "via another family", 22: "encap", 30: "nhid"}
_attribute = struct.Struct("=HH")
tcmsg = struct.Struct("=BxxxiIII")


class Names(dict[int, str]):
    """Interfaces by index.  One that somebody made since the links were read goes by its number."""

    def __missing__(self, index: int) -> str:
        return str(index)


@dataclass(frozen=True)
class Interface:
    """A link as RTM_GETLINK describes it; ``lower`` is the index of a pair's other end, in another namespace if ``abroad``."""

    index: int
    name: str
    flags: int
    mtu: int
    mac: str
    kind: str
    data: Mapping[int, bytes]
    master: int
    slave: Mapping[int, bytes]
    lower: int
    abroad: bool
    families: bytes  # IFLA_AF_SPEC

    @property
    def up(self) -> bool:
        return bool(self.flags & nl.IFF_UP)

    @property
    def own(self) -> bool:
        """Whether the kernel made it: the loopback, and fallback tunnels that nobody has switched on."""
        return bool(self.flags & IFF_LOOPBACK) or (self.name in FALLBACK_TUNNELS and not self.up)


def interface(payload: bytes) -> Interface:
    _, _, index, flags, _ = nl.ifinfomsg.unpack_from(payload)
    values = _values(payload[nl.ifinfomsg.size :])
    info = _values(values.get(nl.IFLA_LINKINFO, b""))
    return Interface(
        index,
        _text(values[nl.IFLA_IFNAME]),
        flags,
        _u32(values[nl.IFLA_MTU]),
        mac(values.get(nl.IFLA_ADDRESS, b"")),
        _text(info.get(nl.IFLA_INFO_KIND, b"")),
        _values(info.get(nl.IFLA_INFO_DATA, b"")),
        _u32(values.get(nl.IFLA_MASTER, bytes(4))),
        _values(info[IFLA_INFO_SLAVE_DATA]) if info.get(IFLA_INFO_SLAVE_KIND) == b"bridge\0" else {},
        _u32(values.get(nl.IFLA_LINK, bytes(4))),
        IFLA_LINK_NETNSID in values,
        values.get(IFLA_AF_SPEC, b""),
    )


def device(link: Interface, names: Mapping[int, str], flooding: bool) -> Found:
    """The device itself, unless it is an end of a pair.  ``flooding``: its ``remote`` is in its forwarding table, too."""
    if link.kind == "bridge":
        return Bridge(link.name, link.mtu, link.mac)
    data = link.data
    if link.kind == "vxlan":
        local, lower = data.get(4) or data.get(17), names.get(_u32(data.get(3, bytes(4))))
        if local and lower:
            remote, port = vxlan_remote(link) if flooding else None, int.from_bytes(data[15], "big")
            number, learning, fragment = _u32(data[1]), data[7] != b"\0", data.get(29, b"\0") == b"\1"
            return Vxlan(link.name, number, address(local), lower, port, remote, link.mtu, link.mac, learning, fragment)
    kind = f" type {link.kind}" if link.kind else ""
    return Foreign(("link", link.name), f"ip link add name {link.name} mtu {link.mtu}{kind}")


def vxlan_remote(link: Interface) -> IPAddress | None:
    """The destination that a VXLAN device was made with: its forwarding entry for everything unknown."""
    remote = link.data.get(2) or link.data.get(16)
    return address(remote) if remote and any(remote) else None


def port(link: Interface, names: Mapping[int, str]) -> Found:
    """What ``link`` is a port of."""
    bridge = names.get(link.master, str(link.master))
    if not link.slave:
        return Foreign(("port", link.name), f"ip link set dev {link.name} master {bridge}")
    hairpin, isolated, learning, flood = (
        link.slave[option] != b"\0" for option in (BRPORT_HAIRPIN, BRPORT_ISOLATED, BRPORT_LEARNING, BRPORT_FLOOD)
    )
    return BridgePort(link.name, bridge, hairpin, isolated, learning, flood)


def addresses(payloads: Iterable[bytes], names: Mapping[int, str]) -> Iterator[Found]:
    """All but the loopback's own and IPv6 link-local ones, which the kernel makes when a device comes up."""
    for payload in payloads:
        family, prefix, _, scope, index = nl.ifaddrmsg.unpack_from(payload)
        if family not in _FAMILIES:
            continue
        values = _values(payload[nl.ifaddrmsg.size :])
        local = values.get(2, values[1])  # IFA_LOCAL; IFA_ADDRESS is the peer's where there is one
        found = _interface(local, prefix)
        if (family == 10 and found.ip.is_link_local) or (found.ip.is_loopback and names[index] == "lo"):
            continue
        thing = Address(names[index], found, _SCOPES.get(scope, str(scope)) if family == 2 else "global")
        if values[1] == local:
            yield thing
        else:
            line = f"ip addr add {found.ip} peer {_interface(values[1], prefix)} dev {thing.device}"
            yield Foreign(thing.identity, line)


def routes(payloads: Iterable[bytes], names: Mapping[int, str]) -> Iterator[Found]:
    """The main table, with the kernel's own routes to connected networks, without exceptions and what routers advertise."""
    for payload in payloads:
        family, prefix, from_prefix, tos, table, protocol, scope, kind, flags = nl.rtmsg.unpack_from(payload)
        if family not in _FAMILIES or table != RT_TABLE_MAIN or flags & RTM_F_CLONED or protocol == RTPROT_RA:
            continue
        values = _values(payload[nl.rtmsg.size :])
        destination = _network(values.get(1, bytes(4 if family == 2 else 16)), prefix)
        if protocol == RTPROT_KERNEL and (kind != 1 or destination.is_link_local or destination.is_multicast):
            continue
        unicast, six, gateway = kind == 1, family == 10, values.get(5)
        metric = _u32(values.get(6, bytes(4)))
        metrics = _values(values.get(8, b""))
        route = Route(
            destination,
            names.get(_u32(values[4])) if unicast and 4 in values else None,
            address(gateway) if gateway else None,
            onlink=bool(flags & RTNH_F_ONLINK),
            link_scope=scope == 253 and not six and not gateway,
            kind=_ROUTE_KINDS.get(kind, str(kind)),
            protocol=protocol,
            mtu=_u32(metrics.pop(2)) if 2 in metrics else None,
            source=address(values[7]) if 7 in values else None,
            metric=None if metric == (1024 if six else 0) else metric,
        )
        others = [f"tos {tos:#x}"] if tos else []
        others += ["from another source"] if from_prefix else []
        for index, hop in next_hops(values.get(RTA_MULTIPATH, b"")):
            others += [f"nexthop{f' via {address(hop)}' if hop else ''} dev {names.get(index, index)}"]
        others += [_ROUTE_EXTRAS.get(number, f"attribute {number}") for number in sorted(values.keys() - _PLAIN_ROUTE)]
        others += [f"metric {number}" for number in metrics]
        yield Foreign(route.identity, " ".join((*route.lines(), *others))) if others else route


def next_hops(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The alternatives of a multipath route, interface and gateway: a struct rtnexthop each, and its attributes."""
    while len(data) >= 8:
        length, _, _, index = struct.unpack_from("=HBBi", data)
        yield index, _values(data[8:length]).get(5, b"")
        data = data[max(8, (length + 3) & ~3) :]


def neighbours(payloads: Iterable[bytes], names: Mapping[int, str]) -> Iterator[Found]:
    """The permanent ones."""
    for payload in payloads:
        family, index, state, flags, _ = nl.ndmsg.unpack_from(payload)
        if family in _FAMILIES and state & NUD_PERMANENT and not flags & NTF_PROXY:
            values = _values(payload[nl.ndmsg.size :])
            yield Neighbor(names[index], address(values[NDA_DST]), mac(values.get(NDA_LLADDR, b"")))


def forwarding(payloads: Iterable[bytes], names: Mapping[int, str]) -> Iterator[FdbEntry]:
    """Static entries of bridges, and those of VXLAN devices that were not learned.

    Not a port's entries for the bridge's own addresses (permanent, without NUD_NOARP), nor a device's filter for what it
    receives (no destination).  The entry that comes with a VXLAN device's ``remote`` is among them.
    """
    for payload in payloads:
        _, index, state, _, _ = nl.ndmsg.unpack_from(payload)
        if not state & (NUD_NOARP | NUD_PERMANENT):
            continue
        values = _values(payload[nl.ndmsg.size :])
        if NDA_MASTER in values:
            if state & NUD_NOARP:
                yield FdbEntry(names[index], mac(values[NDA_LLADDR]))
        elif NDA_DST in values:
            yield FdbEntry(names[index], mac(values[NDA_LLADDR]), address(values[NDA_DST]))


def default_entry(link: Interface) -> FdbEntry | None:
    """The entry that the kernel makes for a VXLAN device's ``remote``."""
    remote = vxlan_remote(link) if link.kind == "vxlan" else None
    return FdbEntry(link.name, ALL_ZERO_MAC, remote) if remote else None


def disciplines(payloads: Iterable[bytes], names: Mapping[int, str]) -> Iterator[Found]:
    """Queueing disciplines that somebody attached: the kernel's defaults have no handle."""
    for payload in payloads:
        _, index, handle, parent, _ = tcmsg.unpack_from(payload)
        if not handle or parent not in (TC_H_ROOT, TC_H_INGRESS):
            continue
        values = _values(payload[tcmsg.size :])
        kind, name = _text(values[1]), names[index]
        shaped = {"tbf": _token_bucket, "netem": _delay}.get(kind, lambda _, __: None)(name, values.get(2, b""))
        ingress = parent == TC_H_INGRESS
        place = ("qdisc", name, kind) if ingress else ("qdisc", name)
        yield shaped or Foreign(place, f"tc qdisc add dev {name} {'' if ingress else 'root '}{kind}")


def _token_bucket(name: str, options: bytes) -> Found:
    """struct tc_tbf_qopt; TCA_TBF_RATE64 for what its 32 bits do not hold.  Foreign with another burst than ours."""
    values = _values(options)
    wide = values.get(4)  # TCA_TBF_RATE64
    rate = struct.unpack("=Q", wide)[0] if wide else struct.unpack_from("=8xI", values[1])[0]
    limit = RateLimit(name, rate * 8)
    burst = struct.unpack_from("=28xI", values[1])[0] * 64e-9 * rate  # in ticks of 64 ns of that rate
    if abs(burst - limit.burst) <= max(64e-9 * rate, limit.burst * 0.01):
        return limit
    return Foreign(limit.identity, f"tc qdisc add dev {name} root tbf rate {limit.rate}bit burst {burst:.0f}")


def _delay(name: str, options: bytes) -> RateLimit | None:
    """struct tc_netem_qopt and the attributes after it.  None if it does what no link of a topology does."""
    loss, gap, duplicate, jitter = struct.unpack_from("=8x4I", options)
    values = _values(options[24:])
    corruption = any(any(values.get(kind, b"")) for kind in (1, 3, 4, 5))  # CORR, REORDER, CORRUPT, LOSS
    if gap or duplicate or jitter or corruption:
        return None
    rate = struct.unpack_from("=I", values[6])[0] if 6 in values else 0  # TCA_NETEM_RATE, in bytes
    rate = struct.unpack("=Q", values[8])[0] if 8 in values else rate
    delay = struct.unpack("=q", values[10])[0] / 1e9 if 10 in values else 0.0
    return RateLimit(name, rate * 8, delay, round(loss / 0xFFFFFFFF, 9))


def _values(data: bytes) -> dict[int, bytes]:
    """`netlink.attributes` by type, in half the time: a thousand pods have two million of them."""
    found, offset, end = {}, 0, len(data)
    while offset + 4 <= end:
        length, kind = _attribute.unpack_from(data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def mac(value: bytes) -> str:
    return value.hex(":")


def _u32(value: bytes) -> int:
    return int(struct.unpack("=I", value)[0])


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


@lru_cache(maxsize=1 << 16)
def address(packed: bytes) -> IPAddress:
    return ipaddress.IPv4Address(packed) if len(packed) == 4 else ipaddress.IPv6Address(packed)


@lru_cache(maxsize=1 << 16)
def _network(packed: bytes, prefix: int) -> IPNetwork:
    return ipaddress.IPv4Network((packed, prefix)) if len(packed) == 4 else ipaddress.IPv6Network((packed, prefix))


def _interface(packed: bytes, prefix: int) -> IPInterface:
    return ipaddress.IPv4Interface((packed, prefix)) if len(packed) == 4 else ipaddress.IPv6Interface((packed, prefix))
