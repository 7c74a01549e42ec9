"""Services and EndpointSlices as they were written.

Validation: kubernetes/pkg/apis/core/validation (ValidateService) and pkg/apis/discovery/validation.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

from emulab.kube import syntax
from emulab.kube.document import Document
from emulab.objects import (
    NODE_PORTS,
    EndpointSlice,
    Service,
    ServicePort,
)
from emulab.selector import In, both
from emulab.text import Path

KINDS = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
CONTROLLER = "endpointslice-controller.k8s.io"
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


def port_text(port: Any) -> str:
    """``80/TCP`` or ``80:30080/TCP``: as kubectl prints it."""
    return f"{port.port}{f':{port.node_port}' if port.node_port else ''}/{port.protocol.upper()}"
