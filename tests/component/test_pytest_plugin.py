"""The pytest plugin's pure parts: what marks ask for, what a failure says, what a machine lacks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tables import each_row

from emulab.errors import InputError
from emulab.pytest_plugin import vocabulary
from emulab.pytest_plugin.evidence import Evidence, words
from emulab.pytest_plugin.held import name_of
from emulab.pytest_plugin.machine import in_ci
from emulab.pytest_plugin.machine import words as lacking
from emulab.pytest_plugin.members import Selected
from emulab.pytest_plugin.wanted import Wanted, read


@each_row(
    "marks, labs",
    [
        ([], [Wanted()]),
        ([{"plugin": "calico"}], [Wanted(plugin="calico")]),
        ([{"plugin": ["weave", "flannel"]}], [Wanted(plugin="weave"), Wanted(plugin="flannel")]),
        ([{"plugin": "calico"}, {"plugin": "weave", "topology": "fleet,4,2"}], [Wanted("fleet,4,2", "calico")]),
        ([{"set": {"vni": 7, "masq": True}}], [Wanted(settings=("vni=7", "masq=true"))]),
        (
            [{"plugin": ["calico", "weave"], "set": {"calico": {"encap": "vxlan"}}}],
            [Wanted(plugin="calico", settings=("encap=vxlan",)), Wanted(plugin="weave")],
        ),
        ([{"topology": "mine.yaml"}], [Wanted("{folder}/mine.yaml")]),
        ([{"manifests": [Path("shop"), "deny.yaml"]}], [Wanted(manifests=("{folder}/shop", "{folder}/deny.yaml"))]),
    ],
)
def test_what_marks_ask_for(tmp_path: Path, marks: list[dict[str, Any]], labs: list[Wanted]) -> None:
    for name in ("mine.yaml", "deny.yaml", "shop"):
        (tmp_path / name).touch()
    here = str(tmp_path)
    assert read([((), mark) for mark in marks], tmp_path) == [
        Wanted(
            one.topology.replace("{folder}", here),
            one.plugin,
            one.settings,
            tuple(file.replace("{folder}", here) for file in one.manifests),
        )
        for one in labs
    ]


@each_row(
    "arguments, mark, told",
    [
        (("flat",), {}, "emulab('flat'): name it, e.g. topology='flat'"),
        ((), {"plugins": "calico"}, "emulab: no argument 'plugins' (did you mean 'plugin'?)"),
        ((), {"plugin": []}, "emulab(plugin=[]): at least one expected"),
        ((), {"plugin": 7}, "emulab(plugin=7): a text expected, or a list of them"),
        ((), {"topology": ["flat", "fleet"]}, "emulab(topology=…): one expected"),
        ((), {"topology": "none.yaml"}, "none.yaml: no such file or folder"),
        ((), {"manifests": "none"}, "none: no such file or folder"),
        ((), {"set": "vni=7"}, "emulab(set='vni=7'): options by name expected, e.g. {'vni': 7}"),
        ((), {"set": {"weave": {"mtu": 1}}}, "emulab(set=…): 'weave': options of flannel expected"),
    ],
)
def test_a_wrong_mark_is_one_line(tmp_path: Path, arguments: tuple[str, ...], mark: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError) as error:
        read([(arguments, mark)], tmp_path)
    assert str(error.value).removeprefix(f"{tmp_path}/") == told


def test_what_is_typed_and_how_the_lab_is_called() -> None:
    wanted = Wanted("two-racks", "calico", ("encap=vxlan",), ("shop", "deny.yaml"))
    assert wanted.words() == [
        "--plugin=calico",
        "--set=encap=vxlan",
        "--filename=shop",
        "--filename=deny.yaml",
        "--",
        "two-racks",
    ]
    names = {name_of("test_A_very_long_name_of_a_module_of_tests", "calico") for _ in range(2)}
    assert len(names) == 2 and all(re.fullmatch(r"me-of-a-module-of-tests-calico-\d+-\d+", name) for name in names), names


def hop(
    leg: str, place: str, source: str, destination: str, ttl: int, *changed: str, why: tuple[str, ...] = ()
) -> dict[str, Any]:
    inner = {"source": source, "destination": destination, "protocol": "tcp", "sport": 1, "dport": 80, "ttl": ttl}
    direction, _, where = place.partition(" ")
    return {
        "leg": leg,
        "place": where,
        "direction": direction,
        "inner": inner,
        "changed": list(changed),
        "why": list(why),
        "translated": bool(why),
    }


FLOW = {"from": "default/a1", "to": "default/b1", "family": 4, "protocol": "tcp", "port": 80}
OUTCOME: dict[str, Any] = {
    "expectation": {"from": "a1", "to": "b1", "reaches": True},
    "title": "a1 reaches b1 tcp/80, without NAT",
    "passed": False,
    "flows": 1,
    "failed": 1,
    "failures": [
        {
            **FLOW,
            "field": "source",
            "expected": "10.1.1.1",
            "found": "10.9.9.9",
            "place": "node-a:eth0",
            "rule": "conntrack SNAT",
        },
    ],
    "story": {
        "hops": [
            hop("request", "out default/a1:eth0", "10.1.1.1", "10.1.2.1", 64),
            hop("request", "in node-a:cni0", "10.1.1.1", "10.1.2.1", 64),
            hop(
                "request",
                "out node-a:eth0",
                "10.9.9.9",
                "10.1.2.1",
                63,
                "source 10.1.1.1 -> 10.9.9.9",
                "MACs x > y",
                why=("nft ip nat: masquerade", "route r"),
            ),
            hop("request", "in default/b1:eth0", "10.9.9.9", "10.1.2.1", 63),
            hop("reply", "out default/b1:eth0", "10.1.2.1", "10.9.9.9", 64),
            hop("reply", "out node-b:eth0", "10.1.2.1", "10.9.9.9", 63, "TTL 64 -> 63"),
            hop("reply", "in default/a1:eth0", "10.1.2.1", "10.1.1.1", 63),
        ],
        "reason": "nothing listens there",
        "reason_code": "refused",
        "evidence": [],
    },
    "packets": "",
}


def test_a_failure_tells_the_field_the_rule_and_the_way() -> None:
    assert "\n".join(words(OUTCOME)) == (
        "a1 reaches b1 tcp/80, without NAT: source 10.1.1.1 -> 10.9.9.9 at node-a:eth0\n"
        "      by conntrack SNAT\n"
        "\n"
        "a1 -> b1 tcp/80 IPv4:\n"
        "  → a1:eth0      10.1.1.1:1 > 10.1.2.1:80 ttl 64\n"
        "  → node-a:eth0  10.9.9.9:1 > 10.1.2.1:80 ttl 63  source 10.1.1.1 -> 10.9.9.9\n"
        "      by nft ip nat: masquerade\n"
        "  ← b1:eth0      10.9.9.9:1 > 10.1.2.1:80 ttl 63\n"
        "and back\n"
        "  → b1:eth0      10.1.2.1:1 > 10.9.9.9:80 ttl 64\n"
        "  ← a1:eth0      10.1.2.1:1 > 10.1.1.1:80 ttl 63"
    )


@each_row(
    "failure, first",
    [
        (
            {"field": "delivery", "expected": "an answer", "found": "dropped, last seen at node-b:eth0", "place": "node-b:eth0"},
            "delivery: dropped, last seen at node-b:eth0, expected an answer",
        ),
        ({"field": "hops", "expected": "1", "found": "2", "place": "default/b1:eth0"}, "hops: 2 at b1:eth0, expected 1"),
        ({"field": "NAT", "expected": "something", "found": "nothing", "place": ""}, "NAT: nothing, expected something"),
    ],
)
def test_the_first_line_says_what_is_wrong(failure: dict[str, str], first: str) -> None:
    outcome = {**OUTCOME, "failures": [{**FLOW, **failure, "rule": None}], "story": None}
    assert list(words(outcome)) == [f"{OUTCOME['title']}: {first}"]
    every = {**outcome, "expectation": {"from": "*", "to": "*"}, "failures": outcome["failures"] * 7, "flows": 9, "failed": 7}
    lines = list(words(every))
    assert lines[0] == f"{OUTCOME['title']}: a1 -> b1 tcp/80 IPv4: {first}"
    assert (len(lines), lines[-1]) == (6, "  … in all 7 of 9 flows")


def test_evidence_keeps_the_whole_sentence_and_files_of_what_failed(tmp_path: Path) -> None:
    evidence = Evidence(tmp_path / "later")
    passed = {**OUTCOME, "passed": True, "title": "a1 reaches b1 tcp/80"}
    assert evidence.note([passed]) == "" and not evidence.folder.exists()
    told = evidence.note([{**OUTCOME, "packets": "AAEC"}], instead=[passed])
    assert [one["title"] for one in evidence.outcomes] == [OUTCOME["title"]]
    files = [tmp_path / "later" / f"a1-reaches-b1-tcp-80-without-NAT{suffix}" for suffix in (".pcapng", ".json")]
    assert told.splitlines()[-2:] == [str(file) for file in files]
    assert files[0].read_bytes() == b"\0\1\2" and '"title"' in files[1].read_text()
    assert (evidence.take_new(), evidence.take_new()) == (files, [])
    evidence.note([OUTCOME])
    assert evidence.take_new() == [tmp_path / "later" / "a1-reaches-b1-tcp-80-without-NAT-2.json"], "nothing is overwritten"


class Answering:
    """A lab in which everything holds; it keeps what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[dict[str, Any]], float]] = []
        self.pods = [type("Pod", (), {"addresses": ("10.1.1.1", "fd00::1")})]
        self.evidence = Evidence(Path("/nowhere"))

    def ask(self, do: str, expectations: list[dict[str, Any]], within: float) -> Any:
        assert do == "expect"
        self.asked.append((expectations, within))
        return {"outcomes": [{"passed": True, "title": str(one)} for one in expectations]}


