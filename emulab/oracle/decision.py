"""What the oracle is asked and what it answers, as values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple, Union

from emulab.model import IPAddress

IPNetwork = Union[IPv4Network, IPv6Network]


class Party(NamedTuple):
    """One end of a flow, with all that a policy can ask of it; ``namespace`` is "" for whatever is no pod.

    ``ports``: (name, protocol) -> number of the ports that a pod's containers declare by name.
    """

    address: IPAddress
    namespace: str = ""
    labels: Mapping[str, str] = {}
    namespace_labels: Mapping[str, str] = {}
    ports: Mapping[tuple[str, str], int] = {}


class Packet(NamedTuple):
    """The first packet of a flow; ``port`` is the destination's, 0 for ICMP."""

    source: Party
    destination: Party
    protocol: str
    port: int


class Said(NamedTuple):
    """What a rule does: ``action`` is "allow", "deny" or "pass", ``rule`` its place in the manifest."""

    action: str
    rule: str


class Written(ABC):
    """A policy read from its manifest.  Lower ``order`` comes first within a ``tier``, then ``rank``."""

    key: str
    tier: str
    order: float
    rank: str
    unites: bool  # whether its rules only ever add to what others allow: Kubernetes' policies

    @abstractmethod
    def governs(self, party: Party, direction: str) -> bool:
        """Whether it selects a pod for this direction."""

    @abstractmethod
    def says(self, direction: str, packet: Packet) -> list[Said]:
        """The rules that match and decide, the first one first."""

    @abstractmethod
    def keys(self) -> Iterable[str]:
        """The label keys of pods that it asks for."""

    @abstractmethod
    def nets(self) -> Iterable[IPNetwork]:
        """The networks that its rules name."""


@dataclass(frozen=True)
class Side:
    """What policies say about one direction at one ``pod``: egress of the client, ingress of the server.

    ``policies`` are those that select the pod, by key; where there is none it is not isolated.  ``rules`` are the (policy,
    rule) pairs that allow the flow, or the one that denies it; none: no rule matches, and the ``tier`` denies the rest.
    """

    direction: str
    pod: str
    allowed: bool
    policies: tuple[str, ...] = ()
    rules: tuple[tuple[str, str], ...] = ()
    tier: str = ""

    @property
    def isolated(self) -> bool:
        return bool(self.policies)

    def of(self, pod: str) -> Side:
        """The same said about another pod that no policy can tell apart."""
        return Side(self.direction, pod, self.allowed, self.policies, self.rules, self.tier)

    def __str__(self) -> str:
        what = f"{self.direction} of {self.pod}"
        if not self.policies:
            return f"{what} is not isolated"
        if self.rules:
            policy, rule = self.rules[0]
            return f"{what}: policy {policy}, {rule}" + ("" if self.allowed else " denies it")
        named = f"{'policy' if len(self.policies) == 1 else 'policies'} {', '.join(self.policies)}"
        return f"{what}: {named} let it pass" if self.allowed else f"{what}: no rule of {named} allows it"


@dataclass(frozen=True)
class Decision:
    """Whether policies let a flow pass, and why: by the ``sides``, or by the ``exception`` from all policy."""

    source: str
    destination: str
    protocol: str
    port: int
    family: int
    sides: tuple[Side, ...] = ()
    exception: str = ""

    @property
    def allowed(self) -> bool:
        return all(side.allowed for side in self.sides)

    @property
    def denier(self) -> Side | None:
        """The side that denies it, the client's first."""
        return next((side for side in self.sides if not side.allowed), None)

    @property
    def denied_by(self) -> str:
        """The policies to whom a denial is due, "default/web, default/all"; "" when it is allowed."""
        side = self.denier
        if side is None:
            return ""
        return side.rules[0][0] if side.rules else ", ".join(side.policies)

    def side(self, direction: str) -> Side | None:
        return next((side for side in self.sides if side.direction == direction), None)

    def __str__(self) -> str:
        verdict = "allowed" if self.allowed else "denied"
        told = self.sides if self.allowed else [side for side in self.sides if not side.allowed]
        return f"{verdict}: {self.exception or '; '.join(map(str, told)) or 'no pod has a say'}"
