"""A check as a value: what is done to a lab, and expected of it, with the lines of the file in which it is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from emulab.expectation import Expectation


@dataclass(frozen=True)
class Wanted:
    """An expectation, where it is written, and in how many seconds it has to hold."""

    expectation: Expectation
    line: int
    within: float = 0.0


@dataclass(frozen=True)
class Step:
    """An operation of a lab with its arguments, or, without one, expectations.  ``title``: as one would say it."""

    title: str
    line: int
    do: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    expected: tuple[Wanted, ...] = ()


@dataclass(frozen=True)
class Check:
    """A check file.  ``settings`` are ``["vni=7"]`` by plugin, ``manifests`` (name, text) each."""

    name: str
    file: str
    description: str
    topology: str | None
    plugins: tuple[str, ...]
    settings: dict[str, tuple[str, ...]]
    manifests: tuple[tuple[str, str], ...]
    steps: tuple[Step, ...]
    lines: dict[str, int] = field(default_factory=dict)  # of keys, options and plugins, by their paths

    def line(self, *paths: str) -> int:
        """Of the first of ``paths`` that is in the file."""
        return next((self.lines[path] for path in paths if path in self.lines), 1)
