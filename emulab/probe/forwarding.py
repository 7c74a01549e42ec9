"""What keeps a kernel from passing a packet on, asked in the order in which the kernel itself would find out."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Sequence
from typing import NamedTuple

from emulab.kernel import counters
from emulab.kernel.decisions import Refusal, Route
from emulab.model import IPAddress
from emulab.packet import Place, short, text
from emulab.probe.scene import Scene
from emulab.state import Address, FdbEntry, Neighbor
from emulab.state import Route as PlannedRoute
from emulab.trace import Hop, Loss, Reason

_CHECKSUMS = (
    "IcmpInCsumErrors",
    "UdpInCsumErrors",
    "TcpInCsumErrors",
    "IpExtInCsumErrors",
    "Icmp6InCsumErrors",
    "Udp6InCsumErrors",
)
_REFUSING = ("blackhole", "unreachable", "prohibit")
_SILENT = ("INCOMPLETE", "FAILED", "NONE")


class Packet(NamedTuple):
    """The header that the kernel decides by: the inner, or in a tunnel the outer one."""

    source: bytes
    destination: bytes
    length: int
    ttl: int


def stuck(scene: Scene, namespace: str, packet: Packet, iif: str) -> Loss | None:
    """Why the kernel of ``namespace`` does not send on a packet that came by ``iif``, or from here when that is empty."""
    view, here = scene.view(namespace), short(namespace)
    found = counted(scene, namespace, packet, iif)
    if found:
        return found
    coming = view.links.get(iif)
    if iif and (coming is None or coming.dead):
        return Loss(Reason.LINK_DOWN, f"{here}:{iif} {coming.dead if coming else 'is gone'}")
    route = view.route(packet.destination, packet.source, iif)
    return (
        _not_forwarding(scene, namespace, packet, iif, route)
        or (_refused(scene, namespace, packet, route) if isinstance(route, Refusal) else None)
        or (_unsendable(scene, namespace, packet, iif, route) if isinstance(route, Route) else None)
    )


def counted(scene: Scene, namespace: str, packet: Packet, iif: str) -> Loss | None:
    """Drops that the kernel tells by a counter only."""
    rose, here = scene.rose.get(namespace, {}), short(namespace)
    if rose.get("TcpExtIPReversePathFilter"):
        modes = {name: counters.sysctl(scene.namespaces[namespace], f"net/ipv4/conf/{name}/rp_filter") for name in ("all", iif)}
        setting = " and ".join(
            f"net.ipv4.conf.{name}.rp_filter = {mode}" for name, mode in modes.items() if mode not in (None, "0")
        )
        back = scene.view(namespace).route(packet.source)
        way = f"route {back.text}" if isinstance(back, Route) else f"unknown ({back.words})"
        reason = f"{here}: {setting or 'rp_filter'} drops what comes by {iif}: the way back to {text(packet.source)} is {way}"
        return Loss(Reason.RP_FILTER, reason)
    wrong = [name for name in _CHECKSUMS if rose.get(name)]
    if wrong:
        return Loss(Reason.CHECKSUM, f"{here}: the checksum is wrong ({', '.join(wrong)})")
    return None


def _not_forwarding(scene: Scene, namespace: str, packet: Packet, iif: str, route: Route | Refusal) -> Loss | None:
    if not iif or (isinstance(route, Route) and route.kind == "local"):
        return None
    family = 4 if len(packet.destination) == 4 else 6
    for name in (iif, "all") if family == 4 else ("all",):
        if counters.sysctl(scene.namespaces[namespace], f"net/ipv{family}/conf/{name}/forwarding") == "0":
            key = f"net.ipv{family}.conf.{name}.forwarding"
            return Loss(Reason.FORWARDING_OFF, f"{short(namespace)} does not forward: {key} = 0")
    return None


def _refused(scene: Scene, namespace: str, packet: Packet, route: Refusal) -> Loss | None:
    here, to = short(namespace), text(packet.destination)
    if route.errno == errno.EXDEV:
        return Loss(Reason.RP_FILTER, f"{here}: rp_filter refuses packets from {text(packet.source)} here")
    if route.entry and route.entry.kind in _REFUSING:
        return Loss(Reason.BLACKHOLE, f"{here}: route {route.entry.text}")
    if route.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return Loss(Reason.NO_ROUTE, f"{here} has no route to {to}")
    if route.errno == errno.EINVAL:
        return Loss(Reason.UNKNOWN, f"{here} takes no packet from {text(packet.source)} to {to}: {route.words} (a martian)")
    return Loss(Reason.NO_ROUTE, f"{here}: no route to {to}: {route.words}")


def _unsendable(scene: Scene, namespace: str, packet: Packet, iif: str, route: Route) -> Loss | None:
    """There is a route: its link, its MTU, its next hop."""
    view, here = scene.view(namespace), short(namespace)
    if route.kind == "local":
        return None
    if iif and packet.ttl <= 1:
        return Loss(Reason.UNKNOWN, f"{here}: the TTL is used up")
    link = view.at(route.device)
    if link is None:
        return None
    if link.dead:
        return Loss(Reason.LINK_DOWN, f"{here}:{link.name} {link.dead}", (f"route {route.text}",))
    over = too_big(scene, namespace, packet, iif)
    if over:
        return over
    if link.name == "lo":
        return None
    hop = route.gateway or packet.destination
    neighbour = view.neighbour(route.device, hop)
    if neighbour is None or neighbour.state in _SILENT:
        return _silent(scene, namespace, route, hop, f"neighbour {neighbour.text}" if neighbour else "")
    return None


def too_big(scene: Scene, namespace: str, packet: Packet, iif: str) -> Loss | None:
    """Whether it does not fit the link, or the MTU of its route."""
    view = scene.view(namespace)
    route = view.route(packet.destination, packet.source, iif)
    if isinstance(route, Refusal) or (link := view.at(route.device)) is None:
        return None
    for mtu, whose in ((route.mtu, f"route {route.text}"), (link.mtu, f"{short(namespace)}:{link.name}")):
        if mtu and packet.length > mtu:
            return Loss(
                Reason.MTU_EXCEEDED, f"{packet.length} bytes do not fit the MTU {mtu} of {whose}", (f"route {route.text}",)
            )
    return None


def _silent(scene: Scene, namespace: str, route: Route, hop: bytes, entry: str) -> Loss:
    """Nobody told the next hop's MAC: perhaps its holder is off."""
    view, what = scene.view(namespace), "ARP" if len(hop) == 4 else "NDP"
    holder = scene.holders.get(text(hop))
    if holder and (gone := dead(scene, holder, text(hop))):
        return gone
    if (kept := scene.unasked(hop)) is not None:
        return Loss(Reason.RULE, f"{short(kept[0])}: {kept[1]} drops the {what} request for {text(hop)}")
    asking = Place(namespace, view.name(route.device))
    asked = scene.asked(asking, hop)
    family = 4 if len(hop) == 4 else 6
    if not asked and family in scene.full:
        limit = f"net.ipv{family}.neigh.default.gc_thresh3"
        return Loss(Reason.UNKNOWN, f"the machine's neighbour table is full ({limit}): {asking} could not ask for {text(hop)}")
    planned = [thing for thing in scene.plan.get(namespace, ()) if isinstance(thing, Neighbor) and thing.address.packed == hop]
    evidence = [entry, *(f"planned, and gone: {line}" for thing in planned for line in thing.lines()), f"route {route.text}"]
    code = Reason.ARP_UNANSWERED if len(hop) == 4 else Reason.NDP_UNANSWERED
    times = {0: "", 1: ", asked once"}.get(asked, f", asked {asked} times")
    reason = f"nobody answered {what} for {text(hop)}{times} by {short(str(asking))}"
    return Loss(code, reason, tuple(filter(None, evidence)))


