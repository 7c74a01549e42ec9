"""Why a packet went no further: from the place where it was seen last, what its kernel decided there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from emulab.kernel import counters
from emulab.kernel.decisions import Route
from emulab.packet import INITIAL_TTL, Place, short, text
from emulab.probe import forwarding
from emulab.probe.forwarding import Packet
from emulab.probe.paths import Way
from emulab.probe.scene import Scene
from emulab.state import ALL_ZERO_MAC
from emulab.trace import Hop, Loss, Reason

_VXLAN_HEADERS = {4: 50, 6: 70}  # outer IP, UDP, VXLAN, and the inner Ethernet header
_TOLD = {
    "packet too big": Reason.MTU_EXCEEDED,
    "message too long": Reason.MTU_EXCEEDED,
    "connection refused": Reason.REFUSED,
    "port unreachable": Reason.NO_LISTENER,
    "network unreachable": Reason.NO_ROUTE,
    "network is unreachable": Reason.NO_ROUTE,
    "no route": Reason.NO_ROUTE,
    "host unreachable": Reason.ARP_UNANSWERED,
    "address unreachable": Reason.NDP_UNANSWERED,
    "network is down": Reason.LINK_DOWN,
    "prohibited": Reason.BLACKHOLE,
    "operation not permitted": Reason.RULE,
}
_SUSPICIOUS = re.compile("Err|Discard|NoRoute|Filter|Drop|Unreach|NoPorts|TooBig|Frag")


def diagnose(scene: Scene, hops: Sequence[Hop], ways: Mapping[str, Way]) -> Loss:
    """The reason, with all that supports it."""
    back = [hop for hop in hops if hop.leg == "reply"]
    there = [hop for hop in hops if hop.leg == "request"]
    arrived = bool(back) or (_arrived(scene, there) and not _rule(scene, "request", there))
    told = bool(scene.refused)  # then the answer is no matter: it says no
    leg = "reply" if arrived and not told else "request"
    way = there if told else back or ([] if arrived else there)
    found = (
        _rule(scene, leg, way or there)
        or _told(scene, there)
        or forwarding.misrouted(scene, _target(scene, leg), [hop.place.namespace for hop in way] or [_sender(scene, leg)])
        or (_at(scene, way[-1], way) if way else _unsent(scene, leg, there[-1].place.interface if there else ""))
        or _guess(scene)
        or Loss(
            Reason.UNKNOWN, f"lost after {_where(way[-1]) if way else short(_sender(scene, leg))}, and no table there says why"
        )
    )
    return replace(found, leg=leg, evidence=tuple(dict.fromkeys([*found.evidence, *_evidence(scene, way or there)])))


def _sender(scene: Scene, leg: str) -> str:
    return scene.flow.source if leg == "request" else scene.flow.destination


def _target(scene: Scene, leg: str) -> bytes:
    return scene.flow.destination_address if leg == "request" else scene.flow.source_address


def _where(hop: Hop) -> str:
    return f"{short(hop.place.namespace)}:{hop.place.interface}"


def _arrived(scene: Scene, there: Sequence[Hop]) -> bool:
    """Whether the request was seen arriving in its destination, addressed to it."""
    if not there or there[-1].place.namespace != scene.flow.destination or there[-1].direction != "in":
        return False
    link = scene.link(there[-1].place)
    if link is None or link.master or (link.mac and there[-1].macs[1] != link.mac and link.name != "lo"):
        return False
    return there[-1].outer is None


def _rule(scene: Scene, leg: str, way: Sequence[Hop]) -> Loss | None:
    """An nftables rule or policy that dropped it where it was seen last."""
    namespace = way[-1].place.namespace if way else _sender(scene, leg)
    for name in dict.fromkeys((namespace, scene.flow.source, scene.flow.destination)):
        for event in reversed(scene.events.get(name, ())):
            if event.dropped and scene.opening(event) and scene.leg(event) == leg:
                return Loss(Reason.RULE, f"{short(name)}: {event}")
    return None


def _told(scene: Scene, there: Sequence[Hop]) -> Loss | None:
    """What the sender was told, where that says it all: nothing listens, or the packet is too big."""
    flow, words = scene.flow, scene.refused
    port = f"{flow.protocol.upper()} port {flow.dport}"
    if words.startswith("connection refused"):
        return Loss(Reason.REFUSED, f"{short(flow.destination)} refuses {port}: nothing listens there")
    if words.startswith("port unreachable"):
        return Loss(Reason.NO_LISTENER, f"nothing listens on {port} of {short(flow.destination)}")
    if words.startswith(("packet too big", "message too long")):
        namespace, iif = flow.source, ""
        if there:
            namespace = there[-1].place.namespace
            iif = there[-1].place.interface if there[-1].direction == "in" else ""
            if there[-1].direction == "out" and there[-1].outer is None:
                return _encapsulated(scene, there[-1]) or Loss(Reason.MTU_EXCEEDED, words)
        return forwarding.too_big(scene, namespace, _packet(scene, there), iif) or Loss(Reason.MTU_EXCEEDED, words)
    return None


def _packet(scene: Scene, way: Sequence[Hop]) -> Packet:
    """The packet as it was seen last, or as it was to be sent."""
    if way:
        inner = way[-1].inner
        return Packet(inner.source, inner.destination, inner.length, inner.ttl)
    flow = scene.flow
    carried = 40 if flow.protocol == "tcp" else 8 + flow.size  # a SYN with its options
    return Packet(flow.source_address, flow.destination_address, (20 if flow.family == 4 else 40) + carried, INITIAL_TTL)


def _unsent(scene: Scene, leg: str, iif: str) -> Loss | None:
    """Nobody saw it at all: its sender's own kernel has kept it."""
    packet, sender = _packet(scene, ()), _sender(scene, leg)
    if leg == "reply":
        packet = Packet(packet.destination, packet.source, packet.length, packet.ttl)
        ignored = _ignored(scene, sender, iif)
        if ignored:
            return ignored
    return forwarding.stuck(scene, sender, packet, "")


