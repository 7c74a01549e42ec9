"""A plan, before anything is programmed: as the lines that a person would type, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from emulab.dataplane import DataPlane
from emulab.model import Cluster
from emulab.report import settings
from emulab.state import KernelObject, State, shell_lines

SCHEMA = "emulab/plan/1"


def as_text(plane: DataPlane, cluster: Cluster, state: State) -> str:
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
    return "\n".join(lines)


def as_json(plane: DataPlane, cluster: Cluster, state: State) -> str:
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
