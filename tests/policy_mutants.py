"""Wrong conversions and compilers, as implementers have made them or could: comparing kernel and oracle has to find them.

A mutant is a change of what `emulab.kube` made of the manifests, or of the code that resolves and compiles policies.  Beside it
stands the smallest cluster of policies in which it does harm; a healthy compiler passes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from ipaddress import ip_network
from typing import Any, NamedTuple
from unittest import mock

from policy_cases import NAMESPACES, PODS, PORTS, Case, Manifest, namespace, pod, policy

from emulab.model import Endpoint
from emulab.objects import METADATA_NAME, Namespace, Peer, Policy, PortRange, Rule
from emulab.policy import Meaning
from emulab.selector import AnyOf, Every, Everything, Has, In, Not, Selector, both
from emulab_plugins import _calico_policy, _weave_npc, calico

Policies = tuple[Policy, ...]
PLANES = ("calico", "weave")
NOBODY = In("app", ())
LABELS = {
    "default/a": {"app": "web"},
    "default/b": {"app": "db", "tier": "back"},
    "default/c": {},
    "red/a": {"app": "web", "tier": "back"},
    "red/b": {"app": "db"},
    "blue/a": {"app": "api"},
    "blue/c": {},
    "blue/d": {"app": "web", "tier": "front"},
}
NAMES = {
    "default/b": {("TCP", 80): "http", ("UDP", 53): "dns"},
    "red/b": {("TCP", 81): "http"},
    "default/a": {("TCP", 90): "http"},
}


def cluster(*policies: Manifest) -> Case:
    """Pods with `LABELS`, namespaces of which red and blue have a team; all ports are served."""
    found = [namespace(name, {} if name == "default" else {"team": name}) for name in NAMESPACES]
    for key, node in PODS:
        names = NAMES.get(key, {})
        ports = [{"containerPort": n, "protocol": p, **({"name": names[p, n]} if (p, n) in names else {})} for p, n in PORTS]
        found.append(pod(key, node, LABELS[key], ports))
    return Case(1, (*found, *policies))


def app(name: str) -> Manifest:
    return {"matchLabels": {"app": name}}


def db(*rules: Any, key: str = "default/db", **more: Any) -> Manifest:
    """Ingress of default/b."""
    return policy(key, {"podSelector": app("db"), "ingress": list(rules), **more})


def web(*rules: Any, **more: Any) -> Manifest:
    """Egress of default/a."""
    return policy("default/web", {"podSelector": app("web"), "policyTypes": ["Egress"], "egress": list(rules), **more})


# What can be done to policies


def each(change: Callable[[Policy], Policy]) -> Callable[[Policies], Policies]:
    return lambda policies: tuple(map(change, policies))


def rules(change: Callable[[Rule], Rule | None]) -> Callable[[Policies], Policies]:
    """Every rule another, or none."""

    def changed(found: tuple[Rule, ...]) -> tuple[Rule, ...]:
        return tuple(one for one in map(change, found) if one is not None)

    return each(lambda one: replace(one, ingress=changed(one.ingress), egress=changed(one.egress)))


def peers(change: Callable[[Peer], Peer]) -> Callable[[Policies], Policies]:
    """The peer of every rule another; it is the end that has no ports in ingress, and both ends are changed alike."""
    return rules(lambda rule: replace(rule, source=change(rule.source), destination=change(rule.destination)))


def ports(change: Callable[[PortRange], PortRange]) -> Callable[[Policies], Policies]:
    return peers(lambda peer: replace(peer, ports=tuple(map(change, peer.ports))))


def selectors(change: Callable[[Selector], Selector]) -> Callable[[Policies], Policies]:
    """Every selector another, those of the policies themselves, too."""

    def peer(one: Peer) -> Peer:
        pods, namespaces = (None if s is None else change(s) for s in (one.pods, one.namespaces))
        return replace(one, pods=pods, namespaces=namespaces)

    return lambda policies: each(lambda one: replace(one, selector=change(one.selector)))(peers(peer)(policies))


def needs_the_key(one: Selector) -> Selector:
    if isinstance(one, Not) and isinstance(one.part, In):
        return Every((Has(one.part.key), one))
    return Every(tuple(map(needs_the_key, one.parts))) if isinstance(one, Every) else one


def either(policies: Policies) -> Policies:
    """Pods and namespaces of one item as if they were two."""

    def split(found: tuple[Rule, ...]) -> Iterator[Rule]:
        for rule in found:
            if rule.source.pods is not None and rule.source.namespaces is not None:
                yield replace(rule, source=replace(rule.source, namespaces=None))
                yield replace(rule, source=replace(rule.source, pods=None))
            else:
                yield rule

    return each(lambda one: replace(one, ingress=tuple(split(one.ingress))))(policies)


def together(policies: Policies) -> Policies:
    """Two items as if they were one."""

    def joined(one: Policy) -> Policy:
        first, second = one.ingress
        pods = first.source.pods if first.source.pods is not None else second.source.pods
        namespaces = first.source.namespaces if first.source.namespaces is not None else second.source.namespaces
        return replace(one, ingress=(replace(first, source=Peer(pods, namespaces)),))

    return each(joined)(policies)


def pooled(policies: Policies) -> Policies:
    """Every peer with every port, of whatever rule."""

    def crossed(one: Policy) -> Policy:
        found = [replace(r, protocol=p.protocol, destination=p.destination) for r in one.ingress for p in one.ingress]
        return replace(one, ingress=tuple(found))

    return each(crossed)(policies)


def intersected(policies: Policies) -> Policies:
    """Only what both policies allow, by labels."""
    one, other = (found.ingress[0] for found in policies)
    assert one.source.pods and other.source.pods
    rule = replace(one, source=Peer(both((one.source.pods, other.source.pods))))
    return each(lambda found: replace(found, ingress=(rule,)))(policies)


def by_name(policies: Policies) -> Policies:
    return tuple({one.name: one for one in policies}.values())


def names_of_own(policies: Policies) -> Policies:
    """A port's name is looked up at the pod that the policy selects: 90 is what default/a calls http."""
    return ports(lambda port: PortRange(90, 90) if port.name else port)(policies)


