"""Objects of `emulab.state` as rtnetlink requests: to add one, to take one away.

The functions see a namespace only through its interface indices, which we choose ourselves and never look up.
"""

from __future__ import annotations

import ipaddress
import struct
from functools import singledispatch

from emulab.kernel import netlink as nl
from emulab.kernel.namespaces import Namespace
from emulab.kernel.netlink import Request, attribute, ifinfomsg, mac_bytes, string, u8, u32
from emulab.model import IPAddress
from emulab.state import (
    ALL_ZERO_MAC,
    Address,
    Bridge,
    BridgePort,
    FdbEntry,
    KernelObject,
    Neighbor,
    Route,
    Sysctl,
    Up,
    Veth,
    Vxlan,
)

AF_BRIDGE = 7
_FAMILY = {4: 2, 6: 10}
_SCOPE = {"global": 0, "link": 253, "host": 254}
_ANY_SCOPE = 255  # RT_SCOPE_NOWHERE, as `ip route del` has it
_ROUTE_KIND = {"unicast": 1, "blackhole": 6, "unreachable": 7, "prohibit": 8}
_CREATE = nl.NLM_F_CREATE | nl.NLM_F_EXCL
_REPLACE = nl.NLM_F_CREATE | nl.NLM_F_REPLACE
IFA_F_NODAD = 0x02
RT_TABLE_MAIN, RTNH_F_ONLINK = 254, 4
NUD_NOARP, NUD_PERMANENT, NTF_SELF, NTF_MASTER, NTF_EXT_LEARNED = 0x40, 0x80, 0x02, 0x04, 0x10
BRPORT_HAIRPIN, BRPORT_LEARNING, BRPORT_FLOOD, BRPORT_ISOLATED = 4, 8, 9, 33


@singledispatch
def added(thing: KernelObject, namespace: Namespace) -> list[Request]:
    """The requests that bring ``thing`` into being."""
    raise TypeError(f"{type(thing).__name__} is not set by rtnetlink")


@singledispatch
def removed(thing: KernelObject, namespace: Namespace) -> list[Request]:
    """The requests that take ``thing`` away."""
    raise TypeError(f"{type(thing).__name__} is not set by rtnetlink")


def _link(namespace: Namespace, name: str, mtu: int, mac: str | None, kind: str, data: bytes) -> Request:
    body = ifinfomsg.pack(0, 0, namespace.take_index(name), 0, 0) + string(nl.IFLA_IFNAME, name)
    body += u32(nl.IFLA_MTU, mtu) + (attribute(nl.IFLA_ADDRESS, mac_bytes(mac)) if mac else b"")
    info = string(nl.IFLA_INFO_KIND, kind) + (attribute(nl.IFLA_INFO_DATA, data) if data else b"")
    return Request(nl.RTM_NEWLINK, _CREATE, body + attribute(nl.IFLA_LINKINFO, info))


@added.register
def _(thing: Bridge, namespace: Namespace) -> list[Request]:
    return [_link(namespace, thing.name, thing.mtu, thing.mac, "bridge", b"")]


def veth_from_peer(thing: Veth, here: Namespace, there: Namespace) -> Request:
    """Create a pair from within the peer's namespace, the host end directly in ``here``.

    Moving an end later would wait for an RCU grace period, forty times longer than all the rest.  The ends get different
    indices: the kernel takes a link that "hangs on itself" for one whose carrier may be announced up to a second later
    (linkwatch_urgent_event in net/core/link_watch.c).
    """
    host = ifinfomsg.pack(0, 0, here.take_index(thing.name, unlike=there.next_index), 0, 0) + string(nl.IFLA_IFNAME, thing.name)
    host += u32(nl.IFLA_MTU, thing.mtu) + u32(nl.IFLA_NET_NS_FD, here.net)
    if thing.mac:
        host += attribute(nl.IFLA_ADDRESS, mac_bytes(thing.mac))
    return _link(there, thing.peer, thing.mtu, thing.peer_mac, "veth", attribute(nl.VETH_INFO_PEER, host))


@added.register
def _(thing: Veth, namespace: Namespace) -> list[Request]:
    return [veth_from_peer(thing, namespace, namespace)]


@added.register
def _(thing: Vxlan, namespace: Namespace) -> list[Request]:
    v6 = thing.local.version == 6
    data = u32(1, thing.vni) + attribute(17 if v6 else 4, thing.local.packed)
    data += attribute(16 if v6 else 2, thing.remote.packed) if thing.remote else b""
    data += u32(3, namespace.links[thing.device]) + u8(7, thing.learning)
    data += attribute(15, struct.pack("!H", thing.port)) + (u8(29, 1) if thing.dont_fragment else b"")
    return [_link(namespace, thing.name, thing.mtu, thing.mac, "vxlan", data)]


