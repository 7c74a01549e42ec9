"""Calico's policies as Felix programs them with nftables: a chain per policy and direction, a set per selector.

A packet meets, in its pod's chain, the tiers that have policies for the pod and this direction, and in them the policies
by order and name.  A policy's rule says yes by the accept mark, "next tier" by the pass mark, no by dropping at once.  How
many rules a packet meets depends on the policies of its own pod only; pods are members of sets, looked up by hash.

Sources in projectcalico/calico (v3.31): felix/rules/policy.go, felix/rules/endpoints.go, felix/nftables, felix/calc,
libcalico-go/lib/backend/k8s/conversion.  Where Felix sets a mark and acts on it in two rules, one does both here; lists of
ports and networks are anonymous sets, not blocks of rules with scratch marks; groups of policies have no chains.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

from emulab.errors import InputError, nearest
from emulab.model import Cluster, Endpoint, IPNetwork
from emulab.objects import DEFAULT_TIER, EGRESS, INGRESS, Peer, Policy, PortRange, Rule, Tier
from emulab.policy import Meaning
from emulab.selector import Selector

ACCEPT, PASS = 0x10000, 0x20000  # bits of the packet's mark
CHAIN = {INGRESS: "filter-cali-pi-", EGRESS: "filter-cali-po-"}
TIERS = (Tier(DEFAULT_TIER, 1_000_000),)  # there whatever is declared
IP = {4: "ip", 6: "ip6"}
_CHAIN_BYTES = 255  # NFT_NAME_MAXLEN in linux/netfilter/nf_tables.h, less the final NUL
_SET_BYTES = 31  # of an ipset (linux/netfilter/ipset/ip_set.h): Felix names nftables sets alike
_COMMENT_BYTES = 127  # NFTNL_UDATA_COMMENT_MAXLEN in libnftnl/udata.h, less the final NUL
ADDRESS_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}
_ICMP = {"icmp": 4, "icmpv6": 6}
_WITH_PORTS = ("tcp", "udp", "sctp")
_STATEMENTS = {
    "allow": f"meta mark set meta mark | {ACCEPT:#010x} return",
    "pass": f"meta mark set meta mark | {PASS:#010x} return",
    "deny": "drop",
    "log": 'log prefix "calico-packet: " level info',
}


class Chain(NamedTuple):
    """A chain as nft commands, and the names of the sets that its rules look into, for a policy's."""

    declaration: str
    rules: tuple[str, ...]
    sets: tuple[str, ...] = ()


class Members(NamedTuple):
    """A set as nft commands; ``elements`` is "" while it is empty."""

    declaration: str
    elements: str


