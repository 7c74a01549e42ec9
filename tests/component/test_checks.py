"""What is read of check files, and what is told of their runs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from tables import each_row

from emulab.checks import reading, rehearsal, telling
from emulab.checks.result import Done, Result
from emulab.errors import InputError
from emulab.report.text import console_for

from .test_report_junit import written

Laid = Callable[[str, str], Path]


@pytest.fixture
def laid(tmp_path: Path) -> Laid:
    """``laid(name, text)``: a check file."""

    def make(name: str, text: str) -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        return path

    return make


def test_what_is_read(laid: Laid) -> None:
    text = "name: Shop\nplugin: [calico, weave]\nset: {calico: {encap: vxlan}}\n"
    text += "steps:\n- pod rm: a2\n- expect:\n  - a1 reaches c2 within 2s\n"
    check = reading.read(laid("shop", text))
    assert (check.name, check.plugins, check.settings["calico"], check.settings["weave"]) == (
        "Shop",
        ("calico", "weave"),
        ("encap=vxlan",),
        (),
    )
    first, second = check.steps
    assert (first.title, first.line, first.do, first.arguments) == ("pod rm a2", 5, "pod_rm", {"names": ["a2"]})
    assert [(str(one.expectation), one.line, one.within) for one in second.expected] == [("a1 reaches c2 by icmp", 7, 2.0)]


def test_another_plugin_takes_no_options_of_the_named_ones(laid: Laid) -> None:
    check = reading.read(laid("own", "plugin: calico\nset: {calico: {encap: vxlan}}\nexpect: a1 reaches c2\n"))
    (job,) = rehearsal.jobs(check, ["weave"])
    assert (job.title, job.design.plane.name) == ("own [weave]", "weave")


def test_folders_and_files(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "manifests").mkdir()
    assert [path.name for path in reading.found([tmp_path, tmp_path / "b.yaml"])] == ["a.yml", "b.yaml"]
    with pytest.raises(InputError, match=r"manifests: no check in this folder, \*\.yaml expected"):
        reading.found([tmp_path / "manifests"])


# Reports


def outcome(passed: bool) -> dict[str, Any]:
    failure = {"from": "default/a1", "to": "default/c2", "family": 4, "protocol": "tcp", "port": 80}
    failure |= {
        "field": "source",
        "expected": "10.1.1.1",
        "found": "192.168.50.1",
        "place": "node-a:eth0",
        "rule": "ip nat masquerade",
    }
    told = {"expectation": {"from": "a1", "to": "c2"}, "title": "a1 reaches c2 tcp/80, without NAT", "passed": passed, "line": 3}
    told |= {"flows": 2, "failed": int(not passed), "seconds": 0.25, "failures": [] if passed else [failure]}
    return {**told, "story": None, "text": "" if passed else "the packet's [story]\n", "packets": ""}


@pytest.fixture
def results(laid: Laid) -> list[Result]:
    check = reading.read(laid("shop", "steps:\n- pod rm: a2\n- expect: a1 reaches c2\n"))
    (job,) = rehearsal.jobs(replace(check, file="checks/shop.yaml"))
    hour = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    done, expect = Done(check.steps[0], 0.01), Done(check.steps[1], 0.5, [outcome(True), outcome(False)])
    good = Result(job, hour, [done, Done(check.steps[1], 0.5, [outcome(True)])], seconds=1.0)
    bad = Result(job, hour, [done, expect], seconds=2.0)
    refused = Result(job, hour, [Done(check.steps[0], error="the kernel [refused]")], seconds=0.5)
    dead = Result(job, hour, [], "the lab was killed by SIGKILL after 0 of 2 steps", 0.5)
    return [good, bad, refused, dead]


def test_text(results: list[Result]) -> None:
    page = io.StringIO()
    for result in results:
        telling.text(result, console_for(page))
    assert page.getvalue() == (
        "shop [flannel]  checks/shop.yaml  1.0 s\n"
        "  · pod rm a2\n"
        "  ✓ a1 reaches c2 tcp/80, without NAT\n"
        "shop [flannel]  checks/shop.yaml  2.0 s\n"
        "  · pod rm a2\n"
        "  ✓ a1 reaches c2 tcp/80, without NAT\n"
        "  ✗ a1 reaches c2 tcp/80, without NAT  (checks/shop.yaml:3)\n"
        "      a1 > c2, tcp/80, IPv4: source: 10.1.1.1 expected, got 192.168.50.1 at node-a:eth0 by ip nat masquerade\n"
        "      the packet's [story]\n"
        "shop [flannel]  checks/shop.yaml  0.5 s\n"
        "  ✗ pod rm a2: the kernel [refused]  (checks/shop.yaml:2)\n"
        "shop [flannel]  checks/shop.yaml  0.5 s\n"
        "  ✗ the lab was killed by SIGKILL after 0 of 2 steps  (checks/shop.yaml)\n"
    )


@each_row(
    "chosen, line",
    [
        ([0], "PASS  1 passed; 1 expectation holds (1.5 s)"),
        ([0, 0], "PASS  2 passed; 2 expectations hold (1.5 s)"),
        ([0, 1], "FAIL  1 passed, 1 failed; 2 of 3 expectations hold (1.5 s)"),
        ([2], "FAIL  1 could not be carried out; 0 expectations hold (1.5 s)"),
    ],
)
def test_summary(chosen: list[int], line: str, results: list[Result]) -> None:
    assert telling.summary([results[index] for index in chosen], 1.5) == line


def test_json(results: list[Result]) -> None:
    told = json.loads(json.dumps(telling.document(results, 4.0)))
    assert (told["schema"], told["ok"], told["summary"]) == (
        "emulab/check/1",
        False,
        {"passed": 1, "failed": 1, "error": 2, "expectations": 3, "broken": 1},
    )
    assert [(check["state"], check["error"]) for check in told["checks"]][2:] == [
        ("error", "pod rm a2: the kernel [refused]"),
        ("error", "the lab was killed by SIGKILL after 0 of 2 steps"),
    ]


def test_junit(results: list[Result]) -> None:
    document = written(*telling.suites(results))
    assert [(suite.get("tests"), suite.get("failures"), suite.get("errors")) for suite in document] == [
        ("1", "0", "0"),
        ("2", "1", "0"),
        ("1", "0", "1"),
        ("1", "0", "1"),
    ]
    assert document.xpath("testsuite[2]/testcase/failure/@message")[0].startswith(
        "a1 > c2, tcp/80, IPv4: source: 10.1.1.1 expected"
    )
    assert "the packet's [story]" in document.xpath("testsuite[2]/testcase/failure/text()")[0]
