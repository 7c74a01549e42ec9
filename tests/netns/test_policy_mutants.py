"""Compilers that are wrong on purpose: each is found by comparing the kernel with the oracle, the right one never accused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from policy_kernel import Judge, Mismatch, apply, bare, everything
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


def tried(plane: str) -> tuple[dict[str, str], dict[str, str]]:
    """What disagrees, of each healthy case and of each mutant; "" where nothing does.

    What goes wrong with policies before they are compiled is tried on one plane, in turn.
    """
    healthy: dict[str, str] = {}
    ill = {}
    with bare("flat", plane) as lab:
        lab.build()
        apply(lab, cluster())
        judge = Judge(lab)
        for number, mutant in enumerate(mutants({e.key: str(e.addresses[0]) for e in lab.cluster.endpoints})):
            if plane in mutant.patch and (mutant.convert is nothing or PLANES[number % len(PLANES)] == plane):
                if mutant.case.text not in healthy:
                    meant = apply(lab, mutant.case)
                    healthy[mutant.case.text] = first(judge.mismatches(checks(lab), meant))
                ill[mutant.name] = disagreement(lab, judge, plane, mutant)
    return healthy, ill


def checks(lab: Lab) -> list[Check]:
    return [one for one in everything(lab, SHAPES) if one.source in CLIENTS and one.destination in SERVERS]


def first(found: list[Mismatch]) -> str:
    return str(found[0]) if found else ""


def disagreement(lab: Lab, judge: Judge, plane: str, mutant: Mutant) -> str:
    """By IPv4, and where that shows nothing by IPv6."""
    with mutant.patch[plane]():
        meant = apply(lab, mutant.case, lambda objects: replace(objects, policies=mutant.convert(objects.policies)))
        asked = ([one for one in checks(lab) if one.family == family] for family in (4, 6))
        return next(filter(None, (first(judge.mismatches(some, meant, again=False)) for some in asked)), "")


@pytest.mark.parametrize("plane", PLANES)
def test_every_mutant_is_found(plane: str) -> None:
    """As root: it is the comparison that is tried, and test_policies.py makes it as an ordinary user, too."""
    healthy, ill = inside(lambda: tried(plane), "root")
    assert len(ill) >= 20
    assert list(filter(None, healthy.values())) == [], "the healthy one is accused"
    assert [name for name, words in ill.items() if not words] == [], "these are not found"
