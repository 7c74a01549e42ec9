"""weave-npc's rules and sets for hand-made policies, as the text that a person would type."""

# ruff: noqa: E501 (a line that is typed is as long as it is)

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_interface, ip_network

import pytest
from tables import each_row

from emulab.dataplane import build_cluster
from emulab.model import Link, Node, Pod, Segment, Topology
from emulab.nft_delta import delta
from emulab.objects import EGRESS, INGRESS, Namespace, Objects, Peer, Policy, PortRange, Rule
from emulab.selector import Everything, In, Selector
from emulab.state import NftTable, Sysctl
from emulab_plugins.weave import Weave

BOTH = (INGRESS, EGRESS)
ANY = Everything()


def label(key: str, value: str) -> Selector:
    return In(key, (value,))


def ports(*numbers: int | tuple[int, int] | str) -> tuple[PortRange, ...]:
    return tuple(
        PortRange(name=n) if isinstance(n, str) else PortRange(*n) if isinstance(n, tuple) else PortRange(n, n) for n in numbers
    )


def pod(name: str, node: str, namespace: str = "default", **labels: str) -> Pod:
    return Pod(name, node, namespace, labels=tuple(labels.items()))


def policy(
    name: str,
    selector: Selector = ANY,
    directions: tuple[str, ...] = (INGRESS,),
    ingress: tuple[Rule, ...] = (),
    egress: tuple[Rule, ...] = (),
    namespace: str = "default",
    api: str = "networking.k8s.io/v1",
) -> Policy:
    return Policy(api, "NetworkPolicy", namespace, name, selector, None, directions, ingress, egress)


def came(peer: Peer = Peer(), protocol: str | None = None, *to: int | tuple[int, int] | str, origin: str = "ingress[0]") -> Rule:  # noqa: B008
    """An ingress rule."""
    return Rule("allow", protocol, source=peer, destination=Peer(ports=ports(*to)), origin=origin)


def goes(peer: Peer = Peer(), protocol: str | None = None, *to: int | tuple[int, int] | str, origin: str = "egress[0]") -> Rule:  # noqa: B008
    """An egress rule."""
    return Rule("allow", protocol, destination=replace(peer, ports=ports(*to)), origin=origin)


PODS = (
    pod("web", "a", app="web"),
    pod("db", "a", app="db"),
    pod("api", "b", app="api"),
    pod("web", "b", "shop", app="web"),
)
TOPOLOGY = Topology(
    "lan",
    (Segment("lan", (ip_network("192.168.50.0/24"),)),),
    (Node("a"), Node("b")),
    tuple(Link(node, "lan", addresses=(ip_interface(f"192.168.50.{n}/24"),)) for n, node in enumerate("ab", 1)),
    PODS,
    (ip_network("10.32.0.0/12"), ip_network("fd00:32::/48")),
)
SHOP = Namespace("shop", (("team", "x"),))


def planned(*policies: Policy, node: str = "a", pods: tuple[Pod, ...] = PODS) -> list[NftTable | Sysctl]:
    topology = replace(TOPOLOGY, pods=pods, objects=Objects(namespaces=(SHOP,), policies=policies))
    things = Weave().plan(build_cluster(topology, Weave().ipam(topology)))[node]
    return [thing for thing in things if isinstance(thing, (NftTable, Sysctl))]


def table(*policies: Policy, node: str = "a", family: str = "ip", pods: tuple[Pod, ...] = PODS, name: str = "weave") -> NftTable:
    (found,) = (
        thing
        for thing in planned(*policies, node=node, pods=pods)
        if isinstance(thing, NftTable) and (thing.family, thing.name) == (family, name)
    )
    return found


def text(found: NftTable) -> str:
    """The part of weave-npc, one command a line, without what all lines begin with."""
    lines = [re.sub(rf"^add (\w+) {found.family} weave ", r"\1 ", line) for line in found.rules]
    return "".join(f"{line}\n" for line in lines if not re.match(r"\w+ (WEAVE|POSTROUTING|weaver-no-masq-local)( |$)", line))


