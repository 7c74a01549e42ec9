"""Kubernetes objects of a lab as kubectl's tables have them, and as manifests with their status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from emulab.kube import showing
from emulab.kube.document import Kind
from emulab.kube.services import port_text
from emulab.model import Cluster, Node, Pod
from emulab.objects import EndpointSlice, HostPod, Namespace, Policy, Service, Tier, Workload
from emulab.report.derived import ENDPOINTS, endpoints_cells, endpoints_manifest, few, slices
from emulab.selector import Every, Everything, In, Selector

_HEADINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Namespace": (("NAME", "STATUS"), ("LABELS",)),
    "Node": (("NAME", "STATUS", "IP"), ("LABELS",)),
    "Pod": (("NAME", "READY", "STATUS", "IP", "NODE"), ("LABELS",)),
    "Deployment": (("NAME", "READY", "UP-TO-DATE", "AVAILABLE"), ("SELECTOR",)),
    "DaemonSet": (("NAME", "DESIRED", "CURRENT", "READY", "UP-TO-DATE", "AVAILABLE", "NODE SELECTOR"), ("SELECTOR",)),
    "Service": (("NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)"), ("SELECTOR",)),
    "Endpoints": (("NAME", "ENDPOINTS"), ()),
    "EndpointSlice": (("NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS"), ()),
    "NetworkPolicy": (("NAME", "POD-SELECTOR"), ("TYPES",)),
    "Tier": (("NAME", "ORDER", "DEFAULT-ACTION"), ()),
}
_CALICO = (("NAME", "TIER", "ORDER"), ("SELECTOR", "TYPES"))


DERIVED = {word: ENDPOINTS for word in ENDPOINTS.words}  # what can be looked at only


def columns(kind: Kind) -> tuple[list[str], list[str]]:
    """The headings of a kind's table, and those that are added when it may be wide."""
    usual, wide = _HEADINGS.get(kind.name, _CALICO)
    if kind.api == "projectcalico.org/v3" and kind.name != "Tier":
        usual, wide = _CALICO
    return list(usual), list(wide)


def items(cluster: Cluster, kind: Kind) -> list[dict[str, Any]]:
    """All objects of a kind, with the cells of their row and their manifest."""
    topology = cluster.topology
    if kind is ENDPOINTS:
        services = [one for one in topology.objects.services if one.kind != "ExternalName"]
        return [
            _item(kind, one.namespace, one.name, endpoints_cells(cluster, one), endpoints_manifest(cluster, one))
            for one in services
        ]
    made = slices(cluster, kind) if kind.name == "EndpointSlice" else ()
    derived = [_item(kind, service.namespace, row["NAME"], row, shown) for service, row, shown in made]
    return derived + [
        _item(kind, getattr(value, "namespace", ""), value.name, cells(cluster, value), manifest(cluster, kind, value))
        for value in showing.values(topology, kind)
    ]


def _item(kind: Kind, namespace: str, name: str, found: dict[str, str], shown: dict[str, Any]) -> dict[str, Any]:
    return {"namespace": namespace, "name": name, "title": kind.title(name), "cells": found, "manifest": shown}


def cells(cluster: Cluster, value: Any) -> dict[str, str]:
    """What a table says of an object, by heading."""
    for kind, show in _CELLS:
        if isinstance(value, kind):
            return show(cluster, value)
    return {}


def manifest(cluster: Cluster, kind: Kind, value: Any) -> dict[str, Any]:
    """The object with its status."""
    topology = cluster.topology
    if isinstance(value, Node):  # several blocks are no pod CIDRs
        leases = [lease.network for lease in cluster.leases_of(value.name)]
        single = len({one.version for one in leases}) == len(leases)
        value = replace(value, pod_cidrs=tuple(leases) if single else ())
    shown = showing.shown(kind, value)
    if isinstance(value, (Pod, HostPod)):
        addresses = pod_addresses(cluster, value)
        shown["status"] = {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if value.ready else "False"}],
            "hostIP": str(topology.underlay_address(value.node)),
            "podIP": addresses[0] if addresses else "",
            "podIPs": [{"ip": text} for text in addresses],
        }
    elif isinstance(value, Node):
        uplinks = [address.ip for link in topology.links if link.node == value.name for address in link.addresses]
        shown["status"] = {
            "addresses": [
                *({"type": "InternalIP", "address": str(one)} for one in uplinks),
                {"type": "Hostname", "address": value.name},
            ],
            "conditions": [{"type": "Ready", "status": "True" if value.running else "Unknown"}],
        }
    elif isinstance(value, Namespace):
        shown["status"] = {"phase": "Active"}
    elif isinstance(value, Workload):
        mine, ready = pods_of(cluster, value)
        shown["status"] = {"replicas": mine, "readyReplicas": ready, "availableReplicas": ready}
        if value.kind == "DaemonSet":
            wanted = _desired(cluster, value)
            shown["status"] = {"desiredNumberScheduled": wanted, "currentNumberScheduled": mine, "numberReady": ready}
    return shown


