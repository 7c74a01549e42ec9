"""The oracle, line by line of what implementers of NetworkPolicy get wrong."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from policed import calico, cluster, egress, ingress, many, pods, policy
from tables import each_row

from emulab.errors import InputError
from emulab.objects import Policy, Tier
from emulab.oracle import Decision, Oracle
from emulab.oracle import labels as selectors


def asked(flow: str, *policies: Policy, family: int = 4, **more: Any) -> Decision:
    """``flow``: "default/web > default/db tcp/5432"."""
    ends, _, what = flow.rpartition(" ")
    source, _, destination = ends.partition(" > ")
    protocol, _, port = what.partition("/")
    one, other = (ip_address(end) if end[0].isdigit() else end for end in (source, destination))
    return Oracle(cluster(*policies, **more)).decide(one, other, protocol, int(port or 0), family)


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, **({"values": list(values)} if values else {})}]}


WEB, BARE, SHOP, API = "default/web > default/db", "default/bare > default/db", "shop/web > default/db", "shop/api > default/db"
OUTSIDE = "203.0.113.10 > default/db"
SQL = {"protocol": "TCP", "port": 5432}
EVERYWHERE = {"ipBlock": {"cidr": "0.0.0.0/0"}}

# name: (specification, flow, allowed)
LINES: dict[str, tuple[dict[str, Any], str, bool]] = {
    # Which policies select a pod, and for which direction
    "without policyTypes it is for ingress": (ingress(), f"{WEB} tcp/1", False),
    "without policyTypes it is not for egress": (ingress(), "default/db > default/web tcp/1", True),
    "without policyTypes an egress rule makes it one for egress": (
        {"podSelector": {}, "egress": [{"to": [pods(app="db")]}]},
        "default/web > default/bare tcp/1",
        False,
    ),
    "without policyTypes an egress rule leaves it one for ingress": (
        {"podSelector": {}, "egress": [{}]},
        f"{WEB} tcp/1",
        False,
    ),
    "an empty list of egress rules alone isolates nothing": (
        {"podSelector": {}, "ingress": [{}], "egress": []},
        f"{WEB} tcp/1",
        True,
    ),
    "sections that policyTypes does not name are ignored": (
        {"podSelector": {}, "policyTypes": ["Egress"], "ingress": [], "egress": [{}]},
        f"{WEB} tcp/1",
        True,
    ),
    "an empty policyTypes is as good as none": (ingress(policyTypes=[]), f"{WEB} tcp/1", False),
    "an empty list of rules denies": (ingress(), f"{WEB} tcp/1", False),
    "null rules deny": ({"podSelector": {}, "ingress": None}, f"{WEB} tcp/1", False),
    "absent rules deny": ({"podSelector": {}}, f"{WEB} tcp/1", False),
    "egress that is named and absent denies": ({"podSelector": {}, "policyTypes": ["Egress"]}, f"{WEB} tcp/1", False),
    "an empty rule matches everyone": (ingress({}), f"{OUTSIDE} tcp/1", True),
    "a null rule matches everyone": (ingress(None), f"{OUTSIDE} tcp/1", True),
    "an empty from matches everyone": (ingress({"from": []}), f"{OUTSIDE} tcp/1", True),
    "a null from matches everyone": (ingress({"from": None}), f"{OUTSIDE} tcp/1", True),
    "empty ports are all ports": (ingress({"ports": []}), f"{WEB} sctp/9", True),
    "ingress alone does not isolate egress": (ingress(), "default/db > shop/web tcp/1", True),
    "who is not selected is not isolated": (ingress(), "default/db > default/web tcp/1", True),
    "a null podSelector selects all": ({"podSelector": None}, f"{WEB} tcp/1", False),
    "a policy's namespace is all that it selects from": ({"podSelector": {}}, "default/web > shop/web tcp/1", True),
    # Peers
    "podSelector alone means the own namespace": (ingress({"from": [pods(app="web")]}), f"{WEB} tcp/1", True),
    "podSelector alone means no other namespace": (ingress({"from": [pods(app="web")]}), f"{SHOP} tcp/1", False),
    "both selectors in one item: the namespace must match": (
        ingress({"from": [{"namespaceSelector": {"matchLabels": {"team": "red"}}, **pods(app="web")}]}),
        f"{WEB} tcp/1",
        False,
    ),
    "both selectors in one item: the pod must match": (
        ingress({"from": [{"namespaceSelector": {"matchLabels": {"team": "red"}}, **pods(app="web")}]}),
        f"{API} tcp/1",
        False,
    ),
    "both selectors in one item: both match": (
        ingress({"from": [{"namespaceSelector": {"matchLabels": {"team": "red"}}, **pods(app="web")}]}),
        f"{SHOP} tcp/1",
        True,
    ),
    "in two items either will do: the pod's": (
        ingress({"from": [{"namespaceSelector": {"matchLabels": {"team": "red"}}}, pods(app="web")]}),
        f"{WEB} tcp/1",
        True,
    ),
    "in two items either will do: the namespace's": (
        ingress({"from": [{"namespaceSelector": {"matchLabels": {"team": "red"}}}, pods(app="web")]}),
        f"{API} tcp/1",
        True,
    ),
    "in two items one is needed": (
        ingress({"from": [{"namespaceSelector": {"matchLabels": {"team": "red"}}}, pods(app="web")]}),
        f"{BARE} tcp/1",
        False,
    ),
    "an empty podSelector is the whole own namespace": (ingress({"from": [{"podSelector": {}}]}), f"{BARE} tcp/1", True),
    "an empty podSelector is no other namespace": (ingress({"from": [{"podSelector": {}}]}), f"{SHOP} tcp/1", False),
    "an empty namespaceSelector is every namespace": (ingress({"from": [{"namespaceSelector": {}}]}), f"{SHOP} tcp/1", True),
    "an empty namespaceSelector is no address outside": (
        ingress({"from": [{"namespaceSelector": {}}]}),
        f"{OUTSIDE} tcp/1",
        False,
    ),
    "an empty podSelector is no address outside": (ingress({"from": [{"podSelector": {}}]}), f"{OUTSIDE} tcp/1", False),
    "selectors mean no node": (ingress({"from": [{"namespaceSelector": {}}]}), "node-a > default/db tcp/1", False),
    "In needs the key": (ingress({"from": [{"podSelector": expression("app", "In", "web")}]}), f"{BARE} tcp/1", False),
    "In takes one of the values": (
        ingress({"from": [{"podSelector": expression("app", "In", "x", "web")}]}),
        f"{WEB} tcp/1",
        True,
    ),
    "NotIn matches who lacks the key": (
        ingress({"from": [{"podSelector": expression("app", "NotIn", "web")}]}),
        f"{BARE} tcp/1",
        True,
    ),
    "NotIn matches no such value": (
        ingress({"from": [{"podSelector": expression("app", "NotIn", "web")}]}),
        f"{WEB} tcp/1",
        False,
    ),
    "Exists needs the key": (ingress({"from": [{"podSelector": expression("app", "Exists")}]}), f"{BARE} tcp/1", False),
    "Exists takes any value": (ingress({"from": [{"podSelector": expression("app", "Exists")}]}), f"{WEB} tcp/1", True),
    "DoesNotExist matches who lacks the key": (
        ingress({"from": [{"podSelector": expression("app", "DoesNotExist")}]}),
        f"{BARE} tcp/1",
        True,
    ),
    "DoesNotExist matches no value": (
        ingress({"from": [{"podSelector": expression("app", "DoesNotExist")}]}),
        f"{WEB} tcp/1",
        False,
    ),
    "labels and expressions must all match": (
        ingress({"from": [{"podSelector": {"matchLabels": {"app": "web"}, **expression("tier", "Exists")}}]}),
        f"{WEB} tcp/1",
        False,
    ),
    "a policy selects by expressions, too": (ingress(select=expression("tier", "NotIn", "front")), f"{WEB} tcp/1", False),
    "every namespace has its name for a label": (
        ingress({"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}]}),
        f"{SHOP} tcp/1",
        True,
    ),
    "ipBlock means pods as well": (ingress({"from": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]}), f"{WEB} tcp/1", True),
    "ipBlock means addresses outside": (ingress({"from": [EVERYWHERE]}), f"{OUTSIDE} tcp/1", True),
    "ipBlock means nodes": (ingress({"from": [{"ipBlock": {"cidr": "192.168.0.1/32"}}]}), "node-a > default/db tcp/1", True),
    "except is a hole": (
        ingress({"from": [{"ipBlock": {"cidr": "10.0.0.0/16", "except": ["10.0.0.1/32"]}}]}),
        f"{WEB} tcp/1",
        False,
    ),
    "every except is a hole": (
        ingress({"from": [{"ipBlock": {"cidr": "10.0.0.0/16", "except": ["10.0.9.9/32", "10.0.0.1/32"]}}]}),
        f"{WEB} tcp/1",
        False,
    ),
    "except denies nothing that another item allows": (
        ingress({"from": [{"ipBlock": {"cidr": "10.0.0.0/16", "except": ["10.0.0.1/32"]}}, pods(app="web")]}),
        f"{WEB} tcp/1",
        True,
    ),
    "host bits do not count": (ingress({"from": [{"ipBlock": {"cidr": "10.0.0.77/24"}}]}), f"{WEB} tcp/1", True),
    "a block of IPv6 is no block of IPv4": (ingress({"from": [{"ipBlock": {"cidr": "::/0"}}]}), f"{WEB} tcp/1", False),
    # Ports
    "no protocol is TCP": (ingress({"ports": [{"port": 53}]}), f"{WEB} tcp/53", True),
    "no protocol is not UDP": (ingress({"ports": [{"port": 53}]}), f"{WEB} udp/53", False),
    "a protocol alone is all of its ports": (ingress({"ports": [{"protocol": "UDP"}]}), f"{WEB} udp/9", True),
    "a rule for UDP isolates TCP": (ingress({"ports": [{"protocol": "UDP"}]}), f"{WEB} tcp/9", False),
    "a rule for SCTP isolates TCP": (ingress({"ports": [{"protocol": "SCTP", "port": 9}]}), f"{WEB} tcp/9", False),
    "SCTP has ports": (ingress({"ports": [{"protocol": "SCTP", "port": 9}]}), f"{WEB} sctp/9", True),
    "ICMP has no ports": (ingress({"ports": [SQL]}), f"{WEB} icmp", False),
    "a rule without ports lets ICMP pass": (ingress({"from": [pods(app="web")]}), f"{WEB} icmp", True),
    "another port is another port": (ingress({"ports": [SQL]}), f"{WEB} tcp/5433", False),
    "one of several ports": (ingress({"ports": [SQL, {"port": 80}]}), f"{WEB} tcp/80", True),
    "a name is the destination's": (ingress({"ports": [{"port": "sql"}]}), f"{WEB} tcp/5432", True),
    "a name goes with its protocol": (ingress({"ports": [{"port": "sql", "protocol": "UDP"}]}), f"{WEB} udp/53", True),
    "a name is not another protocol's port": (ingress({"ports": [{"port": "sql"}]}), f"{WEB} tcp/53", False),
    "a name that the destination has not is no port": (ingress({"ports": [{"port": "web"}]}), f"{WEB} tcp/5432", False),
    "a name in an egress rule is the server's": (egress({"ports": [{"port": "sql"}]}), "default/web > shop/api tcp/8000", True),
    "and the other server's is another number": (egress({"ports": [{"port": "sql"}]}), "default/web > shop/api tcp/5432", False),
    "endPort: the first": (ingress({"ports": [{"port": 80, "endPort": 90}]}), f"{WEB} tcp/80", True),
    "endPort: the last": (ingress({"ports": [{"port": 80, "endPort": 90}]}), f"{WEB} tcp/90", True),
    "endPort: one more": (ingress({"ports": [{"port": 80, "endPort": 90}]}), f"{WEB} tcp/91", False),
    "endPort: one less": (ingress({"ports": [{"port": 80, "endPort": 90}]}), f"{WEB} tcp/79", False),
    "egress: who is meant by the peer": (egress({"to": [pods(app="db")]}), f"{WEB} tcp/1", True),
    "egress: who is not": (egress({"to": [pods(app="db")]}), "default/web > default/bare tcp/1", False),
    "egress to the outside needs an address": (
        egress({"to": [{"namespaceSelector": {}}]}),
        "default/web > 203.0.113.10 tcp/1",
        False,
    ),
    "egress to an address": (egress({"to": [EVERYWHERE]}), "default/web > 203.0.113.10 tcp/1", True),
    # Life
    "a pod reaches itself": ({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}, "default/web > default/web tcp/1", True),
    "a node reaches its own pods": (ingress(), "node-b > default/db tcp/1", True),
    "and by its address in the pod network": (ingress(), "10.0.255.2 > default/db tcp/1", True),
    "another node is an address": (ingress(), "node-a > default/db tcp/1", False),
    "a pod reaches its own node": (egress(), "default/web > node-a tcp/1", True),
    "a pod reaches no other node": (egress(), "default/web > node-b tcp/1", False),
}


@each_row("name", LINES)
def test_kubernetes(name: str) -> None:
    spec, flow, allowed = LINES[name]
    decision = asked(flow, policy(spec))
    assert decision.allowed is allowed, str(decision)


DENY, ALLOW_WEB, ALLOW_BARE = (
    ingress(),
    ingress({"from": [pods(app="web")]}),
    ingress({"from": [pods(app="web")], "ports": [SQL]}),
)
BOTH = ingress({"from": [pods(app="web")], "ports": [SQL]}, {"from": [{"podSelector": {}}], "ports": [{"port": 80}]})
SEVERAL: dict[str, tuple[list[Policy], str, bool]] = {
    "policies unite": ([policy(DENY, "default/a"), policy(ALLOW_WEB, "default/b")], f"{WEB} tcp/1", True),
    "in whatever order": ([policy(ALLOW_WEB, "default/a"), policy(DENY, "default/b")], f"{WEB} tcp/1", True),
    "what none allows is denied": ([policy(DENY, "default/a"), policy(ALLOW_WEB, "default/b")], f"{BARE} tcp/1", False),
    "rules are not pooled: this peer's port": ([policy(BOTH)], f"{BARE} tcp/80", True),
    "rules are not pooled: not the other's": ([policy(BOTH)], f"{BARE} tcp/5432", False),
    "policies are not pooled either": (
        [policy(ingress({"from": [pods(app="web")]}), "default/a"), policy(ingress({"ports": [SQL]}), "default/b")],
        f"{BARE} tcp/80",
        False,
    ),
    "both ends decide: the client says no": (
        [policy(egress(), "default/a"), policy(ingress({}), "default/b")],
        f"{WEB} tcp/1",
        False,
    ),
    "both ends decide: the server says no": (
        [policy(egress({}), "default/a"), policy(DENY, "default/b")],
        f"{WEB} tcp/1",
        False,
    ),
    "both ends decide: both say yes": (
        [policy(egress({"to": [pods(app="db")]}), "default/a"), policy(ALLOW_WEB, "default/b")],
        f"{WEB} tcp/1",
        True,
    ),
    "another namespace's policy does not count": ([policy(ingress(select={}), "shop/a")], f"{WEB} tcp/1", True),
}


@each_row("name", SEVERAL)
def test_several_policies(name: str) -> None:
    policies, flow, allowed = SEVERAL[name]
    assert asked(flow, *policies).allowed is allowed


def test_what_the_manifest_says_of_the_systems_label_does_not_count() -> None:
    namespaces = {"default": {}, "shop": {"kubernetes.io/metadata.name": "default"}}
    spec = ingress({"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}]})
    assert asked(f"{WEB} tcp/1", policy(spec), namespaces=namespaces).allowed
    assert not asked(f"{SHOP} tcp/1", policy(spec), namespaces=namespaces).allowed


def test_a_policy_may_select_nobody() -> None:
    assert asked(f"{WEB} tcp/1", policy(ingress(select={"matchLabels": {"app": "later"}}))).allowed


def test_families_are_judged_apart() -> None:
    spec = ingress({"from": [{"ipBlock": {"cidr": "fd00::/64", "except": ["fd00::3/128"]}}]})
    found = {
        (flow, family): asked(f"{flow} tcp/1", policy(spec), family=family).allowed for flow in (WEB, BARE) for family in (4, 6)
    }
    assert found == {(WEB, 4): False, (WEB, 6): True, (BARE, 4): False, (BARE, 6): False}


TIERS = (
    Tier("security", 100, manifest={"spec": {"order": 100}}),
    Tier("lax", 50, manifest={"spec": {"order": 50, "defaultAction": "Pass"}}),
)
RULE = {"action": "Allow", "source": {"selector": "app == 'web'"}}
BACK = {"selector": "tier == 'back'", "order": 10}
CALICO: dict[str, tuple[list[Policy], str, bool]] = {
    "a global policy selects in all namespaces": (
        [calico({"selector": "tier == 'back'"})],
        "default/web > shop/api tcp/1",
        False,
    ),
    "namespaceSelector limits it": (
        [calico({"selector": "tier == 'back'", "namespaceSelector": "team == 'red'"})],
        f"{WEB} tcp/1",
        True,
    ),
    "a namespaced one does not": ([calico({"selector": "all()"}, "shop/a")], f"{WEB} tcp/1", True),
    "the lowest order decides": (
        [calico({**BACK, "ingress": [{"action": "Deny"}]}, "z"), calico({**BACK, "order": 20, "ingress": [RULE]}, "a")],
        f"{WEB} tcp/1",
        False,
    ),
    "without order last": (
        [calico({"selector": "all()", "ingress": [{"action": "Deny"}]}, "a"), calico({**BACK, "ingress": [RULE]}, "z")],
        f"{WEB} tcp/1",
        True,
    ),
    "at one order the names decide": (
        [calico({**BACK, "ingress": [{"action": "Deny"}]}, "a"), calico({**BACK, "ingress": [RULE]}, "b")],
        f"{WEB} tcp/1",
        False,
    ),
    "rules in order": ([calico({**BACK, "ingress": [{"action": "Deny"}, RULE]})], f"{WEB} tcp/1", False),
    "log decides nothing": ([calico({**BACK, "ingress": [{"action": "Log"}, RULE]})], f"{WEB} tcp/1", True),
    "what no rule matches is denied at the tier's end": ([calico({**BACK, "ingress": [RULE]})], f"{BARE} tcp/1", False),
    "pass goes on to the next tier": (
        [
            calico({**BACK, "tier": "security", "ingress": [{"action": "Pass"}]}, "a"),
            calico({**BACK, "ingress": [{"action": "Deny"}]}, "b"),
        ],
        f"{WEB} tcp/1",
        False,
    ),
    "pass from the last tier leads to the namespace's profile": (
        [calico({**BACK, "ingress": [{"action": "Pass"}]})],
        f"{WEB} tcp/1",
        True,
    ),
    "an earlier tier decides": (
        [
            calico({**BACK, "tier": "security", "ingress": [RULE]}, "z"),
            calico({**BACK, "order": 1, "ingress": [{"action": "Deny"}]}, "a"),
        ],
        f"{WEB} tcp/1",
        True,
    ),
    "a tier ends the matter": (
        [
            calico({**BACK, "tier": "security", "ingress": [{"action": "Allow", "source": {"selector": "x == 'y'"}}]}, "a"),
            calico({**BACK, "ingress": [RULE]}, "b"),
        ],
        f"{WEB} tcp/1",
        False,
    ),
    "unless its default is to pass": ([calico({**BACK, "tier": "lax", "ingress": []})], f"{WEB} tcp/1", True),
    "it goes before Kubernetes' by its order": (
        [policy(ALLOW_WEB), calico({**BACK, "ingress": [{"action": "Deny"}]})],
        f"{WEB} tcp/1",
        False,
    ),
    "and after it": (
        [policy(ALLOW_WEB), calico({**BACK, "order": 2000, "ingress": [{"action": "Deny"}]})],
        f"{WEB} tcp/1",
        True,
    ),
    "what Kubernetes' policy leaves, it decides": (
        [policy(ALLOW_WEB), calico({**BACK, "order": 2000, "ingress": [{"action": "Allow"}]})],
        f"{BARE} tcp/1",
        True,
    ),
    "no types and egress rules only: no ingress": ([calico({**BACK, "egress": [RULE]})], f"{WEB} tcp/1", True),
    "no types and no rules: ingress": ([calico(BACK)], f"{WEB} tcp/1", False),
    "a namespaced policy's selector means its namespace": (
        [calico({**BACK, "ingress": [RULE]}, "default/a")],
        f"{SHOP} tcp/1",
        False,
    ),
    "a global policy's selector means all": ([calico({**BACK, "ingress": [RULE]})], f"{SHOP} tcp/1", True),
    "notSelector of a global policy lets the outside pass": (
        [calico({**BACK, "ingress": [{"action": "Allow", "source": {"notSelector": "app == 'web'"}}]})],
        f"{OUTSIDE} tcp/1",
        True,
    ),
    "notSelector of a namespaced policy means pods there": (
        [calico({**BACK, "ingress": [{"action": "Allow", "source": {"notSelector": "app == 'web'"}}]}, "default/a")],
        f"{OUTSIDE} tcp/1",
        False,
    ),
    "namespaces by Calico's label": (
        [calico({**BACK, "ingress": [{"action": "Allow", "source": {"namespaceSelector": "projectcalico.org/name == 'shop'"}}]})],
        f"{SHOP} tcp/1",
        True,
    ),
    "global() is no pod": (
        [calico({**BACK, "ingress": [{"action": "Allow", "source": {"namespaceSelector": "global()"}}]})],
        f"{SHOP} tcp/1",
        False,
    ),
    "notNets": (
        [calico({**BACK, "ingress": [{"action": "Allow", "source": {"nets": ["10.0.0.0/16"], "notNets": ["10.0.0.1/32"]}}]})],
        f"{WEB} tcp/1",
        False,
    ),
    "notNets of the other family only: the rule is not for this one": (
        [calico({**BACK, "ingress": [{"action": "Allow", "source": {"notNets": ["fd00::1/128"]}}]})],
        f"{WEB} tcp/1",
        False,
    ),
    "ports with names, ranges and numbers": (
        [calico({**BACK, "ingress": [{"action": "Allow", "protocol": "TCP", "destination": {"ports": ["sql", "80:90", 7]}}]})],
        f"{WEB} tcp/90",
        True,
    ),
    "notPorts": (
        [calico({**BACK, "ingress": [{"action": "Allow", "protocol": "TCP", "destination": {"notPorts": ["sql"]}}]})],
        f"{WEB} tcp/5432",
        False,
    ),
    "notProtocol": ([calico({**BACK, "ingress": [{"action": "Allow", "notProtocol": "UDP"}]})], f"{WEB} udp/5432", False),
    "a protocol by its number": ([calico({**BACK, "ingress": [{"action": "Allow", "protocol": 17}]})], f"{WEB} udp/5432", True),
    "ICMP by type": (
        [calico({**BACK, "ingress": [{"action": "Allow", "protocol": "ICMP", "icmp": {"type": 8}}]})],
        f"{WEB} icmp",
        True,
    ),
    "ICMP of another type": (
        [calico({**BACK, "ingress": [{"action": "Allow", "protocol": "ICMP", "icmp": {"type": 13}}]})],
        f"{WEB} icmp",
        False,
    ),
    "ipVersion": ([calico({**BACK, "ingress": [{"action": "Allow", "ipVersion": 6}]})], f"{WEB} tcp/1", False),
}


@each_row("name", CALICO)
def test_calico(name: str) -> None:
    policies, flow, allowed = CALICO[name]
    decision = asked(flow, *policies, tiers=TIERS)
    assert decision.allowed is allowed, str(decision)


LABELS = {"app": "web", "role": "front-end", "has-it": ""}


@each_row(
    "text, matches",
    [
        ("", True),
        ("all()", True),
        ("global()", False),
        ("app == 'web'", True),
        ('app=="web"', True),
        ("app != 'web'", False),
        ("missing != 'web'", True),
        ("has(app)", True),
        ("!has(app)", False),
        ("! has( app )", False),
        ("has(has-it)", True),
        ("app in {'db', 'web'}", True),
        ("app in { }", False),
        ("app not in { 'web' }", False),
        ("missing not in {'web'}", True),
        ("missing in {'web'}", False),
        ("role contains 'ont'", True),
        ("role starts with 'front'", True),
        ("role ends with 'front'", False),
        ("missing ends with ''", False),
        ("app == 'db' || app == 'web' && role == 'back'", False),
        ("(app == 'db' || app == 'web') && role == 'front-end'", True),
        ("!(app == 'db') && !(app == 'x')", True),
        ("app == 'a && b'", False),
    ],
)
def test_calico_expressions(text: str, matches: bool) -> None:
    assert selectors.calico(text)(LABELS) is matches


@each_row(
    "flow, policies, words",
    [
        (
            f"{WEB} tcp/1",
            [policy(ALLOW_WEB)],
            "allowed: egress of default/web is not isolated; ingress of default/db: policy default/one, ingress[0].from[0]",
        ),
        (f"{BARE} tcp/1", [policy(ALLOW_WEB)], "denied: ingress of default/db: no rule of policy default/one allows it"),
        (
            f"{BARE} tcp/1",
            [policy(ALLOW_WEB), policy(DENY, "default/two")],
            "denied: ingress of default/db: no rule of policies default/one, default/two allows it",
        ),
        (f"{WEB} tcp/1", [policy(ingress({}, {"ports": [SQL]}))], "allowed: egress of default/web is not isolated; "),
        (
            f"{WEB} tcp/1",
            [calico({**BACK, "ingress": [{"action": "Deny"}]})],
            "denied: ingress of default/db: policy rule, ingress[0] ",
        ),
        (f"{WEB} tcp/1", [calico({**BACK, "ingress": [{"action": "Pass"}]})], "allowed: egress of default/web is not isolated; "),
        ("node-b > default/db tcp/1", [policy(DENY)], "allowed: a node and its own pods always reach each other"),
        ("default/db > default/db tcp/1", [policy(DENY)], "allowed: a pod always reaches itself"),
        ("203.0.113.1 > 203.0.113.2 tcp/1", [policy(DENY)], "allowed: no pod has a say"),
    ],
)
def test_words(flow: str, policies: list[Policy], words: str) -> None:
    assert str(asked(flow, *policies)).startswith(words)


def test_every_rule_that_allows_is_told() -> None:
    spec = ingress({"from": [pods(app="web"), {"podSelector": {}}]}, {"ports": [SQL]})
    decision = asked(f"{WEB} tcp/5432", policy(spec, "default/b"), policy(ALLOW_WEB, "default/a"))
    side = decision.side("ingress")
    assert side is not None
    assert side.rules == (
        ("default/a", "ingress[0].from[0]"),
        ("default/b", "ingress[0].from[0]"),
        ("default/b", "ingress[0].from[1]"),
        ("default/b", "ingress[1]"),
    )


def test_who_is_asked_about_must_exist() -> None:
    with pytest.raises(InputError, match="nobody"):
        asked("default/nobody > default/db tcp/1")
    with pytest.raises(InputError, match="no address family in common"):
        Oracle(cluster()).decide("node-a", ip_address("fd00::1"), "tcp", 1)


def test_addresses_are_who_has_them() -> None:
    assert asked("10.0.0.1 > default/db tcp/1", policy(ALLOW_WEB)).source == "default/web"
    assert asked("10.0.0.1 > default/db tcp/1", policy(ALLOW_WEB)).allowed


def test_all_pairs_at_once_are_each_pair() -> None:
    policies = [
        policy({"podSelector": {"matchLabels": {"app": f"a{i}"}}, "ingress": [{"from": [pods(app=f"a{i + 1}")]}]}, f"default/{i}")
        for i in range(5)
    ] + [
        policy(ingress({"from": [{"ipBlock": {"cidr": "10.0.0.8/29"}}]}, select={"matchLabels": {"app": "a6"}}), "default/block")
    ]
    oracle = Oracle(cluster(*policies, pods=many(16)))
    rows = oracle.denied("tcp", 80, 4)
    assert rows == [
        bytes(not oracle.decide(f"default/p{i}", f"default/p{j}", "tcp", 80).allowed for i in range(16)) for j in range(16)
    ]
    assert 0 < sum(map(sum, rows)) < 16 * 16
