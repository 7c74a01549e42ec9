"""weave-npc: NetworkPolicies as the rules and address sets that stand in a node's FORWARD chain.

A packet's story: it crosses the bridge ``weave``, and the kernel shows it to the IP hooks as if it were routed
(net.bridge.bridge-nf-call-iptables).  At the sender's node, WEAVE-NPC-EGRESS returns it at once if it was sent by no pod of
this node or is for the node itself; else a new connection has to be marked 0x40000, by WEAVE-NPC-EGRESS-DEFAULT because no
egress policy selects the sender, or by a rule of WEAVE-NPC-EGRESS-CUSTOM; what has no mark is dropped once there is an egress
policy.  At the receiver's node, WEAVE-NPC accepts what is for no pod of this node; else a new connection is accepted by
WEAVE-NPC-DEFAULT because no ingress policy selects the receiver, or by a rule of WEAVE-NPC-INGRESS, or FORWARD drops it.  On
one node both happen in turn.  Replies and what belongs to known connections pass first of all.

The node's own packets to its pods meet none of this (they are not forwarded); those to another node's pods are judged there,
by the address of the bridge they come from.  Named ports are not known: a rule's port that is a name allows nothing.

Structure and order are those of weaveworks/weave 2.8.1, prog/weave-npc/main.go, npc/*.go and net/bridge.go.  Different here:

* "Of this node" is told by the pods' addresses, not by the port vethwe-bridge (xt_physdev, for which nft has no match);
  npc once did the same.  A pod that lies about its address is so taken for one of another node.
* npc walks all rules for each new connection.  Here one look-up by the pod's address finds the chain with the rules of the
  policies that select it, so that others cost nothing; a node has only the policies that select its own pods.  For the same
  reason the default-allow sets of all namespaces are one, per direction.
* Sets hold pods' addresses, one set per selector; npc makes those of namespace selectors from sets of sets.  A set is named
  after its selector, made legible, with a few digits of its SHA-1; npc's names are base 85, which nft does not take.
* Drops are counted instead of logged to NFLOG group 86.
* IPv6 (with its neighbour discovery, which is always accepted) and ``endPort`` are younger than weave-npc.

weave-kube starts weave-npc in any case; here it is there as soon as there is a policy, so that a cluster without shows the
plain rules (``EXPECT_NPC=0``).
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from emulab.model import Cluster, Endpoint, IPNetwork
from emulab.objects import EGRESS, INGRESS, Peer, Policy, Rule
from emulab.policy import Meaning
from emulab.selector import Everything
from emulab.state import KernelObject, Sysctl

MARK = "0x40000"  # npc/constants.go: what a pod may send
UNMARKED = f"meta mark & {MARK} == 0x0"
LOCAL_PODS = "weave-local-pods"
_COMMENT_BYTES = 127  # NFTNL_UDATA_COMMENT_MAXLEN in libnftnl
_NAME_BYTES = 100  # of a chain or set; the kernel's limit is 255
_NEIGHBOUR_DISCOVERY = (
    "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect } accept"
)


class Filter(NamedTuple):
    """What weave-npc adds to a table: commands that come before all chains, the chains, and commands that come after."""

    before: list[str]
    chains: dict[str, list[str]]
    after: list[str]


class _Chain(NamedTuple):
    """A policy's rules in one direction and family, and the sets that they name, with their elements."""

    rules: list[str]
    sets: Mapping[str, str]


