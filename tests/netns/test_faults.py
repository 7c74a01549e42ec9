"""Broken on purpose: each fault shows, is told by its name, is undone by what the diagnosis says, and then all is well.

That healthy labs give no alarm is seen in test_planes.py, of every one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from designed import CALICO, FLANNEL, VXLAN, WEAVE, planned
from sandboxed import build, inside, repaired

from emulab.diagnose import Diagnosis, diagnose
from emulab.errors import KernelError
from emulab.faults import FAULTS, Step
from emulab.kernel.typed import type_lines
from emulab.lab import Lab, Probing
from emulab.result import RunResult

EVERYWHERE = Probing(protocols=("icmp", "udp"))  # with patience: all should be well but for what is by design
BROKEN = Probing(protocols=("icmp",), timeout=0.3)
MENDED = Probing(protocols=("udp",), taps="ends")
CASES = [FLANNEL, CALICO, VXLAN, WEAVE, ("non-flat", "nat")]
MESH, RACKS = ("partial-mesh", "weave"), ("two-racks", "flannel")
ELSEWHERE = {MESH: ("missing-fdb", "tunnel-down"), RACKS: ("node-partition", "overlapping-pod-cidr")}
BY_USERS = (VXLAN, CASES[-1])
# What is the same with Calico's plain routes or Flannel's tunnel; sizes are measured only between pods met at their addresses.
LEFT_OUT = {
    VXLAN: {
        *("stale-neighbor", "ip-forward-off", "forward-drop", "proxy-arp-off", "dnat-leftover", "one-way-loss"),
        *("node-partition", "conntrack-full", "rp-filter-strict", "masquerade-pods", "duplicate-pod-ip", "overlapping-pod-cidr"),
    },
    CASES[-1]: {"mtu-mismatch"},
}


def look(lab: Lab, probing: Probing) -> tuple[RunResult, list[Diagnosis]]:
    result = lab.verify(probing)
    return result, diagnose(lab.cluster, lab.plane, lab.design.desired, lab.drift(), result)


def alarms(told: list[Diagnosis]) -> list[tuple[str, str]]:
    return [(one.fault, one.where) for one in told if one.fault != "by-design"]


def bad(result: RunResult) -> int:
    return sum(1 for _ in result.bad()) + sum(bool(one.findings) for one in result.mtu)


def broken(lab: Lab, names: Iterable[str]) -> dict[str, list[str]]:
    """Look, and for each: inject, look, repair, look again; returns what is not as it should be.

    After each repair all pairs are tried at their ends, after all of them everything everywhere.
    """
    found: dict[str, list[str]] = {}
    first, silent = look(lab, EVERYWHERE)
    if {one.fault for one in silent} != (set() if first.ok else {"by-design"}):
        found["at first"] = [f"false alarms: {alarms(silent)}"]
    before, healthy = (0, 0) if first.ok else (bad(lab.verify(probing)) for probing in (BROKEN, MENDED))
    scene = (lab.cluster, lab.plane, lab.design.desired)
    for name in names:
        wrong = []
        places = FAULTS[name].places(*scene)
        at = places[min(1, len(places) - 1)]
        type_lines(lab.namespaces, FAULTS[name].steps(*scene, at))
        during = lab.verify(BROKEN)
        told = diagnose(*scene, repaired(lab), during)
        after = bad(lab.verify(MENDED))
        if after != healthy:  # a busy moment loses packets, too, but not twice
            after = bad(lab.verify(MENDED))
        if not bad(during) > before:
            wrong.append(f"bad flows before and during: {before}, {bad(during)}")
        if after != healthy:
            wrong.append(f"bad flows at the ends before and after: {healthy}, {after}")
        if alarms(told) != [(name, at)] or (told[0].fault, told[0].where) != (name, at):
            wrong.append(f"told: {alarms(told)}, injected at {at}")
        elif not any(" -> " in line for line in told[0].evidence):
            wrong.append("no packet is among the evidence")
        if wrong:
            found[name] = wrong
    last, quiet = look(lab, EVERYWHERE)
    if alarms(quiet) or bad(last) != bad(first):
        found["in the end"] = [f"false alarms: {alarms(quiet)}; bad flows: {bad(first)}, {bad(last)}"]
    return found


def break_in_turn(case: tuple[str, ...], names: Iterable[str], user: str) -> dict[str, list[str]]:
    topology, plugin, *settings = case

    def work() -> dict[str, list[str]]:
        with build(topology, plugin, tuple(settings)) as lab:
            lab.build()
            return broken(lab, names)

    return dict(inside(work, user))


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_every_fault_shows_and_is_told_and_can_be_undone(case: tuple[str, ...]) -> None:
    names = [name for name in FAULTS if FAULTS[name].places(*planned(*case)) and name not in LEFT_OUT.get(case, ())]
    assert len(names) > 5
    assert break_in_turn(case, names, "user" if case in BY_USERS else "root") == {}


@pytest.mark.parametrize("case", ELSEWHERE, ids="-".join)
def test_what_breaks_only_elsewhere(case: tuple[str, ...]) -> None:
    assert break_in_turn(case, ELSEWHERE[case], "root") == {}


@pytest.mark.parametrize("user", ["user"])
def test_a_line_is_typed_where_it_belongs_and_by_no_shell(in_lab: Callable[..., Any]) -> None:
    def typing(lab: Lab) -> tuple[bool, list[str]]:
        type_lines(lab.namespaces, [Step("default/a1", "ip addr add 10.9.9.9/32 dev eth0")])
        errors = []
        for line in ("ip link set dev nothing up", "ip link show dev lo; ip link del dev eth0", "no-such-program x"):
            with pytest.raises(KernelError) as caught:
                type_lines(lab.namespaces, [Step("default/a1", line)])
            errors.append(str(caught.value))
        return "10.9.9.9" in lab.network["node-a"].cmd("ip netns exec a1 ip addr show dev eth0"), errors

    there, errors = in_lab("flat", "flannel", typing)
    assert there
    assert errors[0] == 'default/a1: ip link set dev nothing up: Cannot find device "nothing"'
    assert errors[1].startswith("default/a1: ip link show dev lo; ip link del dev eth0: ")
    assert errors[2].startswith("default/a1: no-such-program x: cannot run no-such-program: ")
