"""Compilers that are wrong on purpose: each is found by comparing the kernel with the oracle, the right one never accused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from policy_kernel import Judge, apply, bare, everything
from policy_mutants import PLANES, Mutant, cluster, mutants, nothing
from sandboxed import inside

from emulab.lab import Lab
from emulab.probe.ports import Check

SHAPES = (("tcp", 80), ("tcp", 81), ("tcp", 90), ("udp", 80), ("udp", 53), ("tcp", 53), ("sctp", 80))
CLIENTS = ("default/a", "default/b", "default/c", "red/a", "red/b", "node-a")
SERVERS = ("default/b", "red/a", "red/b")
NAMES = [mutant.name for mutant in mutants({f"default/{name}": "10.1.0.1" for name in "abc"} | {"red/a": "10.1.0.1"})]


def test_there_are_enough() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 20


def tried(plane: str) -> tuple[int, list[str], list[str]]:
    """How many mutants; those with which nothing disagrees, and the healthy cases with which something does.

    All that convicts a mutant is asked of the healthy one, too, and a third of the rest.

    What goes wrong with policies before they are compiled is tried on one plane, in turn.
    """
    count, lost, accused = 0, [], []
    with bare("flat", plane) as lab:
        lab.build()
        apply(lab, cluster())
        judge = Judge(lab)
        for number, mutant in enumerate(mutants({e.key: str(e.addresses[0]) for e in lab.cluster.endpoints})):
            if plane in mutant.patch and (mutant.convert is nothing or PLANES[number % len(PLANES)] == plane):
                count += 1
                convicting = disagreements(lab, judge, plane, mutant)
                if not convicting:
                    lost.append(mutant.name)
                meant = apply(lab, mutant.case)
                wrong = judge.mismatches(dict.fromkeys([*convicting, *checks(lab)[::3]]), meant)
                accused += [f"{mutant.name}: {one}" for one in wrong]
    return count, lost, accused


def checks(lab: Lab) -> list[Check]:
    return [one for one in everything(lab, SHAPES) if one.source in CLIENTS and one.destination in SERVERS]


def disagreements(lab: Lab, judge: Judge, plane: str, mutant: Mutant) -> list[Check]:
    """By every other check of IPv4, and where that shows nothing by the others, and by IPv6."""
    with mutant.patch[plane]():
        meant = apply(lab, mutant.case, lambda objects: replace(objects, policies=mutant.convert(objects.policies)))
        four, six = ([one for one in checks(lab) if one.family == family] for family in (4, 6))
        asked = (four[::2], four[1::2], six)
        found = next(filter(None, (judge.mismatches(some, meant, again=False) for some in asked)), [])
        return [one.check for one in found]


@pytest.mark.parametrize("plane", PLANES)
def test_every_mutant_is_found(plane: str) -> None:
    """As root: it is the comparison that is tried, and test_policy_random.py makes it as an ordinary user, too."""
    count, lost, accused = inside(lambda: tried(plane), "root")
    assert count >= 20
    assert accused == [], "the healthy one is accused"
    assert lost == [], "these are not found"
