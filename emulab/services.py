"""What a Service owes to a flow, and whether it kept it: the one place inside of a cluster where translation is right.  Pure.

By the API's own words, and so apart from what `emulab.kubeproxy` makes of them: the packet goes to an endpoint that is
ready and that the traffic policy allows, at its port; the answer comes from the address that was asked; the client's own
address is seen wherever no masquerading is due.  Without an endpoint the client is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address

from emulab.endpoints import Backend, Backends
from emulab.errors import InputError, nearest
from emulab.fabric import announcers
from emulab.model import OUTSIDE_ADDRESSES, OUTSIDE_HOST, Cluster, IPAddress
from emulab.objects import Service, ServicePort
from emulab.packet import Finding, Flow, FlowResult, Observation, Place, Verdict, rewrites, short, text

PREFIX = "svc/"
CLUSTER, NODE_PORT, BALANCER = "cluster address", "node port", "load balancer"


@dataclass(frozen=True)
class Way:
    """One address and port at which a Service can be met; ``node`` is where what comes from outside is taken in."""

    service: Service
    port: ServicePort
    kind: str
    address: IPAddress
    number: int
    node: str = ""


@dataclass(frozen=True)
class Due:
    """What a flow may expect: one of ``endpoints`` answers; if there is none it is ``refused``, or else dropped.

    ``frank`` are those of them that see the client by its own address.
    """

    way: Way
    endpoints: tuple[Backend, ...]
    refused: bool
    frank: frozenset[Backend] = frozenset()


class Services:
    """The Services of one cluster, as their clients see them."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._backends = cluster, Backends(cluster)
        self._announcers = announcers(cluster)
        self._homes = {endpoint.key: endpoint.node for endpoint in cluster.endpoints}
        self._by_name = {f"{PREFIX}{service.key}": service for service in cluster.topology.objects.services}

    def named(self, name: str) -> Service:
        """The Service ``svc/namespace/name``."""
        return self._by_name[name]

    def endpoints(self, service: Service, port: ServicePort, family: int) -> tuple[Backend, ...]:
        """Those that get new connections."""
        ready = (one for one in self._backends.of(service, port) if one.ready and one.address.version == family)
        return tuple(dict.fromkeys(ready))

    def listening(self, services: Iterable[Service]) -> dict[str, set[tuple[str, int]]]:
        """Where endpoints have to listen for these Services to work: (protocol, port) by namespace."""
        found: dict[str, set[tuple[str, int]]] = {}
        for service in services:
            for port in service.ports:
                for one in self._backends.of(service, port):
                    if place := self.place(one):
                        found.setdefault(place, set()).add((port.protocol, one.port))
        return found

    def place(self, endpoint: Backend) -> str | None:
        """The namespace in which an endpoint is: a pod's, a node's, the outside host's; None for a foreign address."""
        if endpoint.pod in self._homes:
            return endpoint.pod
        return endpoint.node if endpoint.pod else self._places.get(endpoint.address)

    @cached_property
    def _places(self) -> dict[IPAddress, str]:
        found: dict[IPAddress, str] = {address.ip: OUTSIDE_HOST for address in OUTSIDE_ADDRESSES}
        found.update({address.ip: link.node for link in self._cluster.topology.links for address in link.addresses})
        return found | {address: one.key for one in self._cluster.endpoints for address in one.addresses}

    def entry(self, source: str, way: Way) -> str:
        """The node at which packets of a client meet kube-proxy."""
        return way.node if source == OUTSIDE_HOST else self._homes.get(source, source)

    def ways(self, service: Service, family: int, outside: bool) -> Iterator[Way]:
        """How it can be met in a family: from within the cluster, or from outside at balancers and at every node that runs."""
        for port in service.ports:
            if not outside:
                for address in (a for a in service.addresses if a.version == family):
                    yield Way(service, port, CLUSTER, address, port.port)
                continue
            for address in (a for a in service.balancer if a.version == family):
                yield Way(service, port, BALANCER, address, port.port, self._announcers.get(address, ""))
            topology = self._cluster.topology
            for node in topology.nodes if port.node_port and any(a.version == family for a in service.addresses) else ():
                own = topology.underlay_address(node.name, family)
                if own.version == family and node.name not in topology.off:
                    yield Way(service, port, NODE_PORT, own, port.node_port, node.name)

    def due(self, source: str, address: IPAddress | None, way: Way) -> Due:
        """What a client may expect: a pod by its key, a node, or the outside host, which sends from ``address``."""
        service, outside = way.service, source == OUTSIDE_HOST
        everywhere = self.endpoints(service, way.port, way.address.version)
        local_only = service.internal_local if way.kind == CLUSTER else service.external_local and outside
        here = self.entry(source, way)
        able = tuple(one for one in everywhere if one.node == here) if local_only else everywhere
        ranges = [net for net in service.source_ranges if net.version == way.address.version]
        barred = way.kind == BALANCER and ranges and address is not None and not any(address in net for net in ranges)
        if barred:
            return Due(way, (), False)
        # Masquerading is due from nodes, from a pod to itself, and from outside where any node's endpoint may serve it.
        kept = service.external_local if outside else source in self._homes and (way.kind == CLUSTER or service.external_local)
        return Due(
            way, able, not everywhere, frozenset(one for one in able if kept and one.pod in self._homes and one.pod != source)
        )