class Policies:
    """The policies of one cluster, each compiled when a node first asks for it.

    Raises `InputError` when one is in a tier that does not exist.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._meaning, self._addresses = Meaning(cluster), Addresses(cluster)
        objects = cluster.topology.objects
        tiers = {tier.name: tier for tier in (*TIERS, *objects.tiers)}
        for policy in objects.policies:
            if policy.tier not in tiers:
                raise InputError(f"policy {policy.key}: no tier '{policy.tier}'{nearest(policy.tier, tiers)}")

        def place(policy: Policy) -> tuple[float, str, float, str]:
            return tiers[policy.tier].order, policy.tier, policy.order, full_name(policy)

        self._tiers = tiers
        self._policies = sorted(objects.policies, key=place)
        self._applied: dict[str, dict[str, tuple[int, ...]]] = {INGRESS: {}, EGRESS: {}}
        for number, policy in enumerate(self._policies):
            subjects = self._meaning.subjects(policy)
            for direction in policy.directions:
                applied = self._applied[direction]
                for endpoint in subjects:
                    applied[endpoint.key] = (*applied.get(endpoint.key, ()), number)
        self._chains: dict[tuple[int, str, int], Chain] = {}
        self._steps: dict[tuple[str, tuple[int, ...]], tuple[str, ...]] = {}
        self.sets: dict[str, Members] = {}

    def steps(self, endpoint: Endpoint, direction: str) -> tuple[str, ...]:
        """What a pod's chain says of its tiers, rule by rule; nothing where no policy isolates it."""
        numbers = self._applied[direction].get(endpoint.key, ())
        if (direction, numbers) not in self._steps:
            self._steps[direction, numbers] = tuple(self._tier_rules(direction, [self._policies[n] for n in numbers]))
        return self._steps[direction, numbers]

    def chains(self, endpoints: Iterable[Endpoint], family: int) -> list[Chain]:
        """The chains of all policies that apply to at least one of the pods, in the order of tiers and policies."""
        found: list[Chain] = []
        endpoints = tuple(endpoints)
        for direction, applied in self._applied.items():
            numbers = sorted({number for endpoint in endpoints for number in applied.get(endpoint.key, ())})
            found += [self._chain(number, direction, family) for number in numbers]
        return found

    def _tier_rules(self, direction: str, policies: Sequence[Policy]) -> Iterator[str]:
        for name in dict.fromkeys(policy.tier for policy in policies):
            yield f'meta mark set meta mark & {0xFFFFFFFF ^ PASS:#010x} comment "Start of tier {name}"'
            for policy in policies:
                if policy.tier == name:
                    yield f"meta mark & {PASS:#010x} == 0x00000000 jump {chain_name(policy, direction)}"
                    yield f'meta mark & {ACCEPT:#010x} == {ACCEPT:#010x} return comment "Return if policy accepted"'
            if self._tiers[name].default_action != "pass":
                end = f"End of tier {name}. Drop if no policies passed packet"
                yield f'meta mark & {PASS:#010x} == 0x00000000 counter drop comment "{end}"'

    def _chain(self, number: int, direction: str, family: int) -> Chain:
        key = (number, direction, family)
        if key not in self._chains:
            policy = self._policies[number]
            where = f"{IP[family]} calico {chain_name(policy, direction)}"
            compiler = _Compiler(self._meaning, self._addresses, policy, family, self.sets)
            rules: list[str] = []
            for rule in policy.ingress if direction == INGRESS else policy.egress:
                does = f'counter {_STATEMENTS[rule.action]} comment "{comment(policy, direction, rule)}"'
                rules += [" ".join(("add rule", where, *match, does)) for match in compiler.matches(rule)]
            self._chains[key] = Chain(f"add chain {where}", tuple(rules), tuple(compiler.used))
        return self._chains[key]


class Addresses:
    """All pods' addresses as text, by family and pod."""

    def __init__(self, cluster: Cluster) -> None:
        self.endpoints = cluster.endpoints
        self._texts: dict[int, dict[str, str]] = {4: {}, 6: {}}
        for endpoint in cluster.endpoints if cluster.topology.objects.policies else ():
            for address in endpoint.addresses:
                self._texts[address.version][endpoint.key] = str(address)

    def of(self, endpoints: Iterable[Endpoint], family: int) -> list[str]:
        known = self._texts[family]
        return [known[endpoint.key] for endpoint in endpoints if endpoint.key in known]