def _ignored(scene: Scene, namespace: str, iif: str) -> Loss | None:
    """Why a kernel makes nothing of a packet that reached it."""
    rose = scene.rose.get(namespace, {})
    flow = scene.flow
    counted = forwarding.counted(scene, namespace, Packet(flow.source_address, flow.destination_address, 0, INITIAL_TTL), iif)
    if counted:
        return counted
    key = f"net/ipv{flow.family}/{'icmp/echo_ignore_all' if flow.family == 6 else 'icmp_echo_ignore_all'}"
    if flow.protocol == "icmp" and counters.sysctl(scene.namespaces[namespace], key) == "1":
        return Loss(Reason.REFUSED, f"{short(namespace)} answers no echo requests: {key.replace('/', '.')} = 1")
    if flow.protocol == "udp" and rose.get("UdpNoPorts" if flow.family == 4 else "Udp6NoPorts"):
        return Loss(Reason.NO_LISTENER, f"nothing listens on UDP port {flow.dport} of {short(namespace)}")
    return None


def _at(scene: Scene, last: Hop, way: Sequence[Hop]) -> Loss | None:
    """What the kernel where it was seen last did with it."""
    namespace, view, link = last.place.namespace, scene.view(last.place.namespace), scene.link(last.place)
    packet = Packet(last.inner.source, last.inner.destination, last.inner.length, last.inner.ttl)
    frame_macs = last.outer_macs or last.macs
    if link is None:
        return Loss(Reason.LINK_DOWN, f"{_where(last)} is gone")
    if last.direction == "out":
        if link.kind == "vxlan":
            return _encapsulated(scene, last)
        if link.kind == "bridge":
            return forwarding.bridged(scene, namespace, link.number, frame_macs[1], way)
        peer = scene.peers.get(last.place)
        return (forwarding.dead(scene, peer) or _too_long(scene, last, peer)) if peer else None
    if link.master:
        return forwarding.bridged(scene, namespace, link.master, frame_macs[1], way)
    if link.mac and link.name != "lo" and frame_macs[1] != link.mac and not int(frame_macs[1][:2], 16) & 1:
        return forwarding.misaddressed(scene, last.place, frame_macs[1], way)
    if last.outer:
        return _decapsulated(scene, last)
    route = view.route(packet.destination, packet.source, last.place.interface)
    if isinstance(route, Route) and route.kind == "local":
        return _ignored(scene, namespace, last.place.interface)
    return forwarding.stuck(scene, namespace, packet, last.place.interface)


