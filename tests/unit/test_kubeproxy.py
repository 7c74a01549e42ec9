"""The text of kube-proxy's tables, by the examples of its own tests (pkg/proxy/nftables/proxier_test.go) in 1.36's layout."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from tables import each_row

from emulab import fabric, kubeproxy
from emulab.errors import InputError
from emulab.kubeproxy import named, tables
from emulab.model import Cluster, Endpoint, Link, Node, Pod, Segment, Topology
from emulab.nft_delta import delta
from emulab.objects import HostPod, Objects, Service, ServicePort
from emulab.selector import In
from emulab.state import NftTable, Sysctl

TCP = ServicePort("p80", "tcp", 80, 8000)
NODES = ("n1", "n2")


def service(address: str = "10.96.0.41", *ports: ServicePort, name: str = "svc1", **values: object) -> Service:
    made = Service(
        "ns1", name, addresses=tuple(map(ip_address, address.split())), ports=ports or (TCP,), selector=In("app", ("a",))
    )
    return replace(made, **values)  # type: ignore[arg-type]


def cluster(*services: Service, pods: tuple[str, ...] = ("n1 10.1.1.1", "n2 10.1.2.1"), off: str = "") -> Cluster:
    """Two nodes, dual-stack; ``pods`` as "node address address"."""
    addresses = {n: (ip_interface(f"192.168.0.{i}/24"), ip_interface(f"fd00::{i}/64")) for i, n in enumerate(NODES, 1)}
    links = tuple(Link(name, "lan", addresses=own) for name, own in addresses.items())
    segment = Segment("lan", (ip_network("192.168.0.0/24"), ip_network("fd00::/64")))
    found = []
    for number, words in enumerate(pods):
        node, *own = words.split()
        pod = Pod(f"p{number}", node, "ns1", labels=(("app", "a"),))
        found.append(Endpoint(pod, tuple(map(ip_address, own))))
    cidrs = (ip_network("10.1.0.0/16"), ip_network("fd01::/56"))
    nodes = tuple(Node(name, running=name != off) for name in NODES)
    objects = Objects(services=services)
    topology = Topology("t", (segment,), nodes, links, tuple(e.pod for e in found), cidrs, objects=objects)
    return Cluster(topology, (), tuple(found))


def table(c: Cluster, node: str = "n1", family: str = "ip") -> NftTable:
    return next(one for one in tables(c, node) if one.family == family)


def about(c: Cluster, node: str = "n1", family: str = "ip") -> list[str]:
    """What the table has more than without any endpoint and Service: without ``add`` and the table's name."""
    base = set(table(cluster(service("10.96.0.99", addresses=()), pods=()), node, family).rules)
    words = (rule.split(" ", 4) for rule in table(c, node, family).rules if rule not in base)
    return [f"{kind} {rest}" for _, kind, _, _, rest in words]


def test_no_services_no_tables() -> None:
    assert tables(cluster(), "n1") == ()
    assert kubeproxy.plan(cluster(), NODES) == {}
    assert fabric.announced(cluster()) == {}


@each_row(
    "name, expected",
    [
        ("ns1/svc1/tcp/p80", "ULMVA6XW-ns1/svc1/tcp/p80"),
        ("kproxy-lab/backend-api/tcp/http", "YVSKLJHA-kproxy-lab/backend-api/tcp/http"),
        ("default/kubernetes/tcp/https", "2QRHZV4L-default/kubernetes/tcp/https"),
        ("ns1/svc1/tcp/p80__10.180.0.1/80", "5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80"),
    ],
)
def test_names_are_the_real_ones(name: str, expected: str) -> None:
    assert named(name) == expected


def test_a_name_has_at_most_240_bytes() -> None:
    assert len(named("x" * 300)) == 240
    assert named("x" * 300).endswith("...")


