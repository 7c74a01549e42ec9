"""What a data plane does about policies: each is applied, and whoever could talk before tries again."""

from __future__ import annotations

from dataclasses import replace

from emulab import change
from emulab.comparing.reach import answered, sample
from emulab.comparison import Tried
from emulab.lab import Lab
from emulab.objects import EGRESS, INGRESS, Policy, Rule

_NAME = "compare-deny"
_KUBERNETES, _CALICO = "networking.k8s.io/v1", "projectcalico.org/v3"


def denials(namespace: str) -> dict[str, Policy]:
    """Policies that let no pod of ``namespace`` receive, or send, anything."""
    deny = (Rule("deny"),)
    return {
        "NetworkPolicy ingress": Policy(_KUBERNETES, "NetworkPolicy", namespace, _NAME, directions=(INGRESS,)),
        "NetworkPolicy egress": Policy(_KUBERNETES, "NetworkPolicy", namespace, _NAME, directions=(EGRESS,)),
        "Calico GlobalNetworkPolicy": Policy(_CALICO, "GlobalNetworkPolicy", "", _NAME, directions=(INGRESS,), ingress=deny),
    }


def tried(lab: Lab) -> tuple[Tried, ...]:
    """Each of `denials` by itself; the lab is as before in the end."""
    endpoints = lab.cluster.endpoints
    if not endpoints:
        return ()
    namespace, without, found = endpoints[0].pod.namespace, lab.design, []
    pods = [key for key in sample(lab.cluster, [node.name for node in lab.cluster.nodes]) if key.startswith(f"{namespace}/")]
    passing = [flow for flow, came in answered(lab, pods).items() if came]
    for title, policy in denials(namespace).items():
        topology = without.topology
        objects = replace(topology.objects, policies=(policy,))
        lab.change(change.reshape(without, topology.pods, objects))
        came = answered(lab, pods)
        found.append(Tried(title, sum(came[flow] for flow in passing), len(passing), lab.plane.unenforced(policy)))
        lab.change(without)
    return tuple(found)
