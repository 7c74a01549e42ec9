"""Which rules of policies a traced packet met, and what dropped it: evidence, from nftables' own trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from emulab.evidence import Evidence, comment, origin, planned_comments
from emulab.kernel.nftrace import Event
from emulab.probe.scene import Scene
from emulab.state import State

Risen = Mapping[tuple[str, str, int], int]


def evidence(scene: Scene, plan: State, nodes: Iterable[str], risen: Mapping[str, Risen] | None = None) -> list[Evidence]:
    """What the request met on ``nodes``, in this order; ``risen`` are the counters that rose there meanwhile."""
    return [found for node in dict.fromkeys(nodes) for _, found in _on(scene, plan, node, (risen or {}).get(node, {}))]


def drop(scene: Scene, plan: State, node: str) -> Event | None:
    """The data plane's own rule that dropped the request on a node."""
    return next((event for event, found in _on(scene, plan, node, {}) if found.dropped), None)


def _on(scene: Scene, plan: State, node: str, risen: Risen) -> Iterator[tuple[Event, Evidence]]:
    planned = planned_comments(plan.get(node, ()))
    seen: set[str] = set()
    for event in scene.events.get(node, ()):
        if str(event) in seen or not scene.opening(event) or scene.leg(event) != "request":
            continue
        seen.add(str(event))
        packets = risen.get((event.family, event.table, event.handle))
        if found := origin(event.rule):
            policy, direction, place = found
            yield event, Evidence(node, direction, policy, place, str(event), event.dropped, packets)
        elif _ends(event, planned):
            yield event, Evidence(node, "", "", "", str(event), True, packets)


def _ends(event: Event, planned: set[str]) -> bool:
    """Whether it is the data plane's own rule that drops what no policy allows, not one that somebody added."""
    return event.dropped and comment(event.rule) in planned
