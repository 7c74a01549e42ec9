"""JUnit XML, as Jenkins, GitLab, GitHub's reporters and most others read it.

Nobody owns the format.  This is what the schema of Jenkins' xunit plugin (``junit-10.xsd``) and the stricter one of Apache Ant's
reports (Windy Road's ``JUnit.xsd``) both allow: so a case's output stands in its failure, or at the end of its suite.  Only
``<skipped>`` is unknown to early versions of the latter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TextIO
from xml.etree import ElementTree as Tree

from emulab import __version__

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # all but Char of XML 1.0, section 2.2


@dataclass(frozen=True)
class Case:
    """One check.  It passed unless ``failure``, ``error`` or ``skipped`` say why not: their first line is the message.

    ``failure``: found something else than expected.  ``error``: could not be carried out.  ``output``: what else there is to
    read.
    """

    name: str
    classname: str
    seconds: float
    failure: str = ""
    error: str = ""
    skipped: str = ""
    output: str = ""

    @property
    def outcome(self) -> tuple[str, str]:
        """(``failure``, ``error``, ``skipped`` or "", the reason)."""
        reasons = (("error", self.error), ("failure", self.failure), ("skipped", self.skipped))
        return next((one for one in reasons if one[1]), ("", ""))


@dataclass(frozen=True)
class Suite:
    """Cases that belong together; ``properties`` tell what they were run with.  ``started`` is its hour, now if not known."""

    name: str
    cases: Sequence[Case]
    properties: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    started: datetime | None = None


def write(suites: Iterable[Suite], out: TextIO) -> None:
    """All suites as one document; ``out`` encodes UTF-8."""
    root = Tree.Element("testsuites")
    for number, suite in enumerate(suites):
        _suite(root, suite, number)
    Tree.indent(root, " ")
    out.write('<?xml version="1.0" encoding="UTF-8"?>\n' + Tree.tostring(root, encoding="unicode") + "\n")


def _suite(root: Tree.Element, suite: Suite, number: int) -> None:
    outcomes = [case.outcome[0] for case in suite.cases]
    hour = (suite.started or datetime.now(timezone.utc)).replace(tzinfo=None)
    element = Tree.SubElement(
        root,
        "testsuite",
        name=_line(suite.name) or "emulab",
        package="emulab",
        id=str(number),
        timestamp=hour.isoformat(timespec="seconds"),
        hostname="localhost",
        tests=str(len(outcomes)),
        failures=str(outcomes.count("failure")),
        errors=str(outcomes.count("error")),
        time=f"{suite.seconds:.3f}",
    )
    if "skipped" in outcomes:
        element.set("skipped", str(outcomes.count("skipped")))
    properties = Tree.SubElement(element, "properties")
    for name, value in {"emulab": __version__, **suite.properties}.items():
        Tree.SubElement(properties, "property", name=_line(name), value=_text(value))
    for case in suite.cases:
        _case(element, case)
    said = [f"{_line(case.name)}\n{case.output.rstrip()}\n" for case in suite.cases if case.output and not case.outcome[0]]
    Tree.SubElement(element, "system-out").text = _text("\n".join(said))
    Tree.SubElement(element, "system-err").text = ""


def _case(suite: Tree.Element, case: Case) -> None:
    element = Tree.SubElement(
        suite, "testcase", name=_line(case.name), classname=_line(case.classname), time=f"{case.seconds:.3f}"
    )
    outcome, reason = case.outcome
    if outcome:
        why = Tree.SubElement(element, outcome, message=_text(reason.splitlines()[0]), type=outcome)
        why.text = _text("\n\n".join(part.rstrip() for part in (reason, case.output) if part))


def _line(text: str) -> str:
    return " ".join(_text(text).split())


def _text(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
