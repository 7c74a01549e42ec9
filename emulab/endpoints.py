"""What Services stand for: the addresses and ports behind each, as the EndpointSlices of a cluster would list them.  Pure.

It is the state that the control plane converges to.  A pod on a node that nobody reaches is listed until somebody deletes
it, but is not ready: the node controller says so once the kubelet is silent (pkg/controller/nodelifecycle, 40 s).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from emulab.model import Cluster, Endpoint, IPAddress
from emulab.objects import ContainerPort, EndpointSlice, HostPod, Service, ServicePort
from emulab.selector import Selector


class Backend(NamedTuple):
    """One endpoint of a Service's port.

    ``ready``: it gets new connections.  ``node`` and ``pod`` (a key, ``namespace/name``) are "" where nobody knows them: in
    an EndpointSlice that somebody wrote.
    """

    address: IPAddress
    port: int
    ready: bool
    node: str
    pod: str


class Backends:
    """The endpoints of all Services of one cluster.  Answers are kept, so that a selector is looked up once."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._chosen: dict[tuple[str, Selector], tuple[Endpoint | HostPod, ...]] = {}
        self._found: dict[tuple[object, ...], list[Backend]] = {}

    @cached_property
    def _pods(self) -> dict[str, list[tuple[Endpoint | HostPod, dict[str, str]]]]:
        """Pods of both sorts and their labels, by namespace."""
        found: dict[str, list[tuple[Endpoint | HostPod, dict[str, str]]]] = {}
        for endpoint in self._cluster.endpoints:
            found.setdefault(endpoint.pod.namespace, []).append((endpoint, dict(endpoint.pod.labels)))
        for pod in self._cluster.topology.objects.host_pods:
            found.setdefault(pod.namespace, []).append((pod, dict(pod.labels)))
        return found

    def _selected(self, namespace: str, selector: Selector) -> tuple[Endpoint | HostPod, ...]:
        key = (namespace, selector)
        if key not in self._chosen:
            candidates = self._pods.get(namespace, ())
            self._chosen[key] = tuple(pod for pod, labels in candidates if selector.matches(labels))
        return self._chosen[key]

    def of(self, service: Service, port: ServicePort) -> Sequence[Backend]:
        """Ready and unready ones, of the Service's families, in the order of the cluster's pods and then of the slices.

        A pod that does not declare a port of the name that ``port`` asks for, with its protocol, is not among them.
        """
        alike: tuple[object, ...] = (service.key, port)
        if service.key not in self._slices:
            alike = (service.namespace, service.selector, service.families, service.publish_not_ready, port.protocol, port.target)
        if alike not in self._found:
            self._found[alike] = [one for one in self._all(service, port) if one.address.version in service.families]
        return self._found[alike]

    def _all(self, service: Service, port: ServicePort) -> Iterator[Backend]:
        off = self._cluster.topology.off
        for one in self._selected(service.namespace, service.selector) if service.selector is not None else ():
            pod = one.pod if isinstance(one, Endpoint) else one
            number = _number(port, pod.ports)
            if number is not None:
                ready = service.publish_not_ready or (pod.ready and pod.node not in off)
                for address in self._addresses(one):
                    yield Backend(address, number, ready, pod.node, pod.key)
        for written in self._slices.get(service.key, ()):
            for name, protocol, number in written.ports:
                if (name, protocol) == (port.name, port.protocol):
                    for addresses, ready, node in written.endpoints:
                        for address in addresses:
                            yield Backend(address, number, ready or service.publish_not_ready, node, "")

    @cached_property
    def _slices(self) -> dict[str, list[EndpointSlice]]:
        found: dict[str, list[EndpointSlice]] = {}
        for one in self._cluster.topology.objects.slices:
            found.setdefault(f"{one.namespace}/{one.service}", []).append(one)
        return found

    def _addresses(self, one: Endpoint | HostPod) -> tuple[IPAddress, ...]:
        """A pod's own, or its node's primary ones."""
        if isinstance(one, Endpoint):
            return one.addresses
        topology = self._cluster.topology
        return tuple(a for f in (4, 6) if (a := topology.underlay_address(one.node, f)).version == f)


def endpoints(cluster: Cluster, service: Service, port: ServicePort) -> list[Backend]:
    """The endpoints of one port of one Service: `Backends.of`."""
    return list(Backends(cluster).of(service, port))


def _number(port: ServicePort, declared: tuple[ContainerPort, ...]) -> int | None:
    """The number that ``port`` has at a pod with these ports."""
    if isinstance(port.target, int):
        return port.target
    return next((one.number for one in declared if (one.name, one.protocol) == (port.target, port.protocol)), None)
