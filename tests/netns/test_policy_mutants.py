"""Compilers that are wrong on purpose: each is found by comparing the kernel with the oracle, the right one never accused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from policy_kernel import Judge, apply, bare, everything
from policy_mutants import PLANES, Mutant, cluster, mutants
from sandboxed import inside

SHAPES = (("tcp", 80), ("tcp", 81), ("tcp", 90), ("udp", 80), ("udp", 53), ("tcp", 53), ("sctp", 80))
CLIENTS = ("default/a", "default/b", "default/c", "red/a", "red/b", "node-a")
SERVERS = ("default/b", "red/a", "red/b")
NAMES = [mutant.name for mutant in mutants({f"default/{name}": "10.1.0.1" for name in "abc"} | {"red/a": "10.1.0.1"})]


def test_there_are_enough() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 20


def tried(plane: str) -> dict[str, tuple[int, int, str]]:
    """Each mutant's case, healthy and ill: how many checks disagree, and one of the latter."""
    found = {}
    with bare("flat", plane) as lab:
        lab.build()
        apply(lab, cluster())
        judge = Judge(lab)
        for mutant in mutants({e.key: str(e.addresses[0]) for e in lab.cluster.endpoints}):
            if plane in mutant.patch:
                found[mutant.name] = both(lab, judge, plane, mutant)
    return found


def both(lab: Any, judge: Judge, plane: str, mutant: Mutant) -> tuple[int, int, str]:
    meant = apply(lab, mutant.case)
    checks = [one for one in everything(lab, SHAPES) if one.source in CLIENTS and one.destination in SERVERS]
    healthy = judge.mismatches(checks, meant)
    with mutant.patch[plane]():
        apply(lab, mutant.case, lambda objects: replace(objects, policies=mutant.convert(objects.policies)))
        ill = judge.mismatches(checks, meant, again=False)
    return len(healthy), len(ill), str((healthy or ill or [""])[0])


@pytest.mark.parametrize("plane", PLANES)
def test_every_mutant_is_found(plane: str) -> None:
    """As root: it is the comparison that is tried, and test_policies.py makes it as an ordinary user, too."""
    found = inside(lambda: tried(plane), "root")
    assert len(found) >= 20
    assert {name: words for name, (healthy, _, words) in found.items() if healthy} == {}, "the healthy one is accused"
    assert [name for name, (_, ill, _) in found.items() if not ill] == [], "these are not found"
