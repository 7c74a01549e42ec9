"""Fixtures: labs on the real kernel, as root and as an ordinary user."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sandboxed import AS_ROOT, Check, build, inside


@pytest.fixture(params=["root", "user"] if AS_ROOT else ["user"])
def user(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def in_lab(user: str) -> Iterator[Callable[..., Any]]:
    """``in_lab(topology, plugin, check, *settings)``: build the lab, return what ``check(lab)`` returns."""

    def run(topology: str, plugin: str, check: Check, *settings: str) -> Any:
        def work() -> Any:
            with build(topology, plugin, settings) as lab:
                lab.build()
                return check(lab)

        return inside(work, user)

    yield run
