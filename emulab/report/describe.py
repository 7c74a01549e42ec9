"""An object in words, as `kubectl describe` puts it, with what emulab knows of its effect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from emulab.kube.document import Kind
from emulab.model import Node, Pod
from emulab.objects import EGRESS, INGRESS, HostPod, Namespace, Peer, Policy, PortRange, Rule, Service, Workload
from emulab.planning import Design
from emulab.policy import Meaning
from emulab.report import kube
from emulab.report.derived import endpoint_texts
from emulab.selector import Everything

Lines = Iterator[tuple[str, Any]]
_INDENT = "  "


def text(design: Design, kind: Kind, value: Any) -> str:
    """The description, line by line."""
    entries: list[tuple[str, Any]] = [("Name", value.name)]
    if kind.namespaced:
        entries.append(("Namespace", value.namespace))
    labels = value.all_labels if isinstance(value, (Node, Namespace)) else dict(value.labels) if hasattr(value, "labels") else {}
    entries.append(("Labels", [f"{key}={inner}" for key, inner in labels.items()]))
    for sort, show in _SHOWN:
        if isinstance(value, sort):
            entries += show(design, value)
            break
    else:
        cells = kube.cells(design.cluster, value)
        entries += [(heading.capitalize(), cell) for heading, cell in cells.items() if heading != "NAME"]
    width = max(len(name) for name, _ in entries) + 3
    return "\n".join(line for name, inner in entries for line in _lines(name, inner, width))


def _lines(name: str, inner: Any, width: int) -> Iterator[str]:
    if isinstance(inner, tuple):  # a block of its own below its name
        yield f"{name}:" if inner else f"{(name + ':').ljust(width)}<none>"
        yield from (_INDENT + line for line in inner)
    elif isinstance(inner, list):
        for index, one in enumerate(inner or ["<none>"]):
            yield f"{(name + ':' if index == 0 else '').ljust(width)}{one}"
    else:
        yield f"{(name + ':').ljust(width)}{'<none>' if inner in ('', None) else inner}"


def _policies(design: Design, pod: Pod) -> list[str]:
    """The policies that select a pod, with what the data plane leaves undone."""
    meaning = Meaning(design.cluster)
    found = []
    for policy in design.topology.objects.policies:
        if any(endpoint.key == pod.key for endpoint in meaning.subjects(policy)):
            lacks = design.plane.unenforced(policy)
            found.append(f"{policy.kind} {policy.key} ({', '.join(policy.directions)}){f': {lacks}' if lacks else ''}")
    return found


def _services(design: Design, pod: Pod | HostPod) -> list[str]:
    services = design.topology.objects.services
    labels = dict(pod.labels)
    return [s.name for s in services if s.namespace == pod.namespace and s.selector is not None and s.selector.matches(labels)]


def _pod(design: Design, pod: Pod | HostPod) -> Lines:
    yield "Node", f"{pod.node}/{design.topology.underlay_address(pod.node)}"
    yield "Status", "Running" if design.topology.running(pod.node) else "Stopped"
    yield "Ready", str(pod.ready)
    yield "IPs", kube.pod_addresses(design.cluster, pod)
    if isinstance(pod, HostPod):
        yield "Host Network", "true"
    yield "Controlled By", pod.owner
    shown = []
    for port in pod.ports:
        published = f", host port {port.host_ip + ':' if port.host_ip else ''}{port.host_port}" if port.host_port else ""
        shown.append(f"{port.number}/{port.protocol.upper()}{f' ({port.name})' if port.name else ''}{published}")
    yield "Ports", shown
    if isinstance(pod, Pod):
        if any(pod.rates):
            receive, send = (f"{rate / 1e6:g} Mbit/s" if rate else "unlimited" for rate in pod.rates)
            yield "Bandwidth", f"receives {receive}, sends {send}"
        yield "Policies", _policies(design, pod)
    yield "Services", _services(design, pod)


def _node(design: Design, node: Node) -> Lines:
    topology, cluster = design.topology, design.cluster
    yield "Ready", str(node.running)
    yield "InternalIP", [str(a.ip) for link in topology.links if link.node == node.name for a in link.addresses]
    yield "PodCIDRs", [str(lease.network) for lease in cluster.leases_of(node.name)]
    yield "Pods", [endpoint.key for endpoint in cluster.endpoints_on(node.name)]
    if host := [pod.key for pod in topology.objects.host_pods if pod.node == node.name]:
        yield "Host Pods", host


def _namespace(design: Design, namespace: Namespace) -> Lines:
    objects = design.topology.objects
    yield "Status", "Active"
    everybody: list[Pod | HostPod] = [*design.topology.pods, *objects.host_pods]
    yield "Pods", [pod.name for pod in everybody if pod.namespace == namespace.name]
    yield "Services", [one.name for one in objects.services if one.namespace == namespace.name]
    yield "Policies", [f"{one.kind} {one.name}" for one in objects.policies if one.namespace == namespace.name]


def _workload(design: Design, workload: Workload) -> Lines:
    mine, ready = kube.pods_of(design.cluster, workload)
    yield "Selector", kube.selector_text(workload.selector)
    if workload.kind == "Deployment":
        yield (
            "Replicas",
            f"{workload.replicas} desired | {mine} total | {ready} available | {workload.replicas - ready} unavailable",
        )
    yield "Node-Selectors", kube.labels_text(workload.template.node_selector)
    owner = f"{workload.kind}/{workload.name}"
    everybody: list[Pod | HostPod] = [*design.topology.pods, *design.topology.objects.host_pods]
    pods = [pod for pod in everybody if (pod.namespace, pod.owner) == (workload.namespace, owner)]
    yield "Pods", [f"{pod.name} on {pod.node}" for pod in pods]


def _service(design: Design, service: Service) -> Lines:
    yield "Selector", kube.selector_text(service.selector)
    yield "Type", service.kind
    if service.kind == "ExternalName":
        yield "External Name", service.external_name
        return
    yield "IP Families", ",".join(f"IPv{family}" for family in service.families)
    yield "IPs", ",".join(map(str, service.addresses)) or "None"
    if service.balancer:
        yield "LoadBalancer Ingress", ", ".join(map(str, service.balancer))
    for port in service.ports:
        yield "Port", f"{port.name or '<unset>'}  {port.port}/{port.protocol.upper()}"
        yield "TargetPort", f"{port.target}/{port.protocol.upper()}"
        if port.node_port:
            yield "NodePort", f"{port.node_port}/{port.protocol.upper()}"
    yield "Endpoints", ",".join(endpoint_texts(design.cluster, service))
    yield "Session Affinity", f"ClientIP ({service.affinity} s)" if service.affinity else "None"
    if service.kind in ("NodePort", "LoadBalancer"):
        yield "External Traffic Policy", "Local" if service.external_local else "Cluster"
    yield "Internal Traffic Policy", "Local" if service.internal_local else "Cluster"
    if service.source_ranges:
        yield "LoadBalancer Source Ranges", ",".join(map(str, service.source_ranges))


def _policy(design: Design, policy: Policy) -> Lines:
    everything = isinstance(policy.selector, Everything)
    yield "Selector", "<none> (all pods in its namespace)" if everything and policy.kubernetes else str(policy.selector)
    if not policy.kubernetes:
        yield "Tier", f"{policy.tier}, order {policy.order:g}"
    for direction, rules in ((INGRESS, policy.ingress), (EGRESS, policy.egress)):
        name = f"{'Allowing' if policy.kubernetes else 'Rules for'} {direction} traffic"
        if direction not in policy.directions:
            yield name, f"<none> (not affecting {direction} traffic)"
        elif not rules and policy.kubernetes:
            yield name, f"<none> (selected pods are isolated for {direction} connectivity)"
        else:
            yield name, tuple(_rule(rule, policy.kubernetes) for rule in rules)
    yield "Policy Types", ", ".join(direction.capitalize() for direction in policy.directions)
    yield "Selected Pods", [endpoint.key for endpoint in Meaning(design.cluster).subjects(policy)]
    if lacks := design.plane.unenforced(policy):
        yield "Not Enforced", lacks


def _rule(rule: Rule, kubernetes: bool) -> str:
    """One rule in a line: ``ingress[0].from[1]: from namespaces team == 'blue' to port 80/TCP``."""
    there = rule.destination
    ports = " or ".join(map(_range, there.ports)) or "any port"
    what = f"{ports}/{rule.protocol.upper()}" if rule.protocol else ports
    action = "" if kubernetes else f"{rule.action} "
    ends = [f"{word} {_peer(end)}" for word, end in (("from", rule.source), ("to", there)) if not end.anybody]
    return f"{rule.origin}: {action}{' '.join(ends) or 'everybody'}, {what}"


def _peer(peer: Peer) -> str:
    parts = []
    if peer.namespaces is not None:
        parts.append(f"namespaces {peer.namespaces}")
    if peer.pods is not None:
        parts.append(f"pods {peer.pods}")
    if peer.nets:
        parts.append(", ".join(map(str, peer.nets)))
    if peer.not_nets:
        parts.append(f"except {', '.join(map(str, peer.not_nets))}")
    if peer.not_pods is not None:
        parts.append(f"but not pods {peer.not_pods}")
    return " ".join(parts)


def _range(one: PortRange) -> str:
    return one.name or (str(one.low) if one.low == one.high else f"{one.low}-{one.high}")


_SHOWN: tuple[tuple[Any, Any], ...] = (
    ((Pod, HostPod), _pod),
    (Node, _node),
    (Namespace, _namespace),
    (Workload, _workload),
    (Service, _service),
    (Policy, _policy),
)
