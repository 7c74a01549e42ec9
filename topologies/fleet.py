"""fleet,N,M: N nodes on one switch with M pods each, up to 200 x 50

IPv4 and IPv6.  The pod network is wide enough for every design: a /24, some /26 blocks, or a piece of a ring per node.
"""

from __future__ import annotations

from ipaddress import ip_interface, ip_network

from emulab.errors import InputError
from emulab.model import Link, Node, Pod, Segment, Topology

_MOST_NODES, _MOST_PODS = 200, 50


def topology(nodes: int = 10, pods: int = 5) -> Topology:
    """``nodes`` nodes called node-1, node-2, … with ``pods`` pods each: p1-1, p1-2, …"""
    for what, value, most in (("nodes", nodes, _MOST_NODES), ("pods per node", pods, _MOST_PODS)):
        if not 1 <= value <= most:
            raise InputError(f"fleet: {value} {what}, 1 to {most} expected")
    segment = Segment("lan", (ip_network("192.168.48.0/20"), ip_network("fd00:50::/64")))
    numbers = range(1, nodes + 1)
    four, six = segment.subnets
    return Topology(
        name=f"fleet,{nodes},{pods}",
        description=f"{nodes} nodes on one switch with {pods} pods each",
        segments=(segment,),
        nodes=tuple(Node(f"node-{n}") for n in numbers),
        links=tuple(
            Link(
                f"node-{n}",
                "lan",
                addresses=(
                    ip_interface(f"{four.network_address + n}/{four.prefixlen}"),
                    ip_interface(f"{six.network_address + n}/{six.prefixlen}"),
                ),
            )
            for n in numbers
        ),
        pods=tuple(Pod(f"p{n}-{m}", f"node-{n}") for n in numbers for m in range(1, pods + 1)),
        pod_cidrs=(ip_network("10.128.0.0/9"), ip_network("fd00:10::/48")),
    )
