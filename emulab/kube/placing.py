"""Pods that somebody wrote by hand, each on a node: the one that was named, or the scheduler's choice.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from emulab.errors import nearest
from emulab.kube import scheduling
from emulab.kube.document import Document
from emulab.kube.pods import FIXED, Asked, addresses
from emulab.model import Pod, Topology
from emulab.objects import HostPod
from emulab.text import Path


def with_pods(topology: Topology, asked: Sequence[Asked]) -> Topology:
    """The topology with the pods of manifests, each on a node; those that are there stay where they are."""
    if not asked:
        return topology
    there: list[Pod | HostPod] = [*topology.pods, *topology.objects.host_pods]
    before = {pod.key: pod for pod in there}
    keys = {f"{one.namespace}/{one.name}" for one in asked}
    board = scheduling.Board(topology, [pod for key, pod in before.items() if key not in keys])
    found: dict[str, Pod | HostPod] = {}
    for one in sorted(asked, key=lambda one: not (one.template.node_name or f"{one.namespace}/{one.name}" in before)):
        key, template = f"{one.namespace}/{one.name}", one.template
        was = before.get(key)
        if template.node_name:
            on_a_node(topology, one.document, ("spec", "nodeName"), template.node_name)
        wanted = replace(template, node_name=template.node_name or (was.node if was else ""))
        if was is not None and (wanted.node_name != was.node or template.host_network != isinstance(was, HostPod)):
            field = "nodeName" if wanted.node_name != was.node else "hostNetwork"
            one.document.fail(("spec", field), f"the pod is on {was.node}, and there it stays as it is: delete it first")
        if isinstance(was, Pod) and any(a.version == b.version and a != b for a in addresses(template) for b in was.addresses):
            path = ("metadata", "annotations", FIXED)
            one.document.fail(path, f"the pod has {', '.join(map(str, was.addresses))}, and keeps it: delete it first")
        node = board.best(wanted)
        if node is None:
            one.document.fail(*_nowhere(topology, template))
        pod = scheduling.made(template, one.namespace, one.name, node, was.owner if was else "")
        found[key] = replace(pod, ready=was.ready if was else True, manifest=one.document.manifest)
    everybody = [found.pop(key, pod) for key, pod in before.items()]
    everybody += [found[f"{one.namespace}/{one.name}"] for one in asked if f"{one.namespace}/{one.name}" in found]
    pods = tuple(pod for pod in everybody if isinstance(pod, Pod))
    host_pods = tuple(pod for pod in everybody if isinstance(pod, HostPod))
    return replace(topology, pods=pods, objects=replace(topology.objects, host_pods=host_pods))


def on_a_node(topology: Topology, document: Document, path: Path, name: str) -> None:
    """Refuse a node that is not there."""
    names = [node.name for node in topology.nodes]
    if name not in names:
        document.fail(path, f"no node '{name}'{nearest(name, names)}")


def _nowhere(topology: Topology, template: Any) -> tuple[tuple[str, ...], str]:
    selector = ", ".join(f"{key}={value}" for key, value in template.node_selector)
    wanted = dict(template.node_selector).items()
    if selector and not any(wanted <= node.all_labels.items() for node in topology.nodes):
        return ("spec", "nodeSelector"), f"no node has the labels {selector}"
    return ("spec",), "no running node is left for it: its host ports are taken, or its nodeSelector matches none"
