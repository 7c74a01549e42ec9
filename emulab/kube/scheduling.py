"""Where pods go, and how many of them there are: scheduler, ReplicaSet and DaemonSet controller, converged.  Pure.

Whatever is there stays there.  A pod without a node goes to the one with the fewest pods, the first in the topology's order
among equals.  Names are hashes, so that the same request leads to the same names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple, Union

from emulab.kube.pods import addresses, rates, set_labels
from emulab.model import Node, Pod, Topology
from emulab.objects import ContainerPort, HostPod, PodTemplate, Workload

AnyPod = Union[Pod, HostPod]
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # apimachinery/pkg/util/rand: no vowels, no look-alikes
_LONGEST_BASE = 58  # apiserver/pkg/storage/names: a generated name has at most 63 characters, 5 of them the suffix
_HASHES = {"Deployment": "pod-template-hash", "DaemonSet": "controller-revision-hash"}


class Placed(NamedTuple):
    """All pods of a cluster, and which workloads have fewer than they want."""

    pods: tuple[Pod, ...]
    host_pods: tuple[HostPod, ...]
    missing: tuple[str, ...] = ()


class Board:
    """Which node holds what while pods come and go."""

    def __init__(self, topology: Topology, pods: Sequence[AnyPod]) -> None:
        self._nodes = [node for node in topology.nodes if node.running]
        self._counts = dict.fromkeys((node.name for node in topology.nodes), 0)
        self._claims: dict[str, list[ContainerPort]] = {}
        for pod in pods:
            self.add(pod.node, _claims(pod.ports, isinstance(pod, HostPod)))

    def add(self, node: str, claims: Collection[ContainerPort]) -> None:
        self._counts[node] = self._counts.get(node, 0) + 1
        self._claims.setdefault(node, []).extend(claims)

    def fitting(self, template: PodTemplate) -> list[Node]:
        """The running nodes that its node selector matches and where its host ports are free."""
        wanted, claims = dict(template.node_selector).items(), _claims(template.ports, template.host_network)
        return [
            node
            for node in self._nodes
            if wanted <= node.all_labels.items()
            and not any(_collide(one, other) for one in claims for other in self._claims.get(node.name, ()))
        ]

    def best(self, template: PodTemplate) -> str | None:
        """The node that a pod is put on, which then counts; None when none fits."""
        chosen = template.node_name
        if not chosen:
            nodes = self.fitting(template)
            if not nodes:
                return None
            chosen = min(nodes, key=lambda node: self._counts[node.name]).name  # min keeps the first of equals
        self.add(chosen, _claims(template.ports, template.host_network))
        return chosen


def _claims(ports: Sequence[ContainerPort], host_network: bool) -> list[ContainerPort]:
    """What of its node's ports a pod needs for itself: hostPort, and with hostNetwork every port."""
    if host_network:
        return [replace(port, host_port=port.number) for port in ports]
    return [port for port in ports if port.host_port]


def _collide(one: ContainerPort, other: ContainerPort) -> bool:
    addresses = {one.host_ip or "0.0.0.0", other.host_ip or "0.0.0.0"}
    return (one.protocol, one.host_port) == (other.protocol, other.host_port) and (len(addresses) == 1 or "0.0.0.0" in addresses)


def made(template: PodTemplate, namespace: str, name: str, node: str, owner: str = "") -> AnyPod:
    """A pod after a template."""
    if template.host_network:
        return HostPod(namespace, name, node, template.labels, template.ports, owner=owner)
    return Pod(
        name,
        node,
        namespace,
        addresses(template),
        template.labels,
        template.ports,
        owner=owner,
        hostname=template.hostname,
        subdomain=template.subdomain,
        rates=rates(template),
    )


