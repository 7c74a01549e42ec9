"""Whatever is altered by hand is put back: nothing differs from the plan afterwards, and packets pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from emulab.lab import Lab, Probing

FIRST_CALI = "$(ip -o link | grep -o 'cali[0-9a-f]*' | head -1)"
FIRST_PORT = "$(ip -o link show master cni0 | grep -o 'veth[0-9a-f]*' | head -1)"
TYPED_ON_NODE_A = {
    "flannel": [
        "ip route del 10.1.2.0/24",
        "ip route replace 10.1.2.0/24 via 192.168.50.2",
        "ip route replace 10.1.2.0/24 proto static nexthop via 192.168.50.2 nexthop via 192.168.50.3",
        "ip route add 9.9.9.0/24 dev eth0",
        "bridge fdb del $(bridge fdb show dev flannel.1 | sed 's/ .*dst/ dev flannel.1 dst/;q' | sed 's/permanent//')",
        "ip link set flannel.1 down",
        "ip link del flannel.1",
        "ip link del cni0",
        "ip link set cni0 down",
        "ip addr add 5.5.5.5/24 dev eth0",
        "ip addr del 10.1.1.254/24 dev cni0",
        "ip neigh replace 10.1.2.0 dev flannel.1 lladdr 02:00:00:00:00:99 nud permanent",
        "sysctl -qw net.ipv4.ip_forward=0",
        "nft add rule ip flannel-ipv4 forward drop",
        "nft flush chain ip flannel-ipv4 postrtg",
        "nft delete table ip flannel-ipv4",
        "nft add table ip evil",
        "ip link set eth0 mtu 1400",
        "ip link set eth0 down",
        "ip netns exec a1 ip link set eth0 mtu 1000",
        "ip netns exec a1 ip link set eth0 address 02:00:00:00:00:44",
        "ip netns exec a1 ip link del eth0",
        "ip netns exec a1 ip link set eth0 down",
        "ip netns exec a1 ip addr flush dev eth0",
        "tc qdisc add dev eth0 root tbf rate 1mbit burst 10000 latency 50ms",
        "ip link add veth9 type veth peer name veth8",
        "ip link add mv0 link eth0 type macvlan",
        f"ip link set {FIRST_PORT} nomaster",
    ],
    "calico": [
        f"ip link del {FIRST_CALI}",
        f"sysctl -qw net.ipv4.conf.{FIRST_CALI}.proxy_arp=0",
        "ip route del blackhole 10.1.1.0/26",
        "nft flush chain ip calico nat-POSTROUTING",
    ],
    "weave": [
        "ip link del vxlan-2",
        "ip link set vxlan-3 down",
        "ip link set vxlan-2 mtu 1000",
        "ip link del datapath",
        "ip link del weave",
        "ip link del vethwe-bridge",
        "bridge link set dev vxlan-2 isolated off",
    ],
}


# What may be altered by an ordinary user is told by the longest list; root's repairs with Flannel are test_drift.py's as well.
@pytest.mark.parametrize(("user", "plugin"), [("user", "flannel"), ("root", "calico"), ("root", "weave")])
def test_what_was_altered_is_put_back(user: str, plugin: str, in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> dict[str, Any]:
        wrong: dict[str, Any] = {}
        for line in TYPED_ON_NODE_A[plugin]:
            said = lab.network["node-a"].cmd(line).strip()
            mended = lab.repair()
            left = [str(deviation) for deviation in lab.drift()]
            if said or not mended or left:
                wrong[line] = (said, [str(deviation) for deviation in mended], left)
        if not lab.verify(Probing(protocols=("udp",), mtu=False)).ok:
            wrong["afterwards"] = "packets are lost"
        return wrong

    assert in_lab("flat", plugin, check) == {}


@pytest.mark.parametrize("user", ["root"])
def test_only_where_it_is_wanted(in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> list[str]:
        for name in ("node-a", "node-b"):
            lab.network[name].cmd("sysctl -qw net.ipv4.ip_forward=0")
        lab.repair(["node-a"])
        return [deviation.namespace for deviation in lab.drift()]

    assert in_lab("flat", "flannel", check) == ["node-b"]
