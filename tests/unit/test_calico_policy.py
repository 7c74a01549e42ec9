"""Policies as Calico's nftables text: per feature, in order, per node, and what a packet meets of them."""

from __future__ import annotations

import re
import textwrap
from dataclasses import replace
from ipaddress import ip_interface, ip_network
from typing import Any

import pytest
from tables import each_row

from emulab.dataplane import build_cluster
from emulab.errors import InputError
from emulab.model import Cluster, IPNetwork, Link, Node, Pod, Segment, Topology
from emulab.nft_delta import delta
from emulab.objects import EGRESS, INGRESS, ContainerPort, Namespace, Objects, Peer, Policy, PortRange, Rule, Tier
from emulab.selector import Everything, In, Selector
from emulab.state import NftTable
from emulab_plugins.calico import Calico

WEB, CLIENT, TEAM = In("app", ("web",)), In("app", ("client",)), In("team", ("x",))
HTTP = PortRange(name="http")
PODS = (
    Pod("web", "a", labels=(("app", "web"),), ports=(ContainerPort(8080, name="http"),)),
    Pod("near", "a", labels=(("app", "client"),)),
    Pod("far", "b", labels=(("app", "client"),)),
    Pod("guest", "b", "team", labels=(("app", "client"),), ports=(ContainerPort(80, "udp", "http"),)),
)


def nets(*texts: str) -> tuple[IPNetwork, ...]:
    return tuple(map(ip_network, texts))


def policy(name: str, *ingress: Rule, selects: Selector = WEB, **values: Any) -> Policy:
    given = {"api": "networking.k8s.io/v1", "kind": "NetworkPolicy", "namespace": "default", **values}
    return Policy(name=name, selector=selects, ingress=ingress, **given)


def own(name: str, *ingress: Rule, **values: Any) -> Policy:
    """One of Calico's kinds."""
    return policy(name, *ingress, **{"api": "projectcalico.org/v3", **values})


def under(*policies: Policy, tiers: tuple[Tier, ...] = (), pods: tuple[Pod, ...] = PODS) -> Cluster:
    """Nodes a, b and c with these pods and policies."""
    segment = Segment("s", nets("192.168.50.0/24", "fd00:50::/64"))
    links = tuple(
        Link(node, "s", addresses=(ip_interface(f"192.168.50.{n}/24"), ip_interface(f"fd00:50::{n}/64")))
        for n, node in enumerate("abc", 1)
    )
    objects = Objects(namespaces=(Namespace("team", (("team", "x"),)),), policies=policies, tiers=tiers)
    pools = nets("10.65.0.0/16", "fd00:65::/48")
    wanted = Topology("t", (segment,), tuple(map(Node, "abc")), links, pods, pools, objects=objects)
    return build_cluster(wanted, Calico().ipam(wanted))


def table(found: Cluster, node: str = "a", family: str = "ip") -> NftTable:
    return next(o for o in Calico().plan(found)[node] if isinstance(o, NftTable) and o.family == family)


def chains(found: NftTable) -> dict[str, list[str]]:
    """Each chain's rules."""
    said: dict[str, list[str]] = {}
    for command in found.rules:
        _, kind, _, _, name, *rest = command.split(" ", 5)
        if kind == "chain":
            said[name] = []
        elif kind == "rule":
            said[name] += rest
    return said


def sets(found: NftTable) -> dict[str, str]:
    """The members of each set that policies need, "" where there are none."""
    said: dict[str, str] = {}
    for command in found.rules:
        _, kind, _, _, name, *rest = command.split(" ", 5)
        if re.match(r"cali\d0[sn]-", name):
            said.setdefault(name, "")
            if kind == "element":
                said[name] = rest[0].strip("{ }")
    return said


def named(text: str, found: NftTable) -> str:
    """``text`` with the sets' members in the place of their names."""
    for name, members in sets(found).items():
        text = text.replace(f"@{name}", f"@[{members}]")
    return text


ALLOWED = 'counter meta mark set meta mark | 0x00010000 return comment "default|default/p|ingress|"'


def text(found: Cluster, family: str = "ip", chain: str = "filter-cali-pi-default/default/knp.default.p") -> list[str]:
    """A policy's rules on node a, without what all of them end in."""
    here = table(found, family=family)
    return [named(rule, here).removesuffix(ALLOWED).strip() for rule in chains(here)[chain]]


