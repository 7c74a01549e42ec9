"""What policies mean for the pods of a cluster: which pods they select, which addresses their rules name.  Pure.

This is what the data planes' compilers have in common; how it is enforced is theirs.
"""

from __future__ import annotations

from functools import cached_property

from emulab.model import Cluster, Endpoint
from emulab.objects import Peer, Policy, PortRange
from emulab.selector import Every, In, Selector


class Meaning:
    """The policies of one cluster, resolved.  Answers are kept, so that a selector is looked up once."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._found: dict[tuple[str, Selector | None, Selector | None], tuple[Endpoint, ...]] = {}

    @cached_property
    def _labelled(self) -> list[tuple[Endpoint, dict[str, str]]]:
        return [(endpoint, dict(endpoint.pod.labels)) for endpoint in self._cluster.endpoints]

    @cached_property
    def _namespace_labels(self) -> dict[str, dict[str, str]]:
        objects = self._cluster.topology.objects
        names = {endpoint.pod.namespace for endpoint in self._cluster.endpoints}
        return {name: objects.namespace(name).all_labels for name in names}

    @cached_property
    def _by_label(self) -> dict[tuple[str, str], list[int]]:
        found: dict[tuple[str, str], list[int]] = {}
        for place, (_, labels) in enumerate(self._labelled):
            for label in labels.items():
                found.setdefault(label, []).append(place)
        return found

    def _candidates(self, pods: Selector | None) -> list[tuple[Endpoint, dict[str, str]]]:
        """The pods that a selector may match: those with one of the values that it wants of a key, if it wants any."""
        for part in pods.parts if isinstance(pods, Every) else (pods,):
            if isinstance(part, In):
                places = {place for value in part.values for place in self._by_label.get((part.key, value), ())}
                return [self._labelled[place] for place in sorted(places)]
        return self._labelled

    def _select(self, namespace: str, namespaces: Selector | None, pods: Selector | None) -> tuple[Endpoint, ...]:
        """Pods by label; without ``namespaces`` those of ``namespace``, and where that is "" of all."""
        key = (namespace if namespaces is None else "", namespaces, pods)
        if key not in self._found:
            chosen = {
                name
                for name, labels in self._namespace_labels.items()
                if (namespaces.matches(labels) if namespaces is not None else namespace in ("", name))
            }
            self._found[key] = tuple(
                endpoint
                for endpoint, labels in self._candidates(pods)
                if endpoint.pod.namespace in chosen and (pods is None or pods.matches(labels))
            )
        return self._found[key]

    def subjects(self, policy: Policy) -> tuple[Endpoint, ...]:
        """The pods that a policy applies to."""
        return self._select(policy.namespace, policy.namespaces, policy.selector)

    def members(self, policy: Policy, peer: Peer) -> tuple[Endpoint, ...] | None:
        """The pods that a rule's peer selects; None when it selects none by label: any address, or ``nets``."""
        if peer.pods is None and peer.namespaces is None:
            return None
        return self._select(policy.namespace, peer.namespaces, peer.pods)

    def excluded(self, policy: Policy, peer: Peer) -> tuple[Endpoint, ...]:
        """The pods that a rule's peer does not mean (Calico's notSelector)."""
        return () if peer.not_pods is None else self._select(policy.namespace, peer.namespaces, peer.not_pods)

    @staticmethod
    def port(endpoint: Endpoint, wanted: PortRange, protocol: str | None) -> tuple[int, int] | None:
        """The numbers that ``wanted`` stands for at a destination pod, both included; None when it declares no such name."""
        if not wanted.name:
            return wanted.low, wanted.high
        for port in endpoint.pod.ports:
            if port.name == wanted.name and protocol in (None, port.protocol):
                return port.number, port.number
        return None
