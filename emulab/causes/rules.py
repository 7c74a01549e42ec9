"""nftables rules that nobody planned: what they drop or translate, and whom that hits."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from emulab.causes.contract import Cause, Causes, listed, pairs
from emulab.causes.nft import Rule, read
from emulab.drift import Deviation, Listing
from emulab.model import GATEWAY, SWITCHES
from emulab.packet import short
from emulab.scene import Scene
from emulab.state import NftTable

FABRIC = (SWITCHES, GATEWAY)  # where a rule is a property of the underlay


class Harm(NamedTuple):
    """What a rule does to whom."""

    fault: str
    where: str
    words: str
    rule: Rule


def rules(scene: Scene, deviations: Sequence[Deviation]) -> Causes:
    """One cause for each kind of harm to a place, whatever tables and families have part in it."""
    harms: dict[tuple[str, str], list[tuple[Deviation, Harm]]] = {}
    wire: list[tuple[Deviation, Rule]] = []
    for d, planned, found in pairs(deviations, NftTable):
        strange = _unplanned(planned, found) if found else []
        if d.namespace in FABRIC:
            wire += [(d, rule) for rule in strange if rule.effect == "drop"]
        else:
            for rule in strange:
                for harm in _in_a_node(scene, d.namespace, rule):
                    harms.setdefault(harm[:2], []).append((d, harm))
    for d, harm in _on_the_wire(scene, wire):
        harms.setdefault(harm[:2], []).append((d, harm))
    for (fault, where), found_harms in harms.items():
        explained = list({id(d): d for d, _ in found_harms}.values())
        seen = tuple(dict.fromkeys(f"{d.namespace}: {harm.rule}" for d, harm in found_harms))
        yield Cause(fault, where, found_harms[0][1].words, explained, seen)


def _unplanned(planned: NftTable | None, found: NftTable) -> list[Rule]:
    wanted = found.wanted if isinstance(found, Listing) else None
    known = read(planned) if planned and wanted is None else read(replace(found, rules=wanted or ()))
    return [rule for rule in read(found) if rule[1:4] not in {one[1:4] for one in known}]


def _in_a_node(scene: Scene, node: str, rule: Rule) -> Iterator[Harm]:
    """What a rule of a node's (or pod's) own does; nothing if it cannot hit the way from pod to pod."""
    ports = {str(device.port) for device in scene.tunnels(node).values()}
    if rule.effect == "drop":
        if "ct count" in rule.text:
            yield Harm("conntrack-full", node, f"{node} drops new connections, as too many are open", rule)
        elif ports & set(rule.matched("udp dport")):
            yield Harm("vxlan-port-blocked", node, f"a rule of {node} drops the tunnels' packets (UDP {listed(ports)})", rule)
        elif rule.random:
            yield Harm("one-way-loss", node, f"{node} drops some packets and lets others pass", rule)
        elif rule.bare and rule.hook == "forward":
            yield Harm("forward-drop", node, f"{node} drops what it should forward", rule)
        elif rule.bare and rule.hook == "input" and ports:
            words = f"{node} takes in nothing that no rule allows, tunnels' packets (UDP {listed(ports)}) included"
            yield Harm("vxlan-port-blocked", node, words, rule)
    elif rule.effect == "source" and _between_pods(scene, rule):
        words = f"{node} puts an address of its own in the place of its pods', also towards other pods"
        yield Harm("masquerade-pods", node, words, rule)
    elif rule.effect == "destination":
        wanted = rule.matched("daddr")
        pod = next((e.key for a, e in scene.holders.items() if str(a) in wanted), "")
        what = f"what is for {listed(wanted)}" + (f", the address of {short(pod)}," if pod else "") if wanted else "packets"
        yield Harm("dnat-leftover", pod or node, f"a rule on {node} sends {what} to another destination", rule)


def _between_pods(scene: Scene, rule: Rule) -> bool:
    """Whether a translating rule takes packets from pods to pods."""
    pods = scene.cluster.topology.pod_cidrs
    for what in ("saddr", "daddr"):
        wanted, spared = rule.matched(what), rule.matched(f"{what} !=")
        if wanted and not any(_overlap(word, str(pod)) for word in wanted for pod in pods):
            return False
        if any(str(pod) in spared for pod in pods):
            return False
    return True


def _overlap(one: str, other: str) -> bool:
    with suppress(ValueError, TypeError):  # a named set, or another family
        return ipaddress.ip_network(one, strict=False).overlaps(ipaddress.ip_network(other))
    return one.startswith("@")


def _on_the_wire(scene: Scene, dropping: Sequence[tuple[Deviation, Rule]]) -> Iterator[tuple[Deviation, Harm]]:
    """Rules of switches and router: what is dropped both ways is a partition, one way or now and then a bad line."""
    ports = {str(device.port) for node in scene.cluster.nodes for device in scene.tunnels(node.name).values()}
    ways = [(_nodes(scene, rule, ("iifname", "saddr")), _nodes(scene, rule, ("oifname", "daddr"))) for _, rule in dropping]
    for (d, rule), (senders, receivers) in zip(dropping, ways, strict=True):
        sides = sorted(filter(None, (senders, receivers)), key=len)
        node = min(sides[0]) if sides else d.namespace
        if ports & set(rule.matched("udp dport")):
            words = f"the underlay drops the tunnels' packets (UDP {listed(ports)})"
            yield d, Harm("vxlan-port-blocked", node, words, rule)
        elif not rule.random and (receivers, senders) in ways:
            words = f"the underlay carries nothing between {node} and {listed(sorted(sides[-1] - {node})) or 'anybody'}"
            yield d, Harm("node-partition", node, words, rule)
        else:
            direction = "sends" if node in senders else "should get"
            words = f"the underlay loses {'some' if rule.random else 'all'} of what {node} {direction}, in this direction only"
            yield d, Harm("one-way-loss", node, words, rule)


def _nodes(scene: Scene, rule: Rule, matches: Sequence[str]) -> frozenset[str]:
    words = {word for what in matches for word in rule.matched(what)}
    known = {**scene.nodes, **scene.ports}
    return frozenset(known[word] for word in words if word in known)
