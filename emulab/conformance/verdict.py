"""What a check found, and all of them together: `emulab/conformance/1`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

SCHEMA = "emulab/conformance/1"
PASSED, FAILED, NOT_APPLICABLE = "passed", "failed", "not applicable"


class Failed(Exception):
    """The plugin does not do what it shall; says what was found instead."""


class NotApplicable(Exception):
    """The question does not arise; says why."""


class Blocked(Exception):
    """The question cannot be asked, because of what the check ``by`` is about: there the plugin is to blame, or else here."""

    def __init__(self, by: str, reason: str) -> None:
        super().__init__(reason)
        self.by = by


@dataclass(frozen=True)
class Verdict:
    """``section`` of the specification 1.1.0, ``demand``: what it demands there, ``found``: what the plugin did."""

    name: str
    section: str
    demand: str
    state: str
    found: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """``kind``: an interface plugin, a chained one, or one for address management.  ``speaks``: by its own table of versions."""

    plugin: str
    path: str
    conf: str
    network: str
    kind: str
    version: str
    speaks: tuple[str, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def ok(self) -> bool:
        return all(one.state != FAILED for one in self.verdicts)

    def summary(self) -> Mapping[str, int]:
        counted = Counter(one.state for one in self.verdicts)
        return {
            "checks": len(self.verdicts),
            **{state.replace(" ", "_"): counted[state] for state in (PASSED, FAILED, NOT_APPLICABLE)},
        }

    def show(self) -> dict[str, Any]:
        document = asdict(self)
        verdicts = document.pop("verdicts")
        shown = {"schema": SCHEMA, **document, "speaks": list(self.speaks), "checks": verdicts}
        return {**shown, "summary": dict(self.summary()), "ok": self.ok}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Report:
        names = ("plugin", "path", "conf", "network", "kind", "version")
        verdicts = tuple(Verdict(**one) for one in document["checks"])
        return cls(**{name: document[name] for name in names}, speaks=tuple(document["speaks"]), verdicts=verdicts)