@removed.register(Bridge)
@removed.register(Veth)
@removed.register(Vxlan)
def _(thing: Bridge | Veth | Vxlan, namespace: Namespace) -> list[Request]:
    index = namespace.links.pop(thing.name)
    if isinstance(thing, Veth) and thing.peer_namespace is None:
        namespace.links.pop(thing.peer, None)
    return [Request(nl.RTM_DELLINK, 0, ifinfomsg.pack(0, 0, index, 0, 0))]


def link_attributes(namespace: Namespace, name: str, mtu: int | None = None, mac: str | None = None) -> Request:
    """Give a device another MTU or MAC."""
    body = ifinfomsg.pack(0, 0, namespace.links[name], 0, 0) + (u32(nl.IFLA_MTU, mtu) if mtu else b"")
    return Request(nl.RTM_SETLINK, 0, body + (attribute(nl.IFLA_ADDRESS, mac_bytes(mac)) if mac else b""))


def vxlan_learning(namespace: Namespace, name: str, learning: bool) -> Request:
    """Let a VXLAN device learn, or not: the rest of it stays (vxlan_changelink in drivers/net/vxlan)."""
    info = string(nl.IFLA_INFO_KIND, "vxlan") + attribute(nl.IFLA_INFO_DATA, u8(7, learning))
    return Request(nl.RTM_NEWLINK, 0, ifinfomsg.pack(0, 0, namespace.links[name], 0, 0) + attribute(nl.IFLA_LINKINFO, info))


@added.register
def _(thing: BridgePort, namespace: Namespace) -> list[Request]:
    index = namespace.links[thing.device]
    master = ifinfomsg.pack(0, 0, index, 0, 0) + u32(nl.IFLA_MASTER, namespace.links[thing.bridge])
    options = u8(BRPORT_HAIRPIN, thing.hairpin) + u8(BRPORT_ISOLATED, thing.isolated)
    options += u8(BRPORT_LEARNING, thing.learning) + u8(BRPORT_FLOOD, thing.flood)
    port = ifinfomsg.pack(AF_BRIDGE, 0, index, 0, 0) + attribute(nl.IFLA_PROTINFO | 0x8000, options)
    return [Request(nl.RTM_SETLINK, 0, master), Request(nl.RTM_SETLINK, 0, port)]


@removed.register
def _(thing: BridgePort, namespace: Namespace) -> list[Request]:
    body = ifinfomsg.pack(0, 0, namespace.links[thing.device], 0, 0) + u32(nl.IFLA_MASTER, 0)
    return [Request(nl.RTM_SETLINK, 0, body)]


def _set_up(device: str, namespace: Namespace, up: bool) -> list[Request]:
    return [Request(nl.RTM_NEWLINK, 0, ifinfomsg.pack(0, 0, namespace.links[device], up, nl.IFF_UP))]


@added.register
def _(thing: Up, namespace: Namespace) -> list[Request]:
    return _set_up(thing.device, namespace, True)


@removed.register
def _(thing: Up, namespace: Namespace) -> list[Request]:
    return _set_up(thing.device, namespace, False)


def _address(thing: Address, namespace: Namespace) -> bytes:
    address, index = thing.address, namespace.links[thing.device]
    header = nl.ifaddrmsg.pack(
        _FAMILY[address.version],
        address.network.prefixlen,
        IFA_F_NODAD if thing.nodad else 0,
        _SCOPE[thing.scope],
        index,
    )
    return header + attribute(2, address.ip.packed) + attribute(1, address.ip.packed)


@added.register
def _(thing: Address, namespace: Namespace) -> list[Request]:
    return [Request(nl.RTM_NEWADDR, _CREATE, _address(thing, namespace))]


@removed.register
def _(thing: Address, namespace: Namespace) -> list[Request]:
    return [Request(nl.RTM_DELADDR, 0, _address(thing, namespace))]


def _route(thing: Route, namespace: Namespace, scope: int | None = None) -> bytes:
    network = thing.destination
    if scope is None:
        scope = _SCOPE["link" if network.version == 4 and thing.kind == "unicast" and thing.via is None else "global"]
    header = nl.rtmsg.pack(
        _FAMILY[network.version],
        network.prefixlen,
        0,
        0,
        RT_TABLE_MAIN,
        thing.protocol,
        scope,
        _ROUTE_KIND[thing.kind],
        RTNH_F_ONLINK if thing.onlink else 0,
    )
    body = header + attribute(1, network.network_address.packed)
    body += u32(4, namespace.links[thing.device]) if thing.device else b""
    body += attribute(5, thing.via.packed) if thing.via else b""
    body += u32(6, thing.metric) if thing.metric else b""
    body += attribute(7, thing.source.packed) if thing.source else b""
    return body + (attribute(8, u32(2, thing.mtu)) if thing.mtu else b"")


