"""Objects as the API server would show them: what was written, the defaults, what was allocated, and the state of it.  Pure.

Applied again, what is shown changes nothing.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from emulab.kube.document import Kind
from emulab.kube.pods import FIXED, SLOWED
from emulab.kube.system import namespaces
from emulab.model import Node, Pod, Topology
from emulab.objects import METADATA_NAME, ContainerPort, HostPod, Manifest, Policy, Service, Workload

_SERVER_SIDE = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid")
_LAST = "kubectl.kubernetes.io/last-applied-configuration"


def wanted(shown: Manifest) -> dict[str, Any]:
    """What of an object its owner decides: all but its status, and what the server keeps for itself."""
    kept = {key: value for key, value in shown.items() if key != "status"}
    metadata = {key: value for key, value in (kept.get("metadata") or {}).items() if key not in _SERVER_SIDE}
    annotations = {key: value for key, value in (metadata.pop("annotations", None) or {}).items() if key != _LAST}
    kept["metadata"] = {**metadata, **({"annotations": annotations} if annotations else {})}
    return _without_nothing(kept)  # type: ignore[no-any-return]


def _without_nothing(value: Any) -> Any:
    """Without null, which means the same as no field at all."""
    if isinstance(value, dict):
        return {key: _without_nothing(inner) for key, inner in value.items() if inner is not None}
    return [_without_nothing(one) for one in value] if isinstance(value, list) else value


def values(topology: Topology, kind: Kind) -> list[Any]:
    """All objects of a kind, as emulab holds them."""
    objects = topology.objects
    if kind.api == "v1" and kind.name == "Namespace":
        return list(namespaces(topology).values())
    places: dict[str, Callable[[], list[Any]]] = {
        "Node": lambda: list(topology.nodes),
        "Pod": lambda: [*topology.pods, *objects.host_pods],
        "Deployment": lambda: [one for one in objects.workloads if one.kind == "Deployment"],
        "DaemonSet": lambda: [one for one in objects.workloads if one.kind == "DaemonSet"],
        "Service": lambda: list(objects.services),
        "EndpointSlice": lambda: list(objects.slices),
        "Tier": lambda: list(objects.tiers),
    }
    if kind.name in places:
        return places[kind.name]()
    return [one for one in objects.policies if (one.api, one.kind) == (kind.api, kind.name)]


def shown(kind: Kind, value: Any) -> dict[str, Any]:
    """One object in the order of kubectl: apiVersion, kind, metadata, spec."""
    written = copy.deepcopy(dict(getattr(value, "manifest", None) or {}))
    metadata = dict(written.pop("metadata", None) or {})
    metadata["name"] = value.name
    if kind.namespaced:
        metadata["namespace"] = value.namespace
    labels = dict(value.labels)
    if kind.name == "Namespace":
        labels[METADATA_NAME] = value.name
    if kind.name == "Node":
        labels = value.all_labels
    metadata.pop("labels", None)
    if labels:
        metadata["labels"] = labels
    made = {"apiVersion": kind.api, "kind": kind.name, "metadata": metadata}
    written = {key: inner for key, inner in written.items() if key not in ("apiVersion", "kind", "status")}
    if isinstance(value, (Pod, HostPod)):
        return _pod(made, written, value)
    if isinstance(value, Service):
        return _service(made, written, value)
    if isinstance(value, Workload) and value.kind == "Deployment":
        written["spec"] = {**written.get("spec", {}), "replicas": value.replicas}
    if isinstance(value, Policy) and value.kubernetes:
        spec = {"podSelector": {}, **{k: v for k, v in (written.get("spec") or {}).items() if v is not None}}
        written["spec"] = {**spec, "policyTypes": [one.capitalize() for one in value.directions]}
    if isinstance(value, Node):
        written["spec"] = {"podCIDRs": [str(one) for one in value.pod_cidrs]} if value.pod_cidrs else {}
    return {**made, **written}


def _pod(made: dict[str, Any], written: dict[str, Any], pod: Pod | HostPod) -> dict[str, Any]:
    spec = {key: inner for key, inner in (written.get("spec") or {}).items() if inner is not None}
    spec["nodeName"] = pod.node
    if not pod.manifest:
        spec.update(_spec(pod))
        annotations = _annotations(pod) if isinstance(pod, Pod) else {}
        if annotations:
            made["metadata"]["annotations"] = annotations
    return {**made, **written, "spec": spec}


def _spec(pod: Pod | HostPod) -> dict[str, Any]:
    """The spec of a pod that nobody wrote a manifest for."""
    host = isinstance(pod, HostPod)
    container: dict[str, Any] = {"name": "pod", "image": "emulab"}
    if pod.ports:
        container["ports"] = [_port(port) for port in pod.ports]
    spec: dict[str, Any] = {"containers": [container]}
    if host:
        spec["hostNetwork"] = True
    for field in ("hostname", "subdomain"):
        if text := getattr(pod, field, ""):
            spec[field] = text
    return spec


def _port(port: ContainerPort) -> dict[str, Any]:
    found: dict[str, Any] = {"containerPort": port.number, "protocol": port.protocol.upper()}
    if port.name:
        found["name"] = port.name
    if port.host_port:
        found["hostPort"] = port.host_port
    if port.host_ip:
        found["hostIP"] = port.host_ip
    return found


def _annotations(pod: Pod) -> dict[str, str]:
    found = {FIXED: json.dumps([str(address) for address in pod.addresses])} if pod.addresses else {}
    return found | {name: str(rate) for name, rate in zip(SLOWED, pod.rates, strict=True) if rate}


def _service(made: dict[str, Any], written: dict[str, Any], one: Service) -> dict[str, Any]:
    spec = {key: inner for key, inner in (written.get("spec") or {}).items() if inner is not None}
    spec["type"] = one.kind
    if one.kind != "ExternalName":
        addresses = [str(address) for address in one.addresses] or ["None"]
        spec |= {"clusterIP": addresses[0], "clusterIPs": addresses}
        spec["ipFamilies"] = [f"IPv{family}" for family in one.families]
        spec.setdefault("ipFamilyPolicy", "SingleStack" if len(one.families) == 1 else "RequireDualStack")
        spec["internalTrafficPolicy"] = "Local" if one.internal_local else "Cluster"
    if one.kind in ("NodePort", "LoadBalancer"):
        spec["externalTrafficPolicy"] = "Local" if one.external_local else "Cluster"
    spec["sessionAffinity"] = "ClientIP" if one.affinity else "None"
    if one.affinity:
        spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": one.affinity}}
    if one.ports:
        given = spec.get("ports") or [{}] * len(one.ports)
        spec["ports"] = [
            {
                **{key: inner for key, inner in was.items() if inner is not None},
                "port": port.port,
                "protocol": port.protocol.upper(),
                "targetPort": port.target,
                **({"nodePort": port.node_port} if port.node_port else {}),
            }
            for was, port in zip(given, one.ports, strict=True)
        ]
    status = {"loadBalancer": {"ingress": [{"ip": str(address)} for address in one.balancer]} if one.balancer else {}}
    return {**made, **written, "spec": spec, "status": status}
