"""Every plugin on every topology, end to end: what passes, that nothing drifts, and that nothing is diagnosed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sandboxed import build, inside, plain

from emulab.diagnose import diagnose
from emulab.lab import Probing


def named(value: object) -> str:
    return value if isinstance(value, str) else " ".join(value) if isinstance(value, tuple) else ""


HEALTHY = [
    ("flat", "flannel"),
    ("flat", "flannel", "backend=host-gw"),
    ("flat", "calico"),
    ("flat", "calico", "encap=vxlan"),
    ("flat", "weave"),
    ("single-node", "flannel"),
    ("single-node", "calico"),
    ("single-node", "weave"),
    ("two-racks", "flannel"),
    ("two-racks", "flannel", "direct_routing=true"),
    ("two-racks", "calico", "encap=cross-subnet"),
    ("two-racks", "calico", "encap=vxlan"),
    ("two-racks", "weave"),
    ("partial-mesh", "weave"),
]


# One of each plane for an ordinary user, and an overlay of several hops; what else there is, users have in other rooms.
AS_USER = [("flat", "flannel"), ("flat", "calico"), ("flat", "weave"), ("partial-mesh", "weave")]


def told(case: tuple[str, ...], user: str, probing: Probing | None = None) -> dict[str, Any]:
    """A verification in a new lab, and what is said of that lab: no drift, before or afterwards."""
    topology, plugin, *settings = case

    def work() -> dict[str, Any]:
        with build(topology, plugin, tuple(settings)) as lab:
            lab.build()
            fresh = lab.drift()
            result = lab.verify(probing or Probing())
            drift = [*fresh, *lab.drift()]
            diagnoses = diagnose(lab.cluster, lab.plane, lab.design.desired, drift, result)
            return {**plain(result), "drift": list(map(str, drift)), "diagnosed": {one.fault for one in diagnoses}}

    found = dict(inside(work, user))
    assert found["drift"] == []
    assert found["diagnosed"] == (set() if found["ok"] else {"by-design"})
    return found


@pytest.mark.parametrize(("user", "case"), [*(("root", c) for c in HEALTHY), *(("user", c) for c in AS_USER)], ids=named)
def test_every_flow_is_delivered_as_sent(user: str, case: tuple[str, ...]) -> None:
    found = told(case, user)
    assert found["findings"] == []
    assert found["ok"]
    assert found["summary"]["flows"] == found["summary"]["delivered"] > 0
    assert found["kinds"] == {"pod-to-pod", "node-to-pod", "pod-to-outside"}
    assert found["translated"] > 0, "pods reach the outside by their node's address"
    assert {(full, over) for *_, full, over in found["mtu"]} == {("delivered", "too big")}
    shapes = {(protocol, family) for _, _, protocol, family in found["verdicts"]}
    assert shapes == {(protocol, family) for protocol in ("icmp", "udp", "tcp") for family in (4, 6)}


RACKS = {"a1": 1, "b1": 1, "c1": 2, "d1": 2}
OPPOSITE = ({"a1", "c1"}, {"b1", "d1"})


@pytest.mark.parametrize(
    ("user", "case", "reached"),
    [
        ("root", ("two-racks", "calico"), lambda a, b: RACKS[a] == RACKS[b]),
        ("user", ("two-racks", "flannel", "backend=host-gw"), lambda a, b: RACKS[a] == RACKS[b]),
        ("root", ("partial-mesh", "flannel"), lambda a, b: {a, b} not in OPPOSITE),
        ("user", ("partial-mesh", "calico"), lambda a, b: {a, b} not in OPPOSITE),
    ],
    ids=named,
)
def test_what_the_underlay_does_not_carry_is_dropped(
    user: str, case: tuple[str, ...], reached: Callable[[str, str], bool]
) -> None:
    found = told(case, user, Probing(timeout=0.5))
    assert found["verdicts"] == {
        (a, b, protocol, family): "delivered" if reached(a, b) else "dropped" for a, b, protocol, family in found["verdicts"]
    }
    assert not found["ok"]


# Seen at the ends, where what is lost or rewritten shows as well; each place on the way is seen in smaller labs.  Conversations
# are what costs time: one large fleet has all of them.
QUICK, ALL = ("icmp", "udp"), ("icmp", "udp", "tcp")


@pytest.mark.parametrize(
    ("user", "plugin", "nodes", "taps", "protocols"),
    [
        ("root", "flannel", 10, "ends", ALL),
        ("root", "calico", 10, "ends", QUICK),
        ("user", "weave", 10, "ends", QUICK),
        ("root", "calico", 4, "every", ALL),
    ],
)
def test_a_fleet(user: str, plugin: str, nodes: int, taps: str, protocols: tuple[str, ...]) -> None:
    found = told((f"fleet,{nodes},5", plugin), user, Probing(taps=taps, protocols=protocols))
    assert found["ok"], found["findings"][:3]
    pods = nodes * 5
    shapes = len(protocols) * 2
    assert len(found["verdicts"]) == pods * (pods - 1) * shapes
    assert set(found["verdicts"].values()) == {"delivered"}
    from_nodes = nodes * (pods if taps == "every" else 5 + nodes - 1)
    assert found["summary"]["delivered"] == (pods * (pods - 1) + from_nodes + pods) * shapes


def test_what_is_not_flat_is_told() -> None:
    found = told(("non-flat", "nat"), "user")
    assert set(found["verdicts"].values()) == {"rewritten"}
    assert ("a1 -> b1 udp/IPv4", "source", "192.168.1.1", "192.168.50.1", "node-a:eth0") in found["findings"]
    assert any(field == "destination" and after == "172.16.2.2" for _, field, _, after, _ in found["findings"])
