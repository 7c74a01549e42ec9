"""NetworkPolicy of networking.k8s.io/v1, evaluated on the manifest, by the API's text (k8s.io/api/networking/v1/types.go)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from emulab.objects import EGRESS, INGRESS
from emulab.oracle import labels
from emulab.oracle.decision import IPNetwork, Packet, Party, Said, Written

_PEERS = {INGRESS: "from", EGRESS: "to"}
_PORT_PROTOCOLS = ("tcp", "udp", "sctp")


class NetworkPolicy(Written):
    """``tier`` and ``order`` are what Calico gives it, for clusters that have both kinds."""

    tier, order, unites = "default", 1000.0, True

    def __init__(self, namespace: str, name: str, manifest: Mapping[str, Any]) -> None:
        self.key, self.namespace = f"{namespace}/{name}", namespace
        self.rank = f"{namespace}/knp.default.{name}"
        self._spec: Mapping[str, Any] = manifest.get("spec") or {}
        self._selects = labels.kubernetes(self._spec.get("podSelector") or {})
        # SetDefaults_NetworkPolicy: none given, then Ingress, and Egress if there is an egress rule.
        given = self._spec.get("policyTypes") or ["Ingress", *(["Egress"] if self._spec.get(EGRESS) else [])]
        self._types = {str(one).lower() for one in given}
        self._rules = {direction: [_Rule(self, one, direction) for one in self._written(direction)] for direction in _PEERS}

    def _written(self, direction: str) -> list[Mapping[str, Any]]:
        return [one or {} for one in self._spec.get(direction) or ()]

    def governs(self, party: Party, direction: str) -> bool:
        return direction in self._types and party.namespace == self.namespace and self._selects(party.labels)

    def says(self, direction: str, packet: Packet) -> list[Said]:
        found = (rule.allows(packet) for rule in self._rules[direction])
        return [
            Said("allow", f"{direction}[{index}]{'' if peer is None else f'.{_PEERS[direction]}[{peer}]'}")
            for index, peers in enumerate(found)
            for peer in peers
        ]

    def _peers(self) -> Iterator[Mapping[str, Any]]:
        for direction, name in _PEERS.items():
            for rule in self._written(direction):
                yield from rule.get(name) or ()

    def keys(self) -> Iterable[str]:
        yield from labels.kubernetes_keys(self._spec.get("podSelector") or {})
        for peer in self._peers():
            yield from labels.kubernetes_keys(peer.get("podSelector") or {})

    def nets(self) -> Iterable[IPNetwork]:
        for peer in self._peers():
            if block := peer.get("ipBlock"):
                yield from map(_network, [block["cidr"], *(block.get("except") or ())])


class _Rule:
    """One entry of ``ingress`` or ``egress``: a peer and a port of it must match, empty lists match everything."""

    def __init__(self, policy: NetworkPolicy, written: Mapping[str, Any], direction: str) -> None:
        self._ingress = direction == INGRESS
        self._peers = [_Peer(policy.namespace, one) for one in written.get(_PEERS[direction]) or ()]
        self._ports = [one or {} for one in written.get("ports") or ()]

    def allows(self, packet: Packet) -> list[int | None]:
        """The numbers of the peers that match, [None] where everybody does."""
        if self._ports and not any(_reaches(port, packet) for port in self._ports):
            return []
        if not self._peers:
            return [None]
        other = packet.source if self._ingress else packet.destination
        return [index for index, peer in enumerate(self._peers) if peer.is_meant(other)]


class _Peer:
    """Pods by labels, or addresses by ``ipBlock``."""

    def __init__(self, own: str, written: Mapping[str, Any]) -> None:
        self._own = own
        pods, namespaces, block = (written.get(name) for name in ("podSelector", "namespaceSelector", "ipBlock"))
        self._pods = None if pods is None else labels.kubernetes(pods)
        self._namespaces = None if namespaces is None else labels.kubernetes(namespaces)
        self._block = _network(block["cidr"]) if block else None
        self._holes = [_network(one) for one in (block.get("except") or ())] if block else []

    def is_meant(self, party: Party) -> bool:
        if self._block is not None:
            return party.address in self._block and not any(party.address in hole for hole in self._holes)
        if not party.namespace or (self._pods is None and self._namespaces is None):
            return False
        near = party.namespace == self._own if self._namespaces is None else self._namespaces(party.namespace_labels)
        return near and (self._pods is None or self._pods(party.labels))


def _reaches(port: Mapping[str, Any], packet: Packet) -> bool:
    """An entry of ``ports``; a name is looked up among the ports of the pod that is the destination, whoever that is."""
    protocol = str(port.get("protocol") or "TCP").lower()
    if packet.protocol != protocol or protocol not in _PORT_PROTOCOLS:
        return False
    first, last = port.get("port"), port.get("endPort")
    if first is None:
        return True
    if isinstance(first, str):
        return packet.destination.ports.get((first, protocol)) == packet.port
    return int(first) <= packet.port <= int(last or first)


def _network(text: str) -> IPNetwork:
    return ipaddress.ip_network(text, strict=False)
