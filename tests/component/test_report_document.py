"""The document that reports are made of: its keys as docs/json.md has them, its letters, and what is made of it."""

from __future__ import annotations

import json
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import reported
from tables import each_row

from emulab import artifacts
from emulab.errors import InputError
from emulab.model import Endpoint, Pod
from emulab.packet import Finding, FlowResult, Verdict
from emulab.report import document, page
from emulab.report.pairs import pairs
from emulab.report.reading import read
from emulab.report.suites import suites
from emulab.result import Block, Flows, RunResult

TOLD = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
BROKEN = reported.broken()
FLEET = reported.fleet(11, 10)
FINDING = ["field", "before", "after", "place", "leg", "rule"]


@each_row(
    "path, keys",
    [
        (
            [],
            [
                *(
                    "schema",
                    "title",
                    "plugin",
                    "options",
                    "topology",
                    "taps",
                    "ok",
                    "verdict",
                    "nodes",
                    "pods",
                    "drawing",
                    "letters",
                ),
                *(
                    "pairs",
                    "findings",
                    "flows",
                    "stories",
                    "left_out",
                    "expectations",
                    "kinds",
                    "mtu",
                    "summary",
                    "timings",
                    "plan",
                ),
                "environment",
            ],
        ),
        (["pods", 0], ["name", "node", "addresses", "labels"]),
        (["pairs", 0], ["family", "protocol", "rows"]),
        (["findings", 0], ["label", "subject", "text", "number", *FINDING, "flow"]),
        (["findings", 0, "flow"], ["from", "to", "family", "protocol", "dport"]),
        (["kinds", 0], ["kind", "flows", "findings", "translated", "states"]),
    ],
)
def test_keys_in_order_and_documented(path: list[str | int], keys: list[str]) -> None:
    found: Any = BROKEN
    for step in path:
        found = found[step]
    assert list(found) == keys
    assert not [key for key in keys if not re.search(rf"`{key}(\[\])?`", TOLD)]


def test_a_letter_for_every_pair() -> None:
    ends = tuple(Endpoint(Pod(name, "node-a"), (ip_address(f"10.1.1.{i}"),)) for i, name in enumerate("xyz", 1))
    made = reported.planned()
    cluster = made.cluster.__class__(made.topology, (), ends)
    arrived, denied = [b"\0\1\1", b"\1\0\1", b"\0\1\0"], [b"\0\0\0", b"\1\0\0", b"\1\0\0"]
    block = Block(ends, 4, "udp", 7, [8080] * 3, arrived, denied)
    worse = FlowResult(reported.flow("default/z", "default/x"), Verdict.REWRITTEN, findings=(reported.REWRITE,))
    better = FlowResult(reported.flow("default/z", "default/x"), Verdict.DELIVERED)
    policy = FlowResult(
        reported.flow("default/x", "default/y", "tcp"),
        Verdict.DELIVERED,
        findings=(Finding("policy", "denied", "delivered", "p"),),
    )
    told = pairs(RunResult("p", {}, cluster, Flows([worse, better, policy], [block])))
    assert told == [
        {"family": 4, "protocol": "tcp", "rows": ["-#-", "---", "---"]},
        {"family": 4, "protocol": "udp", "rows": ["-#o", "+-+", "R+-"]},
    ]


def test_many_pods_are_strings() -> None:
    rows = FLEET["pairs"][0]["rows"]
    assert rows[0] == "-" + "+" * 99 + "-" * 9 + "x" and rows[1] == "+-" + "+" * 108


def changed(*path: Any, to: Any) -> bytes:
    """The document with another value somewhere."""
    value = json.loads(json.dumps(BROKEN))
    at = value
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = to
    return json.dumps(value).encode()


@each_row(
    "data, told",
    [
        (b"", "f.json:1: no JSON: Expecting value"),
        (b'{\n"schema": }', "f.json:2: no JSON: Expecting value"),
        (b"\xff\xff", "f.json: no JSON"),
        (b"[NaN]", "f.json: no JSON: NaN is no number"),
        (b"[1e999]", "f.json: no JSON: 1e999 is no number"),
        (b"[" * 100_000, "f.json: no JSON"),
        (b"[]", "f.json: no document of emulab: emulab/report/1 expected, the result.json that --artifacts writes"),
        (b"{}", "f.json: no document of emulab"),
        (b'{"schema": "emulab/run/1"}', "f.json: the schema is 'emulab/run/1': emulab/report/1 expected"),
        (b'{"schema": "emulab/report/1"}', "f.json: no whole emulab/report/1: Object missing required field `title`"),
        (changed("pods", 0, "name", to=7), "Expected `str`, got `int` - at `$.pods[0].name`"),
        (changed("stories", 0, "hops", 1, "inner", to=None), "Expected `object`, got `null` - at `$.stories[0].hops[1].inner`"),
        (changed("pairs", 0, "rows", to=["--"]), "pairs, icmp/IPv4: 6 rows of 6 letters expected"),
        (changed("pairs", 0, "rows", 0, to="-?++++"), "pairs, icmp/IPv4: '?' is none of its letters"),
        (changed("stories", 1, "packets", to="!"), "stories[1].packets: base64 expected"),
        (changed("drawing", to={"nodes": 1}), "f.json: no whole emulab/report/1: drawing"),
        (changed("expectations", 1, "failures", 0, "from", to=[]), "$.expectations[1].failures[0].from"),
    ],
)
def test_damaged_and_foreign_documents_are_refused(data: bytes, told: str) -> None:
    with pytest.raises(InputError) as raised:
        read(data, "f.json")
    assert told in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("made", [reported.healthy, reported.broken])
