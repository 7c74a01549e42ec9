"""NetworkPolicy and GlobalNetworkPolicy of projectcalico.org/v3, evaluated on the manifest, by Calico's reference of resources.

What its text leaves open is as in libcalico-go (lib/backend/syncersv1/updateprocessors/rules.go): a namespaced policy's
``notSelector`` alone means the other pods of its namespace, a global one's whoever is not selected, outside included.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from emulab.objects import EGRESS, INGRESS
from emulab.oracle import labels
from emulab.oracle.decision import IPNetwork, Packet, Party, Said, Written

_NUMBERS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp", 136: "udplite"}
_ECHO = {4: 8, 6: 128}  # the ICMP type of what probes send


class CalicoPolicy(Written):
    """``namespace`` is "" for a global one."""

    unites = False

    def __init__(self, namespace: str, name: str, manifest: Mapping[str, Any]) -> None:
        self.key, self.namespace = f"{namespace}/{name}" if namespace else name, namespace
        spec: Mapping[str, Any] = manifest.get("spec") or {}
        self.tier = str(spec.get("tier") or "default")
        inside = name if name.startswith(f"{self.tier}.") else f"{self.tier}.{name}"
        self.rank = f"{namespace}/{inside}" if namespace else inside  # felix/calc/policy_sorter.go: by the v1 name
        self.order = math.inf if spec.get("order") is None else float(spec["order"])
        self._expressions = [str(spec.get("selector") or "")]
        self._selects = labels.calico(self._expressions[0])
        self._namespaces = labels.calico(str(spec.get("namespaceSelector") or ""))
        self._for_workloads = not (spec.get("preDNAT") or spec.get("doNotTrack"))
        written = {direction: list(spec.get(direction) or ()) for direction in (INGRESS, EGRESS)}
        given = [str(one).lower() for one in spec.get("types") or ()]
        if not given:
            given = [EGRESS] * bool(written[EGRESS])
            given += [INGRESS] * (bool(written[INGRESS]) or not given)
        self._types = set(given)
        self._rules = {direction: [_Rule(namespace, one) for one in rules] for direction, rules in written.items()}

    def governs(self, party: Party, direction: str) -> bool:
        if not party.namespace or direction not in self._types or not self._for_workloads:
            return False
        here = party.namespace == self.namespace if self.namespace else self._namespaces(_namespace_labels(party))
        return here and self._selects(_labels(party))

    def says(self, direction: str, packet: Packet) -> list[Said]:
        for index, rule in enumerate(self._rules[direction]):
            if rule.action != "log" and rule.matches(packet):
                return [Said(rule.action, f"{direction}[{index}]")]
        return []

    def _ends(self) -> Iterator[_End]:
        for rules in self._rules.values():
            for rule in rules:
                yield from (rule.source, rule.destination)

    def keys(self) -> Iterable[str]:
        for expression in [*self._expressions, *(one for end in self._ends() for one in end.expressions)]:
            yield from labels.calico_keys(expression)

    def nets(self) -> Iterable[IPNetwork]:
        for end in self._ends():
            yield from (*end.nets, *end.not_nets)


class _Rule:
    def __init__(self, own: str, written: Mapping[str, Any]) -> None:
        self.action = str(written["action"]).lower()
        self._version = written.get("ipVersion")
        self._protocol, self._not_protocol = _protocol(written.get("protocol")), _protocol(written.get("notProtocol"))
        self._icmp: Mapping[str, Any] | None = written.get("icmp")
        self._not_icmp: Mapping[str, Any] | None = written.get("notICMP")
        self.source, self.destination = (_End(own, written.get(name) or {}) for name in ("source", "destination"))

    def matches(self, packet: Packet) -> bool:
        family = packet.source.address.version
        protocol = packet.protocol if packet.protocol != "icmp" or family == 4 else "icmpv6"
        if self._version is not None and int(self._version) != family:
            return False
        if self._protocol is not None and protocol != self._protocol:
            return False
        if self._not_protocol is not None and protocol == self._not_protocol:
            return False
        if self._icmp is not None and not _is_echo(self._icmp, protocol, family):
            return False
        if self._not_icmp is not None and _is_echo(self._not_icmp, protocol, family):
            return False
        return self.source.is_meant(packet.source) and self.destination.is_meant(packet.destination, packet)


class _End:
    """An EntityRule.  Ports count at the destination only: a probe's source port is nobody's choice."""

    def __init__(self, own: str, written: Mapping[str, Any]) -> None:
        self._own = own
        pods, not_pods, namespaces = (str(written.get(key) or "") for key in ("selector", "notSelector", "namespaceSelector"))
        self.expressions = [pods, not_pods]
        self._pods, self._namespaces = labels.calico(pods), labels.calico(namespaces)
        self._not_pods = labels.calico(not_pods) if not_pods else None
        self._among_pods = bool(pods or namespaces or (not_pods and own))
        self._everywhere = bool(namespaces) or not own
        self.nets, self.not_nets = ([_network(one) for one in written.get(key) or ()] for key in ("nets", "notNets"))
        self._ports, self._not_ports = (list(written.get(key) or ()) for key in ("ports", "notPorts"))

    def is_meant(self, party: Party, packet: Packet | None = None) -> bool:
        if self._among_pods and not self._is_among(party):
            return False
        if self._not_pods is not None and party.namespace and self._not_pods(_labels(party)):
            return False
        if self.nets and not any(party.address in net for net in self.nets):
            return False
        if any(party.address in net for net in self.not_nets):
            return False
        if self.not_nets and not any(party.address.version == net.version for net in self.not_nets):
            return False  # the rule is not for this family (FilterRuleToIPVersion in felix/rules/policy.go)
        if self._ports and not (packet and any(_is_port(port, packet) for port in self._ports)):
            return False
        return not (packet and any(_is_port(port, packet) for port in self._not_ports))

    def _is_among(self, party: Party) -> bool:
        if not party.namespace:
            return False
        near = self._namespaces(_namespace_labels(party)) if self._everywhere else party.namespace == self._own
        return near and self._pods(_labels(party))


def _labels(party: Party) -> Mapping[str, str]:
    """A workload endpoint's labels: the pod's, those that Calico adds, and its namespace's (libcalico-go conversion.go)."""
    given = {"projectcalico.org/namespace": party.namespace, "projectcalico.org/orchestrator": "k8s"}
    inherited = {f"pcns.{key}": value for key, value in _namespace_labels(party).items()}
    return {**inherited, **party.labels, **given}


def _namespace_labels(party: Party) -> Mapping[str, str]:
    return {**party.namespace_labels, "projectcalico.org/name": party.namespace}


def _is_port(port: int | str, packet: Packet) -> bool:
    """A number, a range like "80:90", or the name of one of the destination's ports."""
    if packet.protocol not in ("tcp", "udp", "sctp"):
        return False
    first, _, last = str(port).partition(":")
    if first.isdigit():
        return int(first) <= packet.port <= int(last or first)
    return packet.destination.ports.get((first, packet.protocol)) == packet.port


def _is_echo(icmp: Mapping[str, Any], protocol: str, family: int) -> bool:
    kind, code = icmp.get("type"), icmp.get("code")
    return protocol in ("icmp", "icmpv6") and kind in (None, _ECHO[family]) and code in (None, 0)


def _protocol(value: int | str | None) -> str | None:
    if value is None:
        return None
    text = str(value).lower()
    return _NUMBERS.get(int(text), text) if text.isdigit() else text


def _network(text: str) -> IPNetwork:
    return ipaddress.ip_network(text, strict=False)
