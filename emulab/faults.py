"""What goes wrong in real pod networks, as command lines that break a running lab in the same way.

A fault looks at the plan, never at the plugin's name: where there is no forwarding entry none can be missing.  Its steps
change only what a look at the kernel shows (routes, neighbours, addresses, sysctls, links, nft tables) and start no process,
so that putting the plan back undoes all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from emulab import breakage
from emulab.breakage import Step as Step
from emulab.breakage import Steps
from emulab.dataplane import DataPlane
from emulab.errors import InputError, nearest
from emulab.model import Cluster
from emulab.scene import Scene
from emulab.state import State


@dataclass(frozen=True)
class Fault:
    """``summary``: how it happens in real clusters; ``symptom``: what users see; ``inject``: its steps at a place, if any.

    ``plan`` is everywhere the whole desired state, ``merge(fabric.plan(topology), plan)``.
    """

    name: str
    summary: str
    symptom: str
    inject: Callable[[Scene, str], Steps] = field(repr=False)

    def places(self, cluster: Cluster, plane: DataPlane, plan: State) -> list[str]:
        """The nodes (also for what is wrong with their uplinks) and pods where it can be injected; [] where nowhere."""
        scene = Scene(cluster, plane, plan)
        candidates = [node.name for node in cluster.nodes] + list(scene.endpoints)
        return [place for place in candidates if next(self.inject(scene, place), None)]

    def steps(self, cluster: Cluster, plane: DataPlane, plan: State, at: str) -> list[Step]:
        """What to type where.  Raises `InputError` where it does not apply."""
        scene = Scene(cluster, plane, plan)
        known = at in scene.endpoints or at in cluster.gateways
        steps = list(self.inject(scene, at)) if known else []
        if not steps:
            places = self.places(cluster, plane, plan)
            where = nearest(at, places) if places else ": nothing here can break in this way"
            raise InputError(f"fault {self.name} cannot be injected at '{at}'{where}")
        return steps


def fault(name: str) -> Fault:
    """The fault of this name.  Raises `InputError`."""
    if name not in FAULTS:
        raise InputError(f"unknown fault '{name}'{nearest(name, FAULTS)}")
    return FAULTS[name]


FAULTS = {
    one.name: one
    for one in (
        Fault(
            "missing-route",
            "the route to another node's pods was never made or got lost, as when an agent dies or systemd-networkd tidies up",
            "pods of one node do not reach those of another, though the nodes reach each other",
            breakage.missing_route,
        ),
        Fault(
            "missing-fdb",
            "a forwarding entry is missing: the bridge or tunnel does not know where a MAC lives, and drops its frames",
            "packets go into the tunnel device and do not come out on the underlay",
            breakage.missing_fdb,
        ),
        Fault(
            "wrong-vtep-mac",
            "a node came back with a new tunnel device, but a peer still has the old one's MAC",
            "encapsulated packets arrive at the other node, which does not take them",
            breakage.wrong_vtep_mac,
        ),
        Fault(
            "stale-neighbor",
            "a pod was made anew under its old address, but others remember the MAC of the one before",
            "one pod cannot be reached, though it can open connections to pods that never knew the old one",
            breakage.stale_neighbor,
        ),
        Fault(
            "vxlan-port-blocked",
            "a node's firewall does not let the tunnels' UDP port in",
            "nothing reaches the node's pods from other nodes, while pods of the same node talk",
            breakage.vxlan_port_blocked,
        ),
        Fault(
            "mtu-mismatch",
            "something on the way takes fewer bytes than the nodes believe (a nested overlay, a VPN) and sends no ICMP",
            "small packets pass, full-size ones vanish: connections open, and hang at the first large transfer",
            breakage.mtu_mismatch,
        ),
        Fault(
            "rp-filter-strict",
            "a node has rp_filter=1, and its answers leave by another interface than the packets came in by",
            "packets from one node arrive on the wire and vanish without a trace",
            breakage.rp_filter_strict,
        ),
        Fault(
            "ip-forward-off",
            "a node lost its forwarding sysctl, as by a hardening script or `sysctl --system`",
            "the node itself reaches everything, nothing gets through it",
            breakage.ip_forward_off,
        ),
        Fault(
            "forward-drop",
            "the FORWARD chain's policy is drop, as Docker (since 1.13) leaves it",
            "the node itself reaches everything, what it should forward is dropped",
            breakage.forward_drop,
        ),
        Fault(
            "proxy-arp-off",
            "the host end of a pod's veth does not answer for the pod's gateway, which exists nowhere else",
            "one pod sends ARP requests for its gateway and nothing more",
            breakage.proxy_arp_off,
        ),
        Fault(
            "masquerade-pods",
            "a masquerading rule does not spare the way from pod to pod",
            "pods of other nodes see the node's address instead of the pod's: policies and logs are wrong",
            breakage.masquerade_pods,
        ),
        Fault(
            "duplicate-pod-ip",
            "two pods have the same address, as after an IPAM lost its memory",
            "some connections to the pod are answered by another one",
            breakage.duplicate_pod_ip,
        ),
        Fault(
            "overlapping-pod-cidr",
            "two nodes hold the same range of pod addresses, and the others believe the wrong one",
            "all pods of one node are unreachable from the other nodes",
            breakage.overlapping_pod_cidr,
        ),
        Fault(
            "dnat-leftover",
            "a rule of a removed service or hostPort is still there and catches what goes to a new pod",
            "packets to one pod are sent on to an address that nobody has",
            breakage.dnat_leftover,
        ),
        Fault(
            "one-way-loss",
            "a cable or transceiver loses packets in one direction (here three of four, by a rule of the switch)",
            "connections from and to one node are slow or fail now and then",
            breakage.one_way_loss,
        ),
        Fault(
            "node-partition",
            "the underlay carries nothing between one node and the others",
            "the node's pods reach each other and the outside, but no other node's pods",
            breakage.node_partition,
        ),
        Fault(
            "tunnel-down",
            "a tunnel device is down, as when NetworkManager takes care of it",
            "nothing passes between two nodes, or between one node and all others",
            breakage.tunnel_down,
        ),
        Fault(
            "conntrack-full",
            "a node's table of connections is full (here by a rule that counts: a namespace may not set nf_conntrack_max)",
            "established connections go on, new ones are dropped",
            breakage.conntrack_full,
        ),
    )
}