def find(cluster: Cluster, name: str) -> str | None:
    """The Service that ``name`` means, as ``svc/namespace/name``: ``svc/web``, ``svc/ns/web``, ``web.ns``, or its DNS name.

    None when it is no name of a Service; raises `InputError` with the nearest one when it looks like one.
    """
    keys = {service.key for service in cluster.topology.objects.services}
    if name.startswith(PREFIX):
        key = name[len(PREFIX) :]
        key = key if "/" in key else f"default/{key}"
    else:
        words = name.split(".")
        if len(words) < 2 or words[2:] not in ([], ["svc"], ["svc", "cluster", "local"]):
            return None
        key = f"{words[1]}/{words[0]}"
    if key not in keys:
        known = [short(f"{PREFIX}{one}") for one in sorted(keys)]
        raise InputError(f"no Service '{name}'{nearest(short(f'{PREFIX}{key}'), known)}")
    return f"{PREFIX}{key}"


def judge(
    flow: Flow,
    seen: Sequence[Observation],
    due: Due,
    *,
    answered: bool,
    refused: str,
    end: Place | None,
    led: tuple[IPAddress, int] | None,
    allowed: Callable[[Backend], bool],
) -> FlowResult:
    """Whether a Service kept what it owes.

    ``end`` is the place at the client, ``led`` says where connection tracking sends its packets, ``allowed`` says of an
    endpoint whether policies let the client reach it: they are asked about the packet as it is after its translation.
    """
    observations = tuple(sorted(seen, key=lambda one: one.time))
    asked = f"{text(flow.destination_address)} port {flow.dport}"
    last = str(observations[-1].place) if observations else flow.source
    able = [one for one in due.endpoints if allowed(one)]
    if not answered:
        verdict = Verdict.REFUSED if refused else Verdict.DROPPED
        where = f"last seen at {last}" + (f" going {observations[-1].direction}" if observations else "")
        drawn = _reached(flow, observations) or led  # or nobody saw which one it was
        if len(able) < len(due.endpoints) and drawn not in [(one.address, one.port) for one in able]:
            return FlowResult(flow, Verdict.DENIED, observations, policy="denied by policy at an endpoint")
        if not due.endpoints and (bool(refused) or not due.refused):
            return FlowResult(flow, verdict, observations)
        expected = "an answer" if due.endpoints else "a refusal: there is no endpoint"
        return FlowResult(flow, verdict, observations, (Finding("delivery", expected, refused or where, last),))
    reached = _reached(flow, observations) or led or (ip_address(flow.destination_address), flow.dport)
    findings = list(_wrong(flow, observations, due, end, reached))
    if due.endpoints and reached in [(one.address, one.port) for one in due.endpoints if one not in able]:
        findings.insert(0, Finding("policy", "denied", f"delivered to {reached[0]}", last))
    if not due.endpoints:
        expected = "a refusal: there is no endpoint" if due.refused else "silence: no endpoint may serve it"
        findings.insert(0, Finding("delivery", expected, f"answered by {reached[0]} for {asked}", last))
    return FlowResult(flow, Verdict.DELIVERED, observations, tuple(findings), tuple(_translations(flow, observations, end)))


def _reached(flow: Flow, observations: Sequence[Observation]) -> tuple[IPAddress, int] | None:
    """Where the request came to: the last that was seen of it elsewhere than where it was sent to.

    None when nothing was: a node may serve it itself, behind its last interface.
    """
    asked = (flow.destination_address, flow.dport)
    ways = [(one.inner.destination, one.inner.dport) for one in observations if one.leg == "request"]
    moved = next((way for way in reversed(ways) if way != asked), None)
    return (ip_address(moved[0]), moved[1]) if moved else None


def _wrong(
    flow: Flow, observations: Sequence[Observation], due: Due, end: Place | None, reached: tuple[IPAddress, int]
) -> Iterator[Finding]:
    met = next((one for one in due.endpoints if (one.address, one.port) == reached), None)
    if due.endpoints and met is None:
        place = next((str(one.place) for one in reversed(observations) if one.leg == "request"), flow.source)
        expected = f"a ready endpoint of {short(flow.destination)}"
        yield Finding("endpoint", expected, f"{reached[0]} port {reached[1]}", place)
    for one in rewrites(flow, observations):
        if one.field == "payload" or (met in due.frank and one.leg == "request" and one.field == "source"):
            yield one
    for seen in observations:
        if seen.place == end and seen.direction == "in" and seen.leg == "reply":
            asked, heard = (flow.destination_address, flow.dport), (seen.inner.source, seen.inner.sport)
            if heard != asked:
                before, after = (f"{text(address)} port {port}" for address, port in (asked, heard))
                yield Finding("source", before, after, str(end), "reply")
                return


def _translations(flow: Flow, observations: Sequence[Observation], end: Place | None) -> Iterator[Finding]:
    """From what to what, where it was first seen so: on the way there, and back where the answer has the asked address again."""
    yield from (one for one in rewrites(flow, observations) if one.leg == "request" and one.field != "payload")
    answers = [one for one in observations if one.leg == "reply"]
    sent = next((one.inner for one in answers if one.inner.source != flow.destination_address), None)
    back = next((one for one in answers if one.inner.source == flow.destination_address), None)
    if sent and back:
        yield Finding("source", text(sent.source), text(back.inner.source), str(back.place), "reply")
