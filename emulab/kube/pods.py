"""Pods and the workloads that make them.  Validation as in kubernetes/pkg/apis/core/validation and apps/validation."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from emulab.kube import syntax
from emulab.kube.document import Document
from emulab.objects import ContainerPort, IPAddress, Labels, PodTemplate, Workload
from emulab.text import Path

FIXED = "cni.projectcalico.org/ipAddrs"
SLOWED = ("kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth")
_LEAST_RATE, _MOST_RATE = 10**3, 10**15  # kubernetes/pkg/util/bandwidth/utils.go
_MOST_REPLICAS = 10_000


@dataclass(frozen=True)
class Asked:
    """A pod that somebody wrote by hand, not yet on a node."""

    namespace: str
    name: str
    template: PodTemplate
    document: Document = field(compare=False, repr=False)


def pod(found: Document) -> Asked:
    """A Pod's manifest."""
    syntax.label(found, ("metadata", "name"), found.name, "name for a pod")
    if found.model.spec is None:
        found.fail(("spec",), "required")
    made = template(found, (), found.model.metadata, found.model.spec)
    return Asked(found.namespace, found.name, made, found)


def template(found: Document, at: Path, metadata: Any, spec: Any) -> PodTemplate:
    """What the pods of a manifest are like; ``at`` is where metadata and spec are."""
    labels = syntax.labels(found, (*at, "metadata", "labels"), metadata.labels if metadata else None)
    annotations = {}
    for name, text in ((metadata.annotations if metadata else None) or {}).items():
        if not isinstance(text, str):
            found.fail((*at, "metadata", "annotations", name), f"text expected, got {text} (put it in quotes)")
        annotations[name] = text
    host = bool(spec.hostNetwork)
    for name in ("hostname", "subdomain"):
        if text := getattr(spec, name):
            syntax.label(found, (*at, "spec", name), text, name)
    if spec.nodeName:
        syntax.subdomain(found, (*at, "spec", "nodeName"), spec.nodeName, "name of a node")
    made = PodTemplate(
        labels=labels,
        ports=_ports(found, (*at, "spec", "containers"), spec.containers, host),
        node_selector=syntax.labels(found, (*at, "spec", "nodeSelector"), spec.nodeSelector),
        node_name=spec.nodeName or "",
        host_network=host,
        annotations=tuple(sorted(annotations.items())),
        hostname=spec.hostname or "",
        subdomain=spec.subdomain or "",
    )
    at_annotations = (*at, "metadata", "annotations")
    if FIXED in annotations and host:
        found.fail((*at_annotations, FIXED), "a pod with hostNetwork has its node's addresses")
    _fixed(found, (*at_annotations, FIXED), annotations.get(FIXED))
    for name in SLOWED:
        if name in annotations:
            rate = syntax.quantity(found, (*at_annotations, name), annotations[name])
            if not _LEAST_RATE <= rate <= _MOST_RATE:
                found.fail((*at_annotations, name), f"'{annotations[name]}' is out of range, 1k to 1P expected")
    return made


def addresses(made: PodTemplate) -> tuple[IPAddress, ...]:
    """The fixed addresses that its annotation asks for."""
    import ipaddress

    return tuple(ipaddress.ip_address(text) for text in json.loads(dict(made.annotations).get(FIXED, "[]")))


def rates(made: PodTemplate) -> tuple[int, int]:
    """bit/s that its pods may receive and send; 0: unlimited."""
    annotations = dict(made.annotations)
    receive, send = (int(syntax.amount(annotations[name])) if name in annotations else 0 for name in SLOWED)
    return receive, send


def _fixed(found: Document, at: Path, text: str | None) -> None:
    if text is None:
        return
    try:
        given = json.loads(text)
    except ValueError:
        given = None
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        found.fail(at, f"'{text[:60]}': a list of addresses as JSON expected, e.g. [\"10.1.1.7\"]")
    for one in given:
        syntax.address(found, at, one)


def _ports(found: Document, at: Path, containers: Any, host: bool) -> tuple[ContainerPort, ...]:
    """The ports of all containers, each once."""
    if not containers:
        found.fail(at, "at least one container expected")
    ports: dict[ContainerPort, None] = {}
    names: set[str] = set()
    called: set[str] = set()
    published: set[tuple[str, str, int]] = set()
    for index, container in enumerate(containers):
        here = (*at, index)
        syntax.label(found, (*here, "name"), container.name, "name for a container")
        if container.name in called:
            found.fail((*here, "name"), f"there are two containers '{container.name}'")
        called.add(container.name)
        for place, port in enumerate(container.ports or ()):
            there = (*here, "ports", place)
            number = syntax.number(found, (*there, "containerPort"), port.containerPort)
            if port.name:
                syntax.port_name(found, (*there, "name"), port.name)
                if port.name in names:
                    found.fail((*there, "name"), f"there are two ports '{port.name}'")
                names.add(port.name)
            protocol = syntax.protocol(found, (*there, "protocol"), port.protocol)
            published_as = port.hostPort or 0
            if published_as:
                syntax.number(found, (*there, "hostPort"), published_as)
                if host and published_as != number:
                    found.fail((*there, "hostPort"), f"with hostNetwork it must be the containerPort, {number}")
                claim = (port.hostIP or "", protocol, published_as)
                if claim in published:
                    found.fail((*there, "hostPort"), f"{protocol.upper()} {published_as} is taken by another container port")
                published.add(claim)
            if port.hostIP:
                syntax.address(found, (*there, "hostIP"), port.hostIP)
            ports[ContainerPort(number, protocol, port.name or "", 0 if host else published_as, port.hostIP or "")] = None
    return tuple(ports)


def workload(found: Document) -> Workload:
    """A Deployment or DaemonSet; its selector must match the labels that its template gives."""
    spec = found.model.spec
    if spec is None:
        found.fail(("spec",), "required")
    chosen = syntax.selector(found, ("spec", "selector"), spec.selector)
    if not (spec.selector.matchLabels or spec.selector.matchExpressions):
        found.fail(("spec", "selector"), "an empty selector would select all pods")
    if spec.template.spec is None:
        found.fail(("spec", "template", "spec"), "required")
    made = template(found, ("spec", "template"), spec.template.metadata, spec.template.spec)
    if not chosen.matches(dict(made.labels)):
        found.fail(("spec", "template", "metadata", "labels"), f"the selector '{chosen}' does not match them")
    policy = spec.template.spec.restartPolicy
    if policy not in (None, "Always"):
        found.fail(("spec", "template", "spec", "restartPolicy"), f"'{policy}': Always expected in a {found.kind.name}")
    replicas = getattr(spec, "replicas", None)
    replicas = 1 if replicas is None else syntax.number(found, ("spec", "replicas"), replicas, 0, _MOST_REPLICAS)
    return Workload(found.kind.name, found.namespace, found.name, made, replicas, found.labels, chosen, found.manifest)


def set_labels(labels: Labels, more: dict[str, str]) -> Labels:
    """Labels with some set anew, sorted."""
    return tuple(sorted({**dict(labels), **more}.items()))
