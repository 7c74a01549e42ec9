"""What a changed kernel still needs before packets go as they will: carriers, MACs that are known, flows that are forgotten."""

from __future__ import annotations

import socket
import time
from collections.abc import Collection, Mapping

from emulab import kubeproxy
from emulab.diff import Diff
from emulab.errors import MachineError
from emulab.kernel import conntrack, encode
from emulab.kernel.namespaces import Namespaces
from emulab.planning import Design
from emulab.state import Bridge, FdbEntry, State, Up, Veth, Vxlan


def wait_until_up(namespaces: Namespaces, design: Design, devices: Mapping[str, Collection[str]], seconds: float = 10.0) -> None:
    """Until those interfaces of each namespace have their carrier: a packet sent earlier would be lost.

    Uplinks that are down have none.
    """
    dark = {(link.node, link.interface) for link in design.cluster.topology.links if not link.up}
    deadline = time.monotonic() + seconds
    for node, names in devices.items():
        awaited = {name for name in names if (node, name) not in dark}
        while waiting := [name for name, link in namespaces[node].socket().links().items() if link.waiting and name in awaited]:
            if time.monotonic() > deadline:
                raise MachineError(f"{node}: {', '.join(waiting)} did not come up within {seconds:g} s")
            time.sleep(0.0005)


def switched_on(state: State, pods: bool = False) -> dict[str, set[str]]:
    """The devices that ``state`` switches on, by namespace, of nodes and the underlay, or of pods."""
    return {
        namespace: {thing.device for thing in objects if isinstance(thing, Up)}
        for namespace, objects in state.items()
        if ("/" in namespace) == pods
    }


def both_ends(desired: State, devices: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """``devices``, and those at the other end of their pairs, but in pods."""
    found = {namespace: set(names) for namespace, names in devices.items()}
    for namespace, names in devices.items():
        for thing in desired[namespace]:
            if isinstance(thing, Veth) and thing.name in names and thing.peer_namespace and "/" not in thing.peer_namespace:
                found.setdefault(thing.peer_namespace, set()).add(thing.peer)
    return found


def relearn(namespaces: Namespaces, design: Design, changes: Diff) -> None:
    """Where tunnels have come or static places of MACs have gone, MACs are known as if learned.

    Weave's cache of MACs outlives a change of its topology; without it the bridges would flood.
    """
    topology = design.cluster.topology
    for node in changes.touched:
        objects = design.desired.get(node, ()) if "/" not in node else ()
        tunnels = {thing.remote: thing.name for thing in objects if isinstance(thing, Vxlan) and thing.remote}
        new = any(getattr(thing, "device", "") in tunnels.values() for thing in changes.add.get(node, ()))
        if not new and not any(isinstance(thing, FdbEntry) and not thing.remote for thing in changes.remove.get(node, ())):
            continue
        static = {thing.mac for thing in objects if isinstance(thing, FdbEntry)}
        namespace = namespaces[node]
        for link in topology.links:
            device = next((tunnels[a.ip] for a in link.addresses if a.ip in tunnels), None)
            if device and topology.running(link.node):
                known = [mac for mac in _macs(design, link.node) if mac not in static]
                namespace.socket().execute([encode.learned(namespace, device, mac) for mac in known])


def _macs(design: Design, node: str) -> list[str]:
    """The MACs that live on a node: its pods', and its bridges' own."""
    found = [endpoint.mac for endpoint in design.cluster.endpoints_on(node)]
    return found + [thing.mac for thing in design.desired[node] if isinstance(thing, Bridge) and thing.mac]


def forget_flows(namespaces: Namespaces, before: Design, after: Design) -> None:
    """Nodes let go of UDP flows through Services to endpoints that serve no longer, as kube-proxy arranges it."""
    serving = kubeproxy.udp_endpoints(after.cluster)
    if serving == kubeproxy.udp_endpoints(before.cluster):
        return

    def stale(entry: conntrack.Entry) -> bool:
        sent = entry.original
        found = serving.get((sent.destination, sent.dport), serving.get(("", sent.dport)))
        return found is not None and entry.reply.source not in found

    for node in after.present.nodes:
        conntrack.forget(namespaces[node.name], socket.IPPROTO_UDP, stale)
