"""What a CNI plugin was found to do, as text, JSON, and JUnit's suites."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TextIO

from emulab.cni.errors import printable
from emulab.conformance.verdict import FAILED, NOT_APPLICABLE, PASSED, Report, Verdict
from emulab.report import junit

_SIGNS: Mapping[str, str] = {PASSED: "✓", FAILED: "×", NOT_APPLICABLE: "–"}


def write_text(report: Report, out: TextIO) -> None:
    """A line for each check; for those that failed also what the specification demands."""
    spoken = f"it speaks {', '.join(report.speaks)}" if report.speaks else "it does not say what it speaks"
    out.write(f"{report.plugin}: {report.kind}, in network {report.network} of {report.conf}, CNI {report.version}; {spoken}\n\n")
    width = max((len(one.name) for one in report.verdicts), default=0)
    for one in report.verdicts:
        found = f"not applicable: {one.found}" if one.state == NOT_APPLICABLE else one.found
        out.write(f"{_SIGNS[one.state]} {one.name:{width}}  {printable(found)}\n")
        if one.state == FAILED:
            out.write(f"  {'':{width}}  demanded (section {one.section}): {one.demand}\n")
    counted = report.summary()
    out.write(
        f"\n{counted['checks']} checks: {counted['passed']} passed, {counted['failed']} failed, "
        f"{counted['not_applicable']} not applicable\n"
    )


def write_json(report: Report, out: TextIO) -> None:
    """`emulab/conformance/1`."""
    json.dump(report.show(), out, indent=1)
    out.write("\n")


def suites(report: Report) -> list[junit.Suite]:
    """One suite; what is not applicable is skipped."""
    name = f"cni.{report.plugin}"
    properties = {"path": report.path, "conf": report.conf, "kind": report.kind, "cniVersion": report.version}
    cases = [_case(one, name) for one in report.verdicts]
    return [junit.Suite(f"CNI conformance of {report.plugin}", cases, properties, sum(one.seconds for one in report.verdicts))]


def _case(one: Verdict, suite: str) -> junit.Case:
    demanded = f"demanded (section {one.section}): {one.demand}"
    return junit.Case(
        one.name,
        suite,
        one.seconds,
        failure=f"{one.found}\n{demanded}" if one.state == FAILED else "",
        skipped=one.found if one.state == NOT_APPLICABLE else "",
        output=f"{one.found}\n{demanded}" if one.state == PASSED else "",
    )
