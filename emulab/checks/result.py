"""What became of a check with one plugin: the value that its reports are functions of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from emulab.checks.check import Step
from emulab.checks.rehearsal import Job


@dataclass
class Done:
    """A step that was carried out; ``outcomes`` as the operation ``expect`` tells them, each with its ``line``."""

    step: Step
    seconds: float = 0.0
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""  # why it could not be

    @property
    def ok(self) -> bool:
        return not self.error and all(one["passed"] for one in self.outcomes)


@dataclass
class Result:
    """A check with one plugin.  ``error``: why it did not come to its end, when no step is to blame."""

    job: Job
    started: datetime
    steps: list[Done] = field(default_factory=list)
    error: str = ""
    seconds: float = 0.0
    artifacts: str = ""  # the folder of its evidence
    notes: list[str] = field(default_factory=list)  # what else there is to say of it

    @property
    def outcomes(self) -> Iterator[dict[str, Any]]:
        return (outcome for done in self.steps for outcome in done.outcomes)

    @property
    def why(self) -> str:
        """Why it did not come to its end, or "" when it did."""
        broken = next((done for done in self.steps if done.error), None)
        return self.error or (f"{broken.step.title}: {broken.error}" if broken else "")

    @property
    def where(self) -> str:
        """Which step could not be carried out, or the file, when it is none's fault."""
        broken = next((done for done in self.steps if done.error), None)
        return f"{self.job.check.file}:{broken.step.line}" if broken else self.job.check.file

    @property
    def state(self) -> str:
        """``passed``; ``failed``: an expectation does not hold; ``error``: it did not come to its end."""
        return "error" if self.why else "passed" if all(one["passed"] for one in self.outcomes) else "failed"
