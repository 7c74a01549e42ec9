"""Broken on purpose: each fault shows, is told by its name, is undone by what the diagnosis says, and then all is well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from designed import CALICO, FLANNEL, VXLAN, WEAVE, planned
from sandboxed import build, inside

from emulab import fabric
from emulab.diagnose import Diagnosis, diagnose, undone
from emulab.drift import compare
from emulab.errors import KernelError
from emulab.faults import FAULTS, Step
from emulab.kernel.observe import observe
from emulab.kernel.typed import type_lines
from emulab.lab import Lab, Probing
from emulab.result import RunResult
from emulab.state import State, merge

QUICK = Probing(protocols=("icmp", "udp"), timeout=0.5)
CASES = [FLANNEL, CALICO, VXLAN, WEAVE, ("non-flat", "nat")]
MESH, RACKS = ("partial-mesh", "weave"), ("two-racks", "flannel")
HEALTHY = [*CASES, MESH, RACKS, ("two-racks", "calico"), ("partial-mesh", "flannel"), ("single-node", "weave")]
APPLICABLE = [(case, name) for case in CASES for name in FAULTS if FAULTS[name].places(*planned(*case))]
APPLICABLE.remove((("non-flat", "nat"), "mtu-mismatch"))  # sizes are measured only between pods that meet at their addresses
APPLICABLE += [(MESH, "missing-fdb"), (MESH, "tunnel-down"), (RACKS, "node-partition"), (RACKS, "overlapping-pod-cidr")]
OF_USERS = ("missing-fdb", "duplicate-pod-ip", "ip-forward-off", "one-way-loss", "mtu-mismatch", "tunnel-down")


def desired(lab: Lab) -> State:
    return merge(fabric.plan(lab.cluster.topology), lab.plan)


def look(lab: Lab, probing: Probing = QUICK) -> tuple[RunResult, list[Diagnosis]]:
    result = lab.verify(probing)
    plan = desired(lab)
    return result, diagnose(lab.cluster, lab.plane, plan, compare(plan, observe(lab.namespaces, plan)), result)


def undo(lab: Lab) -> None:
    """Type what a diagnosis tells to type, for every deviation; then let everybody ask for MACs anew."""
    plan = desired(lab)
    for deviation in compare(plan, observe(lab.namespaces, plan)):
        type_lines(lab.namespaces, [Step(deviation.namespace, line) for line in undone(deviation)])
    for endpoint in lab.cluster.endpoints:
        type_lines(lab.namespaces, [Step(endpoint.key, "ip neigh flush dev eth0")])
    type_lines(lab.namespaces, [Step(node.name, "ip neigh flush all") for node in lab.cluster.nodes])


def broken(lab: Lab, name: str) -> dict[str, Any]:
    """Inject, look, undo, look again."""
    before, silent = look(lab)
    places = FAULTS[name].places(lab.cluster, lab.plane, desired(lab))
    at = places[min(1, len(places) - 1)]
    type_lines(lab.namespaces, FAULTS[name].steps(lab.cluster, lab.plane, desired(lab), at))
    during, told = look(lab)
    undo(lab)
    after, silent_again = look(lab, Probing(protocols=QUICK.protocols))
    return {
        "at": at,
        "told": [(one.fault, one.where) for one in told],
        "first": told[:1],
        "bad": [sum(1 for _ in run.bad()) + sum(bool(m.findings) for m in run.mtu) for run in (before, during, after)],
        "silent": [[(one.fault, one.words, one.evidence) for one in found] for found in (silent, silent_again)],
    }


def check(found: dict[str, Any], name: str) -> None:
    alarms = [[one for one in silent if one[0] != "by-design"] for silent in found["silent"]]
    assert alarms == [[], []]
    before, during, after = found["bad"]
    assert during > before == after, "the fault shows, and nothing of it is left"
    assert [one for one in found["told"] if one[0] != "by-design"] == [(name, found["at"])]
    assert found["told"][0] == (name, found["at"])
    assert any(" -> " in line for line in found["first"][0].evidence), "a packet is among the evidence"


@pytest.mark.parametrize(("case", "name"), APPLICABLE, ids=lambda value: value if isinstance(value, str) else "-".join(value))
def test_a_fault_shows_and_is_told_and_can_be_undone(case: tuple[str, ...], name: str) -> None:
    topology, plugin, *settings = case

    def work() -> dict[str, Any]:
        with build(topology, plugin, tuple(settings)) as lab:
            lab.build()
            return broken(lab, name)

    check(inside(work, "root"), name)


@pytest.mark.parametrize("name", OF_USERS)
def test_an_ordinary_user_may_break_things_too(name: str) -> None:
    def work() -> dict[str, Any]:
        with build("flat", "flannel") as lab:
            lab.build()
            return broken(lab, name)

    check(inside(work, "user"), name)


@pytest.mark.parametrize("case", HEALTHY, ids="-".join)
def test_a_healthy_lab_gives_no_alarm(case: tuple[str, ...], in_lab: Callable[..., Any]) -> None:
    topology, plugin, *settings = case

    def names(lab: Lab) -> tuple[bool, set[str]]:
        result, told = look(lab, Probing(timeout=0.5))
        return result.ok, {one.fault for one in told}

    healthy, told = in_lab(topology, plugin, names, *settings)
    assert told == (set() if healthy else {"by-design"})


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
