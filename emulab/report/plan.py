"""A plan as the lines a person would type, or as JSON (schema ``emulab/plan/1``).  Pure."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from emulab.dataplane import DataPlane
from emulab.model import Cluster
from emulab.state import KernelObject, State, shell_lines

SCHEMA = "emulab/plan/1"


def as_text(plane: DataPlane, cluster: Cluster, state: State) -> str:
    """Nodes first, since they bring the pods' interfaces; each block is typed inside its namespace."""
    options = " ".join(
        f"{name}={str(value).lower() if isinstance(value, bool) else value}"
        for name, value in plane.options().items()
        if value is not None
    )
    lines = [
        f"# {plane.name} on {cluster.topology.name} ({options})",
        "# Each node has its uplink and addresses already; each pod is an empty namespace in the node's /run/netns.",
    ]
    for name in ordered(cluster, state):
        lines += ["", f"# {_title(cluster, name)}", *shell_lines(state[name])]
    return "\n".join(lines)


def as_json(plane: DataPlane, cluster: Cluster, state: State) -> str:
    """Every object with its fields and its lines."""
    namespaces = {name: [_object(thing) for thing in state[name]] for name in ordered(cluster, state)}
    document = {"schema": SCHEMA, "plugin": plane.name, "options": plane.options(), "topology": cluster.topology.name}
    return json.dumps({**document, "namespaces": namespaces}, indent=1)


def ordered(cluster: Cluster, state: State) -> list[str]:
    """The namespaces in an order in which they can be programmed."""
    names = [*(node.name for node in cluster.nodes), *(endpoint.key for endpoint in cluster.endpoints)]
    return [name for name in names if name in state]


def _title(cluster: Cluster, name: str) -> str:
    endpoint = next((e for e in cluster.endpoints if e.key == name), None)
    if endpoint is None:
        return f"node {name}"
    return f"pod {name}, on {endpoint.node}: ip netns exec {endpoint.pod.netns} …"


def _object(thing: KernelObject) -> dict[str, Any]:
    values = {field.name: _value(getattr(thing, field.name)) for field in fields(thing)}
    if "kind" in values:
        values["type"] = values.pop("kind")  # a route's: ip-route(8) calls it so, too
    return {"kind": type(thing).__name__, **values, "lines": list(thing.lines())}


def _value(value: object) -> Any:
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    return [_value(one) for one in value] if isinstance(value, tuple) else str(value)