def unmasked(policies: Policies) -> Policies:
    """A block with host bits is that one address."""

    def rule(one: Policy) -> Policy:
        cidr = one.manifest["spec"]["ingress"][0]["from"][0]["ipBlock"]["cidr"]
        single = ip_network(cidr.partition("/")[0])
        return replace(one, ingress=tuple(replace(r, source=replace(r.source, nets=(single,))) for r in one.ingress))

    return each(rule)(policies)


def nothing(policies: Policies) -> Policies:
    return policies


# What can be done to code


@contextmanager
def without(place: Any, name: str, line: str) -> Iterator[None]:
    """A template less the lines that contain ``line``."""
    kept = "\n".join(one for one in getattr(place, name).splitlines() if line not in one) + "\n"
    assert kept.strip() != getattr(place, name).strip(), f"{name} has no line with {line}"
    caches = [made for made in vars(place).values() if hasattr(made, "cache_clear")]
    try:
        with mock.patch.object(place, name, kept):
            for cache in caches:
                cache.cache_clear()
            yield
    finally:
        for cache in caches:
            cache.cache_clear()


def weave_rules(change: Callable[[str, list[str], int], list[str]]) -> AbstractContextManager[Any]:
    """weave-npc's fixed chains otherwise."""
    real = _weave_npc.WeaveNpc._fixed

    def fixed(self: _weave_npc.WeaveNpc, family: int) -> dict[str, list[str]]:
        return {chain: change(chain, found, family) for chain, found in real(self, family).items()}

    return mock.patch.object(_weave_npc.WeaveNpc, "_fixed", fixed)


def weave_without(line: str) -> AbstractContextManager[Any]:
    return weave_rules(lambda _, found, __: [rule for rule in found if line not in rule])