@dataclass(frozen=True)
class WeaveNpc:
    """The policies of a cluster.  False when there are none: then weave-npc changes nothing."""

    cluster: Cluster

    def __bool__(self) -> bool:
        return bool(self._policies)

    def sysctls(self) -> Iterator[KernelObject]:
        """Bridged packets are shown to the IP hooks."""
        for family in self.cluster.topology.families if self else ():
            yield Sysctl(f"net.bridge.bridge-nf-call-{'iptables' if family == 4 else 'ip6tables'}", "1")

    def filter(self, node: str, family: int) -> Filter:
        """Sets and chains of one node's table, FORWARD and INPUT among them."""
        ip, kind = ("ip", "ipv4_addr") if family == 4 else ("ip6", "ipv6_addr")
        here = self.cluster.endpoints_on(node)
        sets = {LOCAL_PODS: self._elements(here, family)}
        maps: dict[str, str] = {}
        rules = {"WEAVE-NPC-EGRESS-ACCEPT": [f"meta mark set meta mark | {MARK}"]}
        of_pods: dict[str, list[str]] = {}
        for direction in (INGRESS, EGRESS):
            selecting = self._selecting[direction]
            sets[f"{direction}-default-allow"] = self._elements((e for e in here if e.key not in selecting), family)
            verdicts = []
            for endpoint in here:
                if policies := selecting.get(endpoint.key):
                    chain = _name(f"pod-{direction}", endpoint.key)
                    verdicts.append(f"{self._addresses[family][endpoint.key]} : goto {chain}")
                    again = f"{UNMARKED} " if direction == EGRESS else ""
                    jumps = [f"jump {_name(direction, policy.key)}" for policy in policies]
                    of_pods[chain] = [*jumps[:1], *(again + jump for jump in jumps[1:])]
                for policy in policies or ():
                    compiled = self._compiled(policy, direction, family)
                    rules[_name(direction, policy.key)] = compiled.rules
                    sets.update(compiled.sets)
            maps[f"{direction}-pods"] = ", ".join(verdicts)
        before = [command for name, elements in sets.items() for command in _set(ip, kind, name, elements)]
        before += [f"add map {ip} weave {name} {{ type {kind} : verdict ; }}" for name in maps]
        after = [f"add element {ip} weave {name} {{ {verdicts} }}" for name, verdicts in maps.items() if verdicts]
        return Filter(before, {**rules, **of_pods, **self._fixed(family)}, after)

    def _fixed(self, family: int) -> dict[str, list[str]]:
        """The chains that are the same everywhere."""
        ip, multicast = ("ip", "224.0.0.0/4") if family == 4 else ("ip6", "ff00::/8")
        egress_exists = any(EGRESS in policy.directions for policy in self._policies)
        return {
            "WEAVE-NPC-DEFAULT": [f"{ip} daddr @ingress-default-allow accept"],
            "WEAVE-NPC-INGRESS": [f"{ip} daddr vmap @ingress-pods"],
            "WEAVE-NPC": [
                "ct state related,established accept",
                f"{ip} daddr {multicast} accept",
                f"{ip} daddr != @{LOCAL_PODS} accept",
                "ct state new jump WEAVE-NPC-DEFAULT",
                "ct state new jump WEAVE-NPC-INGRESS",
            ],
            "WEAVE-NPC-EGRESS-DEFAULT": [f"{ip} saddr @egress-default-allow goto WEAVE-NPC-EGRESS-ACCEPT"],
            "WEAVE-NPC-EGRESS-CUSTOM": [f"{ip} saddr vmap @egress-pods"],
            "WEAVE-NPC-EGRESS": [
                "ct state related,established accept",
                *([_NEIGHBOUR_DISCOVERY] if family == 6 else []),
                f"{ip} saddr != @{LOCAL_PODS} return",
                "fib daddr type local return",
                f"{ip} daddr {multicast} return",
                "ct state new jump WEAVE-NPC-EGRESS-DEFAULT",
                f"ct state new {UNMARKED} jump WEAVE-NPC-EGRESS-CUSTOM",
                *([f'{UNMARKED} counter drop comment "weave-npc: egress default deny"'] if egress_exists else []),
            ],
            "INPUT { type filter hook input priority filter ; }": ['iifname "weave" jump WEAVE-NPC-EGRESS'],
            "FORWARD { type filter hook forward priority filter ; }": [
                'iifname "weave" jump WEAVE-NPC-EGRESS',
                'oifname "weave" jump WEAVE-NPC',
                'oifname "weave" counter drop comment "weave-npc: ingress default deny"',
                'iifname "weave" oifname != "weave" accept',
                'oifname "weave" ct state related,established accept',
            ],
        }

    @cached_property
    def _policies(self) -> tuple[Policy, ...]:
        return tuple(policy for policy in self.cluster.topology.objects.policies if policy.kubernetes)

    @cached_property
    def _meaning(self) -> Meaning:
        return Meaning(self.cluster)

    @cached_property
    def _selecting(self) -> dict[str, dict[str, list[Policy]]]:
        """Per direction and pod, the policies that select it."""
        found: dict[str, dict[str, list[Policy]]] = {INGRESS: {}, EGRESS: {}}
        for policy in self._policies:
            for endpoint in self._meaning.subjects(policy):
                for direction in policy.directions:
                    found[direction].setdefault(endpoint.key, []).append(policy)
        return found

    @cached_property
    def _chains(self) -> dict[tuple[str, str, int], _Chain]:
        return {}

    @cached_property
    def _addresses(self) -> dict[int, dict[str, str]]:
        """Per family and pod: they are named often, and to write one takes long."""
        endpoints = self.cluster.endpoints
        return {f: {e.key: str(e.address(f)) for e in endpoints} for f in self.cluster.topology.families}

    def _elements(self, endpoints: Iterable[Endpoint], family: int) -> str:
        return ", ".join(self._addresses[family][endpoint.key] for endpoint in endpoints)

    def _compiled(self, policy: Policy, direction: str, family: int) -> _Chain:
        key = policy.key, direction, family
        if key not in self._chains:
            rules, sets = [], {}
            for rule in policy.ingress if direction == INGRESS else policy.egress:
                peer = rule.source if direction == INGRESS else rule.destination
                members = self._meaning.members(policy, peer)
                name = "" if members is None else _set_name(policy, peer)
                words = _words(rule, peer, name, direction, family)
                if words is None:
                    continue
                if members is not None:
                    sets[name] = self._elements(members, family)
                verdict = "accept" if direction == INGRESS else "goto WEAVE-NPC-EGRESS-ACCEPT"
                rules.append(" ".join([*words, "counter", verdict, f'comment "{comment(policy, direction, rule)}"']))
            self._chains[key] = _Chain(rules, sets)
        return self._chains[key]


