"""Probes one by one: a table for people, and JSON of schema ``emulab/probe/1``."""

from __future__ import annotations

import json
from typing import Any, TextIO

from rich.text import Text

from emulab.packet import FlowResult, Kind, Verdict, short, text
from emulab.report.text import console_for
from emulab.result import RunResult

SCHEMA = "emulab/probe/1"


def write_json(result: RunResult, out: TextIO) -> None:
    """One JSON object, a probe per line."""
    out.write(json.dumps({"schema": SCHEMA, "summary": result.summary()}, indent=1)[:-2] + ',\n "probes": [')
    separator = "\n  "
    for judged in result.flows:
        out.write(separator + json.dumps(shown(judged)))
        separator = ",\n  "
    out.write("]\n}\n")


def shown(judged: FlowResult) -> dict[str, Any]:
    """One probe as JSON values; ``time`` is from the first packet to the last, in seconds."""
    flow, seen = judged.flow, judged.observations
    return {
        "from": flow.source,
        "to": flow.destination,
        **({"kind": flow.kind.value, "address": text(flow.destination_address)} if flow.kind is Kind.SERVICE else {}),
        "family": flow.family,
        "protocol": flow.protocol,
        "port": None if flow.protocol == "icmp" else flow.dport,
        "size": flow.size,
        "verdict": judged.verdict.value,
        "time": round(seen[-1].time - seen[0].time, 9) if seen else None,
        "last_seen": str(seen[-1].place) if seen else None,
        "findings": [finding.show() for finding in judged.findings],
        "translations": [finding.show() for finding in judged.translations],
        **({"policy": judged.policy} if judged.policy else {}),
    }


def write_text(result: RunResult, out: TextIO, columns: int | None = None) -> None:
    """A line per probe, as kubectl prints objects; in colour where there is a terminal."""
    rows = [("FROM", "TO", "PROTOCOL", "PORT", "VERDICT", "DETAIL")]
    rows += [_row(judged) for judged in result.flows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    console = console_for(out, columns)
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        style = "" if row is rows[0] else {"delivered": "green", "denied": "blue"}.get(row[4], "red")
        line = Text("   ".join(cells).rstrip())
        start = sum(widths[:4]) + 12
        line.stylize(style, start, start + len(row[4]))
        console.print(line)


def _row(judged: FlowResult) -> tuple[str, str, str, str, str, str]:
    flow, facts = judged.flow, shown(judged)
    told = (judged.findings or sorted(judged.translations, key=lambda one: one.field != "destination"))[:1]
    detail = f"{facts['time'] * 1e3:.2f} ms" if facts["time"] is not None else ""
    if judged.verdict is Verdict.DENIED:
        detail = judged.policy.partition(": ")[2]
    for finding in told:
        detail = str(finding)
    if flow.kind is Kind.SERVICE and not judged.findings:
        detail = _service(judged, detail)
    port = "" if flow.protocol == "icmp" else str(flow.dport)
    name = f"{flow.protocol}/IPv{flow.family}"
    return short(flow.source), short(flow.destination), name, port, judged.verdict.value, detail


def _service(judged: FlowResult, detail: str) -> str:
    """Where a Service led a flow, and by which chain; or that it is right that it led nowhere."""
    if judged.verdict in (Verdict.REFUSED, Verdict.DROPPED):
        return "as it should be: there is no endpoint" + (" that may serve it" if judged.verdict is Verdict.DROPPED else "")
    for change in judged.translations:
        if change.field == "destination":
            by = f" by {change.rule.partition(': ')[0]}" if change.rule else ""
            return f"{change.before} -> {change.after} at {change.place}{by}"
    return detail
