"""Everything known of a traced packet and of the kernels it passed: what explanations are made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from emulab.kernel.conntrack import Entry
from emulab.kernel.decisions import Link, View
from emulab.kernel.namespaces import Namespaces
from emulab.kernel.nftrace import Event
from emulab.packet import Flow, Place, text
from emulab.probe.dissect import RST, SYN
from emulab.probe.paths import Wiring
from emulab.probe.taps import Frame
from emulab.state import Address, State, Veth


@dataclass
class Scene:
    """``events`` are nftables' decisions, ``rose`` the counters that went up, both by namespace; ``plan`` includes the
    underlay's."""

    flow: Flow
    namespaces: Namespaces
    plan: State
    tunnel_ports: frozenset[int]
    nodes: frozenset[str] = frozenset()
    frames: Sequence[Frame] = ()
    events: Mapping[str, Sequence[Event]] = field(default_factory=dict)
    rose: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    translated: Mapping[str, Sequence[Entry]] = field(default_factory=dict)
    refused: str = ""
    missed: int = 0  # frames that the taps could not hold
    full: frozenset[int] = frozenset()  # families whose neighbour table was full meanwhile
    _views: dict[str, View] = field(default_factory=dict)

    def view(self, namespace: str) -> View:
        """The kernel's tables of a namespace, read at first use."""
        if namespace not in self._views:
            self._views[namespace] = View(self.namespaces[namespace])
        return self._views[namespace]

    def link(self, place: Place) -> Link | None:
        return self.view(place.namespace).links.get(place.interface)

    @cached_property
    def peers(self) -> dict[Place, Place]:
        """The other ends of pairs, as planned."""
        found = {}
        for namespace, objects in self.plan.items():
            for thing in objects:
                if isinstance(thing, Veth):
                    one, other = Place(namespace, thing.name), Place(thing.peer_namespace or namespace, thing.peer)
                    found[one], found[other] = other, one
        return found

    @cached_property
    def holders(self) -> dict[str, Place]:
        """Which interface has an address, as planned."""
        return {
            str(thing.address.ip): Place(namespace, thing.device)
            for namespace, objects in self.plan.items()
            for thing in objects
            if isinstance(thing, Address)
        }

    def wiring(self, namespaces: Iterable[str]) -> Wiring:
        masters, kinds, macs = {}, {}, {}
        for name in namespaces:
            view = self.view(name)
            for link in view.links.values():
                place = Place(name, link.name)
                kinds[place], macs[place] = link.kind, link.mac
                if link.master:
                    masters[place] = Place(name, view.name(link.master))
        return Wiring(self.peers, masters, kinds, macs)

    def owner(self, mac: str) -> Place | None:
        """Which interface has a MAC: in the namespaces that were looked at, else nowhere."""
        for name in self.namespaces:
            for link in self.view(name).links.values():
                if link.mac == mac and link.name != "lo":
                    return Place(name, link.name)
        return None

    def stopped(self, namespace: str) -> bool:
        """Whether none of a node's interfaces is up: it is as good as off."""
        if namespace not in self.namespaces:
            return True
        if namespace not in self.nodes:
            return False
        links = [link for link in self.view(namespace).links.values() if link.name != "lo"]
        return not any(link.up for link in links)

    def asked(self, place: Place, address: bytes) -> int:
        """How often an address' MAC was asked for there (ARP, RFC 826; neighbour solicitation, RFC 4861)."""
        return sum(frame.outbound and frame.place == place and _asks_for(frame.data, address) for frame in self.frames)

    @staticmethod
    def ends(event: Event) -> tuple[bytes, bytes, bytes]:
        """Source and destination as they were at the chain's begin, and what followed the IP header."""
        header = event.network
        if header[:1] and header[0] >> 4 == 4:
            return header[12:16], header[16:20], event.transport
        return header[8:24], header[24:40], event.transport

    def leg(self, event: Event) -> str:
        """Whether an event is about the request or the reply."""
        flow, (source, destination, ports) = self.flow, self.ends(event)
        if len(ports) < 4:
            return "request"
        sport, dport = int.from_bytes(ports[:2], "big"), int.from_bytes(ports[2:4], "big")
        if dport in self.tunnel_ports and flow.dport != dport:
            return "reply" if (destination, source) in self.outers else "request"
        if flow.protocol == "icmp":
            return "reply" if ports[0] in (0, 129) else "request"
        forth = (sport == flow.sport) + (dport == flow.dport)
        back = (sport == flow.dport) + (dport == flow.sport)
        return "reply" if back > forth else "request"

    def unasked(self, address: bytes) -> tuple[str, Event] | None:
        """The rule, and where, that kept somebody from asking for the MAC of ``address``."""
        for name, events in self.events.items():
            for event in events:
                if event.dropped and _asks(event, address):
                    return name, event
        return None

    def opening(self, event: Event) -> bool:
        """Whether an event is about the packet that is told of: of a TCP connection, the first each way, or its reset."""
        if _asks(event):
            return False
        flags = event.transport[13:14]
        tcp = self.flow.protocol == "tcp" and int.from_bytes(event.transport[2:4], "big") not in self.tunnel_ports
        return not tcp or not flags or bool(flags[0] & (SYN | RST))

    outers: set[tuple[bytes, bytes]] = field(default_factory=set)  # of the request, source and destination

    def conntrack(self, namespace: str) -> str | None:
        """The translation that connection tracking keeps there for this flow."""
        for entry in self.translated.get(namespace, ()):
            addresses = {entry.original.source, entry.original.destination, entry.reply.source, entry.reply.destination}
            if addresses & {text(self.flow.source_address), text(self.flow.destination_address)}:
                return str(entry)
        return None


def _asks(event: Event, address: bytes = b"") -> bool:
    """Whether an event is about an ARP request or neighbour solicitation (for ``address``)."""
    header = event.network
    if header[:2] == b"\0\1":
        return header[24:28].endswith(address)
    return header[6:7] == b"\x3a" and event.transport[:1] == b"\x87" and header[24:40].endswith(address[-3:])


def _asks_for(data: bytes, address: bytes) -> bool:
    if len(address) == 4:
        return data[12:14] == b"\x08\x06" and data[20:22] == b"\0\1" and data[38:42] == address
    return data[12:14] == b"\x86\xdd" and data[20:21] == b"\x3a" and data[54:55] == b"\x87" and data[62:78] == address