CLIENTS = "10.65.0.1, 10.65.0.64"
MATCHES = {
    "everybody": (Rule(), [""]),
    "pods": (Rule(source=Peer(pods=CLIENT)), [f"ip saddr @[{CLIENTS}]"]),
    "pods of other namespaces": (Rule(source=Peer(pods=CLIENT, namespaces=TEAM)), ["ip saddr @[10.65.0.65]"]),
    "namespaces": (Rule(source=Peer(namespaces=TEAM)), ["ip saddr @[10.65.0.65]"]),
    "all pods": (
        Rule(source=Peer(pods=Everything(), namespaces=Everything())),
        ["ip saddr @[10.65.0.0, 10.65.0.1, 10.65.0.64, 10.65.0.65]"],
    ),
    "nobody yet": (Rule(source=Peer(pods=In("app", ("none",)))), ["ip saddr @[]"]),
    "not some pods": (Rule(source=Peer(not_pods=CLIENT)), [f"ip saddr != @[{CLIENTS}]"]),
    "both": (
        Rule(source=Peer(pods=Everything(), not_pods=CLIENT)),
        [f"ip saddr @[10.65.0.0, {CLIENTS}] ip saddr != @[{CLIENTS}]"],
    ),
    "a net": (Rule(source=Peer(nets=nets("10.0.0.0/8"))), ["ip saddr 10.0.0.0/8"]),
    "nets": (
        Rule(source=Peer(nets=nets("10.0.0.0/8", "192.168.0.0/16", "10.1.0.0/16", "fd00::/8"))),
        ["ip saddr { 10.0.0.0/8, 192.168.0.0/16 }"],
    ),
    "a net with holes": (
        Rule(source=Peer(nets=nets("10.0.0.0/8"), not_nets=nets("10.1.0.0/16", "10.9.0.0/16"))),
        ["ip saddr 10.0.0.0/8 ip saddr != { 10.1.0.0/16, 10.9.0.0/16 }"],
    ),
    "all of a family": (Rule(source=Peer(nets=nets("0.0.0.0/0"))), [""]),
    "none of a family": (Rule(source=Peer(not_nets=nets("0.0.0.0/0"))), []),
    "nets of the other family": (Rule(source=Peer(nets=nets("fd00::/8"))), []),
    "holes of the other family": (Rule(source=Peer(not_nets=nets("fd00::/8"))), []),
    "the other family": (Rule(family=6), []),
    "a protocol": (Rule(protocol="udp"), ["meta l4proto udp"]),
    "a protocol's number": (Rule(protocol="47"), ["meta l4proto 47"]),
    "not a protocol": (Rule(not_protocol="udp"), ["meta l4proto != udp"]),
    "a port": (Rule(protocol="tcp", destination=Peer(ports=(PortRange(80, 80),))), ["meta l4proto tcp tcp dport 80"]),
    "ports": (
        Rule(protocol="tcp", destination=Peer(ports=(PortRange(443, 443), PortRange(80, 90), PortRange(85, 91)))),
        ["meta l4proto tcp tcp dport { 80-91, 443 }"],
    ),
    "ports of any protocol": (
        Rule(destination=Peer(ports=(PortRange(80, 80),))),
        ["meta l4proto { tcp, udp, sctp } th dport 80"],
    ),
    "not some ports": (
        Rule(protocol="tcp", destination=Peer(not_ports=(PortRange(80, 80),))),
        ["meta l4proto tcp tcp dport != 80"],
    ),
    "a port's name": (
        Rule(protocol="tcp", destination=Peer(ports=(HTTP,))),
        ["meta l4proto tcp ip daddr . meta l4proto . th dport @[10.65.0.0 . tcp . 8080]"],
    ),
    "a name of any protocol": (
        Rule(destination=Peer(ports=(HTTP,))),
        ["meta l4proto { tcp, udp, sctp } ip daddr . meta l4proto . th dport @[10.65.0.0 . tcp . 8080, 10.65.0.65 . udp . 80]"],
    ),
    "a name and a number": (
        Rule(protocol="tcp", destination=Peer(ports=(HTTP, PortRange(80, 80)))),
        [
            "meta l4proto tcp tcp dport 80",
            "meta l4proto tcp ip daddr . meta l4proto . th dport @[10.65.0.0 . tcp . 8080]",
        ],
    ),
    "not a name": (
        Rule(protocol="tcp", destination=Peer(not_ports=(HTTP,))),
        ["meta l4proto tcp ip daddr . meta l4proto . th dport != @[10.65.0.0 . tcp . 8080]"],
    ),
    "ports of the source": (
        Rule(protocol="udp", source=Peer(pods=CLIENT, ports=(PortRange(53, 53),))),
        [f"meta l4proto udp ip saddr @[{CLIENTS}] udp sport 53"],
    ),
    "icmp": (Rule(protocol="icmp"), ["meta l4proto icmp"]),
    "icmp type": (Rule(protocol="icmp", icmp=(8, None)), ["meta l4proto icmp icmp type 8"]),
    "icmp type and code": (Rule(protocol="icmp", icmp=(3, 0)), ["meta l4proto icmp icmp type 3 icmp code 0"]),
    "icmpv6": (Rule(protocol="icmpv6", icmp=(128, None)), []),
}