def test_what_is_written_is_read_again(made: Any) -> None:
    assert read(artifacts.dump(made()).encode(), "f.json") == made()


def test_unknown_fields_are_let_be_and_a_drawing_may_lack() -> None:
    value = {**BROKEN, "later": 1}
    del value["drawing"]
    found = read(json.dumps(value).encode(), "f.json")
    assert (found["later"], found["drawing"]) == (1, None)
    assert "<svg" not in page.render({**found, "title": "half a pair: \ud800"})


def test_nothing_leaves_the_data_of_the_page() -> None:
    hostile = "</script><!--<img src=x onerror=alert(1)>&\u2028"
    html = page.render({**BROKEN, "title": hostile, "left_out": [hostile]})
    assert hostile not in html and "<img" not in html and html.count("</script>") == 2
    data = html.partition('id="document">')[2].partition("</script>")[0]
    assert json.loads(data)["left_out"] == [hostile]
    assert (
        "default-src &#39;none&#39;" in html
        and "unsafe-inline" not in html
        and "http://" not in html.replace("http://www.w3.org/2000/svg", "")
    )


def test_cases_for_ci_servers() -> None:
    found = {suite.name: suite.cases for suite in suites(BROKEN)}
    assert list(found) == [
        *("flannel on flat: icmp/IPv4", "flannel on flat: tcp/IPv4", "flannel on flat: udp/IPv4"),
        *("flannel on flat: beside pods", "flannel on flat: expectations"),
    ]
    assert [case.failure for case in found["flannel on flat: icmp/IPv4"]] == [""] * 6
    (udp,) = found["flannel on flat: udp/IPv4"]
    assert udp.name == "default/a1 reaches every pod by udp/IPv4"
    assert udp.failure.startswith("default/a1 -> default/c1 udp/IPv4: rewritten: source of the request 10.1.1.1 -> 10.1.1.0")
    assert [(case.name, bool(case.failure)) for case in found["flannel on flat: beside pods"]] == [
        ("pod-to-outside", False),
        ("packets of full size, IPv4", False),
    ]
    good, bad = found["flannel on flat: expectations"]
    assert (good.failure, bad.name) == ("", "a1 reaches c1 udp/8080 without NAT")
    assert bad.failure.startswith("default/a1 -> default/c1 udp/IPv4: nat: source 10.1.1.1 -> 10.1.1.0 instead of none")
    assert [bool(case.failure) for case in suites(FLEET)[0].cases] == [True] + 10 * [False]


def test_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / artifacts.PAGE).write_text("old")
    written = {path.name for path in artifacts.write(tmp_path, BROKEN)}
    assert written == {
        *(
            "result.json",
            "report.html",
            "junit.xml",
            "plan.sh",
            "versions.txt",
            "a1-to-c1-icmp4.pcapng",
            "b1-to-c1-tcp4-8080.pcapng",
        )
    }
    assert (tmp_path / "notes.txt").read_text() == "mine" and "<!doctype html>" in (tmp_path / artifacts.PAGE).read_text()
    assert (tmp_path / "versions.txt").read_text() == "kernel: Linux 6.1\nip: iproute2-6.1.0\n"
    assert "# pod default/a1, on node-a: ip netns exec a1 …" in (tmp_path / "plan.sh").read_text()


def test_no_name_leads_out_of_the_folder() -> None:
    story = {**reported.story(reported.STORY), "from": "../../etc/x", "to": ".hidden\n"}
    names = [name for name, _ in artifacts.captures({**BROKEN, "stories": [story, story]})]
    assert names == ["etc.x-to-.hidden_-icmp4.pcapng", "etc.x-to-.hidden_-icmp4-2.pcapng"] or all(
        "/" not in name for name in names
    )


@pytest.mark.parametrize("place", ["file/below", "/proc/nothing"])
def test_a_folder_that_cannot_be(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--artifacts .*: cannot write there: "):
        artifacts.prepare(tmp_path / place)


def test_the_title_may_be_another() -> None:
    made = reported.planned()
    assert document.build(made, reported.result(made), title="check 7")["title"] == "check 7"
