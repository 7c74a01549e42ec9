"""Devices that are gone, down or too small, and sysctls: what changes along with them is their consequence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Union

from emulab.causes.contract import Cause, Causes, devices_of, listed, on, pairs
from emulab.drift import Deviation
from emulab.model import SWITCHES
from emulab.packet import short
from emulab.scene import Scene
from emulab.state import Bridge, Route, Sysctl, Up, Veth, Vxlan

Device = Union[Bridge, Veth, Vxlan]
FORWARDING = {"net.ipv4.ip_forward": "net.ipv4.conf.", "net.ipv6.conf.all.forwarding": "net.ipv6.conf."}


def devices(scene: Scene, deviations: Sequence[Deviation]) -> Causes:
    """Links that are gone or down: the kernel took their addresses, routes, neighbours and entries along."""
    broken: dict[tuple[str, str], str] = {}
    broken |= {(d.namespace, up.device): "down" for d, up, _ in pairs(deviations, Up) if up and d.kind == "missing"}
    broken |= {(d.namespace, link.name): "gone" for d, link, _ in _links(deviations) if link and d.kind == "missing"}
    found, tunnels = [], dict[str, list[str]]()
    for (namespace, device), state in sorted(broken.items(), key=lambda one: one[1], reverse=True):  # what is gone is down
        if device in scene.tunnels(namespace):
            tunnels.setdefault(namespace, []).append(device)
        else:
            found.append(_link(scene, deviations, namespace, device, state))
    yield from (cause for cause in found if cause.fault == "node-partition")  # tunnels go with the uplink
    for node, names in tunnels.items():
        peers = [scene.nodes[str(t.remote)] for name, t in scene.tunnels(node).items() if name in names and t.remote]
        towards = listed(peers) if peers else "all other nodes"
        words = f"the tunnel from {node} to {towards} is {broken[node, names[0]]} ({listed(names)})"
        explained = sorted(on(deviations, node, names), key=lambda d: not isinstance(d.planned, (Up, Vxlan)))
        yield Cause("tunnel-down", node, words, explained)
    yield from (cause for cause in found if cause.fault != "node-partition")


def _links(deviations: Sequence[Deviation]) -> Iterator[tuple[Deviation, Device | None, Device | None]]:
    yield from pairs(deviations, Veth)
    yield from pairs(deviations, Vxlan)
    yield from pairs(deviations, Bridge)


def _link(scene: Scene, deviations: Sequence[Deviation], namespace: str, device: str, state: str) -> Cause:
    ends = [(namespace, device)]
    ends += [(v.peer_namespace, v.peer) for v in scene.all(namespace, Veth) if v.name == device and v.peer_namespace]
    uplinks = {(link.node, link.interface) for link in scene.cluster.topology.links}
    for node, uplink in uplinks & set(ends):
        ends += [(node, tunnel.name) for tunnel in scene.tunnels(node).values() if tunnel.device == uplink and state == "gone"]
    explained = [d for where, name in ends for d in on(deviations, where, [name])]
    node = scene.ports.get(device, "") if namespace == SWITCHES else namespace if (namespace, device) in uplinks else ""
    if node:
        words = f"the uplink of {node} is {state} ({device} in {namespace}): the underlay carries nothing from or to it"
        return Cause("node-partition", node, words, explained)
    return Cause("unknown-drift", namespace, f"{device} in {namespace} is {state}", explained)


def forwarding(_: Scene, deviations: Sequence[Deviation]) -> Causes:
    """One switch per family turns that of every device."""
    off: dict[str, list[str]] = {}
    for d, planned, found in pairs(deviations, Sysctl):
        if planned and planned.key in FORWARDING and planned.value == "1" and (found is None or found.value == "0"):
            off.setdefault(d.namespace, []).append(planned.key)
    for node, keys in off.items():
        turned = tuple(FORWARDING[key] for key in keys)
        explained = [
            d
            for d, planned, _ in pairs(deviations, Sysctl)
            if planned and d.namespace == node
            if planned.key in keys or (planned.key.startswith(turned) and planned.key.endswith(".forwarding"))
        ]
        yield Cause("ip-forward-off", node, f"{node} does not forward packets ({' and '.join(keys)} off)", explained)


def reverse_path(scene: Scene, deviations: Sequence[Deviation]) -> Causes:
    """The strict filter, and routes by which answers leave elsewhere than packets come in."""
    strict: dict[str, list[Deviation]] = {}
    for d, _, found in pairs(deviations, Sysctl):
        if found and found.key.endswith(".rp_filter") and found.value == "1":
            strict.setdefault(d.namespace, []).append(d)
    for node, filters in strict.items():
        turned, sources = [], []
        for d, planned, other in pairs(deviations, Route):
            if d.namespace == node and planned and other and planned.device != other.device and planned.destination.version == 4:
                turned.append(d)
                sources.append(planned.destination)
        words = f"{node} takes packets only from the interface that leads back to their source"
        if turned:
            words += f": those from {listed(sources)} are dropped, since the way back is another"
        yield Cause("rp-filter-strict", node, words, [*filters, *turned])


def proxies(scene: Scene, deviations: Sequence[Deviation]) -> Causes:
    """A host end that does not answer for its pod's gateway."""
    for d, planned, _ in pairs(deviations, Sysctl):
        if planned and planned.key.endswith((".proxy_arp", ".proxy_ndp")) and planned.value == "1":
            device = devices_of(planned)[0]
            pod = next((e.key for e in scene.cluster.endpoints_on(d.namespace) if scene.host_end(e) == device), d.namespace)
            switch = planned.key.rpartition(".")[2]
            words = f"nobody answers when {short(pod)} asks for its gateway: {switch} of {device} on {d.namespace} is off"
            yield Cause("proxy-arp-off", pod, words, [d])


def sizes(scene: Scene, deviations: Sequence[Deviation]) -> Causes:
    """Links that take smaller packets than planned; a bridge follows its smallest port."""
    small: dict[str, list[tuple[Deviation, str, int, int]]] = {}
    for d, planned, found in _links(deviations):
        if planned and found and found.mtu < planned.mtu:
            where = scene.ports.get(planned.name, "") if d.namespace == SWITCHES else d.namespace
            small.setdefault(where or next(iter(small), SWITCHES), []).append((d, planned.name, found.mtu, planned.mtu))
    for place, links in small.items():
        _, device, found_mtu, planned_mtu = links[0]
        words = (
            f"{device} in {links[0][0].namespace} takes packets of {found_mtu} bytes, those that are sent have up to "
            f"{planned_mtu}: the larger ones vanish"
        )
        yield Cause("mtu-mismatch", place, words, [d for d, *_ in links])