def matches(family: str, *rules: Rule) -> list[list[str]]:
    """What each rule of one policy has become, as by `text`."""
    numbered = (replace(rule, origin=str(number)) for number, rule in enumerate(rules))
    found: list[list[str]] = [[] for _ in rules]
    for line in text(under(policy("p", *numbered)), family):
        match, number = line.removesuffix('"').split(ALLOWED.removesuffix('"'))
        found[int(number)].append(match.strip())
    return found


def test_what_a_rule_matches() -> None:
    found = matches("ip", *(rule for rule, _ in MATCHES.values()))
    assert dict(zip(MATCHES, found, strict=True)) == {name: expected for name, (_, expected) in MATCHES.items()}


def test_ipv6() -> None:
    near, far = (str(e.address(6)) for e in under().endpoints if e.pod.name in ("near", "far"))
    rows = [
        (Rule(source=Peer(pods=CLIENT)), [f"ip6 saddr @[{near}, {far}]"]),
        (Rule(source=Peer(nets=nets("10.0.0.0/8"))), []),
        (Rule(source=Peer(nets=nets("10.0.0.0/8", "fd00::/8"))), ["ip6 saddr fd00::/8"]),
        (Rule(source=Peer(nets=nets("fd00::/8"), not_nets=nets("fd00:1::/32"))), ["ip6 saddr fd00::/8 ip6 saddr != fd00:1::/32"]),
        (Rule(protocol="icmp"), []),
        (Rule(protocol="icmpv6", icmp=(128, 0)), ["meta l4proto icmpv6 icmpv6 type 128 icmpv6 code 0"]),
        (Rule(family=4), []),
        (Rule(family=6), [""]),
    ]
    assert matches("ip6", *(rule for rule, _ in rows)) == [expected for _, expected in rows]


def test_actions() -> None:
    rules = [Rule(action, origin=f"ingress[{n}]") for n, action in enumerate(("allow", "deny", "pass", "log"))]
    found = chains(table(under(own("p", *rules))))["filter-cali-pi-default/default/default.p"]
    assert found == [
        'counter meta mark set meta mark | 0x00010000 return comment "default|default/p|ingress|ingress[0]"',
        'counter drop comment "default|default/p|ingress|ingress[1]"',
        'counter meta mark set meta mark | 0x00020000 return comment "default|default/p|ingress|ingress[2]"',
        'counter log prefix "calico-packet: " level info comment "default|default/p|ingress|ingress[3]"',
    ]


