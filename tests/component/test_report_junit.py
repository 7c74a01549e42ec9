"""JUnit XML: valid by the schema of Jenkins, and within what Apache Ant's stricter one allows."""

from __future__ import annotations

import io
from datetime import datetime
from pathlib import Path

from lxml import etree
from tables import each_row

from emulab.report import junit
from emulab.report.junit import Case, Suite

SCHEMA = etree.XMLSchema(etree.parse(str(Path(__file__).parents[1] / "schemas" / "junit-10.xsd")))
HOUR = datetime(2026, 1, 2, 3, 4, 5)
PASSED = Case("a1 reaches c2", "checks/shop.yaml", 0.25, output="story of the packet")
FAILED = Case(
    "a1 reaches c2 without NAT", "checks/shop.yaml", 0.5, failure="source: 10.1.1.2, expected 10.1.1.1\nat node-a", output="story"
)
ERROR = Case("pod rm x", "checks/shop.yaml", 0, error="no pod 'x'")
SKIPPED = Case("c", "d", 0, skipped="no IPv6")
SUITES = [Suite("shop calico", [PASSED, FAILED, ERROR], {"plugin": "calico", "kernel": "6.1"}, 1.0, HOUR), Suite("empty", [])]


def written(*suites: Suite) -> etree._Element:
    out = io.StringIO()
    junit.write(suites, out)
    document = etree.fromstring(out.getvalue().encode())
    SCHEMA.assertValid(document)
    return document


@each_row(
    "path, found",
    [
        ("testsuite[1]/@name", ["shop calico"]),
        ("testsuite[1]/@tests | testsuite[1]/@failures | testsuite[1]/@errors", ["3", "1", "1"]),
        ("testsuite[1]/@timestamp", ["2026-01-02T03:04:05"]),
        ("testsuite[1]/properties/property[@name='kernel']/@value", ["6.1"]),
        ("testsuite[1]/testcase[not(*)]/@name", ["a1 reaches c2"]),
        ("testsuite[1]/testcase/failure/@message", ["source: 10.1.1.2, expected 10.1.1.1"]),
        ("testsuite[1]/testcase/failure/text()", ["source: 10.1.1.2, expected 10.1.1.1\nat node-a\n\nstory"]),
        ("testsuite[1]/testcase/error/@message", ["no pod 'x'"]),
        ("testsuite[1]/system-out/text()", ["a1 reaches c2\nstory of the packet\n"]),
        ("testsuite[2]/@tests", ["0"]),
        ("testsuite/@id", ["0", "1"]),
    ],
)
def test_what_is_said_where(path: str, found: list[str]) -> None:
    assert written(*SUITES).xpath(path) == found


def test_skipped_is_no_pass() -> None:
    suite = written(Suite("s", [SKIPPED]))[0]
    assert (suite.get("tests"), suite.get("skipped"), suite.xpath("testcase/skipped/@message")) == ("1", "1", ["no IPv6"])


@each_row("text", ["<b>&amp;\"'", "bell \x07 and \ud800 and \x1b[31m", "two\nlines\ttab", "ünï ✓ 🐟", "]]>"])
def test_whatever_was_said_is_well_formed(text: str) -> None:
    written(
        Suite(text, [Case(text, text, 1e-9, failure=text, output=text), Case(text, text, 12345.6, output=text)], {text: text})
    )


def test_ant_would_read_it() -> None:
    """Windy Road's JUnit.xsd: an order of elements, required attributes, no child of a case but its failure or error."""
    for suite in written(*SUITES):
        assert [child.tag for child in suite if child.tag != "testcase"] == ["properties", "system-out", "system-err"]
        assert suite[0].tag == "properties" and [child.tag for child in suite[-2:]] == ["system-out", "system-err"]
        assert set(suite.keys()) == {
            *("name", "package", "id", "timestamp", "hostname"),
            *("tests", "failures", "errors", "time"),
        }
        for case in suite.iter("testcase"):
            assert set(case.keys()) == {"name", "classname", "time"}
            assert len(case) <= 1 and {child.tag for child in case} <= {"failure", "error"}
            assert all(child.get("type") for child in case)


def test_the_schema_refuses_what_is_not_junit() -> None:
    assert not SCHEMA.validate(etree.fromstring("<testsuites><testsuite name='no counts'/></testsuites>"))
