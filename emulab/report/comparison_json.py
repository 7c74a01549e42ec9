"""A comparison as one JSON document, schema ``emulab/compare/1``: docs/json.md describes it."""

from __future__ import annotations

import json
from typing import Any, TextIO

from emulab.comparison import Column, Comparison
from emulab.comparison.advice import advice
from emulab.comparison.rows import rows

SCHEMA = "emulab/compare/1"


def write(comparison: Comparison, out: TextIO) -> None:
    json.dump(show(comparison), out, indent=1, ensure_ascii=False)
    out.write("\n")


def show(comparison: Comparison) -> dict[str, Any]:
    """The document."""
    return {
        "schema": SCHEMA,
        "topology": comparison.topology,
        "nodes": comparison.nodes,
        "pods": comparison.pods,
        "families": list(comparison.families),
        "quick": comparison.quick,
        "machine": dict(comparison.machine),
        "seconds": round(comparison.seconds, 3),
        "columns": [_column(column) for column in comparison.columns],
        "rows": [
            {
                "key": row.key,
                "group": row.group,
                "label": row.label,
                "family": row.family,
                "unit": row.unit or None,
                "better": row.better or None,
                "values": [cell.value for cell in row.cells],
                "texts": [cell.text for cell in row.cells],
            }
            for row in rows(comparison)
        ],
        "advice": advice(comparison),
    }


def _column(column: Column) -> dict[str, Any]:
    measured = column.measured
    return {
        "name": column.name,
        "plugin": column.plugin,
        "options": dict(column.options),
        "failed": column.failed or None,
        "nodes": measured
        and {name: {"idle": dict(measured.idle[name]), "busy": dict(counts)} for name, counts in measured.busy.items()},
        "growth": measured
        and [
            {"what": one.what, "node": one.node, "counts": [{n: dict(c) for n, c in counts.items()} for counts in one.counts]}
            for one in measured.growth
        ],
        "policies": measured
        and [
            {"policy": one.title, "enforced": one.enforced, "passed": one.passed, "of": one.of, "unenforced": one.words or None}
            for one in measured.policies
        ],
    }
