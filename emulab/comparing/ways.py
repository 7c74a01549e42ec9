"""How packets travel between two pods: what is around them on the underlay, what that costs, how large they may be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

from emulab.comparison import BEYOND, FAR, NEAR, Way
from emulab.lab import Lab
from emulab.model import SWITCHES, Cluster, Endpoint
from emulab.packet import Flow, Kind
from emulab.probe.dissect import Dissected, dissect
from emulab.probe.engine import Engine, Outcome, place_of, watched
from emulab.probe.taps import Frame

_ETHERNET = 14  # bytes of a frame's header
_HEADERS = {4: 28, 6: 48}  # IP and ICMP, in bytes
_LEAST, _MOST = {4: 576, 6: 1280}, 65000  # bytes: what every path has to carry (RFC 791, RFC 8200), and more than any does
_PAYLOAD = 56  # bytes, as ping has it
_PATIENCE = 0.25  # seconds for an echo that stays unanswered

Pair = tuple[Endpoint, Endpoint]


def pairs(cluster: Cluster) -> dict[str, Pair]:
    """Two pods on one node, on two of a segment, on two of different segments: the first ones, where there are any."""
    found: dict[str, Pair] = {}
    for one in cluster.endpoints:
        for other in cluster.endpoints:
            if one is not other:
                same = one.node == other.node
                found.setdefault(NEAR if same else FAR if cluster.topology.near(one.node, other.node) else BEYOND, (one, other))
    return {how: found[how] for how in (NEAR, FAR, BEYOND) if how in found}


def families(pair: Pair) -> list[int]:
    """The families that both pods have."""
    return sorted({a.version for a in pair[0].addresses} & {a.version for a in pair[1].addresses})


def ways(lab: Lab) -> dict[tuple[str, int], Way]:
    """Every way, by how the pods lie to each other and by family."""
    found = {}
    for how, pair in pairs(lab.cluster).items():
        with closing(Echoes(lab, pair)) as echoes:
            for family in families(pair):
                found[how, family] = echoes.way(family)
    return found


class Echoes:
    """Echoes between two pods, with taps at both and all the way."""

    def __init__(self, lab: Lab, pair: Pair) -> None:
        self._lab, self._pair = lab, pair
        self.frames: list[Frame] = []
        self._number = 0
        ends = [endpoint.key for endpoint in pair if endpoint.key in lab.namespaces]  # the other's node may be off
        nodes = [node.name for node in lab.design.present.nodes]
        self._engine = Engine(
            lab.namespaces,
            pods=ends,
            nodes=[],
            families=lab.cluster.topology.families,
            watched=watched("every", ends, nodes),
            tunnel_ports=lab.tunnel_ports,
            round_=lab.next_round(),
            timeout=_PATIENCE,
            on_frame=self.frames.append,
            complete=False,
        )

    def close(self) -> None:
        self._engine.close()

    def nodes(self, family: int) -> tuple[str, ...]:
        """The nodes at which an echo's request was seen, in order."""
        outcome = self._echo(family, _HEADERS[family] + _PAYLOAD)
        known = {node.name for node in self._lab.cluster.nodes}
        places = [seen.place.namespace for seen in sorted(outcome.seen, key=lambda seen: seen.time) if seen.leg == "request"]
        return tuple(dict.fromkeys(place for place in places if place in known))

    def way(self, family: int) -> Way:
        """All that there is to know of one family."""
        source, destination = self._pair
        way = Way(source.key, destination.key)
        self.frames.clear()
        outcome = self._echo(family, _HEADERS[family] + _PAYLOAD)
        if not outcome.answered:
            return replace(way, lost=outcome.refused or "lost")
        there = place_of(destination.key, ())
        arrived = [o for o in outcome.seen if o.place == there and o.leg == "request" and o.direction == "in"]
        found = list(self._on_the_wire(outcome.flow))
        around = {f"{p.outer.kind.upper()}, UDP {p.outer.dport}, VNI {p.outer.vni}" if p.outer else "none" for _, p in found}
        return replace(
            way,
            encapsulation=", ".join(sorted(around)),
            overhead=max((frame.length - _ETHERNET - packet.length for frame, packet in found), default=None),
            ttl=arrived[0].inner.ttl if arrived else None,
            mtu=self._mtu(family),
        )

    def _on_the_wire(self, flow: Flow) -> Iterator[tuple[Frame, Dissected]]:
        """The frames of the request as the underlay's switches received them, each once."""
        for frame in self.frames:
            if frame.place.namespace == SWITCHES and not frame.outbound:
                packet = dissect(frame.data, self._lab.tunnel_ports)
                if packet and packet.echo == "request" and (packet.sport, packet.dport) == (flow.sport, flow.dport):
                    yield frame, packet

    def _mtu(self, family: int) -> int | None:
        """The largest packet with DF that is answered.

        What the plugin promises is tried first, and a byte more; if it is otherwise, by halving what is in doubt.
        """
        passes, fails = _LEAST[family], _MOST
        if not self._echo(family, passes).answered:
            return None
        promised = self._lab.plane.wire(self._lab.cluster, *self._pair, family).mtu
        for size in (promised, promised + 1):
            if not passes < size < fails:
                continue
            if self._echo(family, size).answered:
                passes = size
            else:
                fails = size
        while fails - passes > 1:
            size = (passes + fails) // 2
            if self._echo(family, size).answered:
                passes = size
            else:
                fails = size
        return passes

    def _echo(self, family: int, size: int) -> Outcome:
        """One echo of ``size`` bytes in all."""
        source, destination = (endpoint.address(family).packed for endpoint in self._pair)
        self._number += 1
        ends = self._pair[0].key, self._pair[1].key
        flow = Flow(
            self._number,
            Kind.POD,
            *ends,
            family,
            "icmp",
            source,
            destination,
            0x6000 + family,
            self._number,
            size - _HEADERS[family],
        )
        (outcome,) = self._engine.run([flow])
        return outcome