@pytest.fixture
def answering() -> Answering:
    return Answering()


def test_a_sentence_is_what_it_says(answering: Answering) -> None:
    subject = Selected(answering, "a1")  # type: ignore[arg-type]
    flow = {"from": "a1", "to": "c2", "reaches": True, "protocol": "tcp", "port": 80}
    v4 = {**flow, "family": 4}
    sentence = vocabulary.expect(subject).reaches("c2", tcp=80).without_nat()
    sentence.with_mtu(1450).seen_as("fd00::1").in_hops(2).encapsulated("vxlan", vni=1)
    said = [expectations for expectations, _ in answering.asked]
    assert said[:3] == [[flow], [{**flow, "nat": False}], [{**flow, "nat": False}, {**v4, "mtu": 1450}]]
    assert said[-1] == [
        {**flow, "nat": False, "encapsulation": "vxlan", "vni": 1, "hops": 2},
        {**v4, "mtu": 1450},
        {**flow, "family": 6, "seen_as": "fd00::1"},
    ], "a size and an address are expected of one family, and nothing else is narrowed to it"
    vocabulary.expect(subject).reaches("c2", udp=53, family=6).with_mtu(1430)
    assert answering.asked[-1][0] == [
        {"from": "a1", "to": "c2", "reaches": True, "protocol": "udp", "port": 53, "family": 6, "mtu": 1430}
    ]
    vocabulary.expect(subject).eventually(5).cannot_reach("c2").dropped_at("node-c")
    assert answering.asked[-2] == ([{"from": "a1", "to": "c2", "reaches": False, "protocol": "icmp"}], pytest.approx(5, abs=0.5))
    assert answering.asked[-1][0][0]["dropped_at"] == "node-c" and 0 < answering.asked[-1][1] <= 5
    assert len(answering.evidence.outcomes) == 5, "what was said before a sentence was whole does not count"