def chain(found: NftTable, name: str) -> list[str]:
    head = f"add rule {found.family} {found.name} {name} "
    return [line.removeprefix(head) for line in found.rules if line.startswith(head)]


def elements(found: NftTable, name: str) -> set[str]:
    head = f"add element {found.family} weave {name} {{ "
    return {one for line in found.rules if line.startswith(head) for one in line[len(head) : -2].split(", ")}


DB = policy(
    "db",
    label("app", "db"),
    BOTH,
    (
        came(Peer(nets=(ip_network("172.17.0.0/16"),), not_nets=(ip_network("172.17.1.0/24"),)), "tcp", 6379),
        came(Peer(namespaces=label("team", "x")), "tcp", 6379, origin="ingress[0].from[1].ports[0]"),
        came(Peer(pods=label("app", "api")), origin="ingress[1].from[0]"),
    ),
    (goes(Peer(nets=(ip_network("10.0.0.0/24"),)), "tcp", (5978, 5990)), goes(Peer(), "udp", origin="egress[1]")),
)
DENY = policy("deny", directions=BOTH)

NODE_A = """\
set weave-local-pods { type ipv4_addr ; }
element weave-local-pods { 10.32.0.2, 10.32.0.3 }
set ingress-default-allow { type ipv4_addr ; }
set pods-in-team-x-all-3bcef2 { type ipv4_addr ; }
element pods-in-team-x-all-3bcef2 { 10.40.0.2 }
set pods-default-app-api-4411aa { type ipv4_addr ; }
element pods-default-app-api-4411aa { 10.40.0.1 }
set egress-default-allow { type ipv4_addr ; }
map ingress-pods { type ipv4_addr : verdict ; }
map egress-pods { type ipv4_addr : verdict ; }
chain WEAVE-NPC-EGRESS-ACCEPT
rule WEAVE-NPC-EGRESS-ACCEPT meta mark set meta mark | 0x40000
chain ingress/default/deny
chain ingress/default/db
rule ingress/default/db ip saddr 172.17.0.0/16 ip saddr != 172.17.1.0/24 tcp dport 6379 counter accept comment "default|default/db|ingress|ingress[0]"
rule ingress/default/db ip saddr @pods-in-team-x-all-3bcef2 tcp dport 6379 counter accept comment "default|default/db|ingress|ingress[0].from[1].ports[0]"
rule ingress/default/db ip saddr @pods-default-app-api-4411aa counter accept comment "default|default/db|ingress|ingress[1].from[0]"
chain egress/default/deny
chain egress/default/db
rule egress/default/db ip daddr 10.0.0.0/24 tcp dport 5978-5990 counter goto WEAVE-NPC-EGRESS-ACCEPT comment "default|default/db|egress|egress[0]"
rule egress/default/db meta l4proto udp counter goto WEAVE-NPC-EGRESS-ACCEPT comment "default|default/db|egress|egress[1]"
chain pod-ingress/default/web
rule pod-ingress/default/web jump ingress/default/deny
chain pod-ingress/default/db
rule pod-ingress/default/db jump ingress/default/deny
rule pod-ingress/default/db jump ingress/default/db
chain pod-egress/default/web
rule pod-egress/default/web jump egress/default/deny
chain pod-egress/default/db
rule pod-egress/default/db jump egress/default/deny
rule pod-egress/default/db meta mark & 0x40000 == 0x0 jump egress/default/db
chain WEAVE-NPC-DEFAULT
rule WEAVE-NPC-DEFAULT ip daddr @ingress-default-allow accept
chain WEAVE-NPC-INGRESS
rule WEAVE-NPC-INGRESS ip daddr vmap @ingress-pods
chain WEAVE-NPC
rule WEAVE-NPC ct state related,established accept
rule WEAVE-NPC ip daddr 224.0.0.0/4 accept
rule WEAVE-NPC ip daddr != @weave-local-pods accept
rule WEAVE-NPC ct state new jump WEAVE-NPC-DEFAULT
rule WEAVE-NPC ct state new jump WEAVE-NPC-INGRESS
chain WEAVE-NPC-EGRESS-DEFAULT
rule WEAVE-NPC-EGRESS-DEFAULT ip saddr @egress-default-allow goto WEAVE-NPC-EGRESS-ACCEPT
chain WEAVE-NPC-EGRESS-CUSTOM
rule WEAVE-NPC-EGRESS-CUSTOM ip saddr vmap @egress-pods
chain WEAVE-NPC-EGRESS
rule WEAVE-NPC-EGRESS ct state related,established accept
rule WEAVE-NPC-EGRESS ip saddr != @weave-local-pods return
rule WEAVE-NPC-EGRESS fib daddr type local return
rule WEAVE-NPC-EGRESS ip daddr 224.0.0.0/4 return
rule WEAVE-NPC-EGRESS ct state new jump WEAVE-NPC-EGRESS-DEFAULT
rule WEAVE-NPC-EGRESS ct state new meta mark & 0x40000 == 0x0 jump WEAVE-NPC-EGRESS-CUSTOM
rule WEAVE-NPC-EGRESS meta mark & 0x40000 == 0x0 counter drop comment "weave-npc: egress default deny"
chain INPUT { type filter hook input priority filter ; }
rule INPUT iifname "weave" jump WEAVE-NPC-EGRESS
chain FORWARD { type filter hook forward priority filter ; }
rule FORWARD iifname "weave" jump WEAVE-NPC-EGRESS
rule FORWARD oifname "weave" jump WEAVE-NPC
rule FORWARD oifname "weave" counter drop comment "weave-npc: ingress default deny"
rule FORWARD iifname "weave" oifname != "weave" accept
rule FORWARD oifname "weave" ct state related,established accept
element ingress-pods { 10.32.0.2 : goto pod-ingress/default/web, 10.32.0.3 : goto pod-ingress/default/db }
element egress-pods { 10.32.0.2 : goto pod-egress/default/web, 10.32.0.3 : goto pod-egress/default/db }
"""


