"""What policies mean for the pods of a cluster: which pods they select, which addresses their rules name.  Pure.

This is what the data planes' compilers have in common; how it is enforced is theirs.
"""

from __future__ import annotations

from functools import cached_property

from emulab.model import Cluster, Endpoint
from emulab.objects import Peer, Policy, PortRange
from emulab.selector import Selector


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
                for endpoint, labels in self._labelled
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
