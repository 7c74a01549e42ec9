"""To look at a lab: nothing is measured, nothing changes, nobody waits."""

from __future__ import annotations

import queue
import threading
from typing import Any

from emulab import etc_files
from emulab.control.enter import KINDS
from emulab.control.live import Answer, Emit, LiveLab, descriptor, operation
from emulab.errors import InputError
from emulab.etc_files import resolve
from emulab.report import objects


@operation
def inspect(live: LiveLab) -> Any:
    """Everything there is to know about the lab at a glance."""
    lab = live.lab
    shown = objects.lab(lab.design)
    return {"schema": "emulab/lab/1", "name": live.name, "started": live.started, "faults": len(live.faults), **shown}


@operation
def get(live: LiveLab, kind: str, name: str | None = None) -> Any:
    """A list of pods, nodes, links or routes; ``name`` is one of them, or the node whose routes are wanted."""
    found: list[dict[str, Any]] = objects.kind(live.lab, kind)
    if name is None:
        return found
    keys = {one["name"] for one in found}
    key = next((k for k in (name, f"default/{name}") if k in keys), None) or resolve(live.lab.cluster, name, others=False)
    return [one for one in found if key in (one["name"], one.get("node") if kind in ("routes", "links") else None)]


@operation
def drawing(live: LiveLab) -> Any:
    """The lab as a drawing, as it is designed by now."""
    from emulab.drawing import draw

    return draw(live.lab.design).show()


@operation
def names(live: LiveLab) -> Any:
    """What completion offers."""
    cluster = live.lab.cluster
    pods = [endpoint.key.removeprefix("default/") for endpoint in cluster.endpoints]
    return {"pods": pods, "nodes": [node.name for node in cluster.nodes]}


@operation
def enter(live: LiveLab, target: str) -> Answer:
    """The namespaces of a pod or node, as descriptors in the order of ``kinds``."""
    lab = live.lab
    key = resolve(lab.cluster, target)
    node = next((e.node for e in lab.cluster.endpoints if e.key == key), key)
    if key not in lab.namespaces or node not in lab.namespaces:
        raise InputError(f"node {node} is stopped (emulab node start {node})")
    mounts = lab.namespaces[node].mounts
    found = [descriptor(f"/proc/self/ns/{kind}") for kind in KINDS[:4]]
    found.append(descriptor(f"/proc/self/fd/{lab.namespaces[key].net}"))
    found.append(descriptor(f"/proc/self/fd/{mounts}" if mounts is not None else "/proc/self/ns/mnt"))
    result = {
        "name": key,
        "kinds": list(KINDS),
        "hostname": key.rpartition("/")[2],
        "files": etc_files.of(lab.cluster, key),
        "pod": "/" in key,
        "lab": live.name,
        "node": node,
    }
    return Answer(result, found)


@operation
def watch(live: LiveLab, emit: Emit) -> Any:
    """Events, until the lab goes down or the caller leaves."""
    listener = live.listen()
    emit({"event": "watching", "lab": live.name})
    try:
        while True:
            try:
                event = listener.get(timeout=5)
            except queue.Empty:
                emit({"event": "alive"})  # finds out whether anybody still listens
                continue
            if event is None:
                return {}
            emit(event)
    finally:
        live.unlisten(listener)


@operation
def down(live: LiveLab) -> Any:
    """Take the lab down: the answer comes first."""
    live.tell("lab down")
    threading.Timer(0.02, live.ending.set).start()
    return {"name": live.name}