def test_a_node() -> None:
    assert text(table(DENY, DB)) == NODE_A


def test_the_other_family_has_neighbour_discovery_and_no_nets_of_this_one() -> None:
    found = table(DB, family="ip6")
    assert chain(found, "WEAVE-NPC-EGRESS")[1].startswith("icmpv6 type { nd-router-solicit,")
    assert [rule.split(" comment")[0] for rule in chain(found, "ingress/default/db")] == [
        "ip6 saddr @pods-in-team-x-all-3bcef2 tcp dport 6379 counter accept",
        "ip6 saddr @pods-default-app-api-4411aa counter accept",
    ]
    assert elements(found, "pods-default-app-api-4411aa") == {"fd00:32:0:8000::1"}
    assert "ipv4" not in text(found)


def test_without_policies_bridged_packets_are_nobody_s_business() -> None:
    for policies in ((), (policy("global", api="projectcalico.org/v3"),)):
        found = planned(*policies)
        assert "NPC" not in str(found)
        assert [thing for thing in found if isinstance(thing, Sysctl) and "bridge-nf" in thing.key] == []
        assert chain(table(*policies), "FORWARD")[0] == 'iifname "weave" oifname "weave" accept'


def test_bridged_packets_are_shown_to_the_ip_hooks_once_there_is_a_policy() -> None:
    shown = [thing for thing in planned(DENY) if isinstance(thing, Sysctl) and "bridge-nf" in thing.key]
    assert shown == [
        Sysctl("net.bridge.bridge-nf-call-iptables", "1"),
        Sysctl("net.bridge.bridge-nf-call-ip6tables", "1"),
    ]


@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_a_packet_is_a_connection_where_it_was_let_through(family: str) -> None:
    found = table(DENY, family=family, name="datapath")
    assert chain(found, "prerouting") == ['iifname "datapath" notrack']
    assert [thing for thing in planned() if isinstance(thing, NftTable) and thing.name == "datapath"] == []