def test_the_base_of_every_table() -> None:
    c = cluster(service())
    for family, pods, services in (("ip", "10.1.0.0/16", "10.96.0.0/12"), ("ip6", "fd01::/56", "fd00:10:96::/112")):
        rules = table(c, family=family).rules
        chains = {words[4]: words[5] for rule in rules if (words := rule.split(" ", 5))[1] == "chain" and len(words) > 5}
        assert chains == {
            "reject-chain": '{ comment "helper for @no-endpoint-services / @no-endpoint-nodeports" ; }',
            "filter-prerouting-pre-dnat": "{ type filter hook prerouting priority -110 ; }",
            "filter-output-pre-dnat": "{ type filter hook output priority -110 ; }",
            "filter-forward": "{ type filter hook forward priority 0 ; }",
            "filter-input": "{ type filter hook input priority 0 ; }",
            "filter-output": "{ type filter hook output priority 0 ; }",
            "nat-output": "{ type nat hook output priority -100 ; }",
            "nat-postrouting": "{ type nat hook postrouting priority 100 ; }",
            "nat-prerouting": "{ type nat hook prerouting priority -100 ; }",
        }
        masquerade = f"{family} daddr @cluster-ips {family} saddr != {pods} mark set mark or 0x4000"
        comment = 'comment "masquerade clusterIP traffic from outside cluster"'
        assert f"add rule {family} kube-proxy services {masquerade} {comment}" in rules
        assert any(f"cluster-ips-check {family} daddr {{ {services} }} drop" in rule for rule in rules)
    assert "add element ip kube-proxy nodeport-ips { 192.168.0.1 }" in table(c).rules
    assert "add element ip6 kube-proxy nodeport-ips { fd00::2 }" in table(c, "n2", "ip6").rules


CHAIN = "ULMVA6XW-ns1/svc1/tcp/p80"
DRAW = f"rule service-{CHAIN} meta l4proto tcp dnat ip to numgen random mod 2 map {{ 0 : 10.1.1.1 . 8000, 1 : 10.1.2.1 . 8000 }}"
HAIRPIN = "element hairpin-connections { 10.1.1.1 . 10.1.1.1 . tcp . 8000 }"
LOCAL = [
    f'rule external-{CHAIN} ip saddr 10.1.0.0/16 goto service-{CHAIN} comment "short-circuit pod traffic"',
    f'rule external-{CHAIN} fib saddr type local mark set mark or 0x4000 comment "masquerade local traffic"',
    f'rule external-{CHAIN} fib saddr type local goto service-{CHAIN} comment "short-circuit local traffic"',
]
CLUSTER_IPS, SERVICE_IPS = "element cluster-ips { 10.96.0.41 }", f"10.96.0.41 . tcp . 80 : goto service-{CHAIN}"


def test_a_cluster_ip() -> None:
    expected = [f"chain service-{CHAIN}", DRAW, HAIRPIN, CLUSTER_IPS, f"element service-ips {{ {SERVICE_IPS} }}"]
    assert about(cluster(service())) == expected


def test_no_endpoints() -> None:
    refusal = 'element no-endpoint-services { 10.96.0.41 . tcp . 80 comment "ns1/svc1:p80" : goto reject-chain }'
    assert about(cluster(service(), pods=())) == [CLUSTER_IPS, refusal]


def test_internal_traffic_policy_local() -> None:
    c = cluster(service(internal_local=True), pods=("n1 10.1.1.1",))
    here = f"rule local-{CHAIN} meta l4proto tcp dnat ip to numgen random mod 1 map {{ 0 : 10.1.1.1 . 8000 }}"
    leading = f"element service-ips {{ 10.96.0.41 . tcp . 80 : goto local-{CHAIN} }}"
    assert about(c) == [f"chain local-{CHAIN}", here, HAIRPIN, CLUSTER_IPS, leading]
    refusal = 'element no-endpoint-services { 10.96.0.41 . tcp . 80 comment "ns1/svc1:p80" : drop }'
    assert about(c, "n2") == [CLUSTER_IPS, refusal]


def test_a_node_port() -> None:
    found = about(cluster(service("10.96.0.41", replace(TCP, node_port=30001), kind="NodePort")))
    assert f"rule external-{CHAIN} mark set mark or 0x4000" in found
    assert f"rule external-{CHAIN} goto service-{CHAIN}" in found
    assert f"element service-nodeports {{ tcp . 30001 : goto external-{CHAIN} }}" in found


