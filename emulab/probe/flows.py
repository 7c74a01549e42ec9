"""Which flows a run probes: every ordered pod pair, every node to every pod, every pod to the outside.  Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace

from emulab.model import OUTSIDE_ADDRESSES, OUTSIDE_HOST, Endpoint, IPAddress
from emulab.packet import Flow, Kind
from emulab.planning import Design

PORT = 8080  # where every probed UDP and TCP server listens
_HEADERS = {4: 28, 6: 48}  # IP, and ICMP or UDP, in bytes
_EPHEMERAL = 20000, 40000  # first source port, how many


def source_port(round_: int, index: int) -> int:
    """A source port that neither another flow of the same source nor a recent round has used.

    A packet of a connection that conntrack already knows is not shown to NAT rules that came later.
    """
    return _EPHEMERAL[0] + (round_ * 977 + index) % _EPHEMERAL[1]


@dataclass(frozen=True)
class Wish:
    """Which flows are wanted: from and to whom (None: everybody), to which port, how large, how often."""

    sources: Collection[str] | None = None
    destinations: Collection[str] | None = None
    port: int = PORT
    size: int | None = None
    count: int = 1


class Flows:
    """Builds the flows of one round, numbering them from 0.  Nothing can be sent from a node that is switched off."""

    def __init__(
        self,
        design: Design,
        protocols: Iterable[str],
        families: Iterable[int],
        round_: int,
        wish: Wish,
    ) -> None:
        self._cluster, self._plane, self._round, self._wish = design.cluster, design.plane, round_, wish
        self._present = design.present
        self._shapes = [(family, protocol) for family in families for protocol in protocols]
        self._count = 0

    def _from(self, name: str) -> bool:
        return self._wish.sources is None or name in self._wish.sources

    def _to(self, name: str) -> bool:
        return self._wish.destinations is None or name in self._wish.destinations

    def between_pods(self, chosen: Iterable[tuple[Endpoint, Endpoint, int, str]] | None = None) -> Iterator[Flow]:
        """Every ordered pair of different pods in every family and protocol, or those ``chosen``."""
        endpoints = self._cluster.endpoints
        if chosen is None:
            sources = [endpoint for endpoint in self._present.endpoints if self._from(endpoint.key)]
            destinations = [endpoint for endpoint in endpoints if self._to(endpoint.key)]
            chosen = ((a, b, *shape) for a in sources for b in destinations if a is not b for shape in self._shapes)
        index = {endpoint.key: number for number, endpoint in enumerate(endpoints)}
        for source, destination, family, protocol in chosen:
            if self._both_have(source, destination, family):
                address, port = self._plane.target(self._cluster, destination, family, protocol, self._wish.port)
                here, number = source.address(family), index[destination.key]
                yield from self._flows(Kind.POD, source.key, destination.key, protocol, here, address, port, number)

    def to_themselves(self) -> bool:
        """Whether pods are met at their own addresses and ports, as on a flat network."""
        return all(
            self._plane.target(self._cluster, endpoint, family, protocol, PORT) == (endpoint.address(family), PORT)
            for endpoint in self._cluster.endpoints[:1]
            for family, protocol in self._shapes
        )

    def from_nodes(self, source_of: Callable[[str, IPAddress], IPAddress | None], every: bool = True) -> Iterator[Flow]:
        """Every node to every pod, or else to its own pods and one of each other node.

        ``source_of(node, destination)`` is the address that the node would use.
        """
        first = {endpoint.node: endpoint for endpoint in reversed(self._cluster.endpoints)}
        for node in self._present.nodes:
            if not self._from(node.name):
                continue
            for index, endpoint in enumerate(self._cluster.endpoints):
                if not self._to(endpoint.key):
                    continue
                if not every and endpoint.node != node.name and endpoint is not first[endpoint.node]:
                    continue
                for family, protocol in self._shapes:
                    if not any(a.version == family for a in endpoint.addresses):
                        continue
                    address, port = self._plane.target(self._cluster, endpoint, family, protocol, self._wish.port)
                    source = source_of(node.name, address)
                    if source is not None:
                        number = len(self._cluster.endpoints) + 1 + index
                        yield from self._flows(Kind.NODE, node.name, endpoint.key, protocol, source, address, port, number)

    def to_outside(self) -> Iterator[Flow]:
        """Every pod to the host beyond the gateway."""
        outside: dict[int, IPAddress] = {address.version: address.ip for address in OUTSIDE_ADDRESSES}
        for endpoint in self._present.endpoints:
            if not (self._to(OUTSIDE_HOST) and self._from(endpoint.key)):
                continue
            for family, protocol in self._shapes:
                if any(a.version == family for a in endpoint.addresses) and self._has_underlay(endpoint.node, family):
                    source = endpoint.address(family)
                    there, number = outside[family], len(self._cluster.endpoints)
                    yield from self._flows(
                        Kind.OUTSIDE, endpoint.key, OUTSIDE_HOST, protocol, source, there, self._wish.port, number
                    )

    def full_size(self, passes: Callable[[Endpoint, Endpoint, int], bool]) -> Iterator[tuple[Flow, Flow, int]]:
        """For each ordered node pair, and each node with itself, between one pod pair: an echo of the promised MTU and one
        a byte longer, both with DF; and that MTU.  ``passes`` says whether policies let an echo pass in a family."""
        seen = set()
        families = sorted({family for family, _ in self._shapes})
        for source in self._present.endpoints:
            for index, destination in enumerate(self._cluster.endpoints):
                if source is destination or not (self._from(source.key) and self._to(destination.key)):
                    continue
                for family in families:
                    path = (source.node, destination.node, family)
                    if path in seen or not passes(source, destination, family):
                        continue
                    seen.add(path)
                    mtu = self._plane.wire(self._cluster, source, destination, family).mtu
                    yield (
                        self._sized(source, destination, family, mtu, 0x4000 + index),
                        self._sized(source, destination, family, mtu + 1, 0x8000 + index),
                        mtu,
                    )

    def _sized(self, source: Endpoint, destination: Endpoint, family: int, length: int, sequence: int) -> Flow:
        here, there = source.address(family), destination.address(family)
        flow = self._flow(Kind.POD, source.key, destination.key, "icmp", here, there, 0, sequence)
        return replace(flow, size=length - _HEADERS[family])

    def _has_underlay(self, node: str, family: int) -> bool:
        return any(a.version == family for a in self._cluster.topology.uplink(node).addresses)

    @staticmethod
    def _both_have(one: Endpoint, other: Endpoint, family: int) -> bool:
        return all(any(a.version == family for a in endpoint.addresses) for endpoint in (one, other))

    def _flows(
        self,
        kind: Kind,
        source: str,
        destination: str,
        protocol: str,
        address: IPAddress,
        target: IPAddress,
        port: int,
        index: int,
    ) -> Iterator[Flow]:
        """One flow, or as many as wished; each has a port of its own."""
        for turn in range(self._wish.count):
            number = index + turn * (2 * len(self._cluster.endpoints) + 2)
            flow = self._flow(kind, source, destination, protocol, address, target, port, number)
            if self._wish.size is not None and protocol != "tcp":
                flow = replace(flow, size=self._wish.size - _HEADERS[flow.family])
            yield flow

    def _flow(
        self,
        kind: Kind,
        source: str,
        destination: str,
        protocol: str,
        address: IPAddress,
        target: IPAddress,
        port: int,
        index: int,
    ) -> Flow:
        sport, dport = source_port(self._round, index), port
        if protocol == "icmp":  # identifier and sequence number
            sport, dport = (0x4000 + self._round * 977 + index) % 0x10000, index % 0x10000
        number, self._count = self._count, self._count + 1
        family = ipaddress.ip_address(address).version
        return Flow(number, kind, source, destination, family, protocol, address.packed, target.packed, sport, dport)
