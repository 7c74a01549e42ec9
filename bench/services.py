"""Figures of Services, few beside many, on one machine in one run: ``python bench/services.py [SERVICES]``, as root.

Planned, loaded, one added, and what a connection's first packet costs.  Ratios and CPU seconds say more than wall time.
"""

from __future__ import annotations

import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, TypeVar

from bench import inside
from emulab import change, registry
from emulab.kernel.namespaces import entered
from emulab.lab import Lab
from emulab.model import Pod, Topology
from emulab.objects import Objects, Service, ServicePort
from emulab.planning import Design, design
from emulab.selector import In

T = TypeVar("T")
ENDPOINTS, FEW, PORT, ROUNDS, CONNECTIONS = 10, 10, 8000, 8, 250
FIRST = int(ip_address("10.96.0.10"))


def services(number: int) -> tuple[Service, ...]:
    """Each of them leads to all pods."""
    ports, selector = (ServicePort("http", "tcp", 80, PORT),), In("app", ("web",))
    addresses = (ip_address(FIRST + index) for index in range(number))
    return tuple(Service("default", f"s{i}", addresses=(own,), ports=ports, selector=selector) for i, own in enumerate(addresses))


def asked(topology: str, number: int) -> Topology:
    """A topology with ``ENDPOINTS`` pods behind ``number`` Services."""
    found = registry.topology(topology)
    pods = [*found.pods, *(Pod(f"more{index}", found.nodes[0].name) for index in range(ENDPOINTS - len(found.pods)))]
    labelled = tuple(replace(pod, labels=(("app", "web"),)) for pod in pods)
    return replace(found, pods=labelled, objects=Objects(services=services(number)))


def timed(work: Callable[[], T]) -> tuple[T, float, float]:
    """What it returns, wall seconds, CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    answer = work()
    return answer, time.perf_counter() - wall, time.process_time() - cpu


def with_number(before: Design, number: int) -> Design:
    return change.reshape(before, before.topology.pods, replace(before.topology.objects, services=services(number)))


class Servers:
    """Accept and close, in every pod."""

    def __init__(self, lab: Lab) -> None:
        self._open = []
        for endpoint in lab.cluster.endpoints:
            with entered(lab.namespaces[endpoint.key].net):
                server = socket.create_server(("", PORT), backlog=512)
            self._open.append(server)
            threading.Thread(target=self._serve, args=(server,), daemon=True).start()

    @staticmethod
    def _serve(server: socket.socket) -> None:
        while True:
            server.accept()[0].close()


def connect(lab: Lab, number: int) -> list[float]:
    """Microseconds of new connections from a pod, to as many of the Services as there are connections."""
    took = []
    with entered(lab.namespaces[lab.cluster.endpoints[0].key].net):
        for index in range(CONNECTIONS):
            target = str(ip_address(FIRST + index * number // CONNECTIONS))
            with socket.socket() as client:
                start = time.perf_counter()
                client.connect((target, 80))
                took.append((time.perf_counter() - start) * 1e6)
                client.recv(1)
    return took


def measure(topology: str, number: int) -> dict[str, Any]:
    def work() -> dict[str, Any]:
        plane = registry.plugin("calico")()
        found: dict[str, Any] = {}
        few = design(asked(topology, FEW), plane)
        many, *found["plan"] = timed(lambda: with_number(few, number))
        with Lab(few) as lab:
            lab.build()
            Servers(lab)
            connect(lab, FEW)
            costs: dict[str, list[float]] = {"few": [], "many": []}
            for _ in range(ROUNDS):
                costs["few"].append(statistics.median(connect(lab, FEW)))
            _, *found["load"] = timed(lambda: lab.change(many))
            connect(lab, number)
            for _ in range(ROUNDS):
                costs["many"].append(statistics.median(connect(lab, number)))
            more, *found["plan one more"] = timed(lambda: with_number(many, number + 1))
            _, *found["load one more"] = timed(lambda: lab.change(more))
            _, *found["load one less"] = timed(lambda: lab.change(many))
        return found | {name: min(took) for name, took in costs.items()}

    return inside(work)  # type: ignore[no-any-return]


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    for topology in ("single-node", "flat"):
        found = measure(topology, number)
        nodes = len(registry.topology(topology).nodes)
        families = len(registry.topology(topology).families)
        print(f"{number:,} Services x {ENDPOINTS} endpoints, {nodes} node{'s' * (nodes > 1)}, tables of {families} families:")
        for name in ("plan", "load", "plan one more", "load one more", "load one less"):
            wall, cpu = found[name]
            print(f"  {name:<15} {wall:7.2f} s wall {cpu:7.2f} s CPU")
        few, many = found["few"], found["many"]
        print(f"  a new connection: {few:.0f} us with {FEW}, {many:.0f} us with {number:,}: ratio {many / few:.2f}", flush=True)


if __name__ == "__main__":
    main()
