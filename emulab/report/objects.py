"""A lab's objects as JSON values, in kubectl's words where it has one: pods, nodes, links, routes."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from emulab.errors import InputError, nearest
from emulab.kernel.namespaces import entered
from emulab.lab import Lab
from emulab.model import Link
from emulab.objects import HostPod
from emulab.planning import Design
from emulab.state import Veth

KINDS = ("pods", "nodes", "links", "routes")


def lab(design: Design) -> dict[str, Any]:
    """A whole design."""
    topology = design.topology
    return {
        "plugin": design.plane.name,
        "options": design.plane.options(),
        "topology": topology.name,
        "nodes": _nodes(design),
        "pods": _pods(design),
        "links": _links(design),
        "partitioned": sorted(sorted(pair) for pair in topology.partitioned),
    }


def kind(lab: Lab, kind: str) -> list[dict[str, Any]]:
    """All objects of a kind; singular forms and kubectl's short names will do."""
    words = {"pod": "pods", "po": "pods", "node": "nodes", "no": "nodes", "link": "links", "route": "routes"}
    wanted = words.get(kind, kind)
    if wanted not in KINDS:
        raise InputError(f"no kind '{kind}'{nearest(kind, KINDS)}")
    if wanted == "routes":
        return _routes(lab)
    return {"pods": _pods, "nodes": _nodes, "links": _links}[wanted](lab.design)


def _pods(design: Design) -> list[dict[str, Any]]:
    ends = {t.peer_namespace: t for objects in design.made.values() for t in objects if isinstance(t, Veth)}
    return [
        {
            "name": endpoint.key,
            "namespace": endpoint.pod.namespace,
            "status": "Running" if design.topology.running(endpoint.node) else "Stopped",
            "node": endpoint.node,
            "addresses": [str(address) for address in endpoint.addresses],
            "mac": endpoint.mac,
            "interface": ends[endpoint.key].name if endpoint.key in ends else None,
            "labels": dict(endpoint.pod.labels),
            "ready": endpoint.pod.ready,
        }
        for endpoint in design.cluster.endpoints
    ] + [_host_pod(design, pod) for pod in design.topology.objects.host_pods]


def _host_pod(design: Design, pod: HostPod) -> dict[str, Any]:
    """A pod in its node's namespace: no interface is its own."""
    links = design.topology.links
    return {
        "name": pod.key,
        "namespace": pod.namespace,
        "status": "Running" if design.topology.running(pod.node) else "Stopped",
        "node": pod.node,
        "addresses": [str(address.ip) for link in links if link.node == pod.node for address in link.addresses],
        "mac": None,
        "interface": None,
        "labels": dict(pod.labels),
        "ready": pod.ready,
    }


def _nodes(design: Design) -> list[dict[str, Any]]:
    topology, cluster = design.topology, design.cluster
    return [
        {
            "name": node.name,
            "status": "Running" if node.running else "Stopped",
            "addresses": [str(a.ip) for link in topology.links if link.node == node.name for a in link.addresses],
            "pod_cidrs": [str(lease.network) for lease in cluster.leases_of(node.name)],
            "segment": topology.uplink(node.name).segment,
            "pods": len(cluster.endpoints_on(node.name)),
        }
        for node in cluster.nodes
    ]


def _links(design: Design) -> list[dict[str, Any]]:
    return [
        {
            "name": f"{link.node}:{link.interface}",
            "node": link.node,
            "interface": link.interface,
            "segment": link.segment,
            "status": "Up" if link.up and design.topology.running(link.node) else "Down",
            "mtu": link.mtu,
            **shape(link),
        }
        for link in design.topology.links
    ]


def shape(link: Link) -> dict[str, Any]:
    """bit/s, seconds, fraction; 0: as it comes."""
    return {"rate": link.rate, "delay": link.delay, "loss": link.loss}


def _routes(lab: Lab) -> list[dict[str, Any]]:
    """The main tables of all nodes as the kernel has them, read by ip(8)."""
    found = []
    for node in lab.design.present.nodes:
        for family in lab.cluster.topology.families:
            with entered(lab.namespaces[node.name].net):
                done = subprocess.run(["ip", f"-{family}", "-j", "route"], capture_output=True, text=True, check=False)
            for route in json.loads(done.stdout or "[]"):
                if route["dst"] == "fe80::/64" or route.get("type") in ("multicast", "local", "anycast"):
                    continue
                found.append(
                    {
                        "name": f"{node.name} {route['dst']}",
                        "node": node.name,
                        "family": family,
                        "destination": route["dst"],
                        "type": route.get("type", "unicast"),
                        "via": route.get("gateway"),
                        "device": route.get("dev"),
                        "protocol": route.get("protocol"),
                        "source": route.get("prefsrc"),
                        "flags": route.get("flags", []),
                    }
                )
    return found
