"""Who is in a lab, as tests name them; and the error that says who or what is not."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emulab.pytest_plugin.lab import Lab


class LabError(Exception):
    """One line: what cannot be done in the lab, and why."""

    __module__ = "builtins"  # as of `ExpectationFailed`


@dataclass(frozen=True)
class Selected:
    """Those whom an expectation is about, by a selector: ``shop/*``, ``*``, ``shop/app=web,tier!=db``, ``internet``."""

    lab: Lab = field(repr=False, compare=False)
    selector: str

    def __str__(self) -> str:
        return self.selector


@dataclass(frozen=True)
class Pod(Selected):
    """A pod as it was when it was asked for; ``selector`` is ``a1``, in other namespaces than default ``shop/web``."""

    name: str
    namespace: str
    node: str
    addresses: tuple[str, ...]
    labels: Mapping[str, str]
    ready: bool

    @property
    def address(self) -> str:
        """The first, which is of IPv4 where it has one."""
        return self.addresses[0]

    def exec(self, *command: str, input: str | None = None, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """As `Lab.exec`."""
        return self.lab.exec(self, *command, input=input, timeout=timeout)


@dataclass(frozen=True)
class Node(Selected):
    """A node as it was when it was asked for; ``addresses`` are those of its uplink."""

    name: str
    addresses: tuple[str, ...]

    @property
    def address(self) -> str:
        """The first, which is of IPv4 where it has one."""
        return self.addresses[0]

    def exec(self, *command: str, input: str | None = None, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """As `Lab.exec`."""
        return self.lab.exec(self, *command, input=input, timeout=timeout)
