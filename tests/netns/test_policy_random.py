"""Random policies, live, from case to case in one lab: kernel and oracle agree about pairs, ports, protocols, families.

More of them, with every question: bench/policies.py.  A case that fails is printed with its seed and manifests.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from policy_cases import case
from policy_kernel import Judge, addresses, apply, bare, everything
from policy_mutants import cluster
from sandboxed import inside

CASES, SHARE = 8, 3  # of all questions about a case a third is asked
FIRST = {"root": 1, "user": 5000}  # seeds


def agreement(plane: str, first: int) -> dict[str, Any]:
    with bare("flat", plane) as lab:
        lab.build()
        apply(lab, cluster())
        judge, known = Judge(lab), addresses(lab)
        for seed in range(first, first + CASES):
            one = case(seed, known, names=plane != "weave")  # weave-npc knows no named ports
            meant, asked = apply(lab, one), everything(lab)
            odd = judge.mismatches(random.Random(seed).sample(asked, len(asked) // SHARE), meant)
            if odd:
                return {"wrong": "\n".join([str(one), *map(str, odd[:10]), f"{len(odd)} checks in all"])}
        return {"wrong": "", "checks": judge.pairs}


@pytest.mark.parametrize(("user", "plane"), [("root", "calico"), ("user", "weave")])
def test_kernel_and_oracle_agree(plane: str, user: str) -> None:
    found = inside(lambda: agreement(plane, FIRST[user]), user)
    assert found["wrong"] == ""
    assert found["checks"] > 300 * CASES
