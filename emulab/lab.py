"""One running lab: build it, measure it, unwind it.

A lab runs inside a sandbox (`emulab.kernel.sandbox`); when the process ends, the kernel takes all of it away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from emulab import attribution
from emulab.dataplane import DataPlane
from emulab.errors import MachineError
from emulab.kernel import applier, conntrack, nftables
from emulab.kernel.namespaces import Namespaces
from emulab.model import GATEWAY, OUTSIDE_HOST, SWITCHES, Cluster, Endpoint, IPAddress
from emulab.packet import Finding, Flow, Kind, MtuResult, judge
from emulab.result import Block, RunResult
from emulab.state import State, Vxlan

PROTOCOLS = ("icmp", "udp", "tcp")


@dataclass(frozen=True)
class Probing:
    """What to measure: protocols and families, and where to look ("every" place, or both "ends" only)."""

    protocols: tuple[str, ...] = PROTOCOLS
    families: tuple[int, ...] | None = None
    taps: str = "every"
    timeout: float = 2.0
    nodes: bool = True
    outside: bool = True
    mtu: bool = True
    keep: bool = True  # the observations of healthy flows


@dataclass
class Lab:
    """A cluster, its plan, and the kernel that holds them."""

    cluster: Cluster
    plane: DataPlane
    plan: State
    timings: dict[str, float] = field(default_factory=dict)
    network: Any = None

    def __post_init__(self) -> None:
        nftables.prepare()
        self._release = ExitStack()
        self.namespaces = Namespaces()
        self._release.callback(self.namespaces.close)
        self._round = int(time.time()) & 0x3FFF

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self._release.close()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase of the run."""
        start = time.perf_counter()
        yield
        self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - start

    def build(self) -> None:
        """Underlay, namespaces of the pods, data plane; returns when packets can pass."""
        with self.phase("underlay"):
            from emulab import underlay

            self.network = underlay.start(self.cluster.topology, self.namespaces)
        with self.phase("pods"):
            self.namespaces.create([endpoint.key for endpoint in self.cluster.endpoints])
            for node in self.cluster.nodes:
                self.namespaces.add_mounts(node.name)
                pods = {e.key: e.pod.netns for e in self.cluster.endpoints_on(node.name)}
                self.namespaces.name_pods(node.name, pods)
        with self.phase("data plane"):
            applier.add(self.namespaces, self.plan)
            self._wait_until_up()

    def _wait_until_up(self, seconds: float = 10.0) -> None:
        """Until every interface that is switched on has its carrier: a packet sent earlier would be lost."""
        deadline = time.monotonic() + seconds
        for node in (*(node.name for node in self.cluster.nodes), GATEWAY, OUTSIDE_HOST, SWITCHES):
            namespace = self.namespaces[node]
            while waiting := [name for name, link in namespace.socket().links().items() if link.waiting]:
                if time.monotonic() > deadline:
                    raise MachineError(f"{node}: {', '.join(waiting)} did not come up within {seconds:g} s")
                time.sleep(0.0005)

    @property
    def tunnel_ports(self) -> frozenset[int]:
        return frozenset(thing.port for objects in self.plan.values() for thing in objects if isinstance(thing, Vxlan))

    def verify(
        self,
        probing: Probing,
        on_progress: Callable[[int, int], None] | None = None,
        on_frame: Callable[[Any], None] | None = None,
    ) -> RunResult:
        """Probe everything and judge it.

        ``on_progress`` is told (flows done, flows in all), ``on_frame`` gets every `emulab.probe.taps.Frame`.
        """
        from emulab.probe import neighbours
        from emulab.probe.flows import Flows as Wanted

        self._round += 1
        for name in ("probe", "udp mesh"):  # of the last time
            self.timings.pop(name, None)
        families = tuple(f for f in self.cluster.topology.families if f in (probing.families or (f,)))
        wanted = Wanted(self.cluster, self.plane, probing.protocols, families, self._round)
        result = RunResult(self.plane.name, self.plane.options(), self.cluster, timings=self.timings, taps=probing.taps)
        with self.phase("probe"):
            neighbours.prime(self.namespaces, self.cluster, self.plan)
            pairs: Iterable[Flow] = wanted.between_pods()
            if probing.taps == "ends" and on_frame is None and wanted.to_themselves():
                with self.phase("udp mesh"), neighbours.brief_conntrack(self.namespaces, self.cluster):
                    result.flows.blocks, unproven = self._mesh(wanted, probing, families, on_progress)
                pairs = wanted.between_pods(unproven)
            # Not before the mesh: an event for each of a million connections would cost more than the exchange.
            where = [
                *(node.name for node in self.cluster.nodes),
                *(endpoint.key for endpoint in self.cluster.endpoints),
            ]
            with closing(conntrack.Watch(self.namespaces, where)) as watch:
                self._watch(wanted, pairs, probing, families, result, on_progress, on_frame)
                attribution.explain(self.namespaces, result, watch.translated())
        return result

    def _watch(
        self,
        wanted: Any,
        pairs: Iterable[Flow],
        probing: Probing,
        families: tuple[int, ...],
        result: RunResult,
        on_progress: Callable[[int, int], None] | None,
        on_frame: Callable[[Any], None] | None,
    ) -> None:
        """Probe flow by flow, with taps."""
        from emulab.probe.engine import Engine, place_of, watched

        pods = [endpoint.key for endpoint in self.cluster.endpoints]
        nodes = [node.name for node in self.cluster.nodes]
        endpoints = {endpoint.key: endpoint for endpoint in self.cluster.endpoints}
        with ExitStack() as release:
            engine = Engine(
                self.namespaces,
                pods=pods,
                nodes=nodes,
                families=families,
                watched=watched(probing.taps, pods, nodes),
                tunnel_ports=self.tunnel_ports,
                round_=self._round,
                timeout=probing.timeout,
                on_frame=on_frame,
            )
            release.callback(engine.close)
            flows = list(pairs)
            if probing.nodes:
                every = probing.taps == "every"
                flows += wanted.from_nodes(lambda node, to: _source(engine.host(node).source_for(to)), every)
            if probing.outside:
                flows += wanted.to_outside()
            for count, outcome in enumerate(engine.run(flows), 1):
                flow = outcome.flow
                wire = None
                if flow.kind is Kind.POD and probing.taps == "every":
                    wire = self.plane.wire(self.cluster, endpoints[flow.source], endpoints[flow.destination], flow.family)
                judged = judge(
                    flow,
                    outcome.seen,
                    answered=outcome.answered,
                    refused=outcome.refused,
                    ends=(place_of(flow.source, nodes), place_of(flow.destination, nodes)),
                    wire=wire,
                )
                result.flows.recorded.append(judged)
                if on_progress:
                    on_progress(count, len(flows))
            if probing.mtu and "icmp" in probing.protocols and wanted.to_themselves():
                sized = list(wanted.full_size())
                outcomes = {o.flow.number: o for o in engine.run(flow for full, over, _ in sized for flow in (full, over))}
                result.mtu = [self._mtu(full, mtu, outcomes[full.number], outcomes[over.number]) for full, over, mtu in sized]

    def _mesh(
        self,
        wanted: Any,
        probing: Probing,
        families: tuple[int, ...],
        on_progress: Callable[[int, int], None] | None,
    ) -> tuple[list[Block], list[tuple[Endpoint, Endpoint, int, str]]]:
        """All pod pairs by UDP at once; returns what is proved, and the shapes of flow that are left to be looked at closely."""
        from emulab.probe import mesh
        from emulab.probe.flows import PORT, source_port

        endpoints = self.cluster.endpoints
        total = len(endpoints) * (len(endpoints) - 1) * len(families)
        done = 0

        def progress(count: int) -> None:
            nonlocal done
            done += count
            if on_progress:
                on_progress(done, total)

        blocks = []
        left = [
            (a, b, family, protocol)
            for family in families
            for protocol in probing.protocols
            if protocol != "udp"
            for a in endpoints
            for b in endpoints
            if a is not b
        ]
        if "udp" not in probing.protocols:
            return [], left
        workers = mesh.threads()
        ports = [PORT + index for index in range(workers)]
        dports = [ports[i] for i in range(workers) for _ in mesh.share(len(endpoints), i, workers)]
        for family in families:
            sport = source_port(self._round, family)
            rows = mesh.prove(
                self.namespaces,
                endpoints,
                family,
                round_=self._round,
                sport=sport,
                dports=ports,
                timeout=probing.timeout,
                on_progress=progress,
            )
            blocks.append(Block(endpoints, family, "udp", sport, dports, rows))
            left += [
                (endpoints[i], endpoints[j], family, "udp")
                for j, row in enumerate(rows)
                if row.count(mesh.DELIVERED) < len(endpoints) - 1
                for i, state in enumerate(row)
                if state != mesh.DELIVERED and i != j
            ]
        return blocks, left

    def _mtu(self, flow: Flow, mtu: int, full: Any, over: Any) -> MtuResult:
        fits = "delivered" if full.answered else "lost"
        words, _, by = over.refused.partition(", by ")
        told = "too big" if words.startswith("packet too big") else "delivered" if over.answered else "lost"
        findings = []
        place = f"{flow.source} -> {flow.destination}"
        if fits != "delivered":
            findings.append(Finding("MTU", f"{mtu} bytes delivered", full.refused or "lost", place))
        if told != "too big":
            findings.append(Finding("MTU", f"{mtu + 1} bytes reported as too big", over.refused or told, place))
        return MtuResult(flow.source, flow.destination, flow.family, mtu, fits, told, by, tuple(findings))


def _source(address: str | None) -> IPAddress | None:
    return ip_address(address) if address else None
