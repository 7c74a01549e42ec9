"""Calico's NetworkPolicy, GlobalNetworkPolicy and Tier (projectcalico.org/v3) as values of `emulab.objects`.

Defaults and what selectors mean are those of libcalico-go (lib/backend/syncersv1/updateprocessors, lib/validator/v3).
What emulab does not do is refused: service accounts, HTTP, host endpoints' policies.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable, Iterator
from typing import Any

from emulab.errors import InputError
from emulab.kube import syntax
from emulab.kube.document import Document
from emulab.objects import DEFAULT_TIER, EGRESS, INGRESS, METADATA_NAME, IPNetwork, Peer, Policy, PortRange, Rule, Tier
from emulab.selector import AnyOf, Every, Everything, Has, In, Not, Selector, Text, both
from emulab.selector_parser import parse
from emulab.text import Path

NAMESPACE = "projectcalico.org/namespace"  # that every workload endpoint is labelled with
ORCHESTRATOR = "projectcalico.org/orchestrator"
NAME = "projectcalico.org/name"  # that every namespace is labelled with
_SYSTEM = "projectcalico.org/"
_NOBODY = Not(Everything())
_TYPES = ("Ingress", "Egress")
_ACTIONS = ("Allow", "Deny", "Log", "Pass")
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp", 136: "udplite"}  # IANA's numbers
_NAMES = ("TCP", "UDP", "ICMP", "ICMPv6", "SCTP", "UDPLite")
_WITH_PORTS = ("tcp", "udp", "sctp")
_DEFAULT_ORDER = 1_000_000
_UNSUPPORTED = {
    "serviceAccountSelector": "service accounts",
    "serviceAccounts": "service accounts",
    "services": "rules for Services",
    "http": "HTTP rules",
    "notICMP": "notICMP",
    "doNotTrack": "policies for host endpoints",
    "preDNAT": "policies for host endpoints",
    "applyOnForward": "policies for host endpoints",
}


def policy(found: Document) -> Policy:
    """A NetworkPolicy, or a GlobalNetworkPolicy, which is in no namespace."""
    spec = found.model.spec
    if spec is None:
        found.fail(("spec",), "required")
    _refuse(found, ("spec",), spec)
    tier = spec.tier or DEFAULT_TIER
    syntax.label(found, ("spec", "tier"), tier, "name for a Tier")
    for index, one in enumerate(spec.types or ()):
        syntax.one_of(found, ("spec", "types", index), one, _TYPES)
    rules = {direction: tuple(_rules(found, direction, getattr(spec, direction))) for direction in (INGRESS, EGRESS)}
    types = spec.types or [one for one in _TYPES if rules[one.lower()]] or ["Ingress"]
    directions = tuple(one.lower() for one in _TYPES if one in types)
    selector, namespaces = _pods(found, ("spec", "selector"), spec.selector or "")
    text = getattr(spec, "namespaceSelector", None)
    if text:
        namespaces = both([_namespaces(found, ("spec", "namespaceSelector"), text), namespaces or Everything()])
    if found.namespace:
        selector, namespaces = _at_home(found, selector, namespaces), None
    return Policy(
        api=found.kind.api,
        kind=found.kind.name,
        namespace=found.namespace,
        name=found.name,
        selector=selector,
        namespaces=namespaces,
        directions=directions,
        ingress=rules[INGRESS] if INGRESS in directions else (),
        egress=rules[EGRESS] if EGRESS in directions else (),
        tier=tier,
        order=math.inf if spec.order is None else spec.order,
        labels=found.labels,
        manifest=found.manifest,
    )


def tier(found: Document) -> Tier:
    """A Tier; one without an order comes last."""
    spec = found.model.spec
    syntax.label(found, ("metadata", "name"), found.name, "name for a Tier")
    order = math.inf if spec is None or spec.order is None else spec.order
    action = (spec.defaultAction if spec else None) or "Deny"
    syntax.one_of(found, ("spec", "defaultAction"), action, ("Deny", "Pass"))
    if found.name == DEFAULT_TIER and (order, action) != (_DEFAULT_ORDER, "Deny"):
        found.fail(("spec",), f"the default tier has order {_DEFAULT_ORDER} and defaultAction Deny, and keeps them")
    return Tier(found.name, order, action.lower(), found.labels, found.manifest)


def _refuse(found: Document, at: Path, given: Any) -> None:
    """Fields that would have a meaning, which emulab does not give them."""
    for name, what in _UNSUPPORTED.items():
        if getattr(given, name, None):
            found.fail((*at, name), f"{what}: not supported")


def _rules(found: Document, direction: str, given: list[Any] | None) -> Iterator[Rule]:
    for index, one in enumerate(given or ()):
        at: Path = ("spec", direction, index)
        _refuse(found, at, one)
        action = syntax.one_of(found, (*at, "action"), one.action, _ACTIONS).lower()
        family = one.ipVersion
        if family not in (None, 4, 6):
            found.fail((*at, "ipVersion"), f"{family}: 4 or 6 expected")
        protocol = _protocol(found, (*at, "protocol"), one.protocol)
        ends = []
        for side, entity in (("source", one.source), ("destination", one.destination)):
            peer = Peer() if entity is None else _peer(found, (*at, side), entity, family)
            if (peer.ports or peer.not_ports) and protocol not in _WITH_PORTS:
                field = "ports" if peer.ports else "notPorts"
                found.fail((*at, side, field), "need protocol TCP, UDP or SCTP in the rule")
            ends.append(peer)
        yield Rule(
            action,
            protocol,
            _protocol(found, (*at, "notProtocol"), one.notProtocol),
            family,
            source=ends[0],
            destination=ends[1],
            icmp=_icmp(found, (*at, "icmp"), one.icmp, protocol),
            origin=f"{direction}[{index}]",
        )


def _protocol(found: Document, at: Path, given: int | str | None) -> str | None:
    """A name in lower case, or a number as text where the number has no name here."""
    if given is None:
        return None
    text = str(given)
    if text.isdecimal() and len(text) < 4:
        return _PROTOCOLS.get(syntax.number(found, at, int(text), 1, 255), text)
    names = {name.lower(): name for name in _NAMES}
    if text.lower() not in names:
        found.fail(at, f"'{text[:60]}': {', '.join(_NAMES)} or a number expected")
    return text.lower()


def _icmp(found: Document, at: Path, given: Any, protocol: str | None) -> tuple[int, int | None] | None:
    if given is None or (given.type is None and given.code is None):
        return None
    if protocol not in ("icmp", "icmpv6"):
        found.fail(at, "needs protocol ICMP or ICMPv6 in the rule")
    if given.type is None:
        found.fail((*at, "code"), "needs a type")
    syntax.number(found, (*at, "type"), given.type, 0, 254)
    if given.code is not None:
        syntax.number(found, (*at, "code"), given.code, 0, 255)
    return given.type, given.code


def _peer(found: Document, at: Path, given: Any, family: int | None) -> Peer:
    """One side of a rule.

    Any of the selectors, ``notSelector`` too, makes a namespaced policy mean pods of its own namespace, or of those that
    ``namespaceSelector`` selects (GetEntityRuleSelector in updateprocessors/rules.go).
    """
    _refuse(found, at, given)
    pods, namespaces = _pods(found, (*at, "selector"), given.selector) if given.selector else (None, None)
    if given.namespaceSelector:
        chosen = _namespaces(found, (*at, "namespaceSelector"), given.namespaceSelector)
        namespaces = both([chosen, namespaces or Everything()])
    elif found.namespace and pods is not None:
        pods, namespaces = _at_home(found, pods, namespaces), None
    not_pods = None
    if given.notSelector:
        not_pods, apart = _pods(found, (*at, "notSelector"), given.notSelector)
        if apart is not None:
            found.fail((*at, "notSelector"), f"{NAMESPACE}: not supported here, use namespaceSelector")
        if found.namespace and pods is None and namespaces is None:
            pods = Everything()
    return Peer(
        pods,
        namespaces,
        not_pods,
        _nets(found, (*at, "nets"), given.nets, family),
        _nets(found, (*at, "notNets"), given.notNets, family),
        tuple(_ports(found, (*at, "ports"), given.ports)),
        tuple(_ports(found, (*at, "notPorts"), given.notPorts)),
    )


def _nets(found: Document, at: Path, given: list[str] | None, family: int | None) -> tuple[IPNetwork, ...]:
    nets = []
    for index, text in enumerate(given or ()):
        try:
            net = ipaddress.ip_network(text if "%" not in text else "", strict=False)
        except ValueError:
            found.fail((*at, index), f"{text[:60]!r} is no network and no address: e.g. 10.9.8.0/24 expected")
        if family not in (None, net.version):
            found.fail((*at, index), f"{text} is not of ipVersion {family}")
        nets.append(net)
    return tuple(nets)


def _ports(found: Document, at: Path, given: list[int | str] | None) -> Iterator[PortRange]:
    """Numbers, ranges (``80:90``, both included) and names."""
    for index, one in enumerate(given or ()):
        place: Path = (*at, index)
        low, colon, high = str(one).partition(":")
        if low.lstrip("-").isdecimal() and (high.isdecimal() or not colon):
            first, last = (syntax.number(found, place, int(text), 0) for text in (low, high or low))
            if first > last:
                found.fail(place, f"{one}: the smaller number is expected first")
            yield PortRange(first, last)
        elif colon:
            found.fail(place, f"'{str(one)[:60]}': two numbers expected, e.g. 80:90")
        else:
            yield PortRange(name=syntax.port_name(found, place, str(one)))


def _parsed(found: Document, at: Path, text: str) -> Selector:
    try:
        return parse(text)
    except InputError as error:
        found.fail(at, str(error).removeprefix("selector "))


def _namespaces(found: Document, at: Path, text: str) -> Selector:
    """A namespaceSelector; the label that Calico gives a namespace is the one that the API server gives it."""
    return _renamed(_parsed(found, at, text), lambda key: METADATA_NAME if key == NAME else key)


def _pods(found: Document, at: Path, text: str) -> tuple[Selector, Selector | None]:
    """A selector of pods: what it asks of their own labels, and what of their namespace (projectcalico.org/namespace)."""
    selector = _parsed(found, at, text)
    pods: list[Selector] = []
    namespaces: list[Selector] = []
    for part in selector.parts if isinstance(selector, Every) else (selector,):
        system = {key for key in _keys(part) if key.startswith(_SYSTEM)}
        if not system:
            pods.append(part)
        elif set(_keys(part)) == {NAMESPACE}:
            namespaces.append(_renamed(part, lambda key: METADATA_NAME))
        elif set(_keys(part)) == {ORCHESTRATOR}:
            pods.append(Everything() if part.matches({ORCHESTRATOR: "k8s"}) else _NOBODY)
        else:
            known = f"{NAMESPACE} and {ORCHESTRATOR} are, joined with && to what else is asked"
            found.fail(at, f"{sorted(system)[0]}: not supported here ({known})")
    return both(pods), both(namespaces) if namespaces else None


def _at_home(found: Document, pods: Selector, namespaces: Selector | None) -> Selector:
    """What a namespaced policy's selector means: nobody, when it asks for another namespace."""
    return pods if namespaces is None or namespaces.matches({METADATA_NAME: found.namespace}) else _NOBODY


def _keys(selector: Selector) -> Iterator[str]:
    if isinstance(selector, (Has, In, Text)):
        yield selector.key
    elif isinstance(selector, Not):
        yield from _keys(selector.part)
    elif isinstance(selector, (Every, AnyOf)):
        for part in selector.parts:
            yield from _keys(part)


def _renamed(selector: Selector, name: Callable[[str], str]) -> Selector:
    """The same condition on labels of other names."""
    if isinstance(selector, Has):
        return Has(name(selector.key))
    if isinstance(selector, In):
        return In(name(selector.key), selector.values)
    if isinstance(selector, Text):
        return Text(name(selector.key), selector.test, selector.part)
    if isinstance(selector, Not):
        return Not(_renamed(selector.part, name))
    if isinstance(selector, (Every, AnyOf)):
        return type(selector)(tuple(_renamed(part, name) for part in selector.parts))
    return selector