def dead(scene: Scene, place: Place, address: str = "") -> Loss | None:
    """Whether an interface cannot receive."""
    has = f", which has {address}," if address else ""
    if scene.stopped(place.namespace):
        return Loss(Reason.NODE_STOPPED, f"{short(place.namespace)}{has} is stopped: none of its interfaces is up")
    link = scene.link(place)
    if link is None:
        return Loss(Reason.LINK_DOWN, f"{short(place.namespace)}:{place.interface}{has} is gone")
    if link.dead:
        return Loss(Reason.LINK_DOWN, f"{short(place.namespace)}:{place.interface}{has} {link.dead}")
    peer = scene.peers.get(place)
    other = scene.link(peer) if peer and peer.namespace in scene.namespaces else None
    if peer and other and other.dead:
        return Loss(Reason.LINK_DOWN, f"{short(peer.namespace)}:{peer.interface}, the other end of {place}, {other.dead}")
    return None


def bridged(scene: Scene, namespace: str, bridge: int, mac: str, way: Sequence[Hop]) -> Loss | None:
    """What a bridge did with a frame."""
    view, here = scene.view(namespace), short(namespace)
    link = view.at(bridge)
    if link is None or not link.up:
        return Loss(Reason.LINK_DOWN, f"{here}:{view.name(bridge)} is down")
    entry = view.bridge_entry(bridge, mac)
    if entry and not entry.local:
        port = view.at(entry.device)
        if port is None or port.dead:
            return Loss(
                Reason.LINK_DOWN,
                f"{here}:{port.name if port else entry.device} {port.dead if port else ''}",
                (f"fdb {entry.text}",),
            )
        if way and way[-1].place == Place(namespace, port.name):
            return Loss(Reason.WRONG_MAC, f"{here}: fdb {entry.text}: that is the port by which it came")
        peer = scene.peers.get(Place(namespace, port.name))
        return dead(scene, peer) if peer else None
    if entry:
        return None
    return misaddressed(scene, Place(namespace, view.name(bridge)), mac, way)