def test_a_sentence_without_a_verb_is_found(answering: Answering) -> None:
    subject = Selected(answering, "a1")  # type: ignore[arg-type]
    since = vocabulary.mark()
    vocabulary.expect(subject).reaches("c2")
    assert vocabulary.unspoken(since) == []
    vocabulary.expect(subject)
    vocabulary.expect(subject).eventually(3)
    told = vocabulary.unspoken(since)
    assert [line.partition("py:")[2].partition(": ")[2] for line in told] == [
        "expect(a1) says nothing: .reaches(…) or .cannot_reach(…) expected"
    ] * 2
    assert vocabulary.unspoken(since) == []
    with pytest.raises(TypeError, match=r"lab\.pod"):
        vocabulary.expect("a1")  # type: ignore[arg-type]


@each_row(
    "value, ci",
    [(None, False), ("", False), ("0", False), ("false", False), ("true", True), ("1", True), ("woodpecker", True)],
)
def test_what_is_ci(value: str | None, ci: bool) -> None:
    assert in_ci({} if value is None else {"CI": value}) is ci


def test_what_a_machine_lacks_is_what_the_lab_needed() -> None:
    def check(name: str, ok: bool, required: bool) -> dict[str, str | bool]:
        return {"name": name, "ok": ok, "required": required, "reason": "r", "advice": "modprobe it"}

    checks = [check("veth", True, True), check("netem", False, False), check("tbf", False, False)]
    assert lacking(checks, "lan: tc qdisc add dev a root netem: No such file") == "netem is missing (r), to get it: modprobe it"
    assert lacking(checks, "a mistake of ours") == ""
    assert lacking([check("vxlan", False, True)], "whatever") == "vxlan is missing (r), to get it: modprobe it"
