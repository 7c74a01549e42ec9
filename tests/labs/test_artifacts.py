"""`--artifacts DIR`: evidence of good runs and bad, as root and as an ordinary user; tshark reads every capture."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from terminal import Terminal

from emulab.report.reading import read

FILES = {"report.html", "result.json", "junit.xml", "plan.sh", "versions.txt"}


def captured(*paths: Path) -> list[list[str]]:
    """(interface, comment) of each packet of the files, as tshark reads them: joined, or it would take a second for each."""
    joined = subprocess.run(["mergecap", "-a", "-w", "-", *map(str, paths)], capture_output=True, check=True).stdout
    fields = ["-T", "fields", "-e", "frame.interface_name", "-e", "frame.comment"]
    read = subprocess.run(["tshark", "-r", "-", *fields], input=joined, capture_output=True, check=True)
    return [line.split("\t") for line in read.stdout.decode().splitlines()]


def test_a_run_that_is_as_it_should_be(terminal: Terminal) -> None:
    folder = terminal.home / "new" / "evidence"
    done = terminal.emulab("run", "--artifacts", str(folder), "--family", "4", "-q")
    assert done.code == 0, done
    assert done.err.startswith(f"{folder}/report.html and ")
    files = {path.name for path in folder.iterdir()}
    captures = {name for name in files if name.endswith(".pcapng")}
    assert files - captures == FILES and len(captures) >= 10
    assert len({(folder / name).stat().st_uid for name in files}) == 1 == len({terminal.home.stat().st_uid, folder.stat().st_uid})
    document = read((folder / "result.json").read_bytes(), "result.json")
    walkable = {(one["from"], one["to"]) for one in (*document["stories"], *document["flows"])}
    pods = [pod["name"] for pod in document["pods"]]
    assert {(one, other) for one in pods for other in pods if one != other} <= walkable
    packets = captured(*(folder / name for name in sorted(captures)))
    assert {hop["place"] for story in document["stories"] for hop in story["hops"]} <= {interface for interface, _ in packets}
    hops = sum(len(story["hops"]) for story in document["stories"])
    assert sum(" leaves by " in comment or " arrives at " in comment for _, comment in packets) >= hops
    assert sum("because route" in comment for _, comment in packets) >= len(document["stories"])
    cases = list(ElementTree.parse(folder / "junit.xml").iter("testcase"))
    assert len(cases) > 15 and not list(ElementTree.parse(folder / "junit.xml").iter("failure"))
    assert f"user: {'root' if terminal.user == 'root' else 'an ordinary user'}" in (folder / "versions.txt").read_text()
    assert document["environment"]["ip"].startswith("ip utility, iproute2")


@pytest.mark.parametrize("user", ["user"])
def test_a_lab_with_a_fault_keeps_its_exit_code(terminal: Terminal) -> None:
    assert terminal.emulab("up").code == 0
    assert terminal.emulab("fault", "inject", "masquerade-pods", "--at", "node-a").code == 0
    folder = terminal.home / "evidence"
    done = terminal.emulab("verify", "--from", "a1", "--artifacts", str(folder), "--family", "4", "--format", "json")
    assert done.code == 1 and json.loads(done.out)["schema"] == "emulab/run/1"
    document = json.loads((folder / "result.json").read_bytes())
    finding = document["findings"][0]
    assert (finding["field"], finding["before"], finding["after"]) == ("source", "10.1.1.1", "10.1.1.254")
    assert finding["place"].startswith("node-a:veth") and "10.1.1.254" in finding["rule"]
    story = document["stories"][0]  # findings come first
    (changed,) = [hop for hop in story["hops"] if hop["translated"] and hop["leg"] == "request"]
    assert changed["place"] == finding["place"] and any(why.endswith("masquerade") for why in changed["why"])
    assert {key: story[key] for key in ("from", "to", "protocol")} == {
        key: finding["flow"][key] for key in ("from", "to", "protocol")
    }
    assert story["verdict"] == "rewritten"
    (packets,) = [captured(path) for path in folder.glob(f"a1-to-{story['to'][8:]}-{story['protocol']}4*.pcapng")]
    assert any("source 10.1.1.1 -> 10.1.1.254" in comment and "masquerade" in comment for _, comment in packets)
    failures = list(ElementTree.parse(folder / "junit.xml").iter("failure"))
    assert any("10.1.1.1 -> 10.1.1.254" in str(one.get("message")) for one in failures)
    again = terminal.home / "again.html"
    assert terminal.emulab("report", str(folder / "result.json"), "-o", str(again)).code == 0
    assert again.read_bytes() == (folder / "report.html").read_bytes()


@pytest.mark.parametrize("words", [("run",), ("verify",)])
def test_a_folder_that_cannot_be_written(sit_down: object, words: tuple[str, ...]) -> None:
    terminal = sit_down("user")  # type: ignore[operator]
    done = terminal.emulab(*words, "--artifacts", "/proc/evidence")
    assert done.code == 2 and done.out == ""
    assert done.err == "error: --artifacts /proc/evidence: cannot write there: No such file or directory\n"


def test_what_is_no_report(sit_down: object) -> None:
    terminal = sit_down("user")  # type: ignore[operator]
    for data, told in (("[", "error: standard input:1: no JSON: Expecting value"), ("{}", "error: standard input: no document")):
        done = terminal.emulab("report", "-", stdin=data)
        assert done.code == 2 and done.err.startswith(told) and done.err.count("\n") == 1
    assert terminal.emulab("report", "/nowhere.json").err == "error: /nowhere.json: cannot be read: No such file or directory\n"
