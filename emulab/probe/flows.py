"""Which flows a run probes: every ordered pod pair, every node to every pod, every pod to the outside.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from emulab.model import OUTSIDE_ADDRESSES, OUTSIDE_HOST, Endpoint, IPAddress
from emulab.objects import Service
from emulab.packet import Flow, Kind
from emulab.planning import Design
from emulab.services import PREFIX, Due, Services

PORT = 8080  # where every probed UDP and TCP server listens
_HEADERS = {4: 28, 6: 48}  # IP, and ICMP or UDP, in bytes
_MANY = 1000  # flows from pods to Services, above which not every pod sends them
# Ports to send from, the first and how many: below node ports (30000) and what kernels choose for others (32768 to 60999,
# net.ipv4.ip_local_port_range), which may be in use, or waiting for the end of their time.
_SOURCES = 10000, 20000


def source_port(round_: int, index: int) -> int:
    """A source port that neither another flow of the same source nor a recent round has used.

    A packet of a connection that conntrack already knows is not shown to NAT rules that came later.
    """
    return _SOURCES[0] + (round_ * 977 + index) % _SOURCES[1]


@dataclass(frozen=True)
class Wish:
    """Which flows are wanted: from and to whom (None: everybody), of those which pairs, to which port, how large, how often."""

    sources: Collection[str] | None = None
    destinations: Collection[str] | None = None
    pairs: Collection[tuple[str, str]] | None = None
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

    def _pair(self, source: str, destination: str) -> bool:
        return self._wish.pairs is None or (source, destination) in self._wish.pairs

    def between_pods(self, chosen: Iterable[tuple[Endpoint, Endpoint, int, str]] | None = None) -> Iterator[Flow]:
        """Every ordered pair of different pods in every family and protocol, or those ``chosen``."""
        endpoints = self._cluster.endpoints
        if chosen is None:
            sources = [endpoint for endpoint in self._present.endpoints if self._from(endpoint.key)]
            destinations = [endpoint for endpoint in endpoints if self._to(endpoint.key)]
            chosen = (
                (a, b, *shape)
                for a in sources
                for b in destinations
                if a is not b and self._pair(a.key, b.key)
                for shape in self._shapes
            )
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
                if not (self._to(endpoint.key) and self._pair(node.name, endpoint.key)):
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
            if not (self._to(OUTSIDE_HOST) and self._from(endpoint.key) and self._pair(endpoint.key, OUTSIDE_HOST)):
                continue
            for family, protocol in self._shapes:
                if any(a.version == family for a in endpoint.addresses) and self._has_underlay(endpoint.node, family):
                    source = endpoint.address(family)
                    there, number = outside[family], len(self._cluster.endpoints)
                    yield from self._flows(
                        Kind.OUTSIDE, endpoint.key, OUTSIDE_HOST, protocol, source, there, self._wish.port, number
                    )

    def services(self) -> list[Service]:
        """The Services that are wanted."""
        return [service for service in self._cluster.topology.objects.services if self._to(f"{PREFIX}{service.key}")]

    def to_services(
        self, services: Services, wanted: Sequence[Service], source_of: Callable[[str, IPAddress], IPAddress | None]
    ) -> Iterator[tuple[Flow, Due]]:
        """Pods to every port of every Service, and the outside host to node ports and balancers, each with what is due to it.

        Nodes only where they are asked for.  Where there are many pods and Services, one pod of each node is enough.
        """
        pods = [endpoint for endpoint in self._present.endpoints if self._from(endpoint.key)]
        if len(pods) * sum(len(service.ports) for service in wanted) > _MANY and self._wish.sources is None:
            pods = list({endpoint.node: endpoint for endpoint in reversed(pods)}.values())
        own = {endpoint.key: endpoint.addresses for endpoint in pods}
        nodes = [node.name for node in self._present.nodes if self._wish.sources is not None and self._from(node.name)]
        outside = [OUTSIDE_HOST] if self._from(OUTSIDE_HOST) else []
        numbers: Counter[str] = Counter()  # of source ports, behind those of all other flows
        first = self._wish.count * (2 * len(self._cluster.endpoints) + 2)
        ports = {self._wish.port} if self._wish.port != PORT else None
        for service in wanted:
            for family in dict.fromkeys(family for family, _ in self._shapes):
                for source in (*own, *nodes, *outside):
                    if not self._pair(source, f"{PREFIX}{service.key}"):
                        continue
                    for way in services.ways(service, family, source == OUTSIDE_HOST):
                        if (family, way.port.protocol) not in self._shapes or (ports and way.port.port not in ports):
                            continue
                        here = next((a for a in own.get(source, ()) if a.version == family), None)
                        here = here or (None if source in own else source_of(source, way.address))
                        if here is None:
                            continue
                        due, protocol, name = services.due(source, here, way), way.port.protocol, f"{PREFIX}{service.key}"
                        for _ in range(self._wish.count):
                            number, numbers[source] = first + numbers[source], numbers[source] + 1
                            flow = self._flow(Kind.SERVICE, source, name, protocol, here, way.address, way.number, number)
                            yield self._as_wished(flow), due

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
            yield self._as_wished(self._flow(kind, source, destination, protocol, address, target, port, number))

    def _as_wished(self, flow: Flow) -> Flow:
        """With the payload that makes a packet of the wished size."""
        if self._wish.size is None or flow.protocol == "tcp":
            return flow
        return replace(flow, size=self._wish.size - _HEADERS[flow.family])

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
        return Flow(number, kind, source, destination, address.version, protocol, address.packed, target.packed, sport, dport)
