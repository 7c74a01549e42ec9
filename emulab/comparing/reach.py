"""Whether pods answer each other, by TCP and UDP."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing

from emulab.lab import Lab
from emulab.model import Cluster
from emulab.probe.engine import Engine
from emulab.probe.flows import Flows, Wish

_PATIENCE = 0.25  # seconds for all that stays silent
_MOST = 8  # pods

Asked = tuple[str, str, str, int]  # source, destination, protocol, family


def sample(cluster: Cluster, nodes: Collection[str]) -> list[str]:
    """Some pods: all of these nodes' where they are few, else of as many nodes as possible."""
    by_turns = sorted(
        (place, number, endpoint.key)
        for number, node in enumerate(nodes)
        for place, endpoint in enumerate(cluster.endpoints_on(node))
    )
    return [key for _, _, key in by_turns[:_MOST]]


def answered(lab: Lab, pods: Collection[str]) -> dict[Asked, bool]:
    """For each ordered pair of ``pods``, family and protocol, whether there was an answer."""
    round_, families = lab.next_round(), lab.cluster.topology.families
    flows = list(Flows(lab.design, ("tcp", "udp"), families, round_, Wish(pods, pods)).between_pods())
    engine = Engine(
        lab.namespaces,
        pods=list(pods),
        nodes=[],
        families=families,
        watched=[],
        tunnel_ports=lab.tunnel_ports,
        round_=round_,
        timeout=_PATIENCE,
    )
    with closing(engine):
        return {
            (flow.source, flow.destination, flow.protocol, flow.family): outcome.answered
            for outcome in engine.run(flows)
            for flow in [outcome.flow]
        }
