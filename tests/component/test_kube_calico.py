"""Calico's own kinds: what their manifests mean, and what is refused."""

from __future__ import annotations

import math
import textwrap
from ipaddress import ip_network
from typing import Any

import pytest
from tables import each_row

from emulab import kube
from emulab.errors import InputError
from emulab.objects import METADATA_NAME, Peer, Policy, PortRange, Rule, Tier
from emulab.selector import Every, Everything, Has, In, Not, Selector

WEB, DB = In("app", ("web",)), In("app", ("db",))
HERE, THERE = In(METADATA_NAME, ("default",)), In(METADATA_NAME, ("team",))
NOBODY = Not(Everything())


def read(text: str) -> Any:
    (document,) = kube.read(textwrap.dedent(text), "p.yaml")
    return document.kind.convert(document)


def policy(spec: str, kind: str = "NetworkPolicy") -> Policy:
    found = read(f"apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: p}}\nspec: {{{spec}}}\n")
    assert isinstance(found, Policy)
    return found


def rule(text: str, kind: str = "NetworkPolicy") -> Rule:
    (found,) = policy(f"ingress: [{{{text}}}]", kind).ingress
    return found


def test_a_policy() -> None:
    found = read(
        """
        apiVersion: projectcalico.org/v3
        kind: NetworkPolicy
        metadata: {name: security.web, namespace: team, labels: {a: b}}
        spec:
          tier: security
          order: 10
          selector: app == 'web'
          types: [Ingress, Egress]
          ingress:
          - action: Allow
            protocol: TCP
            source: {selector: app == 'db', namespaceSelector: has(x), notNets: [10.1.0.0/16]}
            destination: {ports: [80, "90:99", http], notPorts: [95]}
          - action: Log
          egress:
          - {action: Pass, notProtocol: 47, ipVersion: 6, destination: {nets: ["fd00::/8", "fd01::1"], notSelector: app == 'db'}}
        """
    )
    assert found == Policy(
        api="projectcalico.org/v3",
        kind="NetworkPolicy",
        namespace="team",
        name="security.web",
        selector=WEB,
        directions=("ingress", "egress"),
        ingress=(
            Rule(
                "allow",
                "tcp",
                source=Peer(DB, Has("x"), not_nets=(ip_network("10.1.0.0/16"),)),
                destination=Peer(
                    ports=(PortRange(80, 80), PortRange(90, 99), PortRange(name="http")), not_ports=(PortRange(95, 95),)
                ),
                origin="ingress[0]",
            ),
            Rule("log", origin="ingress[1]"),
        ),
        egress=(
            Rule(
                "pass",
                None,
                "47",
                6,
                destination=Peer(Everything(), not_pods=DB, nets=(ip_network("fd00::/8"), ip_network("fd01::1/128"))),
                origin="egress[0]",
            ),
        ),
        tier="security",
        order=10.0,
        labels=(("a", "b"),),
        manifest=found.manifest,
    )


@each_row(
    "spec, expected",
    [
        ("", ("ingress",)),
        ("ingress: [{action: Deny}]", ("ingress",)),
        ("egress: [{action: Deny}]", ("egress",)),
        ("egress: []", ("ingress",)),
        ("ingress: [{action: Deny}], egress: [{action: Deny}]", ("ingress", "egress")),
        ("types: [Egress], ingress: [{action: Deny}]", ("egress",)),
        ("types: [Egress, Ingress]", ("ingress", "egress")),
    ],
)
def test_directions(spec: str, expected: tuple[str, ...]) -> None:
    found = policy(spec)
    assert found.directions == expected
    assert bool(found.ingress) is ("ingress" in expected and "ingress:" in spec)


def test_defaults() -> None:
    for kind in ("NetworkPolicy", "GlobalNetworkPolicy"):
        found = policy("", kind)
        assert (found.tier, found.order, found.selector, found.namespaces) == ("default", math.inf, Everything(), None)
        assert found.namespace == ("default" if kind == "NetworkPolicy" else "")