def _too_long(scene: Scene, last: Hop, peer: Place) -> Loss | None:
    """The other end of a pair takes frames of its own MTU and a VLAN tag, and says nothing of others (__is_skb_forwardable)."""
    link = scene.link(peer)
    length = last.inner.length + (_VXLAN_HEADERS[4 if len(last.outer.source) == 4 else 6] if last.outer else 0)
    if link is None or length <= link.mtu + 4:
        return None
    where = f"{short(peer.namespace)}:{peer.interface}"
    return Loss(Reason.MTU_EXCEEDED, f"{where} has MTU {link.mtu} and drops the {length} bytes that come in, without a word")


def _encapsulated(scene: Scene, last: Hop) -> Loss | None:
    """A VXLAN device took it, and no tunnel's packet came out."""
    namespace, view, link = last.place.namespace, scene.view(last.place.namespace), scene.link(last.place)
    if link is None:
        return None
    entry = view.tunnel_entry(link.number, last.macs[1]) or view.tunnel_entry(link.number, ALL_ZERO_MAC)
    remote = entry.remote if entry else link.remote
    if not remote:
        planned = forwarding.planned_entry(scene, last.place, last.macs[1])
        said = f"no fdb entry says which VTEP has {last.macs[1]}"
        return Loss(Reason.FDB_MISSING, f"{_where(last)}: {said}", (planned,) if planned else ())
    source = forwarding.own_address(scene, namespace, len(remote))
    length = last.inner.length + _VXLAN_HEADERS[4 if len(remote) == 4 else 6]
    found = forwarding.misrouted(scene, remote, [namespace])
    found = found or forwarding.stuck(scene, namespace, Packet(source, remote, length, INITIAL_TTL), "")
    return replace(found, evidence=(*found.evidence, f"{text(remote)} is the VTEP of {link.name}")) if found else None


def _decapsulated(scene: Scene, last: Hop) -> Loss | None:
    """A tunnel's packet arrived, and nothing came out of it."""
    outer, namespace = last.outer, last.place.namespace
    assert outer is not None
    route = scene.view(namespace).route(outer.destination, outer.source, last.place.interface)
    if not isinstance(route, Route) or route.kind != "local":
        return forwarding.stuck(scene, namespace, Packet(outer.source, outer.destination, 0, outer.ttl), last.place.interface)
    devices = [link for link in scene.view(namespace).links.values() if link.kind == "vxlan"]
    for link in devices:
        if (link.vni, link.port) == (outer.vni, outer.dport):
            if link.dead:
                return Loss(Reason.LINK_DOWN, f"{short(namespace)}:{link.name} {link.dead}")
            packet = Packet(outer.source, outer.destination, 0, outer.ttl)
            return forwarding.counted(scene, namespace, packet, last.place.interface)
    has = ", ".join(f"{link.name} has VNI {link.vni} on port {link.port}" for link in devices) or "it has none"
    want = f"no VXLAN device with VNI {outer.vni} on UDP port {outer.dport}"
    return Loss(Reason.LINK_DOWN, f"{short(namespace)}: {want}: {has}")


def _guess(scene: Scene) -> Loss | None:
    """The sender's error alone, where no table explains it."""
    for words, code in _TOLD.items():
        if words in scene.refused:
            return Loss(code, scene.refused)
    return None


def _evidence(scene: Scene, way: Sequence[Hop]) -> list[str]:
    found = [f"{short(scene.flow.source)} was told: {scene.refused}"] if scene.refused else []
    found += [f"the taps missed {scene.missed} frames: it may have come further than they saw"] if scene.missed else []
    names = dict.fromkeys([*(hop.place.namespace for hop in way[-1:]), scene.flow.destination])
    for name in names:
        rose = {key: by for key, by in scene.rose.get(name, {}).items() if _SUSPICIOUS.search(key)}
        if rose:
            found.append(f"counted in {short(name)}: " + ", ".join(f"{key} +{by}" for key, by in rose.items()))
    return found
