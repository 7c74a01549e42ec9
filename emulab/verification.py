"""Probe a running lab and judge every packet: what to measure, and how much of it at once."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import count as counting
from itertools import islice
from typing import Any

from emulab import attribution, services
from emulab.endpoints import Backend
from emulab.enforcement import Enforcement
from emulab.errors import OverloadError
from emulab.kernel import conntrack, counters
from emulab.kernel.namespaces import Namespaces
from emulab.kubeproxy import primary
from emulab.model import SWITCHES, Endpoint, IPAddress
from emulab.packet import Finding, Flow, FlowResult, Kind, MtuResult, Verdict, judge
from emulab.planning import Design
from emulab.probe import mesh, neighbours
from emulab.probe.engine import Engine, Outcome, place_of, watched
from emulab.probe.flows import PORT, Flows, Wish, source_port
from emulab.probe.unlimited import unlimited_errors
from emulab.result import Block, RunResult
from emulab.services import Due, Services
from emulab.state import Vxlan

PROTOCOLS = ("icmp", "udp", "tcp")


@dataclass(frozen=True)
class Probing:
    """What to measure: protocols and families, and where to look ("every" place, or both "ends" only).

    ``sources`` and ``destinations`` are pod keys, node names, "internet" or Services; None: all of them.  Of those, ``pairs`` are
    meant; None: all.  ``size`` is that of the whole IP packet in bytes, for ICMP and UDP; ``port`` the servers'.
    """

    protocols: tuple[str, ...] = PROTOCOLS
    families: tuple[int, ...] | None = None
    taps: str = "every"
    timeout: float = 2.0
    nodes: bool = True
    outside: bool = True
    services: bool = True
    mtu: bool = True
    sources: Collection[str] | None = None
    destinations: Collection[str] | None = None
    pairs: Collection[tuple[str, str]] | None = None
    port: int = PORT
    size: int | None = None
    count: int = 1

    @property
    def whole(self) -> bool:
        """Whether all pod pairs are probed, in the usual way."""
        return self.sources is None and self.destinations is None and (self.port, self.size, self.count) == (PORT, None, 1)


@dataclass
class Verification:
    """One round of probing a lab."""

    namespaces: Namespaces
    design: Design
    probing: Probing
    round_: int
    on_progress: Callable[[int, int], None] | None = None
    on_frame: Callable[[Any], None] | None = None
    timings: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cluster, probing = self.design.cluster, self.probing
        self._families = tuple(f for f in cluster.topology.families if f in (probing.families or (f,)))
        wish = Wish(probing.sources, probing.destinations, probing.pairs, probing.port, probing.size, probing.count)
        self._flows = Flows(self.design, probing.protocols, self._families, self.round_, wish)
        plane = self.design.plane
        self._result = RunResult(plane.name, plane.options(), cluster, timings=self.timings, taps=probing.taps)
        self._result.whole = probing.whole
        self._policies = Enforcement(cluster, plane)
        self._services = Services(cluster)
        self._result.findings += self._policies.findings()

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timings[name] = time.perf_counter() - start

    def run(self) -> RunResult:
        """Everything that was asked for.

        Raises `OverloadError` when packets were lost and may have been lost to the machine's own limits.
        """
        before = self._refused_neighbours()
        with self._phase("probe"):
            self._probe()
        after, counts = self._refused_neighbours(), self._result.flows.counts()
        if after > before and counts[Verdict.DROPPED] and not counts[Verdict.REWRITTEN]:
            limit = "net.ipv4.neigh.default.gc_thresh3, and ipv6's"
            raise OverloadError(
                f"the machine's neighbour table was full ({after - before} entries refused), so a lost packet says nothing: "
                f"take other labs down, or raise {limit}"
            )
        return self._result

    def _refused_neighbours(self) -> int:
        """How often so far; the table is one for all namespaces."""
        return sum(counters.tables_full(self.namespaces[SWITCHES]).values())

    def _probe(self) -> None:
        present, probing = self.design.present, self.probing
        pairs: Iterable[Flow] = self._flows.between_pods()
        everybody = len(present.nodes) == len(self.design.cluster.nodes) and probing.whole
        if probing.taps == "ends" and self.on_frame is None and everybody and self._flows.to_themselves():
            with self._phase("udp mesh"), neighbours.brief_conntrack(self.namespaces, present):
                unproven = self._mesh()
            pairs = self._flows.between_pods(unproven)
        # Not before the mesh: an event for each of a million connections would cost more than the exchange.
        where = [*(node.name for node in present.nodes), *(endpoint.key for endpoint in present.endpoints)]
        with closing(conntrack.Watch(self.namespaces, where)) as watch:
            to_services = self._watch(pairs)
            translated = watch.translated()
        for outcome, due in to_services:
            self._result.flows.recorded.append(self._service(outcome, due, translated))
        attribution.explain(self.namespaces, self._result, translated)

    def _watch(self, pairs: Iterable[Flow]) -> list[tuple[Outcome, Due]]:
        """Probe flow by flow, with taps; what became of flows to Services is returned, all others are judged."""
        present, probing, plane = self.design.present, self.probing, self.design.plane
        pods = [endpoint.key for endpoint in present.endpoints]
        nodes = [node.name for node in present.nodes]
        endpoints = {endpoint.key: endpoint for endpoint in self.design.cluster.endpoints}
        served = self._flows.services() if probing.services else []
        listening = self._services.listening(served)
        with ExitStack() as release:
            if gc.isenabled():  # a million observations, none in a cycle: to look for cycles takes a quarter of the time
                gc.unfreeze()
                gc.disable()
                release.callback(gc.enable)
                release.callback(gc.freeze)
            engine = Engine(
                self.namespaces,
                pods=pods,
                nodes=nodes,
                families=self._families,
                watched=watched(probing.taps, pods, nodes),
                tunnel_ports=tunnel_ports(self.design),
                round_=self.round_,
                timeout=probing.timeout,
                on_frame=self.on_frame,
                port=probing.port,
                serving={name: ports for name, ports in listening.items() if name in self.namespaces},
            )
            release.callback(engine.close)

            def source_of(name: str, to: IPAddress) -> IPAddress | None:
                return _source(engine.host(name).source_for(to))

            flows = list(pairs)
            if probing.nodes:
                every = probing.taps == "every"
                flows += self._flows.from_nodes(source_of, every)
            if probing.outside:
                flows += self._flows.to_outside()
            due: dict[int, Due] = {}
            to_services: list[tuple[Outcome, Due]] = []
            for flow, owed in self._flows.to_services(self._services, served, source_of):
                due[flow.number] = owed
                flows.append(flow)
            if due:  # or the second refusal would look like a loss
                release.enter_context(unlimited_errors(self.namespaces, nodes))
            measured = probing.mtu and "icmp" in probing.protocols and probing.size is None and self._flows.to_themselves()
            sized = list(self._flows.full_size(self._passes)) if measured else []
            lengths: dict[int, Outcome] = {}
            # In one run: all that stay silent share its deadline.
            for count, outcome in enumerate(engine.run([*flows, *(flow for full, over, _ in sized for flow in (full, over))]), 1):
                flow = outcome.flow
                if count > len(flows):
                    lengths[flow.number] = outcome
                    continue
                if self.on_progress:
                    self.on_progress(count, len(flows))
                if flow.number in due:
                    to_services.append((outcome, due[flow.number]))
                    continue
                wire = None
                if flow.kind is Kind.POD and probing.taps == "every":
                    source, destination = endpoints[flow.source], endpoints[flow.destination]
                    wire = plane.wire(self.design.cluster, source, destination, flow.family)
                judged = judge(
                    flow,
                    outcome.seen,
                    answered=outcome.answered,
                    refused=outcome.refused,
                    ends=(place_of(flow.source, nodes), place_of(flow.destination, nodes)),
                    wire=wire,
                )
                if self._policies.active:
                    judged = self._policies.judge(judged)
                self._result.flows.recorded.append(judged)
            self._result.mtu = [_mtu(full, mtu, lengths[full.number], lengths[over.number]) for full, over, mtu in sized]
        return to_services

    def _service(self, outcome: Outcome, due: Due, translated: Mapping[str, Iterable[conntrack.Entry]]) -> FlowResult:
        """Judge what became of a flow to a Service; ``translated`` is what connection tracking says, by namespace."""
        flow, oracle = outcome.flow, self._policies.oracle
        entries = translated.get(self._services.entry(flow.source, due.way), ())
        entry = next((one for one in entries if one.original == attribution.original(flow)), None)

        def allowed(one: Backend) -> bool | None:
            """Whether policies let the flow reach this endpoint; None where it is left open.

            On the node at which it meets kube-proxy they see the client, before any masquerading; on another one the node,
            where it masquerades.
            """
            place, node = self._services.place(one) or "", self._services.entry(flow.source, due.way)
            if not oracle.active:
                return True
            if place == flow.source:  # a pod to itself: none of policies' business, but this one leaves the pod
                return None
            source: str | IPAddress = flow.source if "/" in flow.source else ip_address(flow.source_address)
            if one.node == node == flow.source:
                source = node
            elif one not in due.frank and one.node != node:
                source = primary(self.design.topology, node, flow.family) or source
            there = place if "/" in place else one.address
            return oracle.decide(source, there, flow.protocol, one.port, flow.family).allowed

        return services.judge(
            flow,
            outcome.seen,
            due,
            answered=outcome.answered,
            refused=outcome.refused,
            end=place_of(flow.source, [node.name for node in self.design.present.nodes]),
            led=(ip_address(entry.reply.source), entry.reply.sport) if entry else None,
            allowed=allowed,
        )

    def _passes(self, source: Endpoint, destination: Endpoint, family: int) -> bool:
        """Whether policies let an echo pass."""
        oracle = self._policies.oracle
        return not oracle.active or oracle.decide(source.key, destination.key, "icmp", 0, family).allowed

    def _mesh(self) -> list[tuple[Endpoint, Endpoint, int, str]]:
        """All pod pairs by UDP at once; returns the shapes of flow that are left to be looked at closely."""
        endpoints, probing = self.design.cluster.endpoints, self.probing
        total = len(endpoints) * (len(endpoints) - 1) * len(self._families)
        done = 0

        def progress(count: int) -> None:
            nonlocal done
            done += count
            if self.on_progress:
                self.on_progress(done, total)

        left = [
            (a, b, family, protocol)
            for family in self._families
            for protocol in probing.protocols
            if protocol != "udp"
            for a in endpoints
            for b in endpoints
            if a is not b
        ]
        if "udp" not in probing.protocols:
            return left
        workers = 1 if self._policies.active else mesh.threads()  # each has a port of its own, policies mean one
        declared = {port.number for endpoint in endpoints for port in endpoint.pod.ports if port.protocol == "udp"}
        if self._policies.active and PORT in declared:  # it is served already, and no other port will do
            return left + [(a, b, family, "udp") for family in self._families for a in endpoints for b in endpoints if a is not b]
        ports = list(islice((port for port in counting(PORT) if port not in declared), workers))
        dports = [ports[i] for i in range(workers) for _ in mesh.share(len(endpoints), i, workers)]
        for family in self._families:
            sport = source_port(self.round_, family)
            denied = self._policies.oracle.denied("udp", PORT, family) if self._policies.active else []
            rows = mesh.prove(
                self.namespaces,
                endpoints,
                family,
                round_=self.round_,
                sport=sport,
                dports=ports,
                timeout=probing.timeout,
                on_progress=progress,
                denied=denied,
            )
            self._result.flows.blocks.append(Block(endpoints, family, "udp", sport, dports, rows, denied, self._policies.breach))
            left += [
                (endpoints[i], endpoints[j], family, "udp")
                for j, row in enumerate(rows)
                if row.count(mesh.DELIVERED) < len(endpoints) - 1
                for i, state in enumerate(row)
                if state != mesh.DELIVERED and i != j and not (denied and denied[j][i] and state == mesh.NOTHING)
            ]
        return left


def tunnel_ports(design: Design) -> frozenset[int]:
    """The UDP ports at which the data plane's tunnels end."""
    return frozenset(thing.port for objects in design.made.values() for thing in objects if isinstance(thing, Vxlan))


def _mtu(flow: Flow, mtu: int, full: Any, over: Any) -> MtuResult:
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