class _Compiler:
    """One policy's rules in one family; ``used`` are the names of the sets that they need, which are entered in ``sets``."""

    def __init__(self, meaning: Meaning, addresses: Addresses, policy: Policy, family: int, sets: dict[str, Members]) -> None:
        self._meaning, self._addresses, self._policy, self._family, self._sets = meaning, addresses, policy, family, sets
        self.used: dict[str, None] = {}

    def matches(self, rule: Rule) -> Iterator[tuple[str, ...]]:
        """The nft expressions under which a rule applies: several where ports have numbers and names, none where it cannot."""
        ends = ((rule.source, "s"), (rule.destination, "d"))
        nets = [self._nets(peer, end) for peer, end in ends]
        if rule.family not in (None, self._family) or _ICMP.get(rule.protocol or "", self._family) != self._family:
            return
        if None in nets:
            return
        head = [*self._protocol(rule), *self._icmp(rule)]
        for (peer, end), words in zip(ends, nets, strict=True):
            head += [*(words or ()), *self._pods(peer, end), *self._not_ports(rule, peer, end)]
        alternatives = [list(self._ports(rule, peer, end)) if peer.ports else [""] for peer, end in ends]
        for chosen in product(*alternatives):
            yield (*head, *filter(None, chosen))

    def _protocol(self, rule: Rule) -> Iterator[str]:
        if rule.protocol is not None:
            yield f"meta l4proto {rule.protocol}"
        elif any((*peer.ports, *peer.not_ports) for peer in (rule.source, rule.destination)):
            yield f"meta l4proto {{ {', '.join(_WITH_PORTS)} }}"
        if rule.not_protocol is not None:
            yield f"meta l4proto != {rule.not_protocol}"

    def _icmp(self, rule: Rule) -> Iterator[str]:
        if rule.icmp is not None:
            name = "icmp" if self._family == 4 else "icmpv6"
            kind, code = rule.icmp
            yield f"{name} type {kind}"
            if code is not None:
                yield f"{name} code {code}"

    def _nets(self, peer: Peer, end: str) -> list[str] | None:
        """None: no address of this family is meant.

        As in Felix, a rule with networks of the other family only, be they excluded ones, is not for this family
        (FilterRuleToIPVersion in felix/rules/policy.go).
        """
        words: list[str] = []
        for nets, unlike in ((peer.nets, ""), (peer.not_nets, "!= ")):
            found = _collapsed(nets, self._family)
            everywhere = any(net.prefixlen == 0 for net in found)
            if nets and (not found or (unlike and everywhere)):
                return None
            if found and not everywhere:
                words.append(f"{IP[self._family]} {end}addr {unlike}{_one_or_set(map(str, found))}")
        return words

    def _pods(self, peer: Peer, end: str) -> Iterator[str]:
        address = f"{IP[self._family]} {end}addr"
        members = self._meaning.members(self._policy, peer)
        if members is not None:
            yield f"{address} @{self._set_of_pods(self._selector(peer, peer.pods), members)}"
        if peer.not_pods is not None:
            excluded = self._meaning.excluded(self._policy, peer)
            yield f"{address} != @{self._set_of_pods(self._selector(peer, peer.not_pods), excluded)}"

    def _ports(self, rule: Rule, peer: Peer, end: str) -> Iterator[str]:
        numbers = _ranges(peer.ports)
        if numbers:
            yield f"{_port_word(rule.protocol)} {end}port {_one_or_set(numbers)}"
        for port in peer.ports:
            if port.name:
                yield f"{self._named_key(end)} @{self._named(rule, peer, port)}"

    def _not_ports(self, rule: Rule, peer: Peer, end: str) -> Iterator[str]:
        numbers = _ranges(peer.not_ports)
        if numbers:
            yield f"{_port_word(rule.protocol)} {end}port != {_one_or_set(numbers)}"
        for port in peer.not_ports:
            if port.name:
                yield f"{self._named_key(end)} != @{self._named(rule, peer, port)}"

    def _named_key(self, end: str) -> str:
        return f"{IP[self._family]} {end}addr . meta l4proto . th {end}port"

    def _named(self, rule: Rule, peer: Peer, port: PortRange) -> str:
        """The set of (address, protocol, port) of all pods, or those that the peer selects, that declare such a port."""
        members = self._meaning.members(self._policy, peer)
        selector = "all()" if members is None else self._selector(peer, peer.pods)

        def elements() -> Iterator[str]:
            for endpoint in self._addresses.endpoints if members is None else members:
                for protocol in _WITH_PORTS if rule.protocol is None else (rule.protocol,):
                    number = self._meaning.port(endpoint, port, protocol)
                    if number:
                        for address in self._addresses.of((endpoint,), self._family):
                            yield f"{address} . {protocol} . {number[0]}"

        return self._set("n", f"{selector},{rule.protocol or ''},{port.name}", elements)

    def _set_of_pods(self, selector: str, members: Iterable[Endpoint]) -> str:
        return self._set("s", selector, lambda: self._addresses.of(members, self._family))

    def _selector(self, peer: Peer, pods: Selector | None) -> str:
        """What tells one set of pods from another, in Calico's words; "pcns." marks a namespace's labels there."""
        parts = [] if pods is None else [f"({pods})"]
        if peer.namespaces is not None:
            parts.insert(0, f"pcns.({peer.namespaces})")
        elif self._policy.namespace:
            parts.insert(0, f"(projectcalico.org/namespace == '{self._policy.namespace}')")
        return " && ".join(parts)

    def _set(self, kind: str, text: str, elements: Callable[[], Iterable[str]]) -> str:
        """The name of the set that ``text`` stands for; ``elements`` are asked for once."""
        digest = base64.urlsafe_b64encode(hashlib.sha224(text.encode()).digest()).decode()
        name = f"cali{self._family}0{kind}-{digest}"[:_SET_BYTES]
        if name not in self._sets:
            table = f"{IP[self._family]} calico {name}"
            of = ADDRESS_TYPE[self._family] + (" . inet_proto . inet_service" if kind == "n" else "")
            members = ", ".join(elements())
            filled = f"add element {table} {{ {members} }}" if members else ""
            self._sets[name] = Members(f"add set {table} {{ type {of} ; }}", filled)
        self.used[name] = None
        return name