@each_row(
    "kind, spec, selector, namespaces",
    [
        ("GlobalNetworkPolicy", "selector: has(app)", Has("app"), None),
        ("GlobalNetworkPolicy", "selector: app == 'web', namespaceSelector: has(x)", WEB, Has("x")),
        ("GlobalNetworkPolicy", "namespaceSelector: global()", Everything(), NOBODY),
        ("GlobalNetworkPolicy", "namespaceSelector: projectcalico.org/name == 'team'", Everything(), THERE),
        ("GlobalNetworkPolicy", "selector: projectcalico.org/namespace == 'team' && app == 'web'", WEB, THERE),
        ("GlobalNetworkPolicy", "selector: projectcalico.org/namespace != 'team'", Everything(), Not(THERE)),
        ("GlobalNetworkPolicy", "selector: has(projectcalico.org/namespace)", Everything(), Has(METADATA_NAME)),
        ("GlobalNetworkPolicy", "selector: projectcalico.org/orchestrator == 'k8s'", Everything(), None),
        ("GlobalNetworkPolicy", "selector: projectcalico.org/orchestrator == 'cni'", NOBODY, None),
        ("NetworkPolicy", "selector: projectcalico.org/namespace == 'default' && app == 'web'", WEB, None),
        ("NetworkPolicy", "selector: projectcalico.org/namespace == 'team'", NOBODY, None),
    ],
)
def test_whom_a_policy_selects(kind: str, spec: str, selector: Selector, namespaces: Selector | None) -> None:
    found = policy(spec, kind)
    assert (found.selector, found.namespaces) == (selector, namespaces)


@each_row(
    "kind, source, expected",
    [
        ("NetworkPolicy", "selector: app == 'web'", Peer(WEB)),
        ("NetworkPolicy", "selector: all()", Peer(Everything())),
        ("NetworkPolicy", "selector: ''", Peer()),
        ("NetworkPolicy", "namespaceSelector: all()", Peer(None, Everything())),
        ("NetworkPolicy", "namespaceSelector: global()", Peer(None, NOBODY)),
        ("NetworkPolicy", "notSelector: app == 'web'", Peer(Everything(), None, WEB)),
        ("NetworkPolicy", "notSelector: app == 'web', namespaceSelector: has(x)", Peer(None, Has("x"), WEB)),
        ("NetworkPolicy", "selector: projectcalico.org/namespace == 'team'", Peer(NOBODY)),
        (
            "NetworkPolicy",
            "selector: projectcalico.org/namespace == 'team', namespaceSelector: has(x)",
            Peer(Everything(), Every((Has("x"), THERE))),
        ),
        ("GlobalNetworkPolicy", "notSelector: app == 'web'", Peer(None, None, WEB)),
        ("GlobalNetworkPolicy", "selector: app == 'web'", Peer(WEB)),
        ("GlobalNetworkPolicy", "selector: projectcalico.org/namespace == 'default'", Peer(Everything(), HERE)),
        ("GlobalNetworkPolicy", "nets: [10.1.2.3, 10.0.0.1/8]", Peer(nets=(ip_network("10.1.2.3/32"), ip_network("10.0.0.0/8")))),
    ],
)
def test_whom_a_rule_means(kind: str, source: str, expected: Peer) -> None:
    assert rule(f"action: Allow, source: {{{source}}}", kind).source == expected


@each_row(
    "text, protocol",
    [("TCP", "tcp"), ("udp", "udp"), ("ICMPv6", "icmpv6"), ("UDPLite", "udplite"), ("6", "tcp"), ("47", "47"), ("'132'", "sctp")],
)
def test_protocols(text: str, protocol: str) -> None:
    assert rule(f"action: Allow, protocol: {text}").protocol == protocol
    assert rule(f"action: Allow, notProtocol: {text}").not_protocol == protocol


@each_row(
    "text, expected",
    [("{type: 8}", (8, None)), ("{type: 3, code: 0}", (3, 0)), ("{}", None)],
)
def test_icmp(text: str, expected: tuple[int, int | None] | None) -> None:
    assert rule(f"action: Allow, protocol: ICMP, icmp: {text}").icmp == expected


@each_row(
    "spec, expected",
    [
        ("order: 100, defaultAction: Pass", Tier("security", 100.0, "pass")),
        ("order: 1.5", Tier("security", 1.5)),
        ("", Tier("security", math.inf)),
    ],
)
def test_tiers(spec: str, expected: Tier) -> None:
    found = read(f"apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {{name: security}}\nspec: {{{spec}}}\n")
    assert (found.name, found.order, found.default_action) == (expected.name, expected.order, expected.default_action)