def test_how_many_policies_there_are_is_nothing_to_those_they_do_not_select() -> None:
    """Whoever is not selected meets the chains of weave-npc itself, which stay as they are."""
    one, many = (
        table(*(policy(f"p{n}", label("app", "db"), BOTH, (came(),), (goes(),)) for n in range(count))) for count in (1, 50)
    )
    ours = [line.split()[4] for line in one.rules if re.match(r"add chain ip weave [A-Z]", line)]
    assert len(ours) == 11
    for name in ours:
        assert chain(one, name) == chain(many, name)
    assert len(chain(many, "pod-ingress/default/db")) == 50
    assert elements(one, "ingress-pods") == elements(many, "ingress-pods") == {"10.32.0.3 : goto pod-ingress/default/db"}


@each_row(
    "policies, default_ingress, default_egress, drops_unmarked",
    [
        ((policy("p", label("app", "db")),), {"10.32.0.2"}, {"10.32.0.2", "10.32.0.3"}, False),
        ((policy("p", label("app", "db"), (EGRESS,)),), {"10.32.0.2", "10.32.0.3"}, {"10.32.0.2"}, True),
        ((policy("p", label("app", "none")),), {"10.32.0.2", "10.32.0.3"}, {"10.32.0.2", "10.32.0.3"}, False),
        ((policy("p", directions=(EGRESS,), namespace="shop"),), {"10.32.0.2", "10.32.0.3"}, {"10.32.0.2", "10.32.0.3"}, True),
        ((DENY,), set(), set(), True),
    ],
)
def test_a_selected_pod_leaves_the_default(
    policies: tuple[Policy, ...], default_ingress: set[str], default_egress: set[str], drops_unmarked: bool
) -> None:
    found = table(*policies)
    assert elements(found, "ingress-default-allow") == default_ingress
    assert elements(found, "egress-default-allow") == default_egress
    assert any("drop" in rule for rule in chain(found, "WEAVE-NPC-EGRESS")) == drops_unmarked


WEB = label("app", "web")


@each_row(
    "rule, words",
    [
        (came(), "counter accept"),
        (came(Peer(), "tcp"), "meta l4proto tcp counter accept"),
        (came(Peer(), "tcp", 80), "tcp dport 80 counter accept"),
        (came(Peer(), "sctp", (80, 90)), "sctp dport 80-90 counter accept"),
        (came(Peer(), "udp", 53, 80, (70, 85), (86, 90)), "udp dport { 53, 70-90 } counter accept"),
        (came(Peer(), None, 80), "tcp dport 80 counter accept"),
        (came(Peer(), "tcp", "http", 80), "tcp dport 80 counter accept"),
        (came(Peer(), "tcp", "http"), None),
        (came(Peer(nets=(ip_network("fd00::/8"),))), None),
        (came(Peer(nets=(ip_network("0.0.0.0/0"),), not_nets=(ip_network("fd00::/8"),))), "ip saddr 0.0.0.0/0 counter accept"),
        (
            came(Peer(nets=(ip_network("10.0.0.0/8"),), not_nets=(ip_network("10.1.0.0/24"), ip_network("10.1.0.0/16")))),
            "ip saddr 10.0.0.0/8 ip saddr != 10.1.0.0/16 counter accept",
        ),
        (
            came(Peer(nets=(ip_network("10.0.0.0/8"),), not_nets=(ip_network("10.1.0.0/24"), ip_network("10.3.0.0/24")))),
            "ip saddr 10.0.0.0/8 ip saddr != { 10.1.0.0/24, 10.3.0.0/24 } counter accept",
        ),
    ],
)
def test_rules(rule: Rule, words: str | None) -> None:
    found = chain(table(policy("p", ingress=(rule,))), "ingress/default/p")
    assert [one.rpartition(" comment ")[0] for one in found] == ([] if words is None else [words])