def test_external_traffic_policy_local() -> None:
    wanted = service("10.96.0.41", replace(TCP, node_port=30001), kind="NodePort", external_local=True)
    c = cluster(wanted, pods=("n1 10.1.1.1",))
    assert [rule for rule in about(c) if "external-" in rule and rule.startswith("rule")] == [
        *LOCAL,
        f"rule external-{CHAIN} goto local-{CHAIN}",
    ]
    elsewhere = about(c, "n2")
    assert [rule for rule in elsewhere if "external-" in rule and rule.startswith("rule")] == LOCAL
    assert 'element no-endpoint-nodeports { tcp . 30001 comment "ns1/svc1:p80" : drop }' in elsewhere
    assert f"element service-nodeports {{ tcp . 30001 : goto external-{CHAIN} }}" in elsewhere
    assert not any(rule.startswith(("chain local-", "element hairpin")) for rule in elsewhere)


def test_a_load_balancer_with_source_ranges() -> None:
    ranges = (ip_network("203.0.113.0/25"), ip_network("192.168.0.0/24"), ip_network("2001:db8::/32"))
    wanted = service(kind="LoadBalancer", balancer=(ip_address("5.6.7.8"),), source_ranges=ranges)
    found = about(cluster(wanted))
    assert f"rule firewall-{CHAIN} ip saddr != {{ 203.0.113.0/25, 192.168.0.0/24, 5.6.7.8 }} drop" in found
    assert f"element firewall-ips {{ 5.6.7.8 . tcp . 80 : goto firewall-{CHAIN} }}" in found
    assert f"element service-ips {{ {SERVICE_IPS}, 5.6.7.8 . tcp . 80 : goto external-{CHAIN} }}" in found
    closed = about(cluster(replace(wanted, source_ranges=ranges[:1])))
    assert f"rule firewall-{CHAIN} ip saddr != {{ 203.0.113.0/25 }} drop" in closed


def test_session_affinity() -> None:
    found = about(cluster(service(affinity=10800), pods=("n1 10.1.1.1",)))
    name = named("ns1/svc1/tcp/p80__10.1.1.1/8000")
    assert found[:6] == [
        f"chain service-{CHAIN}",
        f"set affinity-{name} {{ type ipv4_addr ; flags dynamic,timeout ; timeout 10800s ; }}",
        f"chain endpoint-{name}",
        f"rule service-{CHAIN} ip saddr @affinity-{name} goto endpoint-{name}",
        f"rule service-{CHAIN} numgen random mod 1 vmap {{ 0 : goto endpoint-{name} }}",
        f"rule endpoint-{name} update @affinity-{name} {{ ip saddr }}",
    ]
    assert found[6] == f"rule endpoint-{name} meta l4proto tcp dnat to 10.1.1.1:8000"


def test_ipv6() -> None:
    c = cluster(service("fd00:10:96::41", families=(6,), affinity=1), pods=("n1 10.1.1.1 fd01::1",))
    name = named("ns1/svc1/tcp/p80__fd01..1/8000")
    found = about(c, family="ip6")
    assert f"rule endpoint-{name} meta l4proto tcp dnat to [fd01::1]:8000" in found
    assert f"element service-ips {{ fd00:10:96::41 . tcp . 80 : goto service-{CHAIN} }}" in found
    assert about(c, family="ip") == []
    plain = about(cluster(service("fd00:10:96::41", families=(6,)), pods=("n1 fd01::1",)), family="ip6")
    assert f"rule service-{CHAIN} meta l4proto tcp dnat ip6 to numgen random mod 1 map {{ 0 : fd01::1 . 8000 }}" in plain


def test_headless_and_external_names_have_no_rules() -> None:
    assert about(cluster(service(addresses=()))) == []
    assert about(cluster(service(addresses=(), kind="ExternalName", external_name="example.com", selector=None))) == []


def test_unready_pods_and_those_of_nodes_that_are_off_get_nothing() -> None:
    only = "map { 0 : 10.1.1.1 . 8000 }"
    assert any(only in rule for rule in about(cluster(service(), off="n2")))
    c = cluster(service())
    first, second = c.endpoints
    unready = replace(second, pod=replace(second.pod, ready=False))
    assert any(only in rule for rule in about(replace(c, endpoints=(first, unready))))


def test_host_network_pods_are_endpoints_with_their_nodes_address() -> None:
    c = cluster(service(), pods=())
    host = HostPod("ns1", "h", "n2", (("app", "a"),))
    c = replace(c, topology=replace(c.topology, objects=replace(c.topology.objects, host_pods=(host,))))
    assert any("map { 0 : 192.168.0.2 . 8000 }" in rule for rule in about(c))


