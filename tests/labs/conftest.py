"""Fixtures: a terminal whose labs are nobody else's, and taken down at the end."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sandboxed import AS_ROOT
from terminal import Terminal

from emulab.kernel import syscalls


@pytest.fixture(scope="session", autouse=True)
def own_run() -> Iterator[None]:
    """Root's labs are in /run/emulab: for these tests, and what they start, it is a folder of their own."""
    if AS_ROOT:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
        os.makedirs("/run/emulab", mode=0o700, exist_ok=True)
        syscalls.mount("tmpfs", "/run/emulab", "tmpfs", 0, "mode=700")
    yield


@pytest.fixture
def sit_down() -> Iterator[Callable[[str], Terminal]]:
    """``sit_down(user)``: a terminal of that user; labs are taken down afterwards."""
    with tempfile.TemporaryDirectory(prefix="emulab-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        terminals: list[Terminal] = []

        def make(user: str) -> Terminal:
            terminals.append(Terminal(user, Path(folder, user)))
            return terminals[-1]

        yield make
        for terminal in terminals:
            terminal.emulab("down", "--all")


@pytest.fixture(params=["root", "user"] if AS_ROOT else ["user"])
def user(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def terminal(user: str, sit_down: Callable[[str], Terminal]) -> Terminal:
    return sit_down(user)
