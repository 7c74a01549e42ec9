"""`emulab cni conformance` by its command line: exit codes, JSON, JUnit, and nothing left on the machine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from sandboxed import AS_ROOT
from terminal import Done, Terminal

CONF = str(Path(__file__).parents[2] / "examples" / "cni" / "mynet.conflist")


@pytest.fixture
def conformance(sit_down: Callable[[str], Terminal]) -> Callable[..., Done]:
    emulab = sit_down("root" if AS_ROOT else "user").emulab
    return lambda *words: emulab("cni", "conformance", "/usr/lib/cni/bridge", "--conf", CONF, *words)


@pytest.mark.parametrize(("check", "code"), [("version-table", 0), ("version-echo", 1), ("gc", 0)])
def test_the_exit_code_says_whether_it_conforms(check: str, code: int, conformance: Callable[..., Done], tmp_path: Path) -> None:
    before = os.listdir("/run"), os.listdir("/var/lib"), Path("/proc/net/dev").read_text().count(":")
    done = conformance("--only", check, "--format", "json", "--junit", str(tmp_path / "report.xml"))
    assert (done.code, done.err) == (code, "")
    document = json.loads(done.out)
    assert (document["schema"], document["ok"]) == ("emulab/conformance/1", code == 0)
    assert document["summary"] == {
        "checks": 1,
        "passed": int(check == "version-table"),
        "failed": code,
        "not_applicable": int(check == "gc"),
    }
    suite = ElementTree.parse(tmp_path / "report.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped", "0")) == ("1", str(code), str(int(check == "gc")))
    assert (os.listdir("/run"), os.listdir("/var/lib"), Path("/proc/net/dev").read_text().count(":")) == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--only", "gcc"), "no check 'gcc' (did you mean 'gc'?)"),
        (("--path", "/nowhere"), "--path /nowhere: a folder expected"),
        (("--only", "gc", "--junit", "/nowhere/x.xml"), "--junit /nowhere/x.xml: No such file or directory"),
    ],
)
def test_mistakes_are_told(words: tuple[str, ...], told: str, conformance: Callable[..., Done]) -> None:
    done = conformance(*words)
    assert (done.code, done.out) == (2, "")
    assert told in done.err
