"""`emulab check` as people and CI use it: real labs, several at once, and every way in which a run can go wrong."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from check_files import BESIDE, BROKEN, GOOD, Good
from lxml import etree
from tap.parser import Parser
from terminal import Done, Terminal

from .test_endings import awaited, descendants, gone

JUNIT = etree.XMLSchema(etree.parse(str(Path(__file__).parents[1] / "schemas" / "junit-10.xsd")))
ENDLESS = "expect: a1 cannot reach a2 within 60s\n"
FOR_USERS = ("encapsulation", "masquerade", "inline")
# Done one after the other in one lab, since labs cost more than what is done in them.  What is not undone comes last.
TOGETHER = (
    ("sentence", "mapping", "mtu", "seen-as", "nobody-else", "masquerade", "repair-some", "unenforced"),
    ("missing-route", "pods"),
    ("partition", "links"),
    ("sentences", "nodes", "dropped"),
)


def together(names: tuple[str, ...]) -> Good:
    """One file for several that have the same head."""
    files = [yaml.safe_load(GOOD[name].text) for name in names]
    parts = [file.pop("steps", None) or [{"expect": file.pop("expect")}] for file in files]
    heads = [{key: value for key, value in file.items() if key != "description"} for file in files]
    assert all(head == heads[0] for head in heads)
    text = yaml.safe_dump({**heads[0], "steps": [step for steps in parts for step in steps]}, sort_keys=False)
    return Good("".join(GOOD[name].outcomes for name in names), text)


def lay(terminal: Terminal, files: dict[str, str], folder: str = "checks") -> Path:
    """Check files in the user's home, with what they name beside them."""
    texts = {**BESIDE, **{f"{folder}/{name}.yaml": text for name, text in files.items()}}
    for name, text in texts.items():
        path = terminal.home / name
        path.parent.mkdir(exist_ok=True)
        path.parent.chmod(0o755)
        path.write_text(text)
    return terminal.home / folder


def outcomes(document: dict[str, Any]) -> dict[str, str]:
    """Per file, a sign for each expectation, plugin by plugin."""
    found: dict[str, list[str]] = {}
    for check in document["checks"]:
        signs = "".join("+" if one["passed"] else "-" for step in check["steps"] for one in step["outcomes"])
        found.setdefault(Path(check["file"]).stem, []).append(signs + (f" {check['error']}" if check["error"] else ""))
    return {name: " ".join(signs) for name, signs in found.items()}


def test_good_files_and_the_faults_planted_in_them(terminal: Terminal) -> None:
    """The same whoever runs them; so an ordinary user has a few of them only."""
    alone = set(GOOD) - {name for names in TOGETHER for name in names}
    files = {name: GOOD[name] for name in (FOR_USERS if terminal.user == "user" else alone)}
    if terminal.user == "root":
        files |= {names[0]: together(names) for names in TOGETHER}
    folder, junit = lay(terminal, {name: file.text for name, file in files.items()}), terminal.home / "junit.xml"
    done = terminal.emulab("check", str(folder), "--json", "-j", "4", "--junit", str(junit))
    assert done.err == ""
    document = json.loads(done.out)
    assert outcomes(document) == {name: file.outcomes for name, file in files.items()}
    failed = {Path(check["file"]).stem for check in document["checks"] if check["state"] == "failed"}
    assert (done.code, failed) == (1, {name for name, file in files.items() if "-" in file.outcomes})
    for check in document["checks"]:
        for outcome in (one for step in check["steps"] for one in step["outcomes"] if not one["passed"]):
            assert (
                outcome["failures"] and outcome["story"]["schema"] == "emulab/trace/1" and outcome["text"] and outcome["packets"]
            )
    xml = etree.parse(str(junit))
    JUNIT.assertValid(xml)
    assert (
        int(xml.xpath("sum(testsuite/@failures)"))
        == document["summary"]["broken"]
        == sum(file.outcomes.count("-") for file in files.values())
    )
    assert terminal.emulab("ls").err == "no lab is up\n"


def test_broken_files_start_nothing(sit_down: Callable[[str], Terminal]) -> None:
    terminal = sit_down("root" if os.geteuid() == 0 else "user")
    folder = lay(terminal, {**{name: broken.text for name, broken in BROKEN.items()}, "good": GOOD["sentence"].text})
    done = terminal.emulab("check", str(folder), "--junit", str(terminal.home / "junit.xml"))
    assert (done.code, done.out) == (2, "")
    assert [line.startswith("error: ") for line in done.err.splitlines()] == [True] * len(BROKEN)
    assert not (terminal.home / "junit.xml").exists()


@pytest.fixture
def anybody(sit_down: Callable[[str], Terminal]) -> Terminal:
    return sit_down("root" if os.geteuid() == 0 else "user")