@added.register
def _(thing: Route, namespace: Namespace) -> list[Request]:
    return [Request(nl.RTM_NEWROUTE, _CREATE, _route(thing, namespace))]


def route_replaced(thing: Route, namespace: Namespace) -> Request:
    """Put ``thing`` in the place of the route of the same destination, with no moment without one."""
    return Request(nl.RTM_NEWROUTE, _REPLACE, _route(thing, namespace))


@removed.register
def _(thing: Route, namespace: Namespace) -> list[Request]:
    return [Request(nl.RTM_DELROUTE, 0, _route(thing, namespace, _ANY_SCOPE))]


def _neighbor(thing: Neighbor, namespace: Namespace) -> bytes:
    header = nl.ndmsg.pack(_FAMILY[thing.address.version], namespace.links[thing.device], NUD_PERMANENT, 0, 0)
    return header + attribute(1, thing.address.packed) + attribute(2, mac_bytes(thing.mac))


@added.register
def _(thing: Neighbor, namespace: Namespace) -> list[Request]:
    return [Request(nl.RTM_NEWNEIGH, _REPLACE, _neighbor(thing, namespace))]


@removed.register
def _(thing: Neighbor, namespace: Namespace) -> list[Request]:
    return [Request(nl.RTM_DELNEIGH, 0, _neighbor(thing, namespace))]


def _fdb(thing: FdbEntry, namespace: Namespace) -> bytes:
    state, flags = (NUD_PERMANENT, NTF_SELF) if thing.remote else (NUD_NOARP, NTF_MASTER)
    header = nl.ndmsg.pack(AF_BRIDGE, namespace.links[thing.device], state, flags, 0)
    destination = attribute(1, thing.remote.packed) if thing.remote else b""
    return header + attribute(2, mac_bytes(thing.mac)) + destination


@added.register
def _(thing: FdbEntry, namespace: Namespace) -> list[Request]:
    flags = nl.NLM_F_CREATE | nl.NLM_F_APPEND if thing.mac == ALL_ZERO_MAC else _REPLACE
    return [Request(nl.RTM_NEWNEIGH, flags, _fdb(thing, namespace))]


@removed.register
def _(thing: FdbEntry, namespace: Namespace) -> list[Request]:
    return [Request(nl.RTM_DELNEIGH, 0, _fdb(thing, namespace))]


_NEIGHBOUR_PARAMETERS = {  # NDTPA_* of linux/neighbour.h, and milliseconds per unit of the sysctl; 0: a plain number
    "base_reachable_time": (4, 1000),
    "delay_first_probe_time": (7, 1000),
    "ucast_solicit": (10, 0),
    "proxy_delay": (13, 10),  # in ticks of USER_HZ
}


def is_neighbour_parameter(key: str) -> bool:
    """Whether a sysctl belongs to the neighbour tables, whose files an ordinary user's namespaces do not have."""
    return key.split(".")[2:3] == ["neigh"]


@added.register
def _(thing: Sysctl, namespace: Namespace) -> list[Request]:
    """net.<family>.neigh.<device>.<parameter>, by RTM_SETNEIGHTBL (rtnetlink(7))."""
    _, family, _, device, name = thing.key.split(".")
    attribute_, milliseconds = _NEIGHBOUR_PARAMETERS[name]
    value = struct.pack("=Q", int(thing.value) * milliseconds) if milliseconds else struct.pack("=I", int(thing.value))
    parameters = u32(1, namespace.links[device.replace("/", ".")]) + attribute(attribute_, value)
    four = family == "ipv4"
    body = (
        struct.pack("=Bxxx", _FAMILY[4 if four else 6])
        + string(1, "arp_cache" if four else "ndisc_cache")
        + attribute(6, parameters)
    )
    return [Request(nl.RTM_SETNEIGHTBL, 0, body)]


def extern_learned(namespace: Namespace, device: str, address: IPAddress, mac: str) -> Request:
    """A neighbour as if it had been resolved, exempt from the table's garbage collection."""
    header = nl.ndmsg.pack(_FAMILY[ipaddress.ip_address(address).version], namespace.links[device], 0x02, 0x10, 0)
    return Request(nl.RTM_NEWNEIGH, _REPLACE, header + attribute(1, address.packed) + attribute(2, mac_bytes(mac)))


def learned(namespace: Namespace, device: str, mac: str) -> Request:
    """A MAC as if the bridge had learned that it is behind the port ``device``."""
    header = nl.ndmsg.pack(AF_BRIDGE, namespace.links[device], 0x02, NTF_MASTER, 0)  # NUD_REACHABLE
    return Request(nl.RTM_NEWNEIGH, _REPLACE, header + attribute(2, mac_bytes(mac)))
