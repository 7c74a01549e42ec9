"""A run as one document that a report is made of, schema ``emulab/report/1``: a contract, see docs/json.md.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from emulab.drawing import draw
from emulab.packet import FlowResult, Kind, MtuResult
from emulab.planning import Design
from emulab.report import json_report, verdict
from emulab.report.pairs import LETTERS, NOT_PROBED, pairs
from emulab.report.plan import ordered
from emulab.result import RunResult
from emulab.state import shell_lines

SCHEMA = "emulab/report/1"
Document = dict[str, Any]


def build(
    design: Design,
    result: RunResult,
    *,
    flows: Iterable[FlowResult] = (),
    stories: Sequence[Mapping[str, Any]] = (),
    left_out: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    title: str = "",
) -> Document:
    """The whole of it.

    ``flows`` are those that can be walked by what verify saw of them, ``stories`` by a trace (``emulab/trace/1`` and
    ``packets``); ``left_out`` says in words what cannot.
    """
    cluster = result.cluster
    topology = cluster.topology.name
    return {
        "schema": SCHEMA,
        "title": title or f"{result.plugin} on {topology}",
        "plugin": result.plugin,
        "options": result.options,
        "topology": topology,
        "taps": result.taps,
        "ok": result.ok,
        "verdict": verdict.line(result),
        "nodes": json_report.nodes(cluster),
        "pods": [
            {**pod, "labels": dict(endpoint.pod.labels)}
            for pod, endpoint in zip(json_report.pods(cluster), cluster.endpoints, strict=True)
        ],
        "drawing": draw(design).show(),
        "letters": {**{letter: state for state, letter in LETTERS.items()}, NOT_PROBED: "not probed"},
        "pairs": pairs(result),
        "findings": [_finding(group) for group in verdict.groups(result)],
        "flows": [json_report.flow(one) for one in flows],
        "stories": list(stories),
        "left_out": list(left_out),
        "expectations": [],
        "kinds": _kinds(result),
        "mtu": [json_report.mtu(one) for one in result.mtu],
        "summary": result.summary(),
        "timings": {name: round(seconds, 6) for name, seconds in result.timings.items()},
        "plan": {name: shell_lines(design.plan[name]) for name in ordered(cluster, design.plan)},
        "environment": dict(environment or {}),
    }


def _finding(group: verdict.Group) -> dict[str, Any]:
    return {
        "label": group.label,
        "subject": group.subject,
        "text": group.text,
        "number": group.number,
        **group.first.show(),
        "flow": about(group.about),
    }


def about(one: FlowResult | MtuResult | None) -> dict[str, Any] | None:
    """Which flow is meant, by the keys that flows and stories have in common."""
    if isinstance(one, FlowResult):
        flow = one.flow
        ends = {"from": flow.source, "to": flow.destination, "family": flow.family, "protocol": flow.protocol}
        return {**ends, "dport": flow.dport}
    if isinstance(one, MtuResult):
        return {"from": one.source, "to": one.destination, "family": one.family, "protocol": "icmp", "dport": None}
    return None


def _kinds(result: RunResult) -> list[dict[str, Any]]:
    """What became of flows that are not between pods, and of how many an address was translated, as it should."""
    found: dict[Kind, Counter[str]] = {}
    for judged in result.flows.recorded:
        if judged.flow.kind is not Kind.POD:
            counts = found.setdefault(judged.flow.kind, Counter())
            counts["flows"] += 1
            counts["translated"] += bool(judged.translations)
            counts["findings"] += bool(judged.findings)
            counts[judged.state] += 1
    return [
        {
            "kind": kind.value,
            **{name: counts[name] for name in ("flows", "findings", "translated")},
            "states": {state: counts[state] for state in reversed(verdict.STATES) if counts[state]},
        }
        for kind, counts in found.items()
    ]
