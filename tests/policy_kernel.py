"""What the kernel does about policies, beside what the oracle says of them: a lab goes from case to case."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple

from policy_cases import PORTS, Case, case
from sandboxed import build

from emulab import change, kube, registry
from emulab.errors import OverloadError
from emulab.kernel import applier, counters
from emulab.kernel.namespaces import entered
from emulab.kube.document import Document
from emulab.lab import Lab
from emulab.model import SWITCHES, IPAddress
from emulab.objects import Objects
from emulab.oracle import Decision, Oracle
from emulab.packet import Verdict
from emulab.probe import ports
from emulab.probe.ports import Check, Outcome

# Read once beforehand: what reads manifests is imported on demand, and an ordinary user may not be able to.
kube.applied(replace(registry.topology("flat"), pods=(), objects=Objects()), kube.read(case(0, ["10.0.0.1"]).text, "case"))
_ATTEMPTS = 5
_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
SHAPES = tuple((protocol.lower(), number) for protocol, number in (*PORTS, ("TCP", 82)))  # the last one is served by nobody


class Mismatch(NamedTuple):
    """A check of which kernel and oracle think differently; twice in a row."""

    check: Check
    verdict: Verdict
    decision: Decision

    def __str__(self) -> str:
        one = self.check
        asked = f"{one.source} -> {one.destination} {one.protocol}/{one.port} IPv{one.family}"
        return f"{asked}: {self.verdict.value}, but {self.decision}"


def bare(topology: str, plugin: str, *settings: str) -> Lab:
    """A lab without pods, not built yet."""
    made = build(topology, plugin, settings)
    made.design = change.reshape(made.design, (), Objects())
    return made


def addresses(lab: Lab) -> list[str]:
    """Of pods and nodes: what blocks of policies can be about."""
    found = [address for endpoint in lab.cluster.endpoints for address in endpoint.addresses]
    found += [a.ip for link in lab.cluster.topology.links for a in link.addresses]
    found += [address for gateways in lab.cluster.gateways.values() for address in gateways]
    return list(map(str, found))


def apply(lab: Lab, case: Case, alter: Callable[[Objects], Objects] = lambda objects: objects) -> Objects:
    """Bring the lab to a case, from whatever it is; returns its objects.  ``alter`` is what goes wrong with them on the way."""
    topology = replace(lab.design.topology, pods=(), objects=Objects())
    pods, objects, *_ = kube.applied(topology, _documents(case.text))
    lab.change(change.reshape(lab.design, pods, alter(objects)))
    if case.seed % 4 == 0:  # sometimes nobody knows anybody: asking for a MAC is no matter of policy
        for name in lab.namespaces:
            applier.forget_neighbours(lab.namespaces[name])
    return objects


@lru_cache(maxsize=1)
def _documents(text: str) -> list[Document]:
    """Read once for the good case and the bad one."""
    return kube.read(text, "case")


def everything(lab: Lab, shapes: Sequence[tuple[str, int]] = SHAPES) -> list[Check]:
    """Each pod and node to each other pod, in every family, protocol and port."""
    pods = [endpoint.key for endpoint in lab.cluster.endpoints]
    sources = [*pods, *(node.name for node in lab.cluster.nodes)]
    families = lab.cluster.topology.families
    return [Check(a, b, family, *shape) for a in sources for b in pods if a != b for family in families for shape in shapes]


class Judge:
    """Compares; keeps which address a node sends from, which stays the same from case to case."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._sources: dict[tuple[str, str, int], IPAddress] = {}
        self.pairs = 0

    def mismatches(self, checks: Iterable[Check], meant: Objects, again: bool = True) -> list[Mismatch]:
        """The checks that end otherwise than the policies that are ``meant`` say; asked ``again`` first, if that is wanted."""
        lab, cluster = self._lab, self._lab.cluster
        oracle = Oracle(replace(cluster, topology=replace(cluster.topology, objects=meant)))
        wanted = list(checks)
        self.pairs += len(wanted)
        decisions = {check: self._decide(oracle, check) for check in wanted}
        outcomes = ports.probe(lab.namespaces, lab.cluster, wanted, confirm=False)
        odd = [one.check for one in outcomes if passed(one) != decisions[one.check].allowed]
        for _ in range(_ATTEMPTS if again and odd else 0):
            before = self._refused_neighbours()
            outcomes = ports.probe(lab.namespaces, lab.cluster, odd)
            if self._refused_neighbours() == before:
                break
        else:
            if again and odd:
                raise OverloadError("the machine's neighbour table is full: what is lost says nothing")
        return [
            Mismatch(one.check, one.verdict, decisions[one.check])
            for one in outcomes
            if passed(one) != decisions[one.check].allowed or one.verdict is Verdict.REWRITTEN
        ]

    def _refused_neighbours(self) -> int:
        """How often the one table of the whole machine was full: other labs count."""
        return sum(counters.tables_full(self._lab.namespaces[SWITCHES]).values())

    def _decide(self, oracle: Oracle, check: Check) -> Decision:
        here = check.source if "/" in check.source else self._address(check.source, check.destination, check.family)
        return oracle.decide(here, check.destination, check.protocol, check.port, check.family)

    def _address(self, node: str, pod: str, family: int) -> IPAddress:
        """The address from which a node sends to a pod, by its kernel's routes."""
        key = (node, pod, family)
        if key not in self._sources:
            there = next(e for e in self._lab.cluster.endpoints if e.key == pod).address(family)
            with entered(self._lab.namespaces[node].net), socket.socket(_AF[family], socket.SOCK_DGRAM) as asking:
                asking.connect((str(there), 1))
                self._sources[key] = ip_address(asking.getsockname()[0])
        return self._sources[key]


def passed(outcome: Outcome) -> bool:
    """Whether the packet came to the pod: where nothing listens, it is the pod that refuses."""
    return outcome.verdict is not Verdict.DROPPED
