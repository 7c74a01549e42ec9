"""The judge of policies: who may talk to whom, by the texts of the APIs alone.

It reads policies as they were written (the manifests' dictionaries) and shares no code with the conversion that `emulab.kube`
makes of them, nor with the data planes' compilers: what it says is compared with what kernels do, and two that copy from
each other prove nothing.  Pure.

It tells what a policy means, whoever enforces it; see `DataPlane.unenforced`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from ipaddress import ip_address

from emulab.errors import InputError
from emulab.model import Cluster, Endpoint, IPAddress
from emulab.objects import EGRESS, INGRESS
from emulab.oracle.calico import CalicoPolicy
from emulab.oracle.decision import Decision, Packet, Party, Side, Written
from emulab.oracle.kubernetes import NetworkPolicy

__all__ = ["Decision", "Oracle", "Side"]

# Calico's own tiers (libcalico-go/lib/names): order and what becomes of packets that no policy of the tier decides on.
_TIERS = {"kube-admin": (1e3, "pass"), "default": (1e6, "deny"), "kube-baseline": (1e7, "pass")}
_ITSELF = "a pod always reaches itself"
_OWN_NODE = "a node and its own pods always reach each other"


class Oracle:
    """Answers for one cluster.  Pods that no policy can tell apart are judged once, so that a million pairs take a moment."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        objects = cluster.topology.objects
        self._policies: list[Written] = [
            NetworkPolicy(one.namespace, one.name, one.manifest)
            if one.api == "networking.k8s.io/v1"
            else CalicoPolicy(one.namespace, one.name, one.manifest)
            for one in objects.policies
        ]
        self._tiers: dict[str, tuple[float, str]] = dict(_TIERS)
        for tier in objects.tiers:
            spec = tier.manifest.get("spec") or {}
            order, default = _TIERS.get(tier.name, (math.inf, "deny"))
            order = order if spec.get("order") is None else float(spec["order"])
            self._tiers[tier.name] = (order, str(spec.get("defaultAction") or default).lower())
        self._keys = {key for policy in self._policies for key in policy.keys()}  # noqa: SIM118 (a method, not a mapping's)
        self._nets = list(dict.fromkeys(net for policy in self._policies for net in policy.nets()))
        self._classes: dict[tuple[object, ...], int] = {}
        self._members: list[Party] = []  # one of each class
        self._governing: dict[tuple[int, str], list[Written]] = {}
        self._judged: dict[tuple[int, int, str, int], tuple[Side, ...]] = {}
        self._known: dict[tuple[str, int], int] = {}

    @property
    def active(self) -> bool:
        """Whether there is any policy at all."""
        return bool(self._policies)

    def decide(
        self, source: str | IPAddress, destination: str | IPAddress, protocol: str, port: int, family: int | None = None
    ) -> Decision:
        """Whether a flow may pass, and by which rules.

        Both ends are a pod's key, a node's name, or an address, which may be theirs; ``protocol`` is tcp, udp, sctp or icmp,
        ``port`` the destination's (0 for ICMP).  ``family``: where names alone leave it open; default: the first that both
        have.  A flow between pods counts as between their addresses, whatever a Service translates it to.
        """
        family = family or self._family(source, destination)
        here, there = self._name(source), self._name(destination)
        port = 0 if protocol == "icmp" else port
        told = (here, there, protocol, port, family)
        if here == there and here in self._endpoints:
            return Decision(*told, exception=_ITSELF)
        if any(self._node(one) == self._home(other) for one, other in ((here, there), (there, here))):
            return Decision(*told, exception=_OWN_NODE)
        sides = self._sides(self._class(source, here, family), self._class(destination, there, family), protocol, port)
        names = {EGRESS: here, INGRESS: there}
        return Decision(*told, tuple(side.of(names[side.direction]) for side in sides))

    def denied(self, protocol: str, port: int, family: int) -> list[bytes]:
        """All pairs of pods at once: ``denied[destination][source]`` is 1 where policies do not let the flow pass.

        Both in the order of the cluster's endpoints, and all of these have an address of this ``family``.
        """
        endpoints = self._cluster.endpoints
        classes = [self._class(endpoint.key, endpoint.key, family) for endpoint in endpoints]
        rows: dict[int, bytes] = {}
        found = []
        for index, there in enumerate(classes):
            if there not in rows:
                verdicts = {here: not self._passes(here, there, protocol, port) for here in set(classes)}
                rows[there] = bytes(verdicts[here] for here in classes)
            row = rows[there]
            found.append(row[:index] + b"\0" + row[index + 1 :])  # itself it always reaches
        return found

    def _passes(self, here: int, there: int, protocol: str, port: int) -> bool:
        return all(side.allowed for side in self._sides(here, there, protocol, port))

    # Who is who.

    @cached_property
    def _endpoints(self) -> dict[str, Endpoint]:
        return {endpoint.key: endpoint for endpoint in self._cluster.endpoints}

    @cached_property
    def _owners(self) -> dict[IPAddress, str]:
        """Whose address it is: a pod's key, a node's name."""
        found: dict[IPAddress, str] = {a: endpoint.key for endpoint in self._cluster.endpoints for a in endpoint.addresses}
        for link in self._cluster.topology.links:
            found.update(dict.fromkeys((address.ip for address in link.addresses), link.node))
        for node, addresses in self._cluster.gateways.items():
            found.update(dict.fromkeys(addresses, node))
        return found

    @cached_property
    def _nodes(self) -> frozenset[str]:
        return frozenset(node.name for node in self._cluster.nodes)

    def _name(self, end: str | IPAddress) -> str:
        if not isinstance(end, str):
            return self._owners.get(end, str(end))
        if end not in self._endpoints and end not in self._nodes:
            raise InputError(f"no pod or node '{end}'")
        return end

    def _node(self, name: str) -> str | None:
        return name if name in self._nodes else None

    def _home(self, name: str) -> str:
        """The node of a pod, "" for anybody else."""
        return self._endpoints[name].node if name in self._endpoints else ""

    def _addresses(self, end: str | IPAddress) -> Sequence[IPAddress]:
        if not isinstance(end, str):
            return [end]
        if end in self._endpoints:
            return self._endpoints[end].addresses
        return [a.ip for a in self._cluster.topology.uplink(end).addresses] if end in self._nodes else []

    def _family(self, source: str | IPAddress, destination: str | IPAddress) -> int:
        for end in (source, destination):
            self._name(end)
        one, other = ({a.version for a in self._addresses(end)} for end in (source, destination))
        if not one & other:
            raise InputError(f"{source} and {destination} have no address family in common")
        return min(one & other)

    # Which of them are alike.

    def _class(self, end: str | IPAddress, name: str, family: int) -> int:
        """The number of a party's class: who has it looks the same to all policies."""
        known = (str(end), family)
        if known not in self._known:
            found = next((a for a in self._addresses(end) if a.version == family), None)
            if found is None:
                raise InputError(f"{end} has no IPv{family} address")
            party = self._party(name, ip_address(found))
            nets = tuple(found in net for net in self._nets)
            labels = tuple(sorted((k, v) for k, v in party.labels.items() if k in self._keys))
            looks = (family, party.namespace, labels, tuple(sorted(party.ports.items())), nets)
            if looks not in self._classes:
                self._classes[looks] = len(self._members)
                self._members.append(party)
            self._known[known] = self._classes[looks]
        return self._known[known]

    def _party(self, name: str, address: IPAddress) -> Party:
        if name not in self._endpoints:
            return Party(address)
        pod = self._endpoints[name].pod
        written = dict(self._cluster.topology.objects.namespace(pod.namespace).labels)
        namespace = {**written, "kubernetes.io/metadata.name": pod.namespace}  # the API server sets it, whatever was written
        ports = {(port.name, port.protocol): port.number for port in pod.ports if port.name}
        return Party(address, pod.namespace, dict(pod.labels), namespace, ports)

    # What the policies say.

    def _governs(self, party: int, direction: str) -> list[Written]:
        """The policies that select a pod, in the order in which they count."""
        if (party, direction) not in self._governing:

            def place(policy: Written) -> tuple[float, str, float, str]:
                return self._tiers.get(policy.tier, (math.inf, ""))[0], policy.tier, policy.order, policy.rank

            chosen = [policy for policy in self._policies if policy.governs(self._members[party], direction)]
            self._governing[party, direction] = sorted(chosen, key=place)
        return self._governing[party, direction]

    def _sides(self, here: int, there: int, protocol: str, port: int) -> tuple[Side, ...]:
        key = (here, there, protocol, port)
        if key not in self._judged:
            packet = Packet(self._members[here], self._members[there], protocol, port)
            ends = ((here, EGRESS), (there, INGRESS))
            self._judged[key] = tuple(
                self._side(party, direction, packet) for party, direction in ends if self._members[party].namespace
            )
        return self._judged[key]

    def _side(self, party: int, direction: str, packet: Packet) -> Side:
        """Tier by tier: the first rule that matches decides; what nobody allows is denied where a policy selects the pod."""
        policies = self._governs(party, direction)
        names = tuple(policy.key for policy in policies)
        for tier in dict.fromkeys(policy.tier for policy in policies):
            inside = [policy for policy in policies if policy.tier == tier]
            said = [(policy, one) for policy in inside for one in policy.says(direction, packet)]
            if not said:
                if self._tiers.get(tier, (0.0, "deny"))[1] == "pass":
                    continue
                return Side(direction, "", False, names, (), tier)
            policy, first = said[0]
            if first.action == "pass":
                continue
            if first.action == "deny":
                return Side(direction, "", False, names, ((policy.key, first.rule),), tier)
            alike = [(p.key, one.rule) for p, one in said if p is policy or (p.unites and policy.unites)]
            return Side(direction, "", True, names, tuple(alike), tier)
        return Side(direction, "", True, names)
