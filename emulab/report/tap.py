"""TAP, the Test Anything Protocol, version 14 (testanything.org): the suites of `emulab.report.junit`, a test point per case."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from emulab.report.junit import Case, Suite


def write(suites: Iterable[Suite], out: TextIO) -> None:
    """Plan and test points, with a YAML block for what is not ok."""
    points = [(suite, case) for suite in suites for case in suite.cases]
    out.write(f"TAP version 14\n1..{len(points)}\n")
    for number, (suite, case) in enumerate(points, 1):
        outcome, reason = case.outcome
        bad = outcome in ("failure", "error")
        skipped = f" # SKIP {_line(reason)}" if outcome == "skipped" else ""
        out.write(f"{'not ok' if bad else 'ok'} {number} - {_line(f'{suite.name}: {case.name}')}{skipped}\n")
        if bad:
            _diagnosis(outcome, reason, case, out)


def _diagnosis(outcome: str, reason: str, case: Case, out: TextIO) -> None:
    """Why, as YAML: block literals take any text as it is, but for what YAML holds unprintable."""
    out.write("  ---\n")
    out.write(f"  severity: {'fail' if outcome == 'failure' else 'error'}\n")
    out.write(f"  seconds: {case.seconds:.3f}\n")
    for key, text in (("message", reason), ("output", case.output)):
        lines = ["".join(sign if sign.isprintable() else "\ufffd" for sign in line) for line in text.expandtabs().splitlines()]
        if any(lines):
            out.write(f"  {key}: |2-\n" + "".join(f"    {line.rstrip()}\n" for line in lines))
    out.write("  ...\n")


def _line(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("#", "\\#")
