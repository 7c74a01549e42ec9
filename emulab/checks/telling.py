"""Checks told: as text for people, as JSON (``emulab/check/1``), and as the suites of JUnit XML and TAP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.markup import escape

from emulab.checks.result import Done, Result
from emulab.packet import short
from emulab.report.junit import Case, Suite
from emulab.report.text import console_for

SCHEMA = "emulab/check/1"
_MARKS = {True: "[green]✓[/]", False: "[red]✗[/]"}
_FAILURES = 5  # shown of one expectation


def text(result: Result, console: Console, quiet: bool = False) -> None:
    """A check as it went: a line per step and expectation, and the packet's story where one does not hold."""
    if quiet and result.state == "passed":
        return
    job = result.job
    console.print(f"[bold]{escape(job.title)}[/]  [dim]{escape(job.check.file)}  {result.seconds:.1f} s[/]")
    for warning in job.warnings if not quiet else ():
        console.print(f"  [yellow]![/] {escape(warning)}")
    for done in result.steps:
        if done.step.do and not done.error and not quiet:
            console.print(f"  [dim]· {escape(done.step.title)}[/]")
        for outcome in done.outcomes:
            if not quiet or not outcome["passed"]:
                _outcome(result, outcome, console)
    if result.why:
        console.print(f"  {_MARKS[False]} {escape(result.why)}  [dim]({escape(result.where)})[/]")
    for note in result.notes:
        console.print(f"  [yellow]![/] {escape(note)}")
    if result.artifacts and result.state != "passed":
        console.print(f"  [dim]see {escape(result.artifacts)}[/]")


def _outcome(result: Result, outcome: dict[str, Any], console: Console) -> None:
    if outcome["passed"]:
        console.print(f"  {_MARKS[True]} {escape(outcome['title'])}")
        return
    console.print(f"  {_MARKS[False]} {escape(outcome['title'])}  [dim]({escape(result.job.check.file)}:{outcome['line']})[/]")
    for line in _failures(outcome):
        console.print(f"      [red]{escape(line)}[/]")
    for line in outcome["text"].splitlines():
        console.print(f"      {escape(line)}".rstrip())


def _failures(outcome: dict[str, Any]) -> Iterator[str]:
    """What does not hold, of so many flows, in a few lines."""
    failures = outcome["failures"]
    for one in failures[:_FAILURES]:
        by = f"{one['protocol']}/{one['port']}" if one["port"] else one["protocol"]
        at = f" at {one['place']}" if one["place"] else ""
        rule = f" by {one['rule']}" if one["rule"] else ""
        ends = f"{short(one['from'])} > {short(one['to'])}, {by}, IPv{one['family']}"
        yield f"{ends}: {one['field']}: {one['expected']} expected, got {one['found']}{at}{rule}"
    if len(failures) > _FAILURES:
        yield f"… {outcome['failed']} of {outcome['flows']} flows in all"


def conclude(results: Sequence[Result], seconds: float, out: TextIO) -> None:
    """The last line of the text."""
    good = all(result.state == "passed" for result in results)
    console_for(out).print(escape(summary(results, seconds)), style="bold green" if good else "bold red")


def summary(results: Sequence[Result], seconds: float) -> str:
    """All of them in a line."""
    states = Counter(result.state for result in results)
    outcomes = [outcome["passed"] for result in results for outcome in result.outcomes]
    held, total = outcomes.count(True), len(outcomes)
    holding = (
        f"{held} of {total} expectations hold" if held < total else f"{total} expectation{' holds' if total == 1 else 's hold'}"
    )
    words = {"passed": "passed", "failed": "failed", "error": "could not be carried out"}
    told = ", ".join(f"{states[state]} {word}" for state, word in words.items() if states[state])
    return f"{'PASS' if len(results) == states['passed'] else 'FAIL'}  {told}; {holding} ({seconds:.1f} s)"


def document(results: Sequence[Result], seconds: float) -> dict[str, Any]:
    """All of them as JSON values, see docs/json.md."""
    states = Counter(result.state for result in results)
    outcomes = Counter(outcome["passed"] for result in results for outcome in result.outcomes)
    return {
        "schema": SCHEMA,
        "ok": len(results) == states["passed"],
        "checks": [_check(result) for result in results],
        "summary": {
            **{state: states[state] for state in ("passed", "failed", "error")},
            "expectations": sum(outcomes.values()),
            "broken": outcomes[False],
        },
        "seconds": round(seconds, 3),
    }


def _check(result: Result) -> dict[str, Any]:
    job = result.job
    return {
        "name": job.check.name,
        "description": job.check.description,
        "file": job.check.file,
        "plugin": job.plugin,
        "options": job.design.plane.options(),
        "topology": job.design.topology.name,
        "state": result.state,
        "error": result.why or None,
        "warnings": [*job.warnings, *result.notes],
        "started": result.started.timestamp(),
        "seconds": round(result.seconds, 3),
        "artifacts": result.artifacts or None,
        "steps": [_step(done) for done in result.steps],
    }


def _step(done: Done) -> dict[str, Any]:
    return {
        "step": done.step.title,
        "line": done.step.line,
        "seconds": round(done.seconds, 3),
        "error": done.error or None,
        "outcomes": done.outcomes,
    }


def suites(results: Sequence[Result]) -> list[Suite]:
    """A suite for each check with each plugin, a case for each expectation, and one for what could not be carried out."""
    return [_suite(result) for result in results]


def _suite(result: Result) -> Suite:
    job = result.job
    group = f"{job.check.name}.{job.plugin}"
    cases = [
        Case(
            outcome["title"],
            group,
            outcome["seconds"],
            failure="" if outcome["passed"] else "\n".join((*_failures(outcome), f"{job.check.file}:{outcome['line']}")),
            output=outcome["text"],
        )
        for outcome in result.outcomes
    ]
    if result.why:
        cases.append(Case("the check comes to its end", group, 0.0, error=f"{result.why}\n{result.where}"))
    options = {f"option {key}": str(value) for key, value in job.design.plane.options().items() if value is not None}
    facts = {"file": job.check.file, "plugin": job.plugin, "topology": job.design.topology.name, **options}
    return Suite(job.title, cases, facts, result.seconds, result.started)