@each_row(
    "peer, name, members",
    [
        (Peer(pods=WEB), "pods-default-app-web-", {"10.32.0.2"}),
        (Peer(pods=ANY), "pods-default-all-", {"10.32.0.2", "10.32.0.3", "10.40.0.1"}),
        (Peer(namespaces=label("team", "x")), "pods-in-team-x-all-", {"10.40.0.2"}),
        (Peer(pods=WEB, namespaces=ANY), "pods-in-all-app-web-", {"10.32.0.2", "10.40.0.2"}),
        (Peer(pods=label("app", "none")), "pods-default-app-none-", set()),
    ],
)
def test_sets(peer: Peer, name: str, members: set[str]) -> None:
    found = table(policy("p", ingress=(came(peer),)))
    (rule,) = chain(found, "ingress/default/p")
    wanted = rule.split()[2].removeprefix("@")
    assert re.fullmatch(f"{name}[0-9a-f]{{6}}", wanted)
    assert f"add set ip weave {wanted} {{ type ipv4_addr ; }}" in found.rules
    assert elements(found, wanted) == members


def test_equal_selectors_share_a_set() -> None:
    rules = came(Peer(pods=WEB)), came(Peer(pods=WEB), "tcp", 80)
    assert text(table(policy("p", ingress=rules))).count("set pods-default-app-web") == 1


def test_what_concerns_no_pod_of_a_node_is_not_there() -> None:
    others = [policy(f"p{n}", label("app", "api"), BOTH, (came(),), (goes(),)) for n in range(20)]
    alone = table(DENY, node="a")
    assert table(DENY, *others, node="a") == alone
    assert text(table(DENY, *others, node="b")).count("rule pod-ingress/default/api ") == 21
    assert text(table(DENY, *others, node="b")).count("rule pod-ingress/shop/web ") == 0


def test_every_rule_and_drop_is_counted_and_named() -> None:
    long = policy("p" * 253, ingress=(came(origin="ingress[0].from[0].ports[0]"),), namespace="default")
    rules = [r for r in table(DENY, DB, long).rules if "counter" in r]
    assert len(rules) == 8
    for rule in rules:
        (said,) = re.findall(r'counter (?:accept|drop|goto WEAVE-NPC-EGRESS-ACCEPT) comment "([^"]+)"$', rule)
        assert len(said.encode()) <= 127


def test_long_names_stay_apart() -> None:
    one, other = (policy("p" * 252 + last, ingress=(came(),)) for last in "xy")
    found = table(one, other)
    names = [rule.removeprefix("jump ") for rule in chain(found, "pod-ingress/default/web")]
    assert len(set(names)) == 2
    assert all(len(name) < 128 and f"add chain ip weave {name}" in found.rules for name in names)


def test_a_change_touches_what_it_concerns() -> None:
    relabelled = (replace(PODS[0], labels=(("app", "db"),)), *PODS[1:])
    changed = delta(table(DB), table(DB, pods=relabelled))
    assert [line for line in changed if "element" in line] == [
        "delete element ip weave ingress-default-allow { 10.32.0.2 }",
        "delete element ip weave egress-default-allow { 10.32.0.2 }",
        "add element ip weave ingress-pods { 10.32.0.2 : goto pod-ingress/default/web }",
        "add element ip weave egress-pods { 10.32.0.2 : goto pod-egress/default/web }",
    ]
    assert [line for line in changed if "WEAVE" in line or "FORWARD" in line or ("/db" in line and "pod" not in line)] == []


@each_row(
    "wanted, message",
    [
        (DB, ""),
        (DENY, ""),
        (
            policy("p", ingress=(came(Peer(), "tcp", "http", origin="ingress[0].ports[0]"),)),
            "weave-npc does not support named ports: rule ingress[0].ports[0] is not enforced",
        ),
        (
            policy(
                "p",
                ingress=(
                    came(Peer(), "tcp", "http", origin="ingress[0].from[0].ports[1]"),
                    came(Peer(), "tcp", "http", origin="ingress[0].from[1].ports[1]"),
                ),
                egress=(goes(Peer(), "tcp", "http", origin="egress[2].ports[0]"),),
            ),
            "weave-npc does not support named ports: rules ingress[0].ports[1], egress[2].ports[0] are not enforced",
        ),
        (policy("p", api="projectcalico.org/v3"), "weave enforces networking.k8s.io/v1 NetworkPolicy only"),
    ],
)
def test_unenforced(wanted: Policy, message: str) -> None:
    assert Weave().unenforced(wanted) == message
