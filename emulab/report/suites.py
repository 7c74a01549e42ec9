"""A report's document as test suites, for CI servers: what was probed between pods, elsewhere, by size, and what was expected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from emulab.report.document import Document
from emulab.report.junit import Case, Suite

_MANY_PODS = 100  # from which on a case is about a node's pods
_TOLD = 20  # destinations, or findings, in a message
_GOOD = ("delivered", "denied", "not probed")


def suites(document: Document) -> list[Suite]:
    """A suite per family and protocol with a case per source, one of everything else, and one of the expectations."""
    properties = {key: str(document[key]) for key in ("plugin", "topology", "verdict")} | document["environment"]
    probing = sum(seconds for name, seconds in document["timings"].items() if name in ("probe", "udp mesh"))
    name = document["title"]
    found = [
        Suite(f"{name}: {layer['protocol']}/IPv{layer['family']}", list(_pods(document, layer)), properties, probing)
        for layer in document["pairs"]
    ]
    if others := list(_others(document)):
        found.append(Suite(f"{name}: beside pods", others, properties))
    if outcomes := list(_expectations(document)):
        found.append(Suite(f"{name}: expectations", outcomes, properties, sum(case.seconds for case in outcomes)))
    return found


def _pods(document: Document, layer: dict[str, Any]) -> Iterator[Case]:
    pods, letters = document["pods"], document["letters"]
    shape, prefix = f"{layer['protocol']}/IPv{layer['family']}", f"{document['plugin']}.{document['topology']}"
    told = {
        (finding["flow"]["from"], finding["flow"]["to"]): finding["text"]
        for finding in document["findings"]
        if finding["flow"] and (finding["flow"]["protocol"], finding["flow"]["family"]) == (layer["protocol"], layer["family"])
    }
    wrong: dict[str, list[str]] = {}
    for pod, row in zip(pods, layer["rows"], strict=True):
        if not row.strip("-"):
            continue
        lines = wrong.setdefault(pod["name"] if len(pods) <= _MANY_PODS else pod["node"], [])
        if not row.strip("+o-"):
            continue
        for other, letter in zip(pods, row, strict=True):
            if (state := letters[letter]) not in _GOOD:
                why = told.get((pod["name"], other["name"]))
                lines.append(f"{pod['name']} -> {other['name']} {shape}: {state}" + (f": {why}" if why else ""))
    for source, lines in wrong.items():
        yield Case(f"{source} reaches every pod by {shape}", prefix, 0.0, failure=_message(lines))


def _others(document: Document) -> Iterator[Case]:
    prefix = f"{document['plugin']}.{document['topology']}"
    for kind in document["kinds"]:
        bad = [
            f"{flow['from']} -> {flow['to']} {flow['protocol']}/IPv{flow['family']}: {flow['verdict']}: "
            f"{flow['findings'][0]['after']} instead of {flow['findings'][0]['before']} at {flow['findings'][0]['place']}"
            for flow in document["flows"]
            if flow["kind"] == kind["kind"] and flow["findings"]
        ]
        if kind["findings"] and not bad:
            bad = [f"{kind['findings']} of {kind['flows']} flows have findings"]
        yield Case(kind["kind"], prefix, 0.0, failure=_message(bad))
    for family in sorted({check["family"] for check in document["mtu"]}):
        bad = [
            f"{check['from']} -> {check['to']}: {finding['after']} instead of {finding['before']}"
            for check in document["mtu"]
            for finding in check["findings"]
            if check["family"] == family
        ]
        yield Case(f"packets of full size, IPv{family}", prefix, 0.0, failure=_message(bad))
    cluster = [f"{finding['subject']}: {finding['text']}" for finding in document["findings"] if finding["label"] == "cluster"]
    if cluster:
        yield Case("the cluster", prefix, 0.0, failure=_message(cluster))


def _expectations(document: Document) -> Iterator[Case]:
    for outcome in document["expectations"]:
        lines = [
            f"{one['from']} -> {one['to']} {one['protocol']}/IPv{one['family']}: {one['field']}: "
            f"{one['found']} instead of {one['expected']}" + (f" at {one['place']}" if one["place"] else "")
            for one in outcome["failures"]
        ]
        failure = "" if outcome["passed"] else _message(lines or ["not as expected"])
        if failure and outcome["text"]:
            failure += f"\n\n{outcome['text']}"
        yield Case(outcome["title"], f"{document['plugin']}.{document['topology']}", outcome["seconds"], failure=failure)


def _message(lines: list[str]) -> str:
    """The first says how many there are."""
    if len(lines) < 2:
        return "".join(lines)
    more = [f"and {len(lines) - _TOLD} more"] if len(lines) > _TOLD else []
    return "\n".join([f"{lines[0]} (and {len(lines) - 1} more)", *lines[1:_TOLD], *more])
