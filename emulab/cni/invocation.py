"""One call of a plugin as a value, and who carries it out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Union


class Outcome(NamedTuple):
    """How a process ended.  ``exit_code`` is negative for a signal, as in `subprocess`.

    ``problem`` says in words what the runner had to do about it (a time-out, too much output); then the rest is what there was.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    problem: str = ""


# (path, environment, stdin, seconds it may take) -> Outcome, or the first three of it; OSError: it could not be started.
Runner = Callable[[str, Mapping[str, str], bytes, float], Union[Outcome, "tuple[int, bytes, bytes]"]]


@dataclass(frozen=True)
class Invocation:
    """What was run, with what, and what came of it.  ``started`` in seconds since the epoch; ``problem`` as in `Outcome`.

    ``exit_code`` is None when there was nothing to start.
    """

    command: str
    plugin: str
    path: str
    env: Mapping[str, str]
    stdin: str
    stdout: str
    stderr: str
    exit_code: int | None
    seconds: float
    started: float
    problem: str = ""

    def show(self) -> dict[str, Any]:
        return {**asdict(self), "env": dict(self.env)}
