"""The conclusion of a run in a line, and what led to it in a few."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from emulab.packet import BROKEN_PROMISE, LET_THROUGH, Finding, FlowResult, Kind, MtuResult, Verdict, short
from emulab.result import RunResult

GOOD = (Verdict.DENIED.value, Verdict.DELIVERED.value)
# What can be said of a flow, worst first.
STATES = (*(verdict.value for verdict in Verdict if verdict.value not in GOOD), LET_THROUGH, BROKEN_PROMISE, *GOOD)


def line(result: RunResult) -> str:
    """PASS or FAIL and why: how many flows, and the first finding with its place and rule."""
    counts = result.summary()
    if result.ok:
        whole = f": all {len(result.cluster.endpoints)} pods see each other's own addresses" if result.whole else ""
        denied = f", {counts['denied']:,} denied as policies say" if counts["denied"] else ""
        service = sum(one.flow.kind is Kind.SERVICE and bool(one.translations) for one in result.flows.recorded)
        but = f" but {service:,} by Services" if service else ""
        return f"PASS  {counts['delivered']:,} flows delivered{denied}, none rewritten{but}{whole}"
    bad = Counter(judged.state for judged in result.bad())
    wrong = [f"{bad[name]:,} {name}" for name in STATES if bad[name]]
    told = [f"of {counts['flows']:,} flows {', '.join(wrong)}"] if wrong else []
    if checks := sum(bool(checked.findings) for checked in result.mtu):
        told.append(f"{checks} of {len(result.mtu)} MTU checks")
    first = next(groups(result))
    return f"FAIL  {'; '.join(told) or 'the cluster'}: {first.subject}: {first.text}"


class Group(NamedTuple):
    """Findings that are alike: how many, of what sort, the first of them in words and the flow that it is about.

    ``first`` is that finding, ``about`` the flow or MTU check; None: the cluster.
    """

    number: int
    label: str
    subject: str
    text: str
    first: Finding
    about: FlowResult | MtuResult | None


def groups(result: RunResult) -> Iterator[Group]:
    """Flows and MTU checks by the first finding of each, and the cluster's, in the order in which they were met.

    Alike are findings of one sort and field at one node or pod, on one leg, by one rule; wherever they are, those that say that
    the same policies are not enforced, or none at all.
    """
    found: dict[tuple[object, ...], list[tuple[str, Finding, FlowResult | MtuResult | None]]] = {}
    for label, subject, finding, about in _firsts(result):
        rule = None if (finding.rule or "").startswith("conntrack") else finding.rule  # an entry is one connection's
        place: object = "" if finding.field == "MTU" else finding.place.partition(":")[0]
        if finding.field == "policy":
            place = "" if rule else (finding.before, finding.after)
        found.setdefault((label, finding.field, place, finding.leg, rule), []).append((subject, finding, about))
    for key, alike in found.items():
        subject, finding, about = alike[0]
        yield Group(len(alike), str(key[0]), subject, explain(finding), finding, about)


def _firsts(result: RunResult) -> Iterator[tuple[str, str, Finding, FlowResult | MtuResult | None]]:
    for judged in result.bad():
        yield judged.state, str(judged.flow), judged.findings[0], judged
    for checked in result.mtu:
        for finding in checked.findings[:1]:
            yield "MTU", f"{short(checked.source)} -> {short(checked.destination)} IPv{checked.family}", finding, checked
    for finding in result.findings:
        yield "cluster", f"policy {finding.place}" if finding.field == "policy" else short(finding.place), finding, None


def explain(finding: Finding) -> str:
    """A finding in words: what was changed into what, or what happened instead of what; and where, and by which rule."""
    where = f" at {short(finding.place)}"
    if finding.field == "MTU":
        return f"{finding.after} instead of {finding.before}"
    if finding.field in ("delivery", "endpoint"):
        told = f"{finding.after} instead of {finding.before}"
        return told.replace("default/", "") + ("" if finding.place in finding.after else where)
    if finding.field == "policy":
        return str(finding)
    if finding.field == "conntrack":
        return f"{finding.after}{where}"
    return str(finding).replace(f" at {finding.place}", where)
