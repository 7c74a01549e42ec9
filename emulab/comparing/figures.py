"""Everything that one lab tells, one thing after the other, so that nothing disturbs what is timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from statistics import mean

from emulab import change
from emulab.comparing.exchange import Exchange
from emulab.comparing.iperf import throughput
from emulab.comparing.policies import tried
from emulab.comparing.reach import answered, sample
from emulab.comparing.ways import Echoes, families, pairs, ways
from emulab.comparison import KINDS, NEAR, Counts, Cut, Death, Growth, Measured, RoundTrips, Throughput, Tried
from emulab.errors import InputError
from emulab.kernel.census import census
from emulab.lab import Lab, Probing
from emulab.packet import Verdict, short
from emulab.planning import Design

STEPS = 8  # how often `measure` tells that it got on
_TALK = Probing(protocols=("udp",), taps="ends", nodes=False, outside=False, services=False, mtu=False)
_GAP = 0.5  # seconds that are waited for an answer after a cut


@dataclass(frozen=True)
class Effort:
    """How much of everything: exchanges per way, steps of growth, seconds of iperf3 (0: none)."""

    exchanges: int = 500
    growth: int = 2
    stream: int = 1


QUICK = Effort(exchanges=100, growth=1, stream=0)
NO_STREAM = "not with --quick"


def measure(lab: Lab, effort: Effort, step: Callable[[], None]) -> Measured:
    """All figures of a lab that was just built, but for the time that took.  ``step`` is called after each of `STEPS`.

    The lab is not as it was afterwards.
    """
    nodes = [node.name for node in lab.cluster.nodes]
    idle = counts(lab, nodes)
    reached = talk(lab, 1.0)
    busy = counts(lab, nodes)
    pods = counts(lab, [endpoint.key for endpoint in lab.cluster.endpoints])
    step()
    found = ways(lab)
    step()
    trips = dict(_round_trips(lab, effort.exchanges))
    step()
    streams = dict(_streams(lab, effort.stream))
    step()
    policies: tuple[Tried, ...] = tried(lab)
    step()
    cuts = dict(_cuts(lab))
    step()
    growth, refused = _growth(lab, nodes, effort.growth)
    step()
    death = _death(lab, nodes)
    step()
    return Measured((), reached, found, idle, busy, pods, growth, refused, trips, streams, policies, death, cuts)


def counts(lab: Lab, names: Sequence[str]) -> dict[str, Counts]:
    """What the kernel holds in each of these namespaces."""
    macs = [endpoint.mac for endpoint in lab.cluster.endpoints]
    return {name: census(lab.namespaces[name], macs) for name in names}


def talk(lab: Lab, patience: float = 0.1) -> tuple[int, int]:
    """Let every pod talk to every other by UDP: how many of how many flows were delivered as they were sent.

    ``patience``: seconds for those that are lost, if there are any.
    """
    found = lab.verify(replace(_TALK, timeout=patience)).flows.counts()
    return found[Verdict.DELIVERED], sum(found.values())


def _round_trips(lab: Lab, number: int) -> Iterator[tuple[tuple[str, int], RoundTrips]]:
    for how, pair in pairs(lab.cluster).items():
        for family in families(pair):
            with Exchange(lab.namespaces, *pair, family) as exchange:
                yield (how, family), exchange.round_trips(number)


def _streams(lab: Lab, seconds: int) -> Iterator[tuple[tuple[str, int], Throughput]]:
    """Between nodes, where there are several, and by the first family: a stream takes a second."""
    found = pairs(lab.cluster)
    for how, pair in found.items():
        for family in families(pair)[:1] if how != NEAR or len(found) == 1 else ():
            yield (how, family), throughput(lab.namespaces, *pair, family, seconds) if seconds else Throughput(reason=NO_STREAM)


def _cuts(lab: Lab) -> Iterator[tuple[int, Cut]]:
    """Part the nodes of the first pair of pods on two nodes, all others stay joined with both; then join them again."""
    pair = next((pair for how, pair in pairs(lab.cluster).items() if pair[0].node != pair[1].node), None)
    if pair is None:
        return
    whole, ends = lab.design, (pair[0].node, pair[1].node)
    with ExitStack() as release:
        kept = {}
        for family in families(pair):
            exchange = release.enter_context(Exchange(lab.namespaces, *pair, family))
            answers = release.enter_context(exchange.kept_up())
            if answers.after(time.monotonic(), _GAP):
                kept[family] = answers
        lab.change(change.partition(whole, [[ends[0]], [ends[1]]]))
        cut = time.monotonic()
        came = {family: answers.after(cut, max(0.0, cut + _GAP - time.monotonic())) for family, answers in kept.items()}
        gaps = {family: answers.gap for family, answers in kept.items()}
    with closing(Echoes(lab, pair)) as echoes:
        for family in kept:
            over = echoes.nodes(family) if came[family] else ()
            yield family, Cut(ends, gaps[family] if came[family] else None, _GAP, tuple(n for n in over if n not in ends))
    lab.change(whole)


def _growth(lab: Lab, nodes: Sequence[str], steps: int) -> tuple[tuple[Growth, ...], str]:
    """Add pods to the first node, then nodes with a pod each; everybody talks to everybody before each count.

    Also why there is none, if the plugin or the topology has no room for more.
    """
    home, found = nodes[0], []
    try:
        for what, one_more in (("pod", _pod), ("node", _node)):
            talk(lab)
            counted = [counts(lab, nodes)]
            for _ in range(steps):
                lab.change(one_more(lab.design, home))
                talk(lab)
                counted.append(counts(lab, nodes))
            found.append(Growth(what, home, tuple(counted)))
    except InputError as error:
        return tuple(found), str(error)
    return tuple(found), ""


def _pod(design: Design, node: str) -> Design:
    return change.add_pod(design, _free("more", [endpoint.pod.name for endpoint in design.cluster.endpoints]), node)


def _node(design: Design, _: str) -> Design:
    name = _free("more", [node.name for node in design.cluster.nodes])
    return _pod(change.add_node(design, name), name)


def _free(prefix: str, taken: Sequence[str]) -> str:
    return next(name for number in range(1, len(taken) + 2) if (name := f"{prefix}-{number}") not in taken)


def _death(lab: Lab, nodes: Sequence[str]) -> Death | None:
    """Switch the last node off, look, and only then tell the cluster that it is gone."""
    dead = lab.cluster.nodes[-1].name
    others = [name for name in nodes if name != dead]
    pods = sample(lab.cluster, others)
    if not others or not pods:
        return None
    before = answered(lab, pods)
    victim = next(iter(lab.cluster.endpoints_on(dead)), None)
    witness = next(endpoint for endpoint in lab.cluster.endpoints if endpoint.key in pods)
    lab.change(change.switch_node(lab.design, dead, False))
    after = answered(lab, pods)
    told = ""
    if victim is not None:
        with closing(Echoes(lab, (witness, victim))) as echoes:
            told = echoes.way(families((witness, victim))[0]).lost
    stopped = counts(lab, others)
    lab.change(change.remove_node(lab.design, dead))
    left = _less(stopped, counts(lab, others))
    passing = [flow for flow, came in before.items() if came]
    return Death(short(dead), sum(after.get(flow, False) for flow in passing), len(passing), left, told)


def _less(more: Mapping[str, Counts], less: Mapping[str, Counts]) -> dict[str, float]:
    """The mean of what there is no more, by kind."""
    kinds = [kind for kind in KINDS if all(kind in one for one in (*more.values(), *less.values()))]
    return {kind: mean(more[name][kind] - less[name][kind] for name in more) for kind in kinds}
