"""What expectations leave: every outcome for the record, and for those that do not hold packets, story and words."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_LONGEST = 60  # characters of a file's name that say what it is about
_REWRITTEN = ("source", "destination", "source port", "destination port", "identifier", "sequence", "payload")
_TOLD = 5  # failures of one expectation that are spelled out


class Evidence:
    """The outcomes of one lab, and the ``folder``, made when it is needed, for files about them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outcomes: list[dict[str, Any]] = []
        self._new: list[Path] = []

    def note(self, outcomes: Sequence[dict[str, Any]], instead: Sequence[dict[str, Any]] = ()) -> str:
        """Keep outcomes, ``instead`` of those of the sentence before it was whole; of what failed packets and story, as files.

        Returns the first failure in words.
        """
        self.outcomes = [one for one in self.outcomes if not any(one is other for other in instead)]
        self.outcomes += outcomes
        failed = [one for one in outcomes if not one["passed"]]
        files = [file for one in failed for file in self._write(one)]
        self._new += files
        return "\n".join([*words(failed[0]), "", *map(str, files)]) if failed else ""

    def _write(self, outcome: Mapping[str, Any]) -> Iterator[Path]:
        if outcome["packets"]:
            yield (packets := self.file(outcome["title"], ".pcapng"))
            packets.write_bytes(base64.b64decode(outcome["packets"]))
        yield (told := self.file(outcome["title"], ".json"))
        told.write_text(json.dumps({key: value for key, value in outcome.items() if key != "packets"}, indent=1) + "\n")

    def file(self, about: str, suffix: str) -> Path:
        """A file that is not there yet, for something that is called ``about``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = re.sub("[^a-zA-Z0-9.]+", "-", about).strip("-.")[:_LONGEST]
        number, path = 1, self.folder / f"{name}{suffix}"
        while path.exists():
            number += 1
            path = self.folder / f"{name}-{number}{suffix}"
        return path

    def take_new(self) -> list[Path]:
        """The files that have come since the last time."""
        taken, self._new = self._new, []
        return taken


def words(outcome: Mapping[str, Any]) -> Iterator[str]:
    """A failed outcome: what was expected, what was found instead, and the packet's story, shortened."""
    first, *more = outcome["failures"]
    named = (outcome["expectation"]["from"], outcome["expectation"]["to"]) == (_short(first["from"]), _short(first["to"]))
    yield f"{outcome['title']}: {'' if named else f'{_flow(first)}: '}{_finding(first)}"
    for number, one in enumerate(outcome["failures"][:_TOLD]):
        if number:
            yield f"  {_flow(one)}: {_finding(one)}"
        if one["rule"]:
            yield f"      by {one['rule']}"
    if len(more) >= _TOLD:
        yield f"  … in all {outcome['failed']} of {outcome['flows']} flows"
    lines = list(story(outcome["story"], first["field"])) if outcome["story"] else []
    if lines:
        yield from ("", f"{_flow(first)}:", *lines)


def _finding(one: Mapping[str, Any]) -> str:
    place = f" at {_short(one['place'])}" if one["place"] and _short(one["place"]) not in one["found"] else ""
    if one["field"] in _REWRITTEN:
        return f"{one['field']} {one['expected']} -> {one['found']}{place}"
    return f"{one['field']}: {one['found']}{place}, expected {one['expected']}"


def _flow(one: Mapping[str, Any]) -> str:
    port = "" if one["port"] is None else f"/{one['port']}"
    return f"{_short(one['from'])} -> {_short(one['to'])} {one['protocol']}{port} IPv{one['family']}"


def _short(name: str) -> str:
    return name.removeprefix("default/")


def story(trace: Mapping[str, Any], about: str) -> Iterator[str]:
    """A trace in a few lines: where the packet came from and got to, where it changed, and by which rule if it was translated;
    of the answer, where that was translated.  Why it was lost, if that is what it is ``about``: a port at which nobody
    listens answers a trace by a reset, which is as good as an answer.
    """
    way = _telling([hop for hop in trace["hops"] if hop["leg"] == "request"], lambda hop: bool(_changed(hop)))
    back = _telling([hop for hop in trace["hops"] if hop["leg"] == "reply"], lambda hop: bool(hop["translated"]))
    places, ends = (max((len(said(hop)) for hop in [*way, *back]), default=0) for said in (_place, _ends))
    for heading, hops in (("", way), ("and back", back)):
        if heading and hops:
            yield heading
        for hop in hops:
            yield f"  {_place(hop):<{places}}  {_ends(hop):<{ends}}  {', '.join(_changed(hop))}".rstrip()
            if hop["translated"]:
                yield from (f"      by {rule}" for rule in hop["why"] if _translates(rule))
    if about in ("delivery", "MTU") and trace["reason"]:
        yield f"lost: {trace['reason']} ({trace['reason_code']})"
        yield from (f"  {one}" for one in trace["evidence"])


def _telling(hops: Sequence[dict[str, Any]], told: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """The first, the last, and those that are to be told."""
    return [hop for index, hop in enumerate(hops) if index in (0, len(hops) - 1) or told(hop)]


def _changed(hop: Mapping[str, Any]) -> list[str]:
    return [change for change in hop["changed"] if not change.startswith("MACs")]


def _translates(rule: str) -> bool:
    from emulab.trace import TRANSLATING

    return rule.startswith("conntrack") or any(word in TRANSLATING for word in rule.split())


def _place(hop: Mapping[str, Any]) -> str:
    return f"{'→' if hop['direction'] == 'out' else '←'} {_short(hop['place'])}"


def _ends(hop: Mapping[str, Any]) -> str:
    inner = hop["inner"]
    if inner["protocol"] == "icmp":
        return f"{inner['source']} > {inner['destination']} ttl {inner['ttl']}"
    ends = (f"{_bracketed(inner[end])}:{inner[port]}" for end, port in (("source", "sport"), ("destination", "dport")))
    return f"{' > '.join(ends)} ttl {inner['ttl']}"


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
