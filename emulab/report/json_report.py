<<<<<<< HEAD
"""A run as JSON, for programs: the format is a contract, told in docs/json.md.

The text is made piece by piece, one flow a line, so that a million flows need no memory of their own.
"""
=======
"""A run as JSON, schema ``emulab/run/1``: a contract, see docs/json.md.  Written piece by piece, however many flows there are."""
>>>>>>> work

from __future__ import annotations

import json
<<<<<<< HEAD
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from emulab.packet import Finding, FlowResult, MtuResult
from emulab.result import RunResult

SCHEMA = "emulab/run/1"
_encode = json.JSONEncoder(default=str).encode


def write(result: RunResult, out: TextIO) -> None:
    """Write the whole report to ``out``, closing with a newline."""
    for chunk in chunks(result):
        out.write(chunk)


def chunks(result: RunResult) -> Iterator[str]:
    """The report in pieces of text; always the same keys in the same order."""
    cluster, topology = result.cluster, result.cluster.topology
    yield f'{{"schema": {_encode(SCHEMA)}'
    yield from _member("plugin", result.plugin)
    yield from _member("options", result.options)
    yield from _member("topology", topology.name)
    yield from _array(
        "nodes",
        (
            {"name": n.name, "addresses": [str(a.ip) for link in topology.links if link.node == n.name for a in link.addresses]}
            for n in cluster.nodes
        ),
    )
    yield from _array(
        "pods", ({"name": e.key, "node": e.node, "addresses": [str(a) for a in e.addresses]} for e in cluster.endpoints)
    )
    yield from _array("flows", map(_flow, result.flows))
    yield from _array("mtu", map(_mtu, result.mtu))
    yield from _array("findings", map(Finding.show, result.findings))
    yield from _member("summary", result.summary())
    yield from _member("timings", {phase: round(seconds, 6) for phase, seconds in result.timings.items()})
    yield "\n}\n"


def _flow(result: FlowResult) -> dict[str, Any]:
    flow = result.flow
    return {
        "from": flow.source,
        "to": flow.destination,
        "kind": flow.kind.value,
        "family": flow.family,
        "protocol": flow.protocol,
        "sport": flow.sport,
        "dport": flow.dport,
        "verdict": result.verdict.value,
        "hops": [{"time": round(seen.time, 6), **seen.show()} for seen in result.observations],
=======
from collections.abc import Iterable
from typing import Any, TextIO

from emulab.packet import FlowResult, MtuResult
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
        "nodes": [
            {"name": node.name, "addresses": [str(a.ip) for a in cluster.topology.uplink(node.name).addresses]}
            for node in cluster.nodes
        ],
        "pods": [
            {"name": endpoint.key, "node": endpoint.node, "addresses": list(map(str, endpoint.addresses))}
            for endpoint in cluster.endpoints
        ],
    }
    out.write(json.dumps(head, indent=1)[:-2] + ',\n "flows": [')
    _lines(out, (flow(one) for one in result.flows))
    out.write('],\n "mtu": [')
    _lines(out, (_mtu(one) for one in result.mtu))
    tail = {
        "findings": [finding.show() for finding in result.findings],
        "summary": result.summary(),
        "timings": {name: round(seconds, 6) for name, seconds in result.timings.items()},
    }
    out.write("],\n" + json.dumps(tail, indent=1)[2:] + "\n")


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
        "family": one.family,
        "protocol": one.protocol,
        "sport": one.sport,
        "dport": one.dport,
        "verdict": result.verdict.value,
        "hops": [{**seen.show(), "time": round(seen.time, 9)} for seen in result.observations],
>>>>>>> work
        "findings": [finding.show() for finding in result.findings],
        "translations": [finding.show() for finding in result.translations],
    }


<<<<<<< HEAD
def _mtu(result: MtuResult) -> dict[str, Any]:
    return {
        "from": result.source,
        "to": result.destination,
        "family": result.family,
        "mtu": result.mtu,
        "full": result.full,
        "over": result.over,
        "reported_by": result.reported_by,
        "findings": [finding.show() for finding in result.findings],
    }


def _member(key: str, value: object) -> Iterator[str]:
    yield f",\n {_encode(key)}: {_encode(value)}"


def _array(key: str, items: Iterable[dict[str, Any]]) -> Iterator[str]:
    yield f",\n {_encode(key)}: ["
    separator = "\n  "
    for item in items:
        yield separator + _encode(item)
        separator = ",\n  "
    yield "]"
=======
def _mtu(one: MtuResult) -> dict[str, Any]:
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
>>>>>>> work