def pod_addresses(cluster: Cluster, pod: Pod | HostPod) -> list[str]:
    """The addresses that a pod has, its node's with hostNetwork."""
    if isinstance(pod, HostPod):
        families = cluster.topology.families
        return [str(cluster.topology.underlay_address(pod.node, family)) for family in families[:1]]
    return [str(a) for endpoint in cluster.endpoints_on(pod.node) if endpoint.key == pod.key for a in endpoint.addresses]


def pods_of(cluster: Cluster, workload: Workload) -> tuple[int, int]:
    """How many pods a workload has, and how many of them are ready."""
    owner = f"{workload.kind}/{workload.name}"
    everybody: list[Pod | HostPod] = [*cluster.topology.pods, *cluster.topology.objects.host_pods]
    mine = [pod for pod in everybody if (pod.namespace, pod.owner) == (workload.namespace, owner)]
    return len(mine), sum(pod.ready and cluster.topology.running(pod.node) for pod in mine)


def _desired(cluster: Cluster, workload: Workload) -> int:
    wanted = dict(workload.template.node_selector).items()
    return sum(wanted <= node.all_labels.items() for node in cluster.nodes)


def labels_text(labels: Any) -> str:
    return ",".join(f"{key}={value}" for key, value in dict(labels).items()) or "<none>"


def selector_text(selector: Selector | None) -> str:
    """A selector as kubectl prints it: ``app=web``; what cannot be said so as its expression."""
    if selector is None or isinstance(selector, Everything):
        return "<none>"
    parts = selector.parts if isinstance(selector, Every) else (selector,)
    plain = [f"{part.key}={part.values[0]}" for part in parts if isinstance(part, In) and len(part.values) == 1]
    return ",".join(plain) if len(plain) == len(parts) else str(selector)


def _namespace(_: Cluster, one: Namespace) -> dict[str, str]:
    return {"NAME": one.name, "STATUS": "Active", "LABELS": labels_text(one.all_labels)}


def _node(cluster: Cluster, one: Node) -> dict[str, str]:
    return {
        "NAME": one.name,
        "STATUS": "Ready" if one.running else "NotReady",
        "IP": str(cluster.topology.underlay_address(one.name)),
        "LABELS": labels_text(one.all_labels),
    }


def _pod(cluster: Cluster, one: Pod | HostPod) -> dict[str, str]:
    return {
        "NAME": one.name,
        "READY": f"{int(one.ready)}/1",
        "STATUS": "Running" if cluster.topology.running(one.node) else "Stopped",
        "IP": ",".join(pod_addresses(cluster, one)),
        "NODE": one.node,
        "LABELS": labels_text(one.labels),
    }


def _workload(cluster: Cluster, one: Workload) -> dict[str, str]:
    mine, ready = pods_of(cluster, one)
    found = {"NAME": one.name, "UP-TO-DATE": str(mine), "AVAILABLE": str(ready), "SELECTOR": selector_text(one.selector)}
    if one.kind == "Deployment":
        return {**found, "READY": f"{ready}/{one.replicas}"}
    selector = labels_text(one.template.node_selector)
    return {**found, "DESIRED": str(_desired(cluster, one)), "CURRENT": str(mine), "READY": str(ready), "NODE SELECTOR": selector}


def _service(_: Cluster, one: Service) -> dict[str, str]:
    outside = ",".join(map(str, one.balancer)) or one.external_name or "<none>"
    inside = str(one.addresses[0]) if one.addresses else "<none>" if one.kind == "ExternalName" else "None"
    return {
        "NAME": one.name,
        "TYPE": one.kind,
        "CLUSTER-IP": inside,
        "EXTERNAL-IP": outside,
        "PORT(S)": ",".join(map(port_text, one.ports)) or "<none>",
        "SELECTOR": selector_text(one.selector),
    }


def _slice(_: Cluster, one: EndpointSlice) -> dict[str, str]:
    addresses = [str(address) for given, _, _ in one.endpoints for address in given]
    family = next((address.version for given, _, _ in one.endpoints for address in given), 4)
    ports = ",".join(str(number) for _, _, number in one.ports) or "<unset>"
    return {"NAME": one.name, "ADDRESSTYPE": f"IPv{family}", "PORTS": ports, "ENDPOINTS": few(addresses)}


def _policy(_: Cluster, one: Policy) -> dict[str, str]:
    return {
        "NAME": one.name,
        "POD-SELECTOR": selector_text(one.selector),
        "TIER": one.tier,
        "ORDER": f"{one.order:g}",
        "SELECTOR": str(one.selector),
        "TYPES": ",".join(direction.capitalize() for direction in one.directions),
    }


def _tier(_: Cluster, one: Tier) -> dict[str, str]:
    return {"NAME": one.name, "ORDER": f"{one.order:g}", "DEFAULT-ACTION": one.default_action.capitalize()}


_CELLS: tuple[tuple[Any, Callable[[Cluster, Any], dict[str, str]]], ...] = (
    (Namespace, _namespace),
    (Node, _node),
    ((Pod, HostPod), _pod),
    (Workload, _workload),
    (Service, _service),
    (EndpointSlice, _slice),
    (Policy, _policy),
    (Tier, _tier),
)
