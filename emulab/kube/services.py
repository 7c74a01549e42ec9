"""Services and EndpointSlices, and what is allocated to a Service: addresses, node ports, a load balancer's address.

Sources: kubernetes/pkg/apis/core/validation (ValidateService), pkg/registry/core/service/{storage,ipallocator}; what was
allocated stays while the Service does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from emulab.kube import syntax
from emulab.kube.document import Document
from emulab.kube.text import Path
from emulab.model import Topology
from emulab.objects import (
    BALANCER_POOLS,
    NODE_PORTS,
    SERVICE_CIDRS,
    EndpointSlice,
    IPAddress,
    IPNetwork,
    Service,
    ServicePort,
)
from emulab.selector import In, both

KINDS = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
SERVICE_NAME = "kubernetes.io/service-name"
_BAND = 256  # addresses at the start of a range that are only given to those who ask (ipallocator.calculateRangeOffset)
_AFFINITY, _LONGEST_AFFINITY = 10800, 86400  # seconds


def service(found: Document) -> Service:
    """A Service as it was written: what is to be allocated is not there yet."""
    spec, at = found.model.spec, ("spec",)
    if spec is None:
        found.fail(at, "required")
    syntax.service_name(found, ("metadata", "name"), found.name)
    kind = syntax.one_of(found, (*at, "type"), spec.type or "ClusterIP", KINDS)
    given = _given(found, kind)
    headless = given == ["None"]
    published = kind in ("NodePort", "LoadBalancer")
    if kind == "ExternalName":
        if not spec.externalName:
            found.fail((*at, "externalName"), "required when type is ExternalName")
        syntax.subdomain(found, (*at, "externalName"), spec.externalName.rstrip("."), "DNS name")
    if spec.externalTrafficPolicy and not published:
        found.fail((*at, "externalTrafficPolicy"), "only for a Service of type NodePort or LoadBalancer")
    if spec.loadBalancerSourceRanges and kind != "LoadBalancer":
        found.fail((*at, "loadBalancerSourceRanges"), "only for a Service of type LoadBalancer")
    for name in ("externalIPs", "trafficDistribution"):
        if getattr(spec, name, None):
            found.warn((*at, name), "has no effect here")
    ranges = [
        syntax.network(found, (*at, "loadBalancerSourceRanges", i), text)
        for i, text in enumerate(spec.loadBalancerSourceRanges or ())
    ]
    for field, text in (
        ("externalTrafficPolicy", spec.externalTrafficPolicy),
        ("internalTrafficPolicy", spec.internalTrafficPolicy),
    ):
        if text:
            syntax.one_of(found, (*at, field), text, ("Cluster", "Local"))
    selector = syntax.labels(found, (*at, "selector"), spec.selector)
    return Service(
        found.namespace,
        found.name,
        kind,
        addresses=() if headless else tuple(ip_address(text) for text in given),
        ports=tuple(_ports(found, kind, optional=headless or kind == "ExternalName")),
        selector=both(In(k, (v,)) for k, v in selector) if selector and kind != "ExternalName" else None,
        affinity=_affinity(found),
        external_local=spec.externalTrafficPolicy == "Local",
        internal_local=spec.internalTrafficPolicy == "Local",
        source_ranges=tuple(ranges),
        external_name=(spec.externalName or "").rstrip(".") if kind == "ExternalName" else "",
        publish_not_ready=bool(spec.publishNotReadyAddresses),
        labels=found.labels,
        manifest=found.manifest,
    )


def _given(found: Document, kind: str) -> list[str]:
    """The cluster addresses asked for, or "None"."""
    spec = found.model.spec
    given = [text for text in spec.clusterIPs or () if text] or ([spec.clusterIP] if spec.clusterIP else [])
    if spec.clusterIP and spec.clusterIPs and spec.clusterIPs[0] != spec.clusterIP:
        found.fail(("spec", "clusterIPs", 0), f"'{spec.clusterIPs[0]}' expected to be the clusterIP, '{spec.clusterIP}'")
    path: Path = ("spec", "clusterIPs") if spec.clusterIPs else ("spec", "clusterIP")
    if given and kind == "ExternalName":
        found.fail(path, "a Service of type ExternalName has none")
    if "None" in given:
        if kind != "ClusterIP" or len(given) > 1:
            found.fail(path, "None is only for a Service of type ClusterIP, and by itself")
        return given
    for text in given:
        syntax.address(found, path, text)
    if len({ip_address(text).version for text in given}) < len(given):
        found.fail(path, "at most one address per family expected")
    return given


def _ports(found: Document, kind: str, optional: bool) -> Iterator[ServicePort]:
    spec, names, seen, nodes = found.model.spec, set(), set(), set()
    if not spec.ports and not optional:
        found.fail(("spec", "ports"), "at least one port expected")
    for index, one in enumerate(spec.ports or ()):
        at: Path = ("spec", "ports", index)
        if len(spec.ports) > 1 and not one.name:
            found.fail((*at, "name"), "required when there are several ports")
        if one.name:
            syntax.label(found, (*at, "name"), one.name, "name for a port of a Service")
            if one.name in names:
                found.fail((*at, "name"), f"there are two ports '{one.name}'")
            names.add(one.name)
        port = syntax.number(found, (*at, "port"), one.port)
        protocol = syntax.protocol(found, (*at, "protocol"), one.protocol)
        if (protocol, port) in seen:
            found.fail(at, f"there are two ports {port}/{protocol.upper()}")
        seen.add((protocol, port))
        target: int | str = one.targetPort or port
        if isinstance(target, str):
            syntax.port_name(found, (*at, "targetPort"), target)
        else:
            syntax.number(found, (*at, "targetPort"), target)
        if one.nodePort:
            if kind not in ("NodePort", "LoadBalancer"):
                found.fail((*at, "nodePort"), f"a Service of type {kind} has none")
            syntax.number(found, (*at, "nodePort"), one.nodePort, NODE_PORTS.start, NODE_PORTS.stop - 1)
            if (protocol, one.nodePort) in nodes:
                found.fail((*at, "nodePort"), f"{one.nodePort}/{protocol.upper()} is asked for twice")
            nodes.add((protocol, one.nodePort))
        yield ServicePort(one.name or "", protocol, port, target, one.nodePort or 0)


def _affinity(found: Document) -> int:
    spec, at = found.model.spec, ("spec", "sessionAffinity")
    config = spec.sessionAffinityConfig.clientIP if spec.sessionAffinityConfig else None
    if syntax.one_of(found, at, spec.sessionAffinity or "None", ("None", "ClientIP")) == "None":
        if config is not None:
            found.fail(("spec", "sessionAffinityConfig"), "only with sessionAffinity: ClientIP")
        return 0
    seconds = config.timeoutSeconds if config is not None else None
    path = ("spec", "sessionAffinityConfig", "clientIP", "timeoutSeconds")
    return _AFFINITY if seconds is None else syntax.number(found, path, seconds, 1, _LONGEST_AFFINITY)


class Allocator:
    """Hands out what Services need, lowest first, without the addresses and ports that others hold."""

    def __init__(self, topology: Topology, others: Iterable[Service]) -> None:
        self._topology = topology
        self._addresses: dict[IPAddress, str] = {}
        self._ports: dict[tuple[str, int], str] = {}
        self._next: dict[IPNetwork, int] = {}
        self._next_port = NODE_PORTS.start
        for one in others:
            self._hold(one)

    def _hold(self, one: Service) -> None:
        self._addresses.update(dict.fromkeys((*one.addresses, *one.balancer), one.key))
        self._ports.update({(port.protocol, port.node_port): one.key for port in one.ports if port.node_port})

    def allocate(self, found: Document, asked: Service, before: Service | None) -> Service:
        """``asked`` with all that it needs: what ``before`` had, if it is still fitting, else something new."""
        spec = found.model.spec
        if asked.kind == "ExternalName":
            return replace(asked, families=self._topology.families[:1])
        headless = not asked.addresses and "None" in (spec.clusterIP, *(spec.clusterIPs or ()))
        families = self._families(found, asked, before, headless)
        published = asked.kind in ("NodePort", "LoadBalancer")
        made = replace(
            asked,
            families=families,
            addresses=() if headless else tuple(self._address(found, asked, before, family) for family in families),
            balancer=tuple(self._balancer(found, before, families)) if asked.kind == "LoadBalancer" else (),
        )
        if published and not (asked.kind == "LoadBalancer" and spec.allocateLoadBalancerNodePorts is False):
            made = replace(made, ports=tuple(self._with_node_port(found, i, p, made, before) for i, p in enumerate(made.ports)))
        self._hold(made)
        return made

    def _families(self, found: Document, asked: Service, before: Service | None, headless: bool) -> tuple[int, ...]:
        spec, offered = found.model.spec, self._topology.families
        words = {"IPv4": 4, "IPv6": 6}
        policy = spec.ipFamilyPolicy or (
            "RequireDualStack" if len(spec.ipFamilies or spec.clusterIPs or ()) > 1 else "SingleStack"
        )
        syntax.one_of(found, ("spec", "ipFamilyPolicy"), policy, ("SingleStack", "PreferDualStack", "RequireDualStack"))
        wanted = [
            words[syntax.one_of(found, ("spec", "ipFamilies", i), text, tuple(words))]
            for i, text in enumerate(spec.ipFamilies or ())
        ]
        if len(set(wanted)) < len(wanted):
            found.fail(("spec", "ipFamilies"), "the same family twice")
        given: list[int] = [address.version for address in asked.addresses]
        if given and wanted and given != wanted[: len(given)]:
            found.fail(("spec", "ipFamilies"), "its families are not those of clusterIP")
        wanted = wanted if len(wanted) >= len(given) else given
        for family in wanted:
            if family not in offered:
                has = " and ".join(f"IPv{one}" for one in offered)
                path = ("spec", "ipFamilies") if spec.ipFamilies else ("spec", "clusterIP")
                found.fail(path, f"IPv{family}: the pods of this cluster have {has} only")
        if policy == "SingleStack":
            if len(wanted) > 1:
                found.fail(("spec", "ipFamilyPolicy"), "SingleStack with two families")
            if not wanted and before is not None and before.families:
                return before.families[:1]
            return tuple(wanted) or offered[:1]
        if policy == "RequireDualStack" and len(offered) < 2:
            found.fail(("spec", "ipFamilyPolicy"), "RequireDualStack: this cluster has pods of one family only")
        return tuple(dict.fromkeys((*wanted, *(before.families if before and not wanted else ()), *offered)))

    def _address(self, found: Document, asked: Service, before: Service | None, family: int) -> IPAddress:
        cidr = next(one for one in SERVICE_CIDRS if one.version == family)
        self._check_apart(found, cidr)
        given = next((one for one in asked.addresses if one.version == family), None)
        had = next((one for one in before.addresses if one.version == family), None) if before else None
        if given is None:
            return had or self._free(found, cidr)
        path = ("spec", "clusterIPs") if found.model.spec.clusterIPs else ("spec", "clusterIP")
        if given not in cidr or given == cidr.network_address:
            found.fail(path, f"{given} is not in the Services' range {cidr}")
        if had not in (None, given):
            found.fail(path, f"{given}: it has {had} already, and a Service keeps its address")
        if self._addresses.get(given, asked.key) != asked.key:
            found.fail(path, f"{given} is taken by Service {self._addresses[given]}")
        return given

    def _check_apart(self, found: Document, cidr: IPNetwork) -> None:
        topology = self._topology
        others = [("pod CIDR", one) for one in topology.pod_cidrs]
        others += [(f"subnet of segment {segment.name}", one) for segment in topology.segments for one in segment.subnets]
        for what, other in others:
            if other.version == cidr.version and other.overlaps(cidr):
                found.fail((), f"the Services' range {cidr} overlaps the {what} {other} of topology {topology.name}")

    def _free(self, found: Document, pool: IPNetwork, first: int = _BAND) -> IPAddress:
        """The lowest free address; the search goes on where the last one ended."""
        place = self._next.get(pool, first)
        last = pool.num_addresses - 2
        while place <= last and pool[place] in self._addresses:
            place += 1
        if place > last:
            found.fail((), f"no free address is left in {pool}")
        self._next[pool] = place + 1
        return pool[place]

    def _balancer(self, found: Document, before: Service | None, families: tuple[int, ...]) -> Iterator[IPAddress]:
        text = found.model.spec.loadBalancerIP
        path = ("spec", "loadBalancerIP")
        given = syntax.address(found, path, text) if text else None
        for family in families:
            pool = next(one for one in BALANCER_POOLS if one.version == family)
            had = next((one for one in before.balancer if one.version == family), None) if before else None
            if given is None or given.version != family:
                yield had or self._free(found, pool, 1)
                continue
            if given not in pool:
                found.fail(path, f"{given} is not in the load balancer's pool {pool}")
            key = f"{found.namespace}/{found.name}"
            if self._addresses.get(given, key) != key:
                found.fail(path, f"{given} is taken by Service {self._addresses[given]}")
            yield given

    def _with_node_port(
        self, found: Document, index: int, port: ServicePort, made: Service, before: Service | None
    ) -> ServicePort:
        had = {(one.protocol, one.port): one.node_port for one in before.ports} if before else {}
        number = port.node_port or had.get((port.protocol, port.port), 0)
        path = ("spec", "ports", index, "nodePort")
        if port.node_port and self._ports.get((port.protocol, number), made.key) != made.key:
            found.fail(path, f"{number}/{port.protocol.upper()} is taken by Service {self._ports[port.protocol, number]}")
        if not number:
            number = self._next_port
            while any((protocol, number) in self._ports for protocol in ("tcp", "udp", "sctp")):
                number += 1
            if number not in NODE_PORTS:
                found.fail(path, f"no node port is left of {NODE_PORTS.start}-{NODE_PORTS.stop - 1}")
            self._next_port = number + 1
        self._ports[port.protocol, number] = made.key
        return replace(port, node_port=number)


def endpoint_slice(found: Document) -> EndpointSlice:
    """Endpoints by hand; the label ``kubernetes.io/service-name`` says whose they are."""
    model = found.model
    family = {"IPv4": 4, "IPv6": 6}[syntax.one_of(found, ("addressType",), model.addressType, ("IPv4", "IPv6"))]
    endpoints = []
    for index, one in enumerate(model.endpoints or ()):
        at: Path = ("endpoints", index)
        if not one.addresses:
            found.fail((*at, "addresses"), "at least one address expected")
        given = tuple(syntax.address(found, (*at, "addresses", i), text) for i, text in enumerate(one.addresses))
        for place, address in enumerate(given):
            if address.version != family:
                found.fail((*at, "addresses", place), f"{address}: addressType is {model.addressType}")
            if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
                found.fail((*at, "addresses", place), f"{address} is no address of an endpoint")
        conditions = one.conditions
        ready = conditions is None or conditions.ready is not False
        endpoints.append((given, ready, one.nodeName or ""))
    ports, names = [], set()
    for index, port in enumerate(model.ports or ()):
        at = ("ports", index)
        name = port.name or ""
        if name in names:
            found.fail((*at, "name"), f"there are two ports '{name}'")
        names.add(name)
        if name:
            syntax.label(found, (*at, "name"), name, "name for a port")
        if port.port is None:
            found.fail((*at, "port"), "required")
        ports.append(
            (name, syntax.protocol(found, (*at, "protocol"), port.protocol), syntax.number(found, (*at, "port"), port.port))
        )
    service_name = dict(found.labels).get(SERVICE_NAME, "")
    if not service_name:
        found.warn(("metadata", "labels"), f"without a label {SERVICE_NAME} it belongs to no Service")
    return EndpointSlice(found.namespace, found.name, service_name, tuple(endpoints), tuple(ports), found.labels, found.manifest)


def is_headless(one: Service) -> bool:
    """Whether it has no address of its own: its name stands for its endpoints' addresses."""
    return not one.addresses and one.kind != "ExternalName"


def port_text(port: Any) -> str:
    """``80/TCP`` or ``80:30080/TCP``: as kubectl prints it."""
    return f"{port.port}{f':{port.node_port}' if port.node_port else ''}/{port.protocol.upper()}"
