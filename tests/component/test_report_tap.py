"""TAP as a reader that is none of ours takes it."""

from __future__ import annotations

import io

import yaml
from tables import each_row
from tap.line import Line
from tap.parser import Parser

from emulab.report import tap
from emulab.report.junit import Case, Suite

from .test_report_junit import ERROR, FAILED, PASSED, SKIPPED


def written(*suites: Suite) -> str:
    out = io.StringIO()
    tap.write(suites, out)
    return out.getvalue()


def lines(*suites: Suite) -> list[Line]:
    found = list(Parser().parse_text(written(*suites)))
    assert [line.category for line in found if line.category == "unknown"] == []
    return found


def test_what_a_reader_sees() -> None:
    version, plan, *points = lines(Suite("shop", [PASSED, FAILED]), Suite("other", [ERROR, SKIPPED]))
    assert (version.version, plan.expected_tests) == (14, 4)
    assert [(point.ok, point.number, point.description, point.skip) for point in points] == [
        (True, 1, "- shop: a1 reaches c2", False),
        (False, 2, "- shop: a1 reaches c2 without NAT", False),
        (False, 3, "- other: pod rm x", False),
        (True, 4, "- other: c", True),
    ]
    assert [point.yaml_block and point.yaml_block["severity"] for point in points] == [None, "fail", "error", None]
    assert points[1].yaml_block["message"] == "source: 10.1.1.2, expected 10.1.1.1\nat node-a"


def test_no_check_is_a_plan_of_none() -> None:
    assert written(Suite("empty", [])) == "TAP version 14\n1..0\n"


@each_row("text", ["a\n\n  indented\n\n", "key: [not yaml\n---\n- x", "bell \x07\x1b[31m", "tab\tbed ✓", "  first"])
def test_any_text_comes_through_as_yaml(text: str) -> None:
    *_, point = lines(Suite("s", [Case("n", "c", 0, failure="x", output=text)]))
    output = point.yaml_block["output"]
    assert output.split() == "".join(sign if sign.isprintable() or sign.isspace() else "\ufffd" for sign in text).split()
    block = written(Suite("s", [Case("n", "c", 0, failure="x", output=text)])).partition("  ---\n")[2].rpartition("  ...")[0]
    assert yaml.safe_load(block) == point.yaml_block


def test_a_name_is_one_line_without_a_directive() -> None:
    assert "ok 1 - s: one \\# SKIP \\\\ two\n" in written(Suite("s", [Case("one # SKIP \\\ntwo", "c", 0)]))
