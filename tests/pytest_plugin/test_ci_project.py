"""examples/ci-project as an outside project: emulab is installed by pip in a clean environment, and its tests are run there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest
from lxml import etree
from packaging.requirements import Requirement

from emulab.pytest_plugin.machine import in_ci

ROOT = Path(__file__).parents[2]
PARTS = ("emulab", "plugins", "topologies", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
SCHEMA = etree.XMLSchema(etree.parse(ROOT / "tests" / "schemas" / "junit-10.xsd"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project, with what it needs in ``environment/`` beside it: emulab by pip, and what the two declare."""
    folder = tmp_path
    (folder / "emulab").mkdir()
    for name in PARTS:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / "emulab" / name)
    shutil.copytree(ROOT / "examples" / "ci-project", folder / "project")
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    quick = ("--quiet", "--disable-pip-version-check", "--no-compile", "--no-deps")
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install", *quick]
    done = subprocess.run([*pip, str(folder / "emulab")], capture_output=True, text=True)
    if done.returncode and "Could not find a version" in done.stderr and not in_ci():
        pytest.skip(f"no package index can be reached: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    (site,) = environment.glob("lib/python3*/site-packages")
    declared = re.findall(r"^dependencies = (.*)$", (folder / "project" / "pyproject.toml").read_text(), re.MULTILINE)[0]
    link(site, json.loads(declared))
    return folder / "project"


def link(site: Path, declared: Iterable[str]) -> None:
    """Put what is declared, and what that declares in turn, into an environment: nothing else of what is installed here."""
    waiting = [Requirement(one) for one in declared]
    met: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        key = wanted.name, frozenset(wanted.extras)
        if key in met:
            continue
        met.add(key)
        own = next(iter(metadata.distributions(name=wanted.name, path=[str(site)])), None)
        found = own or metadata.distribution(wanted.name)
        assert wanted.specifier.contains(found.version, prereleases=True), (wanted, found.version)
        for name in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (site / name).exists():  # two may share a folder
                (site / name).symlink_to(Path(str(found.locate_file(name))))
        for needed in map(Requirement, found.requires or ()):
            if not needed.marker or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)):
                waiting.append(needed)


def run(project: Path, *words: str) -> tuple[int, str, etree._ElementTree]:
    """Exit code, output, and JUnit XML of pytest in the project."""
    environment = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("PYT")}
    command = [project.parent / "environment" / "bin" / "python", "-m", "pytest", "--junitxml=junit.xml", *words]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr, etree.parse(project / "junit.xml")


FIELDS = (
    "source 10.1.1.1 -> 10.1.1.0 at ",
    "source 192.168.1.1 -> 192.168.50.1 at ",
    "delivered at shop/db:eth0, expected no arrival",
    "expect(a1) says nothing",
)


def test_its_tests_pass_on_two_workers_and_its_red_ones_fail(project: Path) -> None:
    """In one test, since the wheel would be built for each."""
    code, out, written = run(project, "-n", "2")
    assert code == 0 and re.search(r"\b17 passed\b", out), out
    SCHEMA.assertValid(written)
    show_what_was_rewritten(project)


def show_what_was_rewritten(project: Path) -> None:
    code, out, written = run(project, "-m", "red", "--emulab-artifacts=evidence")
    assert code == 1 and "4 failed" in out, out
    SCHEMA.assertValid(written)
    told = {case.get("name"): str(case.xpath("failure/@message")) for case in written.iter("testcase")}
    assert {name: [field for field in FIELDS if field in told[name]] for name in told} == {
        "test_a_masquerading_rule_too_many": ["source 10.1.1.1 -> 10.1.1.0 at "],
        "test_docker_without_kubernetes[nat]": ["source 192.168.1.1 -> 192.168.50.1 at "],
        "test_flannel_enforces_no_policy[flannel]": ["delivered at shop/db:eth0, expected no arrival"],
        "test_said_nothing": ["expect(a1) says nothing"],
    }
    assert "by nft ip nat POSTROUTING: ip saddr 10.1.1.0/24 counter masquerade" in out
    (folder,) = (project / "evidence").glob("test-red-nat-*")
    assert {"result.json", "report.html", "junit.xml", "plan.sh", "versions.txt"} < {file.name for file in folder.iterdir()}
    kept = json.loads((folder / "result.json").read_text())["expectations"]
    assert [(one["title"], one["passed"]) for one in kept] == [("a1 reaches b1 tcp/80, without NAT", False)]