def calico_without(line: str) -> AbstractContextManager[Any]:
    """Calico's rules of tiers less those that contain ``line``."""
    real = _calico_policy.Policies._tier_rules

    def tier_rules(self: _calico_policy.Policies, *arguments: Any) -> list[str]:
        return [rule for rule in real(self, *arguments) if line not in rule]

    return mock.patch.object(_calico_policy.Policies, "_tier_rules", tier_rules)


def any_protocol(endpoint: Endpoint, wanted: PortRange, _: str | None) -> tuple[int, int] | None:
    """`Meaning.port`, deaf to protocols."""
    if not wanted.name:
        return wanted.low, wanted.high
    found = [port.number for port in reversed(endpoint.pod.ports) if port.name == wanted.name]
    return (found[0], found[0]) if found else None


def all_namespaces(self: Meaning, one: Policy) -> tuple[Endpoint, ...]:
    return self._select("", one.namespaces, one.selector)


class Mutant(NamedTuple):
    """``convert`` is what goes wrong with policies, ``patch`` what with code, by plane: others are left out."""

    name: str
    case: Case
    convert: Callable[[Policies], Policies] = nothing
    patch: dict[str, Callable[[], AbstractContextManager[Any]]] = dict.fromkeys(PLANES, nullcontext)


def code(*values: Any) -> dict[str, Callable[[], AbstractContextManager[Any]]]:
    """The same for both planes: an attribute of a class."""
    return {plane: lambda: mock.patch.object(*values) for plane in PLANES}


