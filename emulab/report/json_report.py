"""A run as JSON, schema ``emulab/run/1``: a contract, see docs/json.md.  Written piece by piece, however many flows there are."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TextIO

from emulab.model import Cluster
from emulab.packet import FlowResult, Kind, MtuResult, text
from emulab.result import RunResult

SCHEMA = "emulab/run/1"


def write(result: RunResult, out: TextIO) -> None:
    """One JSON object, a flow per line."""
    cluster = result.cluster
    head = {
        "schema": SCHEMA,
        "plugin": result.plugin,
        "options": result.options,
        "topology": cluster.topology.name,
        "taps": result.taps,
        "nodes": nodes(cluster),
        "pods": pods(cluster),
    }
    out.write(json.dumps(head, indent=1)[:-2] + ',\n "flows": [')
    _lines(out, (flow(one) for one in result.flows))
    out.write('],\n "mtu": [')
    _lines(out, (mtu(one) for one in result.mtu))
    tail = {
        "findings": [finding.show() for finding in result.findings],
        "summary": result.summary(),
        "timings": {name: round(seconds, 6) for name, seconds in result.timings.items()},
    }
    out.write("],\n" + json.dumps(tail, indent=1)[2:] + "\n")


def nodes(cluster: Cluster) -> list[dict[str, Any]]:
    """Each with the addresses of its uplink."""
    uplinks = {node.name: cluster.topology.uplink(node.name) for node in cluster.nodes}
    return [{"name": name, "addresses": [str(a.ip) for a in uplink.addresses]} for name, uplink in uplinks.items()]


def pods(cluster: Cluster) -> list[dict[str, Any]]:
    """Each with its node and its addresses, IPv4 first."""
    return [
        {"name": endpoint.key, "node": endpoint.node, "addresses": list(map(str, endpoint.addresses))}
        for endpoint in cluster.endpoints
    ]


def _lines(out: TextIO, objects: Iterable[dict[str, Any]]) -> None:
    separator = "\n  "
    for one in objects:
        out.write(separator + json.dumps(one))
        separator = ",\n  "


def flow(result: FlowResult) -> dict[str, Any]:
    """One flow as JSON values."""
    one = result.flow
    return {
        "from": one.source,
        "to": one.destination,
        "kind": one.kind.value,
        **({"address": text(one.destination_address)} if one.kind is Kind.SERVICE else {}),
        "family": one.family,
        "protocol": one.protocol,
        "sport": one.sport,
        "dport": one.dport,
        "verdict": result.verdict.value,
        "hops": [{**seen.show(), "time": round(seen.time, 9)} for seen in result.observations],
        "findings": [finding.show() for finding in result.findings],
        "translations": [finding.show() for finding in result.translations],
        **({"policy": result.policy} if result.policy else {}),
    }


def mtu(one: MtuResult) -> dict[str, Any]:
    """One MTU check as JSON values."""
    return {
        "from": one.source,
        "to": one.destination,
        "family": one.family,
        "mtu": one.mtu,
        "full": one.full,
        "over": one.over,
        "reported_by": one.reported_by or None,
        "findings": [finding.show() for finding in one.findings],
    }
