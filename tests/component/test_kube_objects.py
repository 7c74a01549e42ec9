"""Manifests as values: policies with their defaults, pods and their ports, workloads on nodes, what Services are given."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from designed import catalogued
from tables import each_row

from emulab import change, registry
from emulab.errors import InputError
from emulab.kube import applied, read
from emulab.kube.applying import Applied, begun, deleted, labelled
from emulab.kube.kinds import kind, known
from emulab.kube.syntax import typed_selector
from emulab.model import Pod, Topology
from emulab.objects import ContainerPort, HostPod, Objects, Peer, Policy, PortRange, Service
from emulab.planning import Design, design
from emulab.selector import Everything, Has, In, Not

POLICY = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web}\nspec:\n  podSelector: {}\n"
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: %s, labels: {app: web}}\nspec:\n  containers:\n  - {name: c}\n"
SERVICE = (
    "apiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec:\n  selector: {app: web}\n  ports: [{port: 80, name: http}]\n"
)
DEPLOYMENT = (
    "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: %s\n"
    "  selector: {matchLabels: {app: web}}\n"
    "  template:\n    metadata: {labels: {app: web}}\n    spec:\n      containers: [{name: c, image: %s}]\n"
)
DAEMONS = (
    "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: log}\nspec:\n  selector: {matchLabels: {app: log}}\n"
    "  template:\n    metadata: {labels: {app: log}}\n    spec:\n      containers: [{name: c}]\n"
)


def empty(name: str = "flat") -> Topology:
    return replace(catalogued(name), pods=())


def after(topology: Topology, text: str) -> Topology:
    found = applied(topology, read(text, "x.yaml"))
    return replace(topology, pods=found.pods, objects=found.objects)


def taken(topology: Topology, found: Applied) -> Topology:
    return replace(topology, pods=found.pods, objects=found.objects)


def policy(spec: str) -> Policy:
    return applied(empty(), read(POLICY + spec, "x.yaml")).objects.policies[0]


def service(spec: str, topology: Topology | None = None) -> Service:
    return services(after(topology or empty(), SERVICE % "web" + spec))[-1]


def services(topology: Topology) -> list[Service]:
    """All but cluster DNS, which comes with the first."""
    return [one for one in topology.objects.services if one.namespace != "kube-system"]


def nodes(topology: Topology) -> list[str]:
    return [pod.node.removeprefix("node-") for pod in topology.pods]


def names(topology: Topology) -> list[str]:
    return [pod.name for pod in topology.pods]


# policies


@each_row(
    "spec, directions",
    [
        ("", ("ingress",)),
        ("  ingress: []\n", ("ingress",)),
        ("  egress: []\n", ("ingress",)),  # an egress section without a rule does not isolate
        ("  egress: [{}]\n", ("ingress", "egress")),
        ("  policyTypes: []\n", ("ingress",)),
        ("  policyTypes: [Egress]\n", ("egress",)),
        ("  policyTypes: [Egress, Ingress]\n", ("ingress", "egress")),
    ],
)
def test_which_directions_a_policy_is_for(spec: str, directions: tuple[str, ...]) -> None:
    assert policy(spec).directions == directions


def test_sections_that_are_not_listed_are_ignored() -> None:
    found = policy("  policyTypes: [Egress]\n  ingress: [{}]\n")
    assert (found.ingress, found.egress) == ((), ())


@each_row("rule", ["{}", "{from: []}", "{from: null, ports: []}"])
def test_an_empty_rule_matches_everybody(rule: str) -> None:
    (found,) = policy(f"  ingress: [{rule}]\n").ingress
    assert (found.source, found.destination, found.protocol, found.origin) == (Peer(), Peer(), None, "ingress[0]")
    assert found.source.anybody


PEERS: dict[str, tuple[str, Peer]] = {
    "pods": ("podSelector: {matchLabels: {app: web}}", Peer(pods=In("app", ("web",)))),
    "all pods": ("podSelector: {}", Peer(pods=Everything())),
    "namespaces": ("namespaceSelector: {}", Peer(namespaces=Everything())),
    "both": (
        "namespaceSelector: {matchLabels: {a: b}}\n      podSelector: {}",
        Peer(pods=Everything(), namespaces=In("a", ("b",))),
    ),
    "expression": (
        "podSelector: {matchExpressions: [{key: a, operator: NotIn, values: [c, b, c]}]}",
        Peer(Not(In("a", ("b", "c")))),
    ),
    "exists": ("podSelector: {matchExpressions: [{key: a, operator: Exists}]}", Peer(Has("a"))),
    "not exists": ("podSelector: {matchExpressions: [{key: a, operator: DoesNotExist}]}", Peer(Not(Has("a")))),
    "block": (
        "ipBlock: {cidr: 10.7.9.1/8, except: [10.1.2.3/16, 10.2.0.0/16]}",
        Peer(nets=(ip_network("10.0.0.0/8"),), not_nets=(ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16"))),
    ),
    "block 6": ("ipBlock: {cidr: '::/0'}", Peer(nets=(ip_network("::/0"),))),
}


@each_row("written, peer", PEERS.values(), ids=PEERS)
def test_peers(written: str, peer: Peer) -> None:
    text = f"  ingress:\n  - from:\n    - {written}\n  egress:\n  - to:\n    - {written}\n"
    found = policy(text)
    assert (found.ingress[0].source, found.ingress[0].destination, found.ingress[0].origin) == (
        peer,
        Peer(),
        "ingress[0].from[0]",
    )
    assert (found.egress[0].destination, found.egress[0].source, found.egress[0].origin) == (peer, Peer(), "egress[0].to[0]")


@each_row(
    "port, protocol, ports",
    [
        ("{port: 80}", "tcp", (PortRange(80, 80),)),
        ("{port: 80, protocol: UDP}", "udp", (PortRange(80, 80),)),
        ("{port: 80, endPort: 90, protocol: SCTP}", "sctp", (PortRange(80, 90),)),
        ("{port: 80, endPort: 80}", "tcp", (PortRange(80, 80),)),
        ("{port: http}", "tcp", (PortRange(name="http"),)),
        ("{protocol: UDP}", "udp", ()),
        ("{}", "tcp", ()),
    ],
)
def test_ports_are_always_the_destinations(port: str, protocol: str, ports: tuple[PortRange, ...]) -> None:
    found = policy(f"  ingress: [{{ports: [{port}]}}]\n  egress: [{{ports: [{port}]}}]\n")
    for rule, origin in ((found.ingress[0], "ingress[0].ports[0]"), (found.egress[0], "egress[0].ports[0]")):
        assert (rule.protocol, rule.destination.ports, rule.source.ports, rule.origin) == (protocol, ports, (), origin)


def test_a_rule_per_peer_and_port() -> None:
    text = "  egress:\n  - {}\n  - to: [{podSelector: {}}, {namespaceSelector: {}}]\n    ports: [{port: 1}, {port: 2}]\n"
    assert [rule.origin for rule in policy(text).egress] == [
        "egress[0]",
        *(f"egress[1].to[{peer}].ports[{port}]" for peer in (0, 1) for port in (0, 1)),
    ]


# pods


def test_a_pod_with_all_that_is_used_of_it() -> None:
    text = (
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels: {z: y, app: web}\n  annotations:\n"
        "    cni.projectcalico.org/ipAddrs: '[\"10.1.2.7\"]'\n    kubernetes.io/ingress-bandwidth: 10M\n"
        "    kubernetes.io/egress-bandwidth: 1Mi\nspec:\n  hostname: h\n  subdomain: s\n  nodeName: node-b\n"
        "  initContainers:\n  - {name: i, ports: [{containerPort: 1}]}\n"
        "  containers:\n  - {name: c, ports: [{containerPort: 80, name: http, hostPort: 8080, hostIP: 10.0.0.1}]}\n"
        "  - {name: d, ports: [{containerPort: 53, protocol: UDP}, {containerPort: 53, protocol: UDP}]}\n"
    )
    (found,) = after(empty(), text).pods
    assert found == Pod(
        "a",
        "node-b",
        addresses=(ip_address("10.1.2.7"),),
        labels=(("app", "web"), ("z", "y")),
        ports=(ContainerPort(80, "tcp", "http", 8080, "10.0.0.1"), ContainerPort(53, "udp")),
        hostname="h",
        subdomain="s",
        rates=(10_000_000, 2**20),
    )


def test_host_network_is_no_pod_of_the_data_plane() -> None:
    made = after(empty(), POD % "a" + "  hostNetwork: true\n")
    assert made.pods == ()
    assert made.objects.host_pods == (HostPod("default", "a", "node-a", (("app", "web"),)),)


def test_pods_go_where_the_fewest_are_and_stay_there() -> None:
    first = after(empty(), "---\n".join(POD % name for name in "abcd"))
    assert nodes(first) == ["a", "b", "c", "a"]
    second = after(first, POD % "a" + "---\n" + POD % "e")
    assert nodes(second) == ["a", "b", "c", "a", "b"]
    third = after(taken(second, deleted(second, [("v1", "Pod", "default", "c")])), POD % "f")
    assert (nodes(third), names(third)) == (["a", "b", "a", "b", "c"], ["a", "b", "d", "e", "f"])


def test_a_node_selector_and_a_host_port_are_heeded() -> None:
    labelled_node = replace(
        empty(), nodes=tuple(replace(n, labels=(("disk", "ssd"),)) if n.name == "node-c" else n for n in empty().nodes)
    )
    assert nodes(after(labelled_node, POD % "a" + "  nodeSelector: {disk: ssd}\n")) == ["c"]
    assert nodes(after(empty(), POD % "a" + "  nodeSelector: {kubernetes.io/hostname: node-b}\n")) == ["b"]
    published = POD.replace("{name: c}", "{name: c, ports: [{containerPort: 80, hostPort: 80}]}")
    three = after(empty(), "---\n".join(published % name for name in "abc"))
    assert sorted(nodes(three)) == ["a", "b", "c"]
    with pytest.raises(InputError, match="its host ports are taken"):
        after(three, published % "d")


def test_a_pod_does_not_move() -> None:
    made = after(empty(), POD % "a")
    with pytest.raises(InputError, match=r"x.yaml:7: .*spec.nodeName: the pod is on node-a, and there it stays"):
        after(made, POD % "a" + "  nodeName: node-b\n")
    with pytest.raises(InputError, match=r"spec.hostNetwork: the pod is on node-a"):
        after(made, POD % "a" + "  hostNetwork: true\n")
    fixed = (POD % "f").replace("name: f", "name: f, annotations: {cni.projectcalico.org/ipAddrs: '[\"10.1.1.%s\"]'}")
    made = after(empty(), fixed % 7)
    with pytest.raises(InputError, match=r"x.yaml:3: .*ipAddrs\]: the pod has 10.1.1.7, and keeps it: delete it first"):
        after(made, fixed % 8)
    assert after(made, POD % "f").pods[0].addresses == ()


def test_a_workload_is_on_nodes_that_there_are() -> None:
    text = DEPLOYMENT.replace("containers: [", "nodeName: node-x\n      containers: [") % (2, "x")
    with pytest.raises(InputError, match=r"x.yaml:10: .*spec.template.spec.nodeName: no node 'node-x'"):
        after(empty(), text)
    assert nodes(after(empty(), text.replace("node-x", "node-b"))) == ["b", "b"]


# workloads


def test_replicas_are_spread_named_and_labelled() -> None:
    made = after(empty(), DEPLOYMENT % (4, "x"))
    assert nodes(made) == ["a", "b", "c", "a"]
    assert {pod.owner for pod in made.pods} == {"Deployment/web"}
    hashes = {dict(pod.labels)["pod-template-hash"] for pod in made.pods}
    assert len(hashes) == 1
    assert all(pod.name.startswith(f"web-{hashes.copy().pop()}-") and len(pod.name) == 20 for pod in made.pods)
    assert names(after(empty(), DEPLOYMENT % (4, "x"))) == names(made)


def test_scaling_leaves_the_eldest_alone() -> None:
    four = after(empty(), DEPLOYMENT % (4, "x"))
    two = after(four, DEPLOYMENT % (2, "x"))
    assert two.pods == four.pods[:2]
    five = after(two, DEPLOYMENT % (5, "x"))
    assert five.pods[:2] == two.pods
    assert nodes(five) == ["a", "b", "c", "a", "b"]
    assert after(five, DEPLOYMENT % (0, "x")).pods == ()


def test_another_template_has_other_pods() -> None:
    one, other = after(empty(), DEPLOYMENT % (2, "x")), after(after(empty(), DEPLOYMENT % (2, "x")), DEPLOYMENT % (2, "y"))
    assert not set(names(one)) & set(names(other))
    assert len(other.pods) == 2


def test_a_deleted_replica_is_made_anew_with_another_name() -> None:
    made = after(empty(), DEPLOYMENT % (3, "x"))
    left = deleted(made, [("v1", "Pod", "default", made.pods[1].name)])
    assert len(left.pods) == 3
    assert made.pods[1].name not in {pod.name for pod in left.pods}
    assert {made.pods[0], made.pods[2]} < set(left.pods)


def test_a_replica_whose_label_is_changed_is_replaced_and_left_alone() -> None:
    made = after(empty(), DEPLOYMENT % (2, "x"))
    place = ("default", made.pods[0].name)
    changed, what = labelled(made, kind("pod"), place, {"app": "debug"}, True)
    settled = change.settled(replace(designed(), cluster=replace(designed().cluster, topology=changed)))
    assert what == "labeled"
    assert [pod.owner for pod in settled.topology.pods] == ["", "Deployment/web", "Deployment/web"]
    deleted_with_it = deleted(settled.topology, [("apps/v1", "Deployment", "default", "web")])
    assert [pod.name for pod in deleted_with_it.pods] == [made.pods[0].name]


def designed() -> Design:
    return design(empty(), registry.plugin("flannel")())


def test_daemons_follow_the_nodes() -> None:
    before = designed()
    found = applied(before.topology, read(DAEMONS, "x.yaml"))
    made = change.reshape(before, found.pods, found.objects)
    assert nodes(made.topology) == ["a", "b", "c"]
    more = change.settled(change.add_node(made, "node-d"))
    assert nodes(more.topology) == ["a", "b", "c", "d"]
    assert more.topology.pods[:3] == made.topology.pods
    less = change.settled(change.remove_node(more, "node-b"))
    assert nodes(less.topology) == ["a", "c", "d"]
    chosen = DAEMONS.replace("    spec:\n", "    spec:\n      nodeSelector: {disk: ssd}\n")
    none = after(less.topology, chosen)
    assert none.pods == ()
    assert none.objects.workloads[0].template.node_selector == (("disk", "ssd"),)
    labelled_node = change.relabel(change.reshape(less, none.pods, none.objects), {"node-c": (("disk", "ssd"),)})
    assert nodes(change.settled(labelled_node).topology) == ["c"]


def test_replicas_of_a_node_that_leaves_go_elsewhere_and_host_pods_leave() -> None:
    before = designed()
    found = applied(
        before.topology, read(f"{DEPLOYMENT % (3, 'x')}---\n{POD % 'h'}  hostNetwork: true\n  nodeName: node-b\n", "x")
    )
    made = change.reshape(before, found.pods, found.objects)
    less = change.settled(change.remove_node(made, "node-b"))
    assert sorted(nodes(less.topology)) == ["a", "a", "c"]
    assert less.topology.objects.host_pods == ()


def test_what_fits_nowhere_is_told() -> None:
    text = DEPLOYMENT.replace("containers: [", "nodeSelector: {disk: ssd}\n      containers: [") % (2, "x")
    found = applied(empty(), read(text, "x.yaml"))
    assert (found.pods, found.warnings) == ((), ("Deployment default/web: 2 of its pods fit on no node",))


# Services


def test_what_a_service_is_given_stays() -> None:
    first = after(
        empty(), SERVICE % "a" + "---\n" + SERVICE % "b" + "  type: NodePort\n---\n" + SERVICE % "c" + "  type: LoadBalancer\n"
    )
    a, b, c = services(first)
    assert [str(one.addresses[0]) for one in (a, b, c)] == ["10.96.1.0", "10.96.1.1", "10.96.1.2"]
    assert [one.ports[0].node_port for one in (a, b, c)] == [0, 30000, 30001]
    assert [*map(str, c.balancer)] == ["198.51.100.1"]
    again = after(first, SERVICE % "d" + "---\n" + SERVICE.replace("port: 80", "port: 81") % "b" + "  type: NodePort\n")
    assert [str(one.addresses[0]) for one in services(again)] == ["10.96.1.0", "10.96.1.1", "10.96.1.2", "10.96.1.3"]
    freed = taken(again, deleted(again, [("v1", "Service", "default", "a")]))
    assert str(services(after(freed, SERVICE % "e"))[-1].addresses[0]) == "10.96.1.0"


def test_who_asks_for_an_address_comes_first() -> None:
    made = after(empty(), SERVICE % "a" + "---\n" + SERVICE % "b" + "  clusterIP: 10.96.1.0\n")
    assert [str(one.addresses[0]) for one in services(made)] == ["10.96.1.1", "10.96.1.0"]
    asked = "  type: NodePort\n---\n" + (SERVICE % "b").replace("port: 80", "port: 80, nodePort: 30000") + "  type: NodePort\n"
    made = after(empty(), SERVICE % "a" + asked)
    assert [one.ports[0].node_port for one in services(made)] == [30001, 30000]


def test_an_address_that_is_taken_is_refused_and_one_that_it_has_is_kept() -> None:
    made = after(empty(), SERVICE % "a")
    with pytest.raises(InputError, match=r"x.yaml:7: .*10.96.1.0 is taken by Service default/a"):
        after(made, SERVICE % "b" + "  clusterIP: 10.96.1.0\n")
    with pytest.raises(InputError, match=r"10.96.1.9: it has 10.96.1.0 already, and a Service keeps its address"):
        after(made, SERVICE % "a" + "  clusterIP: 10.96.1.9\n")
    assert services(after(made, SERVICE % "a" + "  clusterIP: 10.96.1.0\n"))[0].addresses == services(made)[0].addresses


SERVICES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("", {"kind": "ClusterIP", "families": (4,), "affinity": 0, "selector": In("app", ("web",))}),
    "headless": ("  clusterIP: None\n", {"addresses": (), "families": (4,)}),
    "six": ("  ipFamilies: [IPv6]\n", {"addresses": (ip_address("fd00:10:96::100"),), "families": (6,)}),
    "both": ("  ipFamilyPolicy: PreferDualStack\n", {"families": (4, 6)}),
    "six first": ("  ipFamilyPolicy: RequireDualStack\n  ipFamilies: [IPv6]\n", {"families": (6, 4)}),
    "given six": ("  clusterIP: fd00:10:96::9\n", {"addresses": (ip_address("fd00:10:96::9"),), "families": (6,)}),
    "affinity": ("  sessionAffinity: ClientIP\n", {"affinity": 10800}),
    "short affinity": (
        "  sessionAffinity: ClientIP\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}}\n",
        {"affinity": 5},
    ),
    "local": ("  type: NodePort\n  externalTrafficPolicy: Local\n", {"external_local": True, "internal_local": False}),
    "inside": ("  internalTrafficPolicy: Local\n", {"internal_local": True}),
    "not ready": ("  publishNotReadyAddresses: true\n", {"publish_not_ready": True}),
    "ranges": (
        "  type: LoadBalancer\n  loadBalancerSourceRanges: [10.1.2.3/8]\n",
        {"source_ranges": (ip_network("10.0.0.0/8"),), "balancer": (ip_address("198.51.100.1"),)},
    ),
    "given balancer": (
        "  type: LoadBalancer\n  loadBalancerIP: 198.51.100.77\n",
        {"balancer": (ip_address("198.51.100.77"),)},
    ),
    "elsewhere": (
        "  type: ExternalName\n  externalName: a.example\n",
        {"external_name": "a.example", "selector": None, "addresses": ()},
    ),
}


@each_row("spec, fields", SERVICES.values(), ids=SERVICES)
def test_services(spec: str, fields: dict[str, Any]) -> None:
    found = service(spec)
    assert {name: getattr(found, name) for name in fields} == fields


def test_ports_of_a_service() -> None:
    made = after(
        empty(),
        (SERVICE % "a").replace(
            "[{port: 80, name: http}]",
            "[{port: 80, name: http, targetPort: web, nodePort: 31000}, {port: 53, name: dns, protocol: UDP, targetPort: 5353}]",
        )
        + "  type: NodePort\n",
    )
    assert [(p.name, p.protocol, p.port, p.target, p.node_port) for p in services(made)[0].ports] == [
        ("http", "tcp", 80, "web", 31000),
        ("dns", "udp", 53, 5353, 30000),
    ]


def test_families_are_the_clusters() -> None:
    four = replace(empty(), pod_cidrs=empty().pod_cidrs[:1])
    with pytest.raises(InputError, match=r"spec.ipFamilies: IPv6: the pods of this cluster have IPv4 only"):
        service("  ipFamilies: [IPv6]\n", four)
    with pytest.raises(InputError, match="RequireDualStack: this cluster has pods of one family only"):
        service("  ipFamilyPolicy: RequireDualStack\n", four)
    assert service("  ipFamilyPolicy: PreferDualStack\n", four).families == (4,)
    assert service("", replace(empty(), pod_cidrs=empty().pod_cidrs[1:])).families == (6,)


def test_the_services_range_is_apart_from_pods_and_nodes() -> None:
    pods = replace(empty(), pod_cidrs=(ip_network("10.100.0.0/16"),))
    with pytest.raises(InputError, match=r"the Services' range 10.96.0.0/12 overlaps the pod CIDR 10.100.0.0/16"):
        service("", pods)


def test_endpoints_by_hand() -> None:
    text = (
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, labels: {kubernetes.io/service-name: web}}\n"
        "addressType: IPv4\nports: [{name: http, port: 8080}, {name: dns, protocol: UDP, port: 53}]\nendpoints:\n"
        "- {addresses: [203.0.113.10]}\n- {addresses: [10.1.1.1], conditions: {ready: false}, nodeName: node-a}\n"
    )
    (found,) = after(empty(), text).objects.slices
    assert (found.service, found.ports) == ("web", (("http", "tcp", 8080), ("dns", "udp", 53)))
    assert found.endpoints == (((ip_address("203.0.113.10"),), True, ""), ((ip_address("10.1.1.1"),), False, "node-a"))


# nodes, namespaces, and what becomes of it all

NODES = "".join(
    f"---\napiVersion: v1\nkind: Node\nmetadata: {{name: n{i}, labels: {{rack: r{i}}}}}\n"
    f"spec: {{podCIDR: 10.244.{i}.0/24}}\nstatus: {{addresses: [{{type: InternalIP, address: 172.18.0.{i}}}]}}\n"
    for i in (2, 3)
)


def test_a_topology_of_nodes() -> None:
    made, told = begun(catalogued("flat"), read(NODES + "---\n" + POD % "a", "x.yaml"), named=False)
    assert told == ()
    assert [(n.name, str(n.pod_cidrs[0]), dict(n.labels)["rack"]) for n in made.nodes] == [
        ("n2", "10.244.2.0/24", "r2"),
        ("n3", "10.244.3.0/24", "r3"),
    ]
    assert (str(made.segments[0].subnets[0]), *map(str, made.pod_cidrs)) == ("172.18.0.0/24", "10.244.0.0/16")
    assert [str(link.addresses[0]) for link in made.links] == ["172.18.0.2/24", "172.18.0.3/24"]
    planned = design(made, registry.plugin("flannel")())
    assert [str(lease.network) for lease in planned.cluster.leases] == ["10.244.2.0/24", "10.244.3.0/24"]


def test_nodes_join_a_topology_that_was_named_and_its_pods_stay() -> None:
    text = "apiVersion: v1\nkind: Node\nmetadata: {name: node-x}\n"
    made, _ = begun(catalogued("flat"), read(text, "x.yaml"), named=True)
    assert [node.name for node in made.nodes] == ["node-a", "node-b", "node-c", "node-x"]
    assert len(made.pods) == 6
    assert begun(catalogued("flat"), read(POD % "a", "x.yaml"), named=False)[0].pods[0].name == "a"


def test_namespaces_exist_when_declared_or_implied() -> None:
    pod = (POD % "a").replace("name: a", "name: a, namespace: shop")
    with pytest.raises(InputError, match=r'x.yaml:3: document 1, Pod shop/a: metadata.namespace: namespaces "shop" not found'):
        after(empty(), pod)
    assert after(replace(empty(), pods=(Pod("x", "node-a", "shop"),)), pod).pods[-1].key == "shop/a"
    made = after(empty(), pod + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: blue}}\n")
    assert made.objects.namespace("shop").all_labels == {"team": "blue", "kubernetes.io/metadata.name": "shop"}
    gone = deleted(made, [("v1", "Namespace", "", "shop")])
    assert (gone.pods, gone.objects) == ((), Objects())
    with pytest.raises(InputError, match='namespaces "default" is forbidden'):
        deleted(made, [("v1", "Namespace", "", "default")])


def outcomes(topology: Topology, text: str) -> list[str]:
    return [what for _, what in applied(topology, read(text, "x.yaml")).results]


def test_created_configured_unchanged() -> None:
    everything = "---\n".join((POD % "a", SERVICE % "s", DEPLOYMENT % (2, "x"), DAEMONS, POLICY))
    assert outcomes(empty(), everything) == ["created"] * 5
    made = after(empty(), everything)
    assert outcomes(made, everything) == ["unchanged"] * 5
    assert outcomes(made, everything.replace("app: web", "app: wob").replace("replicas: 2", "replicas: 3")) == [
        *["configured"] * 3,
        *["unchanged"] * 2,
    ]
    assert outcomes(made, DEPLOYMENT % (2, "y")) == ["configured"]
    assert outcomes(made, POLICY + "  policyTypes: [Ingress]\n") == ["unchanged"], "what the server fills in anyway"
    assert outcomes(made, POLICY + "  ingress: [{}]\n") == ["configured"]


def test_labels() -> None:
    made = after(empty(), POD % "a")
    place = ("default", "a")
    with pytest.raises(InputError, match=r"'app' already has a value \(web\), and --overwrite is false"):
        labelled(made, kind("pods"), place, {"app": "db"}, False)
    with pytest.raises(InputError, match=r'pods "b" not found'):
        labelled(made, kind("pods"), ("default", "b"), {"app": "db"}, False)
    with pytest.raises(InputError, match="no label"):
        labelled(made, kind("pods"), place, {"a b": "c"}, False)
    assert labelled(made, kind("po"), place, {"app": "web", "x": None}, False) == (made, "not labeled")
    changed, what = labelled(made, kind("pod"), place, {"app": None}, False)
    assert (changed.pods[0].labels, what) == ((), "unlabeled")
    changed, _ = labelled(made, kind("ns"), ("", "default"), {"team": "blue"}, False)
    assert changed.objects.namespace("default").labels == (("team", "blue"),)
    changed, _ = labelled(made, kind("no"), ("", "node-b"), {"disk": "ssd"}, False)
    assert changed.nodes[1].labels == (("disk", "ssd"),)


@each_row(
    "text, matching",
    [
        ("app=web", {"app": "web"}),
        ("app==web,tier!=db", {"app": "web"}),
        ("app,!old", {"app": "x"}),
        ("app in (a, b), tier notin (c)", {"app": "b"}),
    ],
)
def test_typed_selectors(text: str, matching: dict[str, str]) -> None:
    assert typed_selector(text).matches(matching)
    assert not typed_selector(text).matches({"tier": "db", "old": "1"})


@each_row("text", ["=", "app=a=b", "app in a", "!", "a b", ",", "app in (a"])
def test_what_is_no_selector(text: str) -> None:
    with pytest.raises(InputError, match="selector"):
        typed_selector(text)


def test_words_for_kinds() -> None:
    assert {word: known()[word].name for word in ("ns", "deploy", "ds", "svc", "netpol", "po", "no")} == {
        "ns": "Namespace",
        "deploy": "Deployment",
        "ds": "DaemonSet",
        "svc": "Service",
        "netpol": "NetworkPolicy",
        "po": "Pod",
        "no": "Node",
    }
    assert known()["networkpolicies.networking.k8s.io"].title("web") == "networkpolicy.networking.k8s.io/web"
    with pytest.raises(InputError, match=r"the server doesn't have a resource type 'svcs' \(did you mean 'svc'\?\)"):
        kind("svcs")
    with pytest.raises(InputError, match=r"'cats' \(known: daemonsets, deployments, endpointslices, globalnetworkpolicies, "):
        kind("cats")


def test_slices_of_the_controller_are_left_alone() -> None:
    text = (
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: s\n  labels:\n"
        "    kubernetes.io/service-name: web\n    endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io\n"
        "addressType: IPv4\nendpoints: [{addresses: [10.1.1.1]}]\n"
    )
    found = applied(empty(), read(text, "x.yaml"))
    assert (found.objects.slices, found.results) == ((), (("endpointslice.discovery.k8s.io/s", "unchanged"),))


def test_cluster_dns_comes_with_the_first_service_and_leaves_with_the_last() -> None:
    made = after(empty(), SERVICE % "a" + "---\n" + DEPLOYMENT % (3, "x"))
    dns = [pod for pod in made.pods if pod.namespace == "kube-system"]
    assert [(pod.name, pod.node) for pod in dns] == [("coredns", "node-a")]
    assert {one.name for one in made.objects.services} == {"a", "kube-dns"}
    assert deleted(made, [("v1", "Service", "default", "a")]).objects.services == ()
    with pytest.raises(InputError, match=r"Service default/b: 10.96.0.10 belongs to Service kube-system/kube-dns"):
        after(empty(), SERVICE % "b" + "  clusterIP: 10.96.0.10\n")
    running = change.reshape(designed(), made.pods, made.objects)
    settled = change.settled(change.remove_node(running, "node-a"))
    assert [pod.node for pod in settled.topology.pods if pod.name == "coredns"] == ["node-b"]