RED = {"namespaceSelector": {"matchLabels": {"team": "red"}}}
WEB = {"podSelector": app("web")}
EXPRESSION = {"podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}}
HTTP = {"port": 80}
POD_CIDR = ip_network("10.1.0.0/16"), ip_network("fd00:10:1::/48")
CLOSED = policy("default/closed", {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})


def block(cidr: str, *holes: str) -> Manifest:
    return {"ipBlock": {"cidr": cidr, **({"except": list(holes)} if holes else {})}}


def mutants(addresses: dict[str, str]) -> tuple[Mutant, ...]:
    """``addresses``: the IPv4 address of each pod."""
    a, c = addresses["default/a"], addresses["default/c"]
    return (
        Mutant("both selectors: either will do", cluster(db({"from": [{**RED, **WEB}]})), either),
        Mutant("two items: both are needed", cluster(db({"from": [RED, WEB]})), together),
        Mutant(
            "podSelector alone means every namespace",
            cluster(db({"from": [WEB]})),
            peers(lambda p: replace(p, namespaces=Everything()) if p.pods is not None and p.namespaces is None else p),
        ),
        Mutant(
            "namespaceSelector is ignored", cluster(db({"from": [{**RED, **WEB}]})), peers(lambda p: replace(p, namespaces=None))
        ),
        Mutant(
            "podSelector is ignored",
            cluster(db({"from": [{**RED, **WEB}]})),
            peers(lambda p: replace(p, pods=None) if p.namespaces else p),
        ),
        Mutant(
            "an empty namespaceSelector means the own namespace",
            cluster(db({"from": [{"namespaceSelector": {}}]})),
            peers(lambda p: Peer(Everything()) if isinstance(p.namespaces, Everything) else p),
        ),
        Mutant(
            "an empty podSelector selects no pod",
            cluster(policy("default/all", {"podSelector": {}})),
            each(lambda one: replace(one, selector=NOBODY)),
        ),
        Mutant(
            "an empty podSelector of a peer means nobody",
            cluster(db({"from": [{"podSelector": {}}]})),
            peers(lambda p: replace(p, pods=NOBODY) if isinstance(p.pods, Everything) else p),
        ),
        Mutant("NotIn needs the key", cluster(db({"from": [EXPRESSION]})), selectors(needs_the_key)),
        Mutant(
            "NotIn is taken for In",
            cluster(db({"from": [EXPRESSION]})),
            selectors(lambda s: s.part if isinstance(s, Not) else s),
        ),
        Mutant(
            "labels and expressions are an or",
            cluster(
                db({"from": [{"podSelector": {**app("web"), "matchExpressions": [{"key": "tier", "operator": "Exists"}]}}, RED]})
            ),
            selectors(lambda s: AnyOf(s.parts) if isinstance(s, Every) else s),
        ),
        Mutant(
            "namespaces have only the labels that were written",
            cluster(db({"from": [{"namespaceSelector": {"matchLabels": {METADATA_NAME: "red"}}}]})),
            patch=code(Namespace, "all_labels", property(lambda self: dict(self.labels))),
        ),
        Mutant(
            "a policy selects in every namespace",
            cluster(db()),
            patch=code(Meaning, "subjects", all_namespaces),
        ),
        Mutant("policies are told apart by name alone", cluster(db(), db(key="red/db")), by_name),
        Mutant("egress is ignored", cluster(web()), each(lambda one: replace(one, directions=("ingress",), egress=()))),
        Mutant(
            "ingress and egress are swapped",
            cluster(db({"from": [WEB]})),
            each(lambda one: replace(one, directions=("egress",), egress=tuple(Rule(destination=r.source) for r in one.ingress))),
        ),
        Mutant(
            "policyTypes default to both",
            cluster(db({})),
            each(lambda one: replace(one, directions=("ingress", "egress"))),
        ),
        Mutant(
            "policyTypes default to Ingress, whatever the rules",
            cluster(policy("default/web", {"podSelector": app("web"), "ingress": [{}], "egress": [{"to": [WEB]}]})),
            each(lambda one: replace(one, directions=("ingress",))),
        ),
        Mutant(
            "an egress list without rules isolates",
            cluster(db({}, egress=[])),
            each(lambda one: replace(one, directions=("ingress", "egress"))),
        ),
        Mutant("no rules allow everything", cluster(db()), each(lambda one: replace(one, ingress=one.ingress or (Rule(),)))),
        Mutant("an empty from denies", cluster(db({"from": []})), rules(lambda r: None if r.source.anybody else r)),
        Mutant(
            "only the first rule counts",
            cluster(db({"from": [RED]}, {"from": [WEB]})),
            each(lambda one: replace(one, ingress=one.ingress[:1])),
        ),
        Mutant(
            "only the first peer counts",
            cluster(db({"from": [RED, WEB]})),
            each(lambda one: replace(one, ingress=one.ingress[:1])),
        ),
        Mutant(
            "except is ignored",
            cluster(db({"from": [block("0.0.0.0/0", f"{a}/32"), block("::/0")]})),
            peers(lambda p: replace(p, not_nets=())),
        ),
        Mutant(
            "only the first except counts",
            cluster(db({"from": [block("0.0.0.0/0", f"{a}/32", f"{c}/32")]})),
            peers(lambda p: replace(p, not_nets=p.not_nets[:1])),
        ),
        Mutant(
            "except is a deny of its own",
            cluster(db({"from": [block("0.0.0.0/0", f"{a}/32"), WEB]})),
            rules(lambda r: replace(r, source=replace(r.source, not_nets=(ip_network(a),)))),
        ),
        Mutant("host bits are not masked", cluster(db({"from": [block(f"{addresses['red/a']}/16")]})), unmasked),
        Mutant(
            "ipBlock means no pods",
            cluster(db({"from": [block("0.0.0.0/0"), block("::/0")]})),
            peers(lambda p: replace(p, not_nets=POD_CIDR) if p.nets else p),
        ),
        Mutant(
            "endPort is not included",
            cluster(db({"ports": [{"port": 80, "endPort": 81}]})),
            ports(lambda p: replace(p, high=p.high - 1)),
        ),
        Mutant(
            "endPort is one too large",
            cluster(db({"ports": [{"port": 80, "endPort": 80}]})),
            ports(lambda p: replace(p, high=p.high + 1)),
        ),
        Mutant(
            "endPort is ignored", cluster(db({"ports": [{"port": 80, "endPort": 90}]})), ports(lambda p: replace(p, high=p.low))
        ),
        Mutant("no protocol means UDP", cluster(db({"ports": [HTTP]})), rules(lambda r: replace(r, protocol="udp"))),
        Mutant(
            "no protocol means all", cluster(db({"ports": [{"protocol": "UDP"}]})), rules(lambda r: replace(r, protocol=None))
        ),
        Mutant(
            "SCTP is taken for TCP",
            cluster(db({"ports": [{"protocol": "SCTP", "port": 80}]})),
            rules(lambda r: replace(r, protocol="tcp")),
        ),
        Mutant(
            "ports are ignored",
            cluster(db({"from": [WEB], "ports": [HTTP]})),
            rules(lambda r: replace(r, protocol=None, destination=replace(r.destination, ports=()))),
        ),
        Mutant("a protocol without port is no port", cluster(db({"ports": [{"protocol": "TCP"}]})), rules(lambda r: None)),
        Mutant(
            "rules are pooled", cluster(db({"from": [WEB], "ports": [HTTP]}, {"from": [RED], "ports": [{"port": 81}]})), pooled
        ),
        Mutant(
            "a second policy is ignored",
            cluster(db({"from": [WEB]}), db({"from": [RED]}, key="default/more")),
            lambda policies: policies[:1],
        ),
        Mutant(
            "policies intersect",
            cluster(
                db({"from": [WEB]}),
                db(
                    {"from": [{"podSelector": {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}}]},
                    key="default/more",
                ),
            ),
            intersected,
        ),
        Mutant(
            "a name is looked up at the policy's own pods",
            cluster(web({"ports": [{"port": "http"}]})),
            names_of_own,
            {"calico": nullcontext},
        ),
        Mutant(
            "a name is looked up without its protocol",
            cluster(db({"ports": [{"port": "dns"}]})),
            patch={"calico": lambda: mock.patch.object(Meaning, "port", staticmethod(any_protocol))},
        ),
        Mutant(
            "what is known is not accepted",
            cluster(CLOSED, db({"from": [WEB]}), web({"to": [{"podSelector": app("db")}]})),
            patch={
                "calico": lambda: without(calico, "WORKLOAD", "established,related"),
                "weave": lambda: weave_without("established"),
            },
        ),
        Mutant(
            "nothing is denied by default",
            cluster(db({"from": [WEB]})),
            patch={"calico": lambda: calico_without("End of tier"), "weave": lambda: weave_without("drop")},
        ),
        Mutant(
            "egress is not denied by default",
            cluster(web()),
            patch={"weave": lambda: weave_without("egress default deny")},
        ),
        Mutant(
            "what may leave may also enter",
            cluster(policy("red/closed", {"podSelector": {}}), web({"to": [{"namespaceSelector": {}}]})),
            patch={
                "calico": lambda: without(calico, "WORKLOAD", "0xfffcffff"),
                "weave": lambda: weave_rules(
                    lambda chain, found, _: (
                        [found[0], "meta mark & 0x40000 == 0x40000 accept", *found[1:]] if chain.startswith("FORWARD") else found
                    )
                ),
            },
        ),
        Mutant(
            "pods of the same node are not judged",
            cluster(db()),
            patch={
                "weave": lambda: weave_rules(
                    lambda chain, found, family: (
                        [f"ip{'6' * (family == 6)} saddr @weave-local-pods accept", *found] if chain == "WEAVE-NPC" else found
                    )
                )
            },
        ),
        Mutant(
            "nodes are never judged",
            cluster(policy("default/all", {"podSelector": {}})),
            each(
                lambda one: replace(
                    one, ingress=(Rule(source=Peer(nets=(ip_network("192.168.0.0/16"), ip_network("10.1.0.0/16")))),)
                )
            ),
        ),
        Mutant(
            "IPv6 is let pass",
            cluster(db()),
            each(lambda one: replace(one, ingress=(Rule(source=Peer(nets=(ip_network("::/0"),))),))),
        ),
        Mutant(
            "the order of policies decides",
            cluster(db(key="default/a"), db({"from": [WEB]}, key="default/b")),
            lambda policies: policies[:1],
        ),
    )