def test_text_tap_and_choice(anybody: Terminal) -> None:
    folder = lay(anybody, {name: GOOD[name].text for name in ("sentence", "masquerade", "fleet")})
    done = anybody.emulab("check", str(folder), "-k", "MASQ", "-k", "sentence", "-q")
    assert done.code == 1
    lines = done.out.splitlines()
    assert lines[0].startswith("masquerade [flannel]  ") and not any("✓ a1 reaches" in line for line in lines)
    assert any("source: 10.1.1.1 expected, got 10.1.1.0 at node-a:flannel.1 by " in line for line in lines)
    assert lines[-1].startswith("FAIL  1 passed, 1 failed; 3 of 4 expectations hold (")
    done = anybody.emulab("check", str(folder), "-k", "sentence", "--plugin", "calico", "--plugin", "weave", "--tap")
    points = [line for line in Parser().parse_text(done.out) if line.category == "test"]
    assert [(point.ok, point.description) for point in points] == [
        (True, "- sentence [calico]: a1 reaches c2 by icmp"),
        (True, "- sentence [weave]: a1 reaches c2 by icmp"),
    ]
    assert anybody.emulab("check", str(folder), "-k", "nothing").code == 2
    assert anybody.emulab("check", str(folder), "-p", "calcio").err == "error: no plugin 'calcio' (did you mean 'calico'?)\n"


def test_a_step_that_cannot_be_is_an_error_and_others_go_on(anybody: Terminal) -> None:
    """With an `ip` that does nothing but complain, a fault cannot be injected."""
    folder = lay(anybody, {"fault": GOOD["missing-route"].text, "good": GOOD["sentence"].text})
    fake = anybody.home / "bin" / "ip"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'not today' >&2\nexit 1\n")
    fake.chmod(0o755)
    done = anybody.emulab("check", str(folder), env={"PATH": f"{fake.parent}:{os.environ['PATH']}"})
    first, error, good, *_ = done.out.splitlines()
    assert done.code == 3 and first.startswith("fault [flannel]  ") and good.startswith("good [flannel]  ")
    assert "✗ fault inject missing-route at node-a: node-a: ip route del " in error and ": not today  (" in error
    assert error.endswith("fault.yaml:2)")


def killed(terminal: Terminal, deep: int) -> Done:
    """An endless check and a good one; of the endless one's lab a process is killed, 0: the outer one, 2: PID 1."""
    folder = lay(terminal, {"endless": ENDLESS, "good": GOOD["sentence"].text})
    running = terminal.start("check", str(folder), "-j", "1", "--json")
    assert awaited(lambda: len(descendants(running.pid)) >= 4)
    everybody = descendants(running.pid)
    os.kill(everybody[1 + deep], signal.SIGKILL)
    done = running.wait()
    assert awaited(lambda: all(map(gone, everybody))), "processes are left"
    return done


@pytest.mark.parametrize("deep", [0, 2])
def test_a_lab_that_dies_is_an_error_and_others_go_on(deep: int, anybody: Terminal) -> None:
    done = killed(anybody, deep)
    assert (done.code, done.err) == (3, "")
    assert outcomes(json.loads(done.out)) == {"endless": " the lab was killed by SIGKILL after 0 of 1 steps", "good": "+"}


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whoever_ends_it_leaves_nothing(by: signal.Signals, anybody: Terminal) -> None:
    folder = lay(anybody, {"one": ENDLESS, "other": ENDLESS, "third": ENDLESS})
    running = anybody.start("check", str(folder), "-j", "2")
    assert awaited(lambda: len(descendants(running.pid)) >= 7)
    everybody = descendants(running.pid)
    done = running.stop(by)
    assert done.code == (130 if by is signal.SIGINT else -by)
    assert awaited(lambda: all(map(gone, everybody))), "processes are left"


@pytest.mark.parametrize("user", ["user"])
def test_evidence(terminal: Terminal) -> None:
    folder = lay(terminal, {"masquerade": GOOD["masquerade"].text, "other": "name: Masquerade\n" + GOOD["sentence"].text})
    evidence = terminal.home / "evidence"
    done = terminal.emulab("check", str(folder), "--artifacts", str(evidence), "-q")
    assert (done.code, done.err) == (1, "")
    assert f"  see {evidence}/masquerade-flannel\n" in done.out
    assert sorted(path.name for path in evidence.iterdir()) == [
        *("junit.xml", "masquerade-flannel", "masquerade-flannel-2", "result.json")  # two are called the same
    ]
    JUNIT.assertValid(etree.parse(str(evidence / "junit.xml")))
    told = json.loads((evidence / "result.json").read_text())
    assert [Path(check["artifacts"]).name for check in told["checks"]] == ["masquerade-flannel", "masquerade-flannel-2"]
    for check in told["checks"]:
        own = Path(check["artifacts"])
        kept = json.loads((own / "result.json").read_text())
        assert (kept["schema"], kept["title"]) == ("emulab/report/1", f"{check['name']} [flannel]")
        assert [one["passed"] for one in kept["expectations"]] == [
            o["passed"] for step in check["steps"] for o in step["outcomes"]
        ]
        assert check["name"] in (own / "report.html").read_text()
    assert (evidence / "masquerade-flannel" / "expectation-2.pcapng").read_bytes()[:4] == b"\x0a\x0d\x0d\x0a"


def test_what_cannot_be_written_starts_nothing(anybody: Terminal) -> None:
    folder = lay(anybody, {"good": GOOD["sentence"].text})
    for option in ("--artifacts", "--junit"):
        done = anybody.emulab("check", str(folder), option, str(folder / "good.yaml" / "there"))
        assert (done.code, done.out) == (2, "") and "cannot write there" in done.err