WHERE = "document 1, NetworkPolicy default/p: spec"
REFUSED = {
    "ingress: [{action: allow}]": "ingress[0].action: 'allow': Allow or Deny or Log or Pass expected",
    "ingress: [{}]": "ingress[0].action: required",
    "types: [ingress]": "types[0]: 'ingress': Ingress or Egress expected",
    "selector: app = 'web'": (
        "selector: \"app = 'web'\", column 5: ==, !=, in, not in, contains, starts with or ends with expected, found '='"
    ),
    "egress: [{action: Allow, destination: {services: {name: a}}}]": (
        "egress[0].destination.services: rules for Services: not supported"
    ),
    "serviceAccountSelector: all()": "serviceAccountSelector: service accounts: not supported",
    "selector: projectcalico.org/serviceaccount == 'a'": (
        "selector: projectcalico.org/serviceaccount: not supported here (projectcalico.org/namespace and "
        "projectcalico.org/orchestrator are, joined with && to what else is asked)"
    ),
    "selector: has(a) || projectcalico.org/namespace == 'a'": (
        "selector: projectcalico.org/namespace: not supported here (projectcalico.org/namespace and "
        "projectcalico.org/orchestrator are, joined with && to what else is asked)"
    ),
    "order: first": "order: a number expected, got 'first'",
    "tier: a.b": "tier: 'a.b' is no name for a Tier: expected at most 63 of a-z, 0-9 and '-', a letter or digit at "
    "both ends (RFC 1123)",
    "selectr: all()": "selectr: unknown field (did you mean 'selector'?)",
}
REFUSED_RULES = {
    "http: {methods: [GET]}": "http: HTTP rules: not supported",
    "notICMP: {type: 8}": "notICMP: notICMP: not supported",
    "source: {serviceAccounts: {names: [a]}}": "source.serviceAccounts: service accounts: not supported",
    "source: {notSelector: projectcalico.org/namespace == 'a'}": (
        "source.notSelector: projectcalico.org/namespace: not supported here, use namespaceSelector"
    ),
    "destination: {ports: [80]}": "destination.ports: need protocol TCP, UDP or SCTP in the rule",
    "protocol: ICMP, source: {notPorts: [80]}": "source.notPorts: need protocol TCP, UDP or SCTP in the rule",
    "protocol: TCP, destination: {ports: ['90:80']}": ("destination.ports[0]: 90:80: the smaller number is expected first"),
    "protocol: TCP, destination: {ports: ['90:x']}": "destination.ports[0]: '90:x': two numbers expected, e.g. 80:90",
    "protocol: TCP, destination: {ports: [-1]}": "destination.ports[0]: -1 is out of range, 0 to 65535 expected",
    "protocol: TCP, destination: {ports: [65536]}": "destination.ports[0]: 65536 is out of range, 0 to 65535 expected",
    "protocol: TCQ": "protocol: 'TCQ': TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number expected",
    "protocol: 0": "protocol: 0 is out of range, 1 to 255 expected",
    "icmp: {type: 8}": "icmp: needs protocol ICMP or ICMPv6 in the rule",
    "protocol: ICMP, icmp: {code: 0}": "icmp.code: needs a type",
    "protocol: ICMP, icmp: {type: 256}": "icmp.type: 256 is out of range, 0 to 254 expected",
    "ipVersion: 5": "ipVersion: 5: 4 or 6 expected",
    "ipVersion: 6, source: {nets: [10.0.0.0/8]}": "source.nets[0]: 10.0.0.0/8 is not of ipVersion 6",
    "source: {nets: [10.0.0.0/33]}": ("source.nets[0]: '10.0.0.0/33' is no network and no address: e.g. 10.9.8.0/24 expected"),
    "source: {podSelector: {}}": "source.podSelector: unknown field (did you mean 'notSelector'?)",
}


@each_row("spec, problem", REFUSED.items())
def test_what_is_refused(spec: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        policy(spec)
    assert str(caught.value) == f"p.yaml:4: {WHERE}.{problem}"


@each_row("text, problem", REFUSED_RULES.items())
def test_what_is_refused_in_a_rule(text: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        rule(f"action: Allow, {text}")
    assert str(caught.value) == f"p.yaml:4: {WHERE}.ingress[0].{problem}"


@each_row("field", ["doNotTrack", "preDNAT", "applyOnForward"])
def test_host_endpoints_policies_are_refused(field: str) -> None:
    assert policy(f"{field}: false", "GlobalNetworkPolicy").directions == ("ingress",)
    with pytest.raises(InputError, match=rf"spec\.{field}: policies for host endpoints: not supported"):
        policy(f"{field}: true", "GlobalNetworkPolicy")


def test_the_default_tier_stays_as_it_is() -> None:
    text = "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: default}\nspec: {order: 5}\n"
    with pytest.raises(InputError, match="the default tier has order 1000000 and defaultAction Deny, and keeps them"):
        read(text)