def test_a_pods_chain() -> None:
    """Tiers by order, policies by order and name, then the profile."""
    found = under(
        policy("b"),
        policy("a"),
        own("late", order=float("inf")),
        own("first", order=1.0),
        own("security.all", tier="security", namespace="", order=5.0),
        own("lenient.all", tier="lenient", namespace=""),
        policy("clients", selects=CLIENT),
        policy("out", directions=(EGRESS,)),
        tiers=(Tier("security", 100), Tier("lenient", 50, "pass")),
    )
    rules = chains(table(found))
    to_web, from_web, to_near = (
        f"filter-cali-{way}w-cali{e.digest(11)}"
        for way, name in (("t", "web"), ("f", "web"), ("t", "near"))
        for e in found.endpoints
        if e.pod.name == name
    )
    assert (
        "\n".join(rules[to_web])
        == textwrap.dedent(
            """
        ct state established,related accept
        ct state invalid drop
        meta mark set meta mark & 0xfffcffff
        meta mark set meta mark & 0xfffdffff comment "Start of tier lenient"
        meta mark & 0x00020000 == 0x00000000 jump filter-cali-pi-lenient/lenient.all
        meta mark & 0x00010000 == 0x00010000 return comment "Return if policy accepted"
        meta mark set meta mark & 0xfffdffff comment "Start of tier security"
        meta mark & 0x00020000 == 0x00000000 jump filter-cali-pi-security/security.all
        meta mark & 0x00010000 == 0x00010000 return comment "Return if policy accepted"
        meta mark & 0x00020000 == 0x00000000 counter drop comment "End of tier security. Drop if no policies passed packet"
        meta mark set meta mark & 0xfffdffff comment "Start of tier default"
        meta mark & 0x00020000 == 0x00000000 jump filter-cali-pi-default/default/default.first
        meta mark & 0x00010000 == 0x00010000 return comment "Return if policy accepted"
        meta mark & 0x00020000 == 0x00000000 jump filter-cali-pi-default/default/knp.default.a
        meta mark & 0x00010000 == 0x00010000 return comment "Return if policy accepted"
        meta mark & 0x00020000 == 0x00000000 jump filter-cali-pi-default/default/knp.default.b
        meta mark & 0x00010000 == 0x00010000 return comment "Return if policy accepted"
        meta mark & 0x00020000 == 0x00000000 jump filter-cali-pi-default/default/default.late
        meta mark & 0x00010000 == 0x00010000 return comment "Return if policy accepted"
        meta mark & 0x00020000 == 0x00000000 counter drop comment "End of tier default. Drop if no policies passed packet"
        jump filter-cali-pri-kns.default
        meta mark & 0x00010000 == 0x00010000 return
        drop comment "Drop if no profiles matched"
        """
        ).strip()
    )
    assert [rule for rule in rules[from_web] if "jump" in rule] == [
        "meta mark & 0x00020000 == 0x00000000 jump filter-cali-po-default/default/knp.default.out",
        "jump filter-cali-pro-kns.default",
    ]
    assert [rule for rule in rules[to_near] if "jump" in rule] == [
        "meta mark & 0x00020000 == 0x00000000 jump filter-cali-pi-default/default/knp.default.clients",
        "jump filter-cali-pri-kns.default",
    ]


def test_a_policy_is_only_where_its_pods_are() -> None:
    found = under(policy("p", Rule(source=Peer(pods=CLIENT))), own("g", selects=CLIENT, namespace="", directions=(EGRESS,)))
    for node, expected in {
        "a": {"pi-default/default/knp.default.p", "po-default/default.g"},
        "b": {"po-default/default.g"},
        "c": set(),
    }.items():
        here = table(found, node)
        assert {name.removeprefix("filter-cali-") for name in chains(here) if re.search("-p[io]-", name)} == expected
        assert bool(sets(here)) is (node == "a")


def test_directions() -> None:
    both = policy("p", Rule(origin="in"), directions=(INGRESS, EGRESS), egress=(Rule(action="deny", origin="out"),))
    found = chains(table(under(both)))
    assert [rule.split()[-1] for rule in found["filter-cali-pi-default/default/knp.default.p"]] == [
        '"default|default/p|ingress|in"'
    ]
    assert [rule.split()[-1] for rule in found["filter-cali-po-default/default/knp.default.p"]] == [
        '"default|default/p|egress|out"'
    ]


def test_global_policies_select_in_namespaces() -> None:
    everywhere, team = own("all", namespace="", selects=CLIENT), own("team", namespace="", selects=CLIENT, namespaces=TEAM)
    rules = chains(table(under(everywhere, team), "b"))
    jumps = {
        name: [rule.split()[-1] for rule in found if "jump filter-cali-pi" in rule]
        for name, found in rules.items()
        if "-tw-" in name
    }
    far, guest = (f"filter-cali-tw-cali{e.digest(11)}" for e in under().endpoints if e.node == "b")
    assert jumps == {
        far: ["filter-cali-pi-default/default.all"],
        guest: ["filter-cali-pi-default/default.all", "filter-cali-pi-default/default.team"],
    }


