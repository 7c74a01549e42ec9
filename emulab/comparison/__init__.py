"""What data planes cost and what they can do, side by side: values only.

A `Measured` is what one lab told, figure by figure; `emulab.comparison.rows` lays those of several out in a `Comparison`, one
column each.  How they are measured is in `emulab.comparing`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import fmean

Counts = Mapping[str, int]  # objects of one namespace, by the keys of `KINDS`; what could not be counted is not in it

# What is counted: all devices but the loopback; routes of all tables but `local`, neighbours, both without IPv6 link-local ones;
# forwarding entries of bridges and tunnels; rules of nftables, and elements of its named sets and maps.
KINDS = {
    "devices": "devices",
    "routes": "routes",
    "fdb": "FDB entries, programmed",
    "fdb_learned": "FDB entries of pods, learned",
    "neighbours": "neighbours, programmed",
    "neighbours_learned": "neighbours, learned",
    "rules": "nftables rules",
    "elements": "set and map elements",
}
NEAR, FAR, BEYOND = "same node", "other node", "other segment"  # how two pods lie to each other


@dataclass(frozen=True)
class Way:
    """A packet's way between two pods, as seen on the underlay and on arrival.

    ``encapsulation`` is "none" or the tunnel's words; ``overhead`` what the frame on the underlay is longer than the pod's own,
    in bytes; ``mtu`` the largest packet in bytes that passes with DF; ``ttl`` that on arrival, of 64.  None: it did not arrive,
    and ``lost`` says so.
    """

    source: str
    destination: str
    encapsulation: str = ""
    overhead: int | None = None
    ttl: int | None = None
    mtu: int | None = None
    lost: str = ""


@dataclass(frozen=True)
class RoundTrips:
    """UDP exchanges of 32 bytes, one after the other, all sockets in one process; times in seconds."""

    median: float
    p99: float
    answered: int
    sent: int


@dataclass(frozen=True)
class Throughput:
    """One TCP stream of iperf3: bit/s as received, or why there is none."""

    rate: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Growth:
    """Counts before anything came, and after each of some equal steps: by node, those that were there from the beginning.

    ``what`` is "pod" (one more on ``node``) or "node" (one more, with a pod on it).
    """

    what: str
    node: str
    counts: tuple[Mapping[str, Counts], ...]

    def slope(self, kind: str, elsewhere: bool) -> float | None:
        """By how many objects a node grows with each step: least squares over all steps.

        ``elsewhere``: the mean of all nodes on which nothing was added, else that of ``node``; None where it was not counted.
        """
        names = [name for name in self.counts[0] if self.what == "node" or (name != self.node) == elsewhere]
        if not names or not all(kind in counts[name] for counts in self.counts for name in names):
            return None
        values = [fmean(counts[name][kind] for name in names) for counts in self.counts]
        middle = (len(values) - 1) / 2
        spread = sum((step - middle) ** 2 for step in range(len(values)))
        return sum((step - middle) * value for step, value in enumerate(values)) / spread


@dataclass(frozen=True)
class Tried:
    """A policy that denies everything, applied: how many of the flows that passed before still passed.

    ``words`` are the plugin's own about what it does not enforce; "" when it says that it enforces it.
    """

    title: str
    passed: int
    of: int
    words: str = ""

    @property
    def enforced(self) -> bool:
        return self.passed == 0 and self.of > 0


@dataclass(frozen=True)
class Death:
    """A node was switched off: flows among pods of the others that passed then, and what the others still hold of it.

    ``left`` is the mean per node: what went only when the cluster was told that the node is gone.
    """

    node: str
    passed: int
    of: int
    left: Mapping[str, float]
    told: str = ""  # what a sender to the dead node's pods is told

    @property
    def kept(self) -> dict[str, float]:
        """What is left of it and does not age by itself."""
        return {kind: number for kind, number in self.left.items() if not kind.endswith("_learned")}


@dataclass(frozen=True)
class Cut:
    """The underlay between two nodes was cut, while a pod of one kept asking a pod of the other.

    ``gap`` is the longest silence in seconds, None when no answer came any more; ``waited`` how long that was waited for.
    ``over`` are the nodes by which packets went then.
    """

    nodes: tuple[str, str]
    gap: float | None
    waited: float
    over: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """All that one lab told.  Ways, round trips and throughput by how the pods lie to each other, and by family."""

    builds: tuple[tuple[float, float], ...]  # seconds: the whole lab, and its data plane alone
    reached: tuple[int, int] = (0, 0)  # UDP flows between pods: delivered as they were sent, of all
    ways: Mapping[tuple[str, int], Way] = field(default_factory=dict)
    idle: Mapping[str, Counts] = field(default_factory=dict)  # by node
    busy: Mapping[str, Counts] = field(default_factory=dict)  # the same after all pods have talked to all
    pods: Mapping[str, Counts] = field(default_factory=dict)  # by pod, then
    growth: tuple[Growth, ...] = ()
    no_growth: str = ""  # why there is none, or not of everything
    round_trips: Mapping[tuple[str, int], RoundTrips] = field(default_factory=dict)
    throughput: Mapping[tuple[str, int], Throughput] = field(default_factory=dict)
    policies: tuple[Tried, ...] = ()
    death: Death | None = None
    cuts: Mapping[int, Cut] = field(default_factory=dict)  # by family

    def every_count(self) -> Iterator[Counts]:
        """Of nodes, at all times."""
        yield from self.busy.values()
        for growth in self.growth:
            for counts in growth.counts:
                yield from counts.values()


@dataclass(frozen=True)
class Column:
    """One data plane with its options, as typed: ``calico:encap=vxlan``.  ``failed`` says why there is nothing measured."""

    name: str
    plugin: str
    options: Mapping[str, object]
    measured: Measured | None = None
    failed: str = ""


@dataclass(frozen=True)
class Comparison:
    """Several columns on one cluster.  ``machine`` is where the times are from: kernel, CPUs."""

    topology: str
    nodes: int
    pods: int
    families: tuple[int, ...]
    columns: tuple[Column, ...]
    machine: Mapping[str, object]
    quick: bool = False
    seconds: float = 0.0

    @property
    def kinds(self) -> list[str]:
        """The kinds of object that were counted everywhere."""
        counted = [c for column in self.columns if column.measured for c in column.measured.every_count()]
        return [kind for kind in KINDS if all(kind in counts for counts in counted)]

    @property
    def complete(self) -> bool:
        """Whether every column was measured."""
        return not any(column.failed for column in self.columns)
