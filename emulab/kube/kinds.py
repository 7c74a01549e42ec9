"""The kinds of objects that manifests may hold, by (apiVersion, kind).  One entry makes one more."""

from __future__ import annotations

from emulab.errors import InputError, nearest
from emulab.kube import calico, nodes, pods, policies, services
from emulab.kube.document import Kind


def _core(name: str) -> type:
    from lightkube.models import core_v1

    return getattr(core_v1, name)  # type: ignore[no-any-return]


def _apps(name: str) -> type:
    from lightkube.models import apps_v1

    return getattr(apps_v1, name)  # type: ignore[no-any-return]


def _network_policy() -> type:
    from lightkube.models import networking_v1

    return networking_v1.NetworkPolicy


def _endpoint_slice() -> type:
    from lightkube.models import discovery_v1

    return discovery_v1.EndpointSlice


def _calico(name: str) -> type:
    from emulab.kube import calico_models

    return getattr(calico_models, name)  # type: ignore[no-any-return]


_CALICO = "projectcalico.org/v3"
_ALL = (
    Kind("v1", "Namespace", "namespaces", ("ns",), lambda: _core("Namespace"), nodes.namespace, namespaced=False),
    Kind("v1", "Node", "nodes", ("no",), lambda: _core("Node"), nodes.node, namespaced=False),
    Kind("v1", "Pod", "pods", ("po",), lambda: _core("Pod"), pods.pod),
    Kind("apps/v1", "Deployment", "deployments", ("deploy",), lambda: _apps("Deployment"), pods.workload),
    Kind("apps/v1", "DaemonSet", "daemonsets", ("ds",), lambda: _apps("DaemonSet"), pods.workload),
    Kind("v1", "Service", "services", ("svc",), lambda: _core("Service"), services.service),
    Kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", (), _endpoint_slice, services.endpoint_slice),
    Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", ("netpol",), _network_policy, policies.policy),
    Kind(_CALICO, "NetworkPolicy", "networkpolicies", ("cnp",), lambda: _calico("NetworkPolicy"), calico.policy),
    Kind(
        _CALICO,
        "GlobalNetworkPolicy",
        "globalnetworkpolicies",
        ("gnp",),
        lambda: _calico("GlobalNetworkPolicy"),
        calico.policy,
        namespaced=False,
    ),
    Kind(_CALICO, "Tier", "tiers", (), lambda: _calico("Tier"), calico.tier, namespaced=False),
)
KINDS: dict[tuple[str, str], Kind] = {(kind.api, kind.name): kind for kind in _ALL}


def kind(word: str) -> Kind:
    """The kind that a command line calls ``word``: plural, singular or short.  Raises `InputError` with the nearest."""
    names = known()
    if word.lower() not in names:
        hint = nearest(word.lower(), names)
        if "did you mean" not in hint:  # one word for each kind is enough
            hint = f" (known: {', '.join(sorted({one.plural for one in KINDS.values()}))})"
        raise InputError(f"the server doesn't have a resource type '{word}'{hint}")
    return names[word.lower()]


def known() -> dict[str, Kind]:
    """Every word for every kind; the first kind of the registry has it where two share one."""
    return {word: one for one in reversed(list(KINDS.values())) for word in one.words}