def met(found: NftTable, chain: str) -> int:
    """How many rules a packet meets at most in a chain and those that it leads to."""
    rules = chains(found)

    def of(name: str) -> int:
        return sum(1 + sum(of(target) for target in re.findall(r"(?:jump|goto) (\S+)", rule)) for rule in rules[name])

    return of(chain)


def crowd(others: int) -> Cluster:
    """Web with its policy, and ``others`` pods with a policy each, on all nodes."""
    mine = policy("p", Rule(source=Peer(pods=CLIENT)), Rule(protocol="tcp", destination=Peer(ports=(HTTP,))))
    theirs = tuple(policy(f"p{n}", Rule(source=Peer(pods=WEB)), selects=In("number", (str(n),))) for n in range(others))
    more = tuple(Pod(f"x{n}", "abc"[n % 3], labels=(("number", str(n)), ("app", "client"))) for n in range(others))
    return under(mine, *theirs, pods=(*PODS, *more))


def test_what_a_packet_meets_does_not_grow_with_other_pods_and_policies() -> None:
    few, many = crowd(5), crowd(15)
    web = next(f"cali{e.digest(11)}" for e in few.endpoints if e.pod.name == "web")
    for way in "ft":
        counts = [met(table(found), f"filter-cali-{way}w-{web}") for found in (few, many)]
        assert counts[0] == counts[1] > 5


def test_another_label_changes_only_elements() -> None:
    before = under(
        policy(
            "p", Rule(source=Peer(pods=CLIENT)), Rule(protocol="tcp", source=Peer(pods=CLIENT), destination=Peer(ports=(HTTP,)))
        )
    )
    pods = tuple(replace(pod, labels=()) if pod.name == "near" else pod for pod in PODS)
    after = replace(
        before,
        topology=replace(before.topology, pods=pods),
        endpoints=tuple(replace(e, pod=p) for e, p in zip(before.endpoints, pods, strict=True)),
    )
    for family, address in (("ip", "10.65.0.1"), ("ip6", str(before.endpoints[1].address(6)))):
        commands = delta(table(before, family=family), table(after, family=family))
        assert [re.sub(r"-\S+", "", command) for command in commands] == [
            f"delete element {family} calico cali{'4' if family == 'ip' else '6'}0s {{ {address} }}"
        ]


def test_another_policy_changes_only_its_own_chain_and_those_that_lead_to_it() -> None:
    before, after = under(policy("p")), under(policy("p"), policy("q", selects=CLIENT))
    near = next(e for e in before.endpoints if e.pod.name == "near")
    changed = {command.split()[4] for command in delta(table(before), table(after))}
    assert changed == {f"filter-cali-tw-cali{near.digest(11)}", "filter-cali-pi-default/default/knp.default.q"}


@each_row(
    "namespace, name, origin, expected",
    [
        ("default", "web", "ingress[0].from[1]", "default|default/web|ingress|ingress[0].from[1]"),
        ("default", "w" * 85, "ingress[0].from[1]", f"default|default/{'w' * 85}|ingress|ingress[0].from[1"),
        ("n" * 63, "w" * 253, "ingress[0]", f"default|{'n' * 63}/{'w' * 46}|ingress|"),
    ],
)
def test_comments_fit(namespace: str, name: str, origin: str, expected: str) -> None:
    pods = (replace(PODS[0], namespace=namespace),)
    rules = chains(table(under(policy(name, Rule(origin=origin), namespace=namespace), pods=pods)))
    said = [re.findall(r'comment "(.*)"', rule)[0] for chain, found in rules.items() if "-pi-" in chain for rule in found]
    assert said == [expected]
    assert len(expected) <= 127


def test_long_names_end_in_a_hash() -> None:
    pods = (replace(PODS[0], namespace="n" * 63),)
    found = chains(
        table(under(policy("w" * 253, Rule(), namespace="n" * 63), policy("w" * 252, Rule(), namespace="n" * 63), pods=pods))
    )
    names = [name for name in found if "-pi-" in name]
    assert len(names) == 2
    assert all(re.fullmatch(r"filter-cali-pi-_[-\w]{43}", name) for name in names)


def test_a_tier_has_to_be_there() -> None:
    with pytest.raises(InputError, match=r"policy default/p: no tier 'securty' \(did you mean 'security'\?\)"):
        Calico().plan(under(own("p", tier="securty"), tiers=(Tier("security", 1),)))


def test_everything_is_enforced() -> None:
    assert Calico().unenforced(policy("p")) == ""
