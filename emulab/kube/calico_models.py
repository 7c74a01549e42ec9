"""The shape of Calico's own kinds, projectcalico.org/v3 (api/pkg/apis/projectcalico/v3).

Fields that emulab has no meaning for are there, as anything, so that whoever uses one is told so (`emulab.kube.calico`).
"""

from __future__ import annotations

from typing import Any, Union

import msgspec
from lightkube.models.meta_v1 import ObjectMeta

PortText = Union[int, str]


class Icmp(msgspec.Struct):
    type: int | None = None
    code: int | None = None


class EntityRule(msgspec.Struct):
    """One side of a rule."""

    nets: list[str] | None = None
    notNets: list[str] | None = None
    selector: str | None = None
    notSelector: str | None = None
    namespaceSelector: str | None = None
    ports: list[PortText] | None = None
    notPorts: list[PortText] | None = None
    services: Any = None
    serviceAccounts: Any = None


class Rule(msgspec.Struct):
    action: str
    metadata: Any = None
    ipVersion: int | None = None
    protocol: PortText | None = None
    notProtocol: PortText | None = None
    icmp: Icmp | None = None
    notICMP: Any = None
    source: EntityRule | None = None
    destination: EntityRule | None = None
    http: Any = None


class NetworkPolicySpec(msgspec.Struct):
    tier: str | None = None
    order: float | None = None
    selector: str | None = None
    types: list[str] | None = None
    ingress: list[Rule] | None = None
    egress: list[Rule] | None = None
    serviceAccountSelector: Any = None
    performanceHints: Any = None


class GlobalNetworkPolicySpec(NetworkPolicySpec):
    namespaceSelector: str | None = None
    doNotTrack: Any = None
    preDNAT: Any = None
    applyOnForward: Any = None


class TierSpec(msgspec.Struct):
    order: float | None = None
    defaultAction: str | None = None


class _Object(msgspec.Struct):
    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None


class NetworkPolicy(_Object):
    spec: NetworkPolicySpec | None = None


class GlobalNetworkPolicy(_Object):
    spec: GlobalNetworkPolicySpec | None = None


class Tier(_Object):
    spec: TierSpec | None = None