def reconciled(topology: Topology, avoid: Collection[str] = ()) -> Placed:
    """The pods that there are when the workloads' controllers have done their work.

    ``avoid``: keys of pods that have just been deleted, whose names are not given again.
    """
    objects = topology.objects
    nodes = {node.name for node in topology.nodes}
    pods: list[AnyPod] = [*topology.pods, *(pod for pod in objects.host_pods if pod.node in nodes)]
    workloads = {(w.namespace, f"{w.kind}/{w.name}"): w for w in objects.workloads}
    kept: list[AnyPod] = []
    owned: dict[tuple[str, str], list[AnyPod]] = {key: [] for key in workloads}
    for pod in pods:
        key = (pod.namespace, pod.owner)
        if not pod.owner:
            kept.append(pod)
        elif key in workloads:
            workload = workloads[key]
            labels = dict(pod.labels)
            if not workload.selector.matches(labels):
                kept.append(replace(pod, owner=""))  # as if by `kubectl label`: it is nobody's now
            elif labels.get(_HASHES[workload.kind]) == _digest(workload):
                kept.append(pod)
                owned[key].append(pod)
    used = {pod.key for pod in pods} | set(avoid)
    gone: set[str] = set()
    for key, workload in workloads.items():
        leaving = _leaving(topology, workload, owned[key])
        gone |= leaving
        owned[key] = [pod for pod in owned[key] if pod.key not in leaving]
    board_pods = [pod for pod in kept if pod.key not in gone]
    board = Board(topology, board_pods)
    missing = []
    for key, workload in workloads.items():
        new, lacking = _arriving(board, workload, owned[key], used)
        board_pods += new
        if lacking:
            missing.append(f"{workload.kind} {workload.namespace}/{workload.name}: {lacking} of its pods fit on no node")
    found = tuple(pod for pod in board_pods if isinstance(pod, Pod))
    return Placed(found, tuple(pod for pod in board_pods if isinstance(pod, HostPod)), tuple(missing))


def _leaving(topology: Topology, workload: Workload, pods: Sequence[AnyPod]) -> set[str]:
    """The pods of a workload that are too many: the youngest, or those on nodes that a DaemonSet has left."""
    if workload.kind == "Deployment":
        return {pod.key for pod in pods[workload.replicas :]}
    wanted = dict(workload.template.node_selector).items()
    nodes = {node.name for node in topology.nodes if wanted <= node.all_labels.items()}
    first: dict[str, str] = {}
    for pod in pods:
        first.setdefault(pod.node, pod.key)
    return {pod.key for pod in pods if pod.node not in nodes or first[pod.node] != pod.key}


def _arriving(board: Board, workload: Workload, pods: Sequence[AnyPod], used: set[str]) -> tuple[list[AnyPod], int]:
    """The pods that a workload still needs, and how many of them found no node."""
    template = workload.template
    hashed = replace(template, labels=set_labels(template.labels, {_HASHES[workload.kind]: _digest(workload)}))
    base = f"{workload.name}-{_digest(workload)}-" if workload.kind == "Deployment" else f"{workload.name}-"
    new: list[AnyPod] = []
    lacking = 0
    if workload.kind == "DaemonSet":
        there = {pod.node for pod in pods}
        places = [node.name for node in board.fitting(template) if node.name not in there]
        places = [name for name in places if template.node_name in ("", name)]
    else:
        places = [""] * (workload.replicas - len(pods))
    for place in places:
        node = board.best(replace(hashed, node_name=place or template.node_name))
        if node is None:
            lacking += 1
            continue
        name = _name(workload.namespace, base[:_LONGEST_BASE], node if place else "", used)
        new.append(made(hashed, workload.namespace, name, node, f"{workload.kind}/{workload.name}"))
    return new, lacking


def _name(namespace: str, base: str, node: str, used: set[str]) -> str:
    """A free name: ``base`` and five characters."""
    number = 0
    while True:
        name = base + generated(f"{namespace}/{base}{node}/{number}")
        if f"{namespace}/{name}" not in used:
            used.add(f"{namespace}/{name}")
            return name
        number += 1


def generated(text: str) -> str:
    """The five characters at the end of a generated name, here a hash of ``text``."""
    return _spelled(text, 5)


def _digest(workload: Workload) -> str:
    """A hash of the template: another template has other pods."""
    given = workload.manifest.get("spec", {}).get("template", {}) if workload.manifest else {}
    text = json.dumps(given, sort_keys=True, default=str) if given else repr(workload.template)
    return _spelled(text, 10)


def _spelled(text: str, length: int) -> str:
    number = int.from_bytes(hashlib.sha1(text.encode()).digest(), "big")
    letters = ""
    for _ in range(length):
        number, rest = divmod(number, len(_ALPHABET))
        letters += _ALPHABET[rest]
    return letters
