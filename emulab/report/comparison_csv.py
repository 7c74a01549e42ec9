"""A comparison as comma-separated values (RFC 4180): a line per row, a column per data plane; numbers without their unit."""

from __future__ import annotations

import csv
from typing import TextIO

from emulab.comparison import Comparison
from emulab.comparison.rows import Cell, rows


def write(comparison: Comparison, out: TextIO) -> None:
    lines = csv.writer(out)
    lines.writerow(["group", "figure", "family", "unit", "better", *(column.name for column in comparison.columns)])
    for row in rows(comparison):
        lines.writerow([row.group, row.label, row.family or "", row.unit, row.better, *map(_text, row.cells)])


def _text(cell: Cell) -> object:
    return cell.value if isinstance(cell.value, (int, float)) and not isinstance(cell.value, bool) else cell.text