def test_sysctls_where_pods_share_a_bridge() -> None:
    plan = kubeproxy.plan(cluster(service()), ("n1",))
    keys = [thing.key for thing in plan["n1"] if isinstance(thing, Sysctl)]
    assert keys == ["net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"]
    assert not any(isinstance(thing, Sysctl) for thing in plan["n2"])


def test_services_and_pods_are_apart() -> None:
    c = cluster(service())
    c = replace(c, topology=replace(c.topology, pod_cidrs=(ip_network("10.100.0.0/16"),)))
    with pytest.raises(InputError, match=r"10\.100\.0\.0/16 overlaps 10\.96\.0\.0/12"):
        kubeproxy.plan(c, ())


def test_one_service_more_touches_nothing_else() -> None:
    one, other = service(), service("10.96.0.42", name="svc2")
    commands = delta(table(cluster(one)), table(cluster(one, other)))
    chain = named("ns1/svc2/tcp/p80")
    assert [command.split(" ", 5)[1::3] for command in commands] == [
        ["chain", f"service-{chain}"],
        ["rule", f"service-{chain}"],
        ["element", "cluster-ips"],
        ["element", "service-ips"],
    ]
    back = delta(table(cluster(one, other)), table(cluster(one)))
    assert {command.split()[0] for command in back} == {"delete", "flush"}
    assert all("svc2" in command or "10.96.0.42" in command for command in back)


def test_many_services_share_maps_and_keep_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeproxy, "_MANY", 299)
    ports = tuple(replace(TCP, name=f"p{number}", port=number) for number in range(1, 301))
    before = table(cluster(service("10.96.0.41", *ports)))
    after = table(cluster(service("10.96.0.42", name="svc2"), service("10.96.0.41", *ports)))
    assert not any(" map { " in rule for rule in before.rules)
    assert len({rule for rule in before.rules if rule.startswith("add map ip kube-proxy service-endpoints-tcp-")}) <= 256
    keys = [element.split(" : ")[0] for rule in before.rules if " service-endpoints-" in rule for element in _elements(rule)]
    assert len(keys) == len(set(keys)) == 2 * 300
    added = delta(before, after)
    assert len(added) <= 6
    assert not any(command.startswith(("delete", "flush")) for command in added)


def _elements(rule: str) -> list[str]:
    name, _, members = rule.partition(" { ")
    return [f"{name} {member}" for member in members.removesuffix(" }").split(", ")] if rule.startswith("add element") else []


def test_udp_endpoints_are_those_that_serve() -> None:
    udp = ServicePort("dns", "udp", 53, 5353, 30053)
    wanted = service("10.96.0.41", TCP, udp, kind="NodePort", balancer=(ip_address("5.6.7.8"),))
    serving = frozenset({"10.1.1.1"})
    assert kubeproxy.udp_endpoints(cluster(wanted, off="n2")) == {
        ("10.96.0.41", 53): serving,
        ("5.6.7.8", 53): serving,
        ("", 30053): serving,
    }


@each_row(
    "local, pods, off, expected",
    [
        (False, ("n1 10.1.1.1",), "", {"n1", "n2"}),
        (False, ("n1 10.1.1.1",), "n2", {"n1"}),
        (True, ("n1 10.1.1.1",), "", {"n1"}),
        (True, ("n2 10.1.2.1",), "", {"n2"}),
        (False, (), "", set()),
        (False, ("n2 10.1.2.1",), "n2", set()),
    ],
    ids=["any node", "any that runs", "local", "local elsewhere", "no endpoint", "no ready endpoint"],
)
def test_who_announces_a_balancers_address(local: bool, pods: tuple[str, ...], off: str, expected: set[str]) -> None:
    balancers = [service(balancer=(ip_address(f"5.6.7.{i}"),), kind="LoadBalancer", external_local=local) for i in range(40)]
    c = cluster(*balancers, pods=pods, off=off)
    assert set(fabric.announcers(c).values()) == expected
    routes = fabric.announced(c).get("gateway", ())
    assert {str(route.via) for route in routes} == {f"192.168.0.{name[1]}" for name in expected}  # type: ignore[union-attr]