def full_name(policy: Policy) -> str:
    """The name under which v3.31 knows a policy: ``default/knp.default.web``, ``default/security.web``, ``security.all``."""
    if policy.kubernetes:
        return f"{policy.namespace}/knp.default.{policy.name}"
    name = policy.name if policy.name.startswith(f"{policy.tier}.") else f"{policy.tier}.{policy.name}"
    return f"{policy.namespace}/{name}" if policy.namespace else name


def chain_name(policy: Policy, direction: str) -> str:
    """``filter-cali-pi-default/default/knp.default.web``; one that is too long ends in a hash instead, as in Felix."""
    name = f"{CHAIN[direction]}{policy.tier}/{full_name(policy)}"
    if len(name) <= _CHAIN_BYTES:
        return name
    digest = base64.urlsafe_b64encode(hashlib.sha256(name.removeprefix(CHAIN[direction]).encode()).digest()).decode()
    return f"{CHAIN[direction]}_{digest.rstrip('=')}"


def comment(policy: Policy, direction: str, rule: Rule) -> str:
    """``tier|policy|direction|origin``; what is too long loses of its origin first, then of the policy's name."""
    begin, key, end = f"{policy.tier}|", policy.key, f"|{direction}|"
    key = key[: _COMMENT_BYTES - len(begin) - len(end)]
    return f"{begin}{key}{end}{rule.origin}"[:_COMMENT_BYTES]


def _collapsed(nets: Iterable[IPNetwork], family: int) -> list[IPNetwork]:
    """Those of one family, none within another: a set of intervals takes no others."""
    if family == 4:
        return list(ipaddress.collapse_addresses(net for net in nets if isinstance(net, ipaddress.IPv4Network)))
    return list(ipaddress.collapse_addresses(net for net in nets if isinstance(net, ipaddress.IPv6Network)))


def _ranges(ports: Iterable[PortRange]) -> list[str]:
    """The ports that have numbers, sorted, and in as few ranges as possible."""
    merged: list[list[int]] = []
    for low, high in sorted((port.low, port.high) for port in ports if not port.name):
        if merged and low <= merged[-1][1] + 1:
            merged[-1][1] = max(high, merged[-1][1])
        else:
            merged.append([low, high])
    return [str(low) if low == high else f"{low}-{high}" for low, high in merged]


def _one_or_set(values: Iterable[str]) -> str:
    found = list(values)
    return found[0] if len(found) == 1 else f"{{ {', '.join(found)} }}"


def _port_word(protocol: str | None) -> str:
    return protocol if protocol in _WITH_PORTS else "th"
