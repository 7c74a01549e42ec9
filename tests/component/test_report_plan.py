"""A plan as text and as JSON, whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from emulab.dataplane import DataPlane, Wire
from emulab.report import plan
from emulab.state import Route, State, Up, Veth

from .test_report_text import cluster


@dataclass(frozen=True)
class Plane(DataPlane):
    name = "made-up"
    vni: int = 7
    mtu: int | None = None

    def ipam(self, topology: Any) -> Any: ...

    def plan(self, cluster: Any) -> Any: ...

    def wire(self, cluster: Any, source: Any, destination: Any, family: int) -> Wire: ...  # type: ignore[empty-body]


BLACKHOLE = Route(ip_network("10.1.1.0/26"), kind="blackhole", protocol=80)
STATE: State = {  # the pod before its node: the report has to put that right
    "default/a1": (Up("eth0"),),
    "node-a": (Veth("veth1", "eth0", "default/a1", "a1"), BLACKHOLE),
}


def test_text() -> None:
    shown = plan.as_text(Plane(), cluster(), STATE).splitlines()
    assert shown[0] == "# made-up on pair (vni=7)"
    assert shown[1].startswith("# Each node has its uplink")
    assert (
        "\n".join(shown[2:])
        == """
# node node-a
ip link add name veth1 mtu 1500 type veth peer name eth0 mtu 1500 netns a1
ip route add blackhole 10.1.1.0/26 proto 80

# pod default/a1, on node-a: ip netns exec a1 …
ip link set dev eth0 up"""
    )


def test_json() -> None:
    found = json.loads(plan.as_json(Plane(), cluster(), STATE))
    assert {key: found[key] for key in found if key != "namespaces"} == {
        "schema": "emulab/plan/1",
        "plugin": "made-up",
        "options": {"vni": 7, "mtu": None},
        "topology": "pair",
    }
    assert list(found["namespaces"]) == ["node-a", "default/a1"]
    veth, route = found["namespaces"]["node-a"]
    assert (veth["kind"], veth["peer_netns"]) == ("Veth", "a1")
    assert (route["kind"], route["type"], route["destination"]) == ("Route", "blackhole", "10.1.1.0/26")
    assert route["lines"] == ["ip route add blackhole 10.1.1.0/26 proto 80"]
