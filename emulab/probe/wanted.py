"""What a trace is asked for: whose packet, which, and where it can pass."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Protocol

from emulab.dataplane import DataPlane
from emulab.errors import InputError
from emulab.hostports import published
from emulab.kernel.namespaces import Namespaces
from emulab.model import GATEWAY, OUTSIDE_ADDRESSES, OUTSIDE_HOST, SWITCHES, Cluster, Endpoint, IPAddress
from emulab.objects import ContainerPort, Service, ServicePort
from emulab.packet import Flow, Kind, short
from emulab.probe import payload
from emulab.probe.flows import PORT, source_port
from emulab.services import PREFIX, Services, Way
from emulab.state import State

_HEADERS = {("icmp", 4): 28, ("icmp", 6): 48, ("udp", 4): 28, ("udp", 6): 48}
_PROTOCOLS = ("icmp", "udp", "tcp")
_FEW_NODES = 12  # up to so many, all of them are watched


class Running(Protocol):
    """What a trace needs of a lab."""

    namespaces: Namespaces

    @property
    def cluster(self) -> Cluster: ...

    @property
    def plane(self) -> DataPlane: ...

    @property
    def plan(self) -> State: ...

    @property
    def tunnel_ports(self) -> frozenset[int]: ...

    def next_round(self) -> int: ...

    def prime(self) -> None: ...


class Wanted:
    """What was asked for, checked against the cluster."""

    def __init__(
        self, lab: Running, source: str, destination: str, protocol: str | None, port: int | None, size: int | None
    ) -> None:
        self._lab, self._port, self._size = lab, port, size
        self.source, self.destination = source, destination
        self.services = Services(lab.cluster)
        self.service = self.services.named(destination) if destination.startswith(PREFIX) else None
        self._service_port = _service_port(self.service, protocol, port) if self.service else None
        protocol = self._protocol = protocol or (self._service_port.protocol if self._service_port else "icmp")
        self.pods: dict[str, Endpoint] = {endpoint.key: endpoint for endpoint in lab.cluster.endpoints}
        self.nodes = [node.name for node in lab.cluster.nodes]
        for name in (source,) if self.service else (source, destination):
            if name not in self.pods and name not in self.nodes and name != OUTSIDE_HOST:
                raise InputError(f"nobody is called '{short(name)}', expected a pod, a node or {OUTSIDE_HOST}")
        if source not in lab.namespaces:
            raise InputError(f"{short(source)} is stopped, it cannot send")
        if protocol not in _PROTOCOLS:
            raise InputError(f"protocol '{protocol}': expected {', '.join(_PROTOCOLS)}")
        if port is not None and (protocol == "icmp" or not 0 < port < 65536):
            raise InputError("ICMP has no ports" if protocol == "icmp" else f"port {port}: expected 1 to 65535")
        self.published = self._published(protocol, port)
        if size is not None and protocol == "tcp":
            raise InputError("a size goes with icmp and udp, TCP chooses its own")

    def _published(self, protocol: str, port: int | None) -> tuple[Endpoint, ContainerPort] | None:
        """The pod that has this port of the node that is asked (hostPort), and its own port."""
        if self.destination not in self.nodes or port is None:
            return None
        found = (published(self._lab.cluster, self.destination, protocol, port, a) for a in self._own(self.destination))
        return next(filter(None, found), None)

    def family(self, asked: int | None) -> int:
        """The family asked for, or the first that both ends have."""
        offered = [f for f in (4, 6) if all(f in self._families(name) for name in (self.source, self.destination))]
        if asked is None and offered:
            return offered[0]
        if asked not in offered:
            if self.service and self.source == OUTSIDE_HOST:
                raise InputError(f"{short(self.destination)} cannot be reached from outside: it has no node port and no balancer")
            what = f"IPv{asked} address" if asked else "address family in common"
            raise InputError(f"{short(self.source)} and {short(self.destination)} have no {what}")
        return asked

    def _families(self, name: str) -> set[int]:
        if name == self.destination and self.service:
            return {family for family in (4, 6) if self._way(family)}
        if name in self.pods:
            return {address.version for address in self.pods[name].addresses}
        return {address.version for address in self._own(name)}

    def _own(self, name: str) -> list[IPAddress]:
        if name == OUTSIDE_HOST:
            return [address.ip for address in OUTSIDE_ADDRESSES]
        return [address.ip for address in self._lab.cluster.topology.uplink(name).addresses]

    def _way(self, family: int) -> Way | None:
        """How the source meets the Service."""
        ways = self.services.ways(self.service, family, self.source == OUTSIDE_HOST) if self.service else iter(())
        return next((way for way in ways if way.port is self._service_port), None)

    def places(self, family: int) -> dict[str, str]:
        """The namespaces that may answer for a Service or a node's port, and their nodes; none for anything else."""
        if self.published:
            return {self.published[0].key: self.published[0].node}
        if self.service is None or self._service_port is None:
            return {}
        endpoints = self.services.endpoints(self.service, self._service_port, family)
        found = {place: one.node for one in endpoints if (place := self.services.place(one))}
        return {place: node for place, node in found.items() if place in self._lab.namespaces}

    def entries(self, family: int) -> set[str]:
        """The nodes at which a Service can be met."""
        way = self._way(family)
        return {self.services.entry(self.source, way)} if way else set()

    def serving(self) -> dict[str, set[tuple[str, int]]]:
        """Where something has to listen for a Service or a node's port to be answered: (protocol, port) by namespace."""
        if self.published:
            endpoint, port = self.published
            return {endpoint.key: {(port.protocol, port.number)}} if endpoint.key in self._lab.namespaces else {}
        found = self.services.listening([self.service]) if self.service else {}
        return {name: ports for name, ports in found.items() if name in self._lab.namespaces}

    def flow(self, family: int, round_: int, source_for: Callable[[IPAddress], str | None]) -> Flow:
        """The flow, with the address that the sender would use itself."""
        protocol, port = self._protocol, self._port or PORT
        if way := self._way(family):
            address, port = way.address, way.number
        elif self.destination in self.pods:
            target = self._lab.plane.target(self._lab.cluster, self.pods[self.destination], family, protocol, port)
            address, port = target
        else:
            address = next(a for a in self._own(self.destination) if a.version == family)
        if self.source in self.pods:
            here = self.pods[self.source].address(family)
        else:
            chosen = source_for(address)
            here = ip_address(chosen) if chosen else next(a for a in self._own(self.source) if a.version == family)
        sport, dport = (0x4000 + round_ * 977) % 0x10000, 1
        if protocol != "icmp":
            sport, dport = source_port(round_, 0), port
        size = payload.SIZE
        if self._size is not None:
            smallest = _HEADERS[protocol, family] + payload.SIZE
            if not smallest <= self._size <= 65535:
                raise InputError(f"size {self._size}: expected {smallest} to 65535 bytes")
            size = self._size - _HEADERS[protocol, family]
        kind = Kind.OUTSIDE if OUTSIDE_HOST in (self.source, self.destination) else Kind.NODE
        if self.source in self.pods and self.destination in self.pods:
            kind = Kind.POD
        kind = Kind.SERVICE if self.service else kind
        return Flow(0, kind, self.source, self.destination, family, protocol, here.packed, address.packed, sport, dport, size)

    def node(self, name: str) -> str | None:
        """The node that a pod is on, or the node itself."""
        return self.pods[name].node if name in self.pods else name if name in self.nodes else None


