"""Probes one by one: a table for people, and JSON of schema ``emulab/probe/1``."""

from __future__ import annotations

import json
from typing import Any, TextIO

from rich.markup import escape
from rich.table import Table

from emulab.packet import FlowResult, short
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
        "family": flow.family,
        "protocol": flow.protocol,
        "port": None if flow.protocol == "icmp" else flow.dport,
        "size": flow.size,
        "verdict": judged.verdict.value,
        "time": round(seen[-1].time - seen[0].time, 9) if seen else None,
        "last_seen": str(seen[-1].place) if seen else None,
        "findings": [finding.show() for finding in judged.findings],
        "translations": [finding.show() for finding in judged.translations],
    }


def write_text(result: RunResult, out: TextIO, columns: int | None = None) -> None:
    """A line per probe, as kubectl prints objects."""
    console = console_for(out, columns)
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_edge=False)
    for title in ("FROM", "TO", "PROTOCOL", "PORT", "VERDICT", "DETAIL"):
        table.add_column(title, no_wrap=title != "DETAIL", overflow="fold")
    for judged in result.flows:
        flow, facts = judged.flow, shown(judged)
        told = judged.findings or judged.translations
        detail = str(told[0]) if told else f"{facts['time'] * 1e3:.2f} ms" if facts["time"] is not None else ""
        style = "green" if judged.verdict.value == "delivered" else "red"
        port = "" if flow.protocol == "icmp" else str(flow.dport)
        name = f"{flow.protocol}/IPv{flow.family}"
        verdict = f"[{style}]{judged.verdict.value}[/]"
        table.add_row(short(flow.source), short(flow.destination), name, port, verdict, escape(detail))
    console.print(table)
