"""hostPort: what a node gets at a published port goes to the pod, whatever made it so."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from designed import catalogued
from sandboxed import AS_ROOT, inside

from emulab import registry
from emulab.kernel.namespaces import entered
from emulab.lab import Lab, Probing
from emulab.model import Pod
from emulab.objects import ContainerPort
from emulab.planning import design
from emulab.probe.tracing import trace

CNI = f"conflist={Path(__file__).parents[2] / 'examples' / 'cni' / '10-bridge.conflist'}"
PORTS = (
    ContainerPort(80, "tcp", "", 8080),
    ContainerPort(53, "udp", "", 5300),
    ContainerPort(81, "tcp", "", 8081, "192.168.50.1"),
)
PLANES = [("user", "cni", CNI), ("root", "flannel"), ("user", "calico"), ("root", "weave")]  # the first by portmap's iptables


def told(lab: Lab, source: str, destination: str, protocol: str, port: int, family: int) -> tuple[str, bool, bool, str]:
    """Verdict, whether a destination was translated, and a source, and whom the packet reached."""
    found = trace(lab, source, destination, protocol=protocol, port=port, family=family)
    request = [hop for hop in found.hops if hop.leg == "request"]
    if not request:
        return found.verdict.value, False, False, ""
    first, last = request[0].inner, request[-1].inner
    place = request[-1].place.namespace
    return found.verdict.value, first.destination != last.destination, first.source != last.source, place


@pytest.mark.parametrize(
    ("user", "plane"),
    [pytest.param(user if AS_ROOT else "user", plane, id=f"{user}-{plane[0]}") for user, *plane in PLANES],
)
def test_a_published_port_leads_to_its_pod(plane: list[str], user: str) -> None:
    flat = catalogued("flat")
    web = Pod("web", "node-a", ports=PORTS)
    wanted = design(replace(flat, pods=(*flat.pods, web)), registry.options(registry.plugin(plane[0]), tuple(plane[1:])))

    def work() -> Any:
        with Lab(wanted) as lab:
            lab.build()
            outside = [
                told(lab, "internet", "node-a", protocol, port, family)
                for family in (4, 6)
                for protocol, port in (("tcp", 8080), ("udp", 5300))
            ]
            bound = told(lab, "internet", "node-a", "tcp", 8081, 4), told(lab, "internet", "node-a", "tcp", 8081, 6)
            inner = [told(lab, source, "node-a", "tcp", 8080, 4) for source in ("default/b1", "default/a1", "default/web")]
            with entered(lab.namespaces["node-a"].net):
                line = "exec 3<>/dev/tcp/127.0.0.1/8080"
                local = subprocess.run(["timeout", "5", "bash", "-c", line], capture_output=True).returncode
            nobody = told(lab, "internet", "node-b", "tcp", 8080, 4)[0]
            rest = lab.verify(Probing(("udp",), taps="ends")).ok
            return outside, bound, inner, local, nobody, rest, [str(one) for one in lab.drift()]

    outside, bound, inner, local, nobody, rest, drift = inside(work, user)
    assert outside == [("delivered", True, False, "default/web")] * 4, "the destination is translated, the source is not"
    assert bound[0] == ("delivered", True, False, "default/web")
    assert bound[1][0] == "refused", "hostIP is an IPv4 address"
    assert [one[:2] for one in inner] == [("delivered", True)] * 3
    assert inner[2][2], "a pod's packet to itself comes from its node, or it would not come back"
    assert local == 0
    assert nobody == "refused"
    assert rest
    assert drift == []


def test_addresses_of_the_topology_are_what_the_test_says() -> None:
    uplink = catalogued("flat").uplink("node-a")
    assert ip_address("192.168.50.1") in [address.ip for address in uplink.addresses]