def _service_port(service: Service, protocol: str | None, port: int | None) -> ServicePort:
    """The port of a Service that is meant: the first that fits."""
    if not service.addresses:
        how = f"it stands for {service.external_name}" if service.external_name else "it is headless"
        raise InputError(f"{short(PREFIX + service.key)} has no address of its own: {how}")
    for one in service.ports:
        if protocol in (None, one.protocol) and port in (None, one.port):
            return one
    asked = "/".join(filter(None, [str(port or ""), protocol or ""]))
    has = ", ".join(f"{one.port}/{one.protocol}" for one in service.ports)
    raise InputError(f"{short(PREFIX + service.key)} has no port {asked} (it has {has})")


def watched(lab: Running, wanted: Wanted, family: int) -> list[str]:
    """The namespaces that the packet can pass: in a large cluster, the nodes of its way as planned."""
    places = wanted.places(family)
    ends = list(dict.fromkeys(name for name in (wanted.source, wanted.destination, *places) if name not in wanted.nodes))
    nodes = wanted.nodes
    here, there = wanted.node(wanted.source), wanted.node(wanted.destination)
    if len(nodes) > _FEW_NODES:
        on_the_way = {here, there, *places.values(), *wanted.entries(family)}
        if wanted.source in wanted.pods and wanted.destination in wanted.pods:
            wire = lab.plane.wire(lab.cluster, wanted.pods[wanted.source], wanted.pods[wanted.destination], family)
            addresses = {address for tunnel in wire.tunnels for address in (tunnel.source, tunnel.destination)}
            topology = lab.cluster.topology
            on_the_way |= {n for n in nodes if any(a.ip in addresses for a in topology.uplink(n).addresses)}
        nodes = [node for node in nodes if node in on_the_way]
    return list(dict.fromkeys([*ends, *nodes, SWITCHES, GATEWAY]))


def matches(flow: Flow, round_: int, tunnel_ports: frozenset[int]) -> list[str]:
    """This flow's packets as nft expressions, inside tunnels, too, and the questions for MAC addresses that it depends on.

    ICMP and UDP by what they carry, so that no translation hides them; TCP by either end.
    """
    number = {"icmp": {4: "icmp", 6: "ipv6-icmp"}, "udp": {4: "udp", 6: "udp"}, "tcp": {4: "tcp", 6: "tcp"}}
    name = number[flow.protocol][flow.family]
    found = ["meta protocol arp", "icmpv6 type nd-neighbor-solicit"]
    if flow.protocol != "tcp":
        marks = [payload.build(round_, flow.number, leg)[:16].hex() for leg in (payload.REQUEST, payload.REPLY)]
        found += [f"meta l4proto {name} @th,64,128 0x{mark}" for mark in marks]
    else:
        ip = "ip" if flow.family == 4 else "ip6"
        here, there = (str(ip_address(a)) for a in (flow.source_address, flow.destination_address))
        for address, tcp_port in ((here, flow.sport), (there, flow.dport)):
            found += [f"{ip} saddr {address} tcp sport {tcp_port}", f"{ip} daddr {address} tcp dport {tcp_port}"]
    inner, start = (20, 12) if flow.family == 4 else (40, 8)
    for tunnel in sorted(tunnel_ports):
        around = (8 + 8 + 14) * 8  # UDP, VXLAN, Ethernet: bits
        if flow.protocol != "tcp":
            offset = around + (inner + 8) * 8
            found += [f"udp dport {tunnel} @th,{offset},128 0x{mark}" for mark in marks]
        else:
            bits = len(flow.source_address) * 8
            pairs = [(flow.source_address, flow.destination_address), (flow.destination_address, flow.source_address)]
            for one, other in pairs:
                places = (around + start * 8, around + start * 8 + bits)
                words = (f"@th,{at},{bits} 0x{address.hex()}" for at, address in zip(places, (one, other), strict=True))
                found.append(f"udp dport {tunnel} {' '.join(words)}")
    return found
