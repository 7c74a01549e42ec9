"""What a plan says about the ways of packets: the questions that a fault asks before it can break something.

A `Scene` answers from planned objects, never from a plugin's name: whose lease a route leads to, where a pod's address is
on the link, which switch port is a node's.  Its plan holds the underlay, too: ``merge(fabric.plan(topology), plan)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from emulab.dataplane import DataPlane
from emulab.model import SWITCHES, Cluster, Endpoint, IPAddress, IPNetwork
from emulab.state import Address, Route, State, Veth, Vxlan

T = TypeVar("T")


@dataclass(frozen=True)
class Scene:
    """A planned lab."""

    cluster: Cluster
    plane: DataPlane
    plan: State

    def all(self, namespace: str, kind: type[T]) -> Iterator[T]:
        """The planned objects of one kind in a namespace, in order."""
        return (thing for thing in self.plan.get(namespace, ()) if isinstance(thing, kind))

    @cached_property
    def endpoints(self) -> dict[str, Endpoint]:
        return {endpoint.key: endpoint for endpoint in self.cluster.endpoints}

    @cached_property
    def holders(self) -> dict[IPAddress, Endpoint]:
        """The pod of each pod address."""
        return {address: endpoint for endpoint in self.cluster.endpoints for address in endpoint.addresses}

    @cached_property
    def nodes(self) -> dict[str, str]:
        """The node of each underlay address and of each node's own address in the pod network."""
        links = {str(a.ip): link.node for link in self.cluster.topology.links for a in link.addresses}
        return links | {str(a): node for node, found in self.cluster.gateways.items() for a in found}

    @cached_property
    def ports(self) -> dict[str, str]:
        """The node behind each port of the underlay's switches."""
        nodes = {node.name for node in self.cluster.nodes}
        return {v.name: v.peer_namespace for v in self.all(SWITCHES, Veth) if v.peer_namespace in nodes and v.peer_namespace}

    def others(self, node: str) -> list[str]:
        return [other.name for other in self.cluster.nodes if other.name != node]

    def owner(self, network: IPNetwork) -> str | None:
        """The node that a part of the pod network lives on; a single pod's address before the block that it is from."""
        pod = self.holders.get(network.network_address) if network.num_addresses == 1 else None
        if pod is not None:
            return pod.node
        leases = (lease for lease in self.cluster.leases if lease.network.version == network.version)
        return next((lease.node for lease in leases if lease.network.overlaps(network)), None)

    def remote(self, node: str) -> Iterator[tuple[Route, str]]:
        """A node's routes to what lives on other nodes, and on which."""
        for route in self.all(node, Route) if node not in self.endpoints else ():
            owner = self.owner(route.destination) if route.via and route.destination.prefixlen else None
            if owner and owner != node:
                yield route, owner

    def tunnels(self, namespace: str) -> dict[str, Vxlan]:
        return {device.name: device for device in self.all(namespace, Vxlan)}

    def host_end(self, endpoint: Endpoint) -> str | None:
        """The node's end of a pod's veth pair."""
        return next((v.name for v in self.all(endpoint.node, Veth) if v.peer_namespace == endpoint.key), None)

    def routed(self, endpoint: Endpoint, address: IPAddress) -> Route | None:
        """The route that leads a pod's node to this address alone, where pods have one each."""
        routes = (route for route in self.all(endpoint.node, Route) if route.destination.num_addresses == 1)
        return next((route for route in routes if route.destination.network_address == address), None)

    def neighbours(self, endpoint: Endpoint, address: IPAddress) -> Iterator[tuple[str, str]]:
        """Who asks for this pod's MAC: (namespace, device), its own node first, then whoever has it on the link."""
        route = self.routed(endpoint, address)
        if route and route.device:
            yield endpoint.node, route.device
        for name in (endpoint.node, *self.others(endpoint.node), *self.endpoints):
            for thing in self.all(name, Address):
                network = thing.address.network
                if name != endpoint.key and network.num_addresses > 1 and address in network:
                    yield name, thing.device

    def is_flat(self) -> bool:
        """Whether pods are met at their own addresses."""
        return all(
            self.plane.target(self.cluster, endpoint, a.version, "udp", 1024)[0] == a
            for endpoint in self.cluster.endpoints[:1]
            for a in endpoint.addresses
        )

    def afar(self, node: str) -> tuple[Endpoint, Endpoint] | None:
        """A pod of this node and one of another."""
        here = self.cluster.endpoints_on(node)
        there = next((e for e in self.cluster.endpoints if e.node != node), None)
        return (here[0], there) if here and there else None