def misaddressed(scene: Scene, place: Place, mac: str, way: Sequence[Hop]) -> Loss | None:
    """A frame for a MAC that is not here."""
    owner = scene.owner(mac)
    if owner is not None and owner.namespace != place.namespace and (gone := dead(scene, owner, mac)):
        return gone
    chosen = next((why for hop in reversed(way) for why in hop.why if mac in why and why.startswith(("neighbour", "fdb"))), "")
    former = next((hop.place for hop in reversed(way) for why in hop.why if why == chosen), None)
    by = f": {short(former.namespace)} has {chosen}" if former else ""
    if owner is None or owner.namespace != place.namespace:
        whose = f"it is {owner}'s" if owner else "nobody has it"
        return Loss(Reason.WRONG_MAC, f"{short(str(place))} got a frame for {mac}, {whose}{by}")
    return Loss(Reason.FDB_MISSING, f"{short(str(place))} has no fdb entry for {mac}{by}")


def misrouted(scene: Scene, destination: bytes, namespaces: Sequence[str]) -> Loss | None:
    """A route of the plan that is gone, so that the packet went another way."""
    to = ipaddress.ip_address(destination)
    for name in dict.fromkeys(namespaces):
        planned = _planned(scene, name, to)
        actual = scene.view(name).route(destination)
        entry = actual if isinstance(actual, Route) else actual.entry
        if planned is None or (entry and entry.network.prefixlen >= planned.length):
            continue
        link = scene.view(name).links.get(planned.device)
        if planned.device and (link is None or link.dead):
            state = link.dead if link else "is gone"
            reason = f"{short(name)}:{planned.device} {state}, so its routes are gone"
            return Loss(Reason.LINK_DOWN, reason, (f"planned: {planned.line}",))
        if isinstance(actual, Refusal) and entry and entry.kind in _REFUSING:
            return Loss(Reason.BLACKHOLE, f"{short(name)}: route {entry.text}", (f"planned, and gone: {planned.line}",))
        taken = f"took route {actual.text}" if isinstance(actual, Route) else "had none"
        return Loss(Reason.NO_ROUTE, f"{short(name)} lacks its route to {to} ({planned.line}) and {taken}")
    return None


class _Planned(NamedTuple):
    length: int
    device: str
    line: str


def _planned(scene: Scene, namespace: str, to: IPAddress) -> _Planned | None:
    """The most specific route of the plan, by a route of its own or as the network of an address."""
    found = []
    for thing in scene.plan.get(namespace, ()):
        if isinstance(thing, PlannedRoute) and to in thing.destination:
            found.append(_Planned(thing.destination.prefixlen, thing.device or "", next(thing.lines())))
        elif isinstance(thing, Address) and to in thing.address.network:
            found.append(_Planned(thing.address.network.prefixlen, thing.device, next(thing.lines())))
    return max(found, key=lambda planned: planned.length, default=None)


def planned_entry(scene: Scene, place: Place, mac: str) -> str:
    """The forwarding entry of the plan, as a command line."""
    for thing in scene.plan.get(place.namespace, ()):
        if isinstance(thing, FdbEntry) and thing.device == place.interface and thing.mac == mac:
            return f"planned, and gone: {next(thing.lines())}"
    return ""


def own_address(scene: Scene, namespace: str, size: int) -> bytes:
    """An address of a node's own, of the family that has ``size`` bytes."""
    addresses = (thing.address.ip.packed for thing in scene.plan.get(namespace, ()) if isinstance(thing, Address))
    return next((address for address in addresses if len(address) == size), b"")