def named_ports(policy: Policy) -> list[str]:
    """Where a policy names ports by name, which weave-npc does not know: ``ingress[0].ports[0]``."""
    found = []
    for rule in (*policy.ingress, *policy.egress):
        if any(port.name for port in rule.destination.ports):
            found.append(re.sub(r"\.(?:from|to)\[\d+\]", "", rule.origin))  # the ports of a rule are the same for all peers
    return list(dict.fromkeys(found))


def comment(policy: Policy, direction: str, rule: Rule) -> str:
    """``default|namespace/policy|ingress|ingress[0].from[1]``; what is too long loses first the end of where it is written."""
    head = f"{policy.tier}|{policy.key}|{direction}|"
    if len(head) > _COMMENT_BYTES:
        return f"{policy.tier}|{policy.key[: len(policy.key) - len(head) + _COMMENT_BYTES]}|{direction}|"
    return f"{head}{rule.origin}"[:_COMMENT_BYTES]


def _words(rule: Rule, peer: Peer, members: str, direction: str, family: int) -> list[str] | None:
    """What a packet has to be; None when none of this family can be it."""
    ip, side = "ip" if family == 4 else "ip6", "saddr" if direction == INGRESS else "daddr"
    words = [f"{ip} {side} @{members}"] if members else []
    if peer.nets:
        nets = _collapsed(peer.nets, family)
        if not nets:
            return None
        words.append(f"{ip} {side} {nets}")
    if holes := _collapsed(peer.not_nets, family):
        words.append(f"{ip} {side} != {holes}")
    if ports := rule.destination.ports:
        numbers = _ranges((port.low, port.high) for port in ports if not port.name)
        if not numbers:
            return None
        words.append(f"{rule.protocol or 'tcp'} dport {numbers}")
    elif rule.protocol:
        words.append(f"meta l4proto {rule.protocol}")
    return words


def _collapsed(nets: Iterable[IPNetwork], family: int) -> str:
    """Networks of one family without overlap, which a set could not hold; "" for none."""
    kind = ipaddress.IPv4Network if family == 4 else ipaddress.IPv6Network
    of_family: Iterator[IPNetwork] = (net for net in nets if isinstance(net, kind))
    return _one_or_set([str(net) for net in ipaddress.collapse_addresses(of_family)])  # type: ignore[type-var]


def _ranges(ports: Iterable[tuple[int, int]]) -> str:
    """Ranges of ports without overlap; "" for none."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ports):
        if merged and low <= merged[-1][1] + 1:
            low, high = merged[-1][0], max(high, merged.pop()[1])
        merged.append((low, high))
    return _one_or_set([f"{low}-{high}" if high > low else f"{low}" for low, high in merged])


def _one_or_set(members: list[str]) -> str:
    return "".join(members) if len(members) < 2 else f"{{ {', '.join(members)} }}"


def _set(ip: str, kind: str, name: str, elements: str) -> Iterator[str]:
    yield f"add set {ip} weave {name} {{ type {kind} ; }}"
    if elements:
        yield f"add element {ip} weave {name} {{ {elements} }}"


def _set_name(policy: Policy, peer: Peer) -> str:
    """``pods-default-app-web-1c3a5e``: namespace or namespaces, and the selector."""
    where = policy.namespace if peer.namespaces is None else f"in {peer.namespaces}"
    text = f"{where} {peer.pods or Everything()}"
    legible = re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")[:_NAME_BYTES]
    return f"pods-{legible}-{hashlib.sha1(text.encode()).hexdigest()[:6]}"


def _name(kind: str, key: str) -> str:
    """A chain's name: ``ingress/default/web``."""
    if len(key) > _NAME_BYTES:
        key = f"{key[:_NAME_BYTES]}-{hashlib.sha1(key.encode()).hexdigest()[:6]}"
    return f"{kind}/{key}"
