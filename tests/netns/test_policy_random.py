"""Random policies, live, from case to case in one lab: kernel and oracle agree about every pair, port, protocol and family.

More of them: bench/policies.py.  A case that fails is printed with its seed and manifests.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from policy_cases import case
from policy_kernel import Judge, addresses, apply, bare, everything
from policy_mutants import PLANES, cluster
from sandboxed import inside

SECONDS, LEAST = 8.0, 3
FIRST = {"root": 1, "user": 5000}  # seeds


def agreement(plane: str, first: int) -> dict[str, Any]:
    """As many cases as there is time for, and at least a few."""
    with bare("flat", plane) as lab:
        lab.build()
        apply(lab, cluster())
        judge, known, start, done, wrong = Judge(lab), addresses(lab), time.monotonic(), 0, ""
        while not wrong and (done < LEAST or time.monotonic() - start < SECONDS):
            one = case(first + done, known, names=plane != "weave")  # weave-npc knows no named ports
            odd = judge.mismatches(everything(lab), apply(lab, one))
            wrong = "\n".join([str(one), *map(str, odd[:10]), f"{len(odd)} checks in all"]) if odd else ""
            done += 1
        return {"cases": done, "checks": judge.pairs, "wrong": wrong}


@pytest.mark.parametrize("plane", PLANES)
def test_kernel_and_oracle_agree(plane: str, user: str) -> None:
    found = inside(lambda: agreement(plane, FIRST[user]), user)
    assert found["wrong"] == ""
    assert found["cases"] >= LEAST
    assert found["checks"] > 1000 * LEAST
