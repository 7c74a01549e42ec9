"""From what a test wants to a lab that is up, and to its end."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from emulab.errors import EmulabError, MachineError
from emulab.pytest_plugin import machine
from emulab.pytest_plugin.evidence import Evidence
from emulab.pytest_plugin.held import Held
from emulab.pytest_plugin.lab import Lab
from emulab.pytest_plugin.wanted import Wanted

_LACKING = pytest.StashKey[str]()
_SECONDS = 1.0  # for packets of a lab's report; those of what failed are there already


@dataclass
class Up:
    """A lab that is up; ``failed``: a test that uses it has."""

    lab: Lab
    held: Held
    evidence: Evidence
    failed: bool = False

    def enter(self) -> list[str]:
        """How to enter it and how to take it down, once the tests are over."""
        emulab = "sudo emulab" if "SUDO_USER" in os.environ and os.geteuid() == 0 else "emulab"
        pods = self.lab.pods or self.lab.nodes
        return [f"{emulab} shell -l {self.held.name} {pods[0]}", f"{emulab} down {self.held.name}"]


def start(wanted: Wanted, test: Path, config: pytest.Config, temporary: pytest.TempPathFactory) -> Up:
    """A lab for the tests of the file ``test``.

    Skips them when this machine cannot run labs, fails them for that in CI, and for what else `emulab up` says against it.
    """
    if lacking := config.stash.get(_LACKING, ""):
        _give_up(lacking)
    try:
        held = Held(wanted, test.stem)
    except EmulabError as error:
        told, cannot = str(error), isinstance(error, MachineError)
    else:
        if held.warnings:
            print(held.warnings, end="", file=sys.stderr)
        artifacts = folder(config)
        evidence = Evidence(artifacts / held.name if artifacts else temporary.mktemp("emulab"))
        return Up(Lab(held, evidence, test.parent), held, evidence)
    if cannot and (lacking := machine.lacking(told)):
        config.stash[_LACKING] = lacking
        _give_up(lacking)
    pytest.fail(f"emulab up {' '.join(wanted.words())}: {told}", pytrace=False)


def _give_up(lacking: str) -> None:
    if machine.in_ci():
        pytest.fail(f"this machine cannot run labs: {lacking}", pytrace=False)
    pytest.skip(f"this machine cannot run labs: {lacking}")


def finish(up: Up, config: pytest.Config) -> None:
    """Write what is to be written of a lab, and take it down unless it is to be kept."""
    try:
        if artifacts := folder(config):
            from emulab.artifacts import write

            document = up.lab.ask("record", title=up.held.name, seconds=_SECONDS)
            write(artifacts / up.held.name, {**document, "expectations": up.evidence.outcomes})
    finally:
        up.held.release(keep=up.failed and bool(config.getoption("emulab_keep")))


def folder(config: pytest.Config) -> Path | None:
    """Where `--emulab-artifacts` wants everything to be."""
    wanted: str | None = config.getoption("emulab_artifacts")
    return Path(config.invocation_params.dir, wanted) if wanted else None
