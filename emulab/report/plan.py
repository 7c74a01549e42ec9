<<<<<<< HEAD
"""A plan, before anything is programmed: as the lines that a person would type, or as JSON."""
=======
"""A plan as the lines a person would type, or as JSON (schema ``emulab/plan/1``).  Pure."""
>>>>>>> work

from __future__ import annotations

import json
<<<<<<< HEAD
from collections.abc import Iterator
=======
>>>>>>> work
from dataclasses import fields
from typing import Any

from emulab.dataplane import DataPlane
from emulab.model import Cluster
<<<<<<< HEAD
from emulab.report import settings
=======
>>>>>>> work
from emulab.state import KernelObject, State, shell_lines

SCHEMA = "emulab/plan/1"


def as_text(plane: DataPlane, cluster: Cluster, state: State) -> str:
<<<<<<< HEAD
    """The lines of every namespace under a comment with its name, in an order in which they can be typed.

    What a namespace needs first (a node its pods' namespaces, a pod the interface that its node gives it) comes first.
    """
    topology = cluster.topology
    lines = [
        f"# {plane.name}{settings(plane.options())} on {topology.name}",
        "# Assumed: each node and pod has a network namespace of the name shown (ip netns add NAME), and the underlay is",
        "# up: every node's uplink has its address and the nodes reach each other.",
        "# Type the lines from top to bottom, each group in its namespace: ip netns exec NAME sh -e",
    ]
    for title, name in _order(cluster, state):
        lines += ["", f"# {title}", *shell_lines(state[name])]
=======
    """Nodes first, since they bring the pods' interfaces; each block is typed inside its namespace."""
    options = " ".join(f"{name}={value}" for name, value in plane.options().items() if value is not None)
    lines = [
        f"# {plane.name} on {cluster.topology.name} ({options})",
        "# Each node has its uplink and addresses already; each pod is an empty namespace with its name in the node's /run/netns.",
    ]
    for name in _ordered(cluster, state):
        lines += ["", f"# {_title(cluster, name)}", *shell_lines(state[name])]
>>>>>>> work
    return "\n".join(lines)


def as_json(plane: DataPlane, cluster: Cluster, state: State) -> str:
<<<<<<< HEAD
    """The same as objects, ``emulab/plan/1``; docs/json.md tells the format."""
    report = {
        "schema": SCHEMA,
        "plugin": plane.name,
        "options": plane.options(),
        "topology": cluster.topology.name,
        "namespaces": {name: [_object(thing) for thing in state[name]] for _, name in _order(cluster, state)},
    }
    return json.dumps(report, indent=1, default=str)


def _order(cluster: Cluster, state: State) -> Iterator[tuple[str, str]]:
    """(title, namespace) of all that is planned: each node, then its pods, in the topology's order."""
    for node in cluster.nodes:
        if node.name in state:
            yield node.name, node.name
        for endpoint in cluster.endpoints_on(node.name):
            if endpoint.key in state:
                yield f"{endpoint.pod.netns}: pod {endpoint.key} on {node.name}", endpoint.key


def _object(thing: KernelObject) -> dict[str, Any]:
    values = {field.name: getattr(thing, field.name) for field in fields(thing)}
    return {"object": type(thing).__name__, **values, "lines": list(thing.lines())}
=======
    """Every object with its fields and its lines."""
    namespaces = {
        name: [{"kind": type(thing).__name__, **_fields(thing), "lines": list(thing.lines())} for thing in state[name]]
        for name in _ordered(cluster, state)
    }
    document = {"schema": SCHEMA, "plugin": plane.name, "options": plane.options(), "topology": cluster.topology.name}
    return json.dumps({**document, "namespaces": namespaces}, indent=1)


def _ordered(cluster: Cluster, state: State) -> list[str]:
    names = [*(node.name for node in cluster.nodes), *(endpoint.key for endpoint in cluster.endpoints)]
    return [name for name in names if name in state]


def _title(cluster: Cluster, name: str) -> str:
    endpoint = next((e for e in cluster.endpoints if e.key == name), None)
    if endpoint is None:
        return f"node {name}"
    return f"pod {name}, on {endpoint.node}: ip netns exec {endpoint.pod.netns} …"


def _fields(thing: KernelObject) -> dict[str, Any]:
    return {field.name: _value(getattr(thing, field.name)) for field in fields(thing)}


def _value(value: object) -> Any:
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    return [_value(one) for one in value] if isinstance(value, tuple) else str(value)
>>>>>>> work
