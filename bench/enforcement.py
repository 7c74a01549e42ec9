"""Figures of policies and ports on one machine in one run: ``python bench/enforcement.py``, as root.

How long a changed policy takes until it is in force, how long all ports of all pods take to ask, and a suite of cases: apply,
ask everything, delete.  Wall time, in the lab itself: no process starts, no manifest's library is imported meanwhile.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from functools import partial
from typing import Any

from bench import inside
from emulab import change, registry
from emulab.kube import applied, read
from emulab.lab import Lab
from emulab.objects import ContainerPort
from emulab.packet import Verdict
from emulab.planning import design
from emulab.probe.ports import Check, probe

PLANES = ("calico", "weave")
PORTS = tuple((protocol, number) for protocol in ("tcp", "udp", "sctp") for number in (80, 81))
POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}}}
spec:
  podSelector: {{matchLabels: {{app: a{subject}}}}}
  ingress: [{{from: [{{podSelector: {{matchLabels: {{app: a{peer}}}}}}}], ports: [{{port: {port}}}]}}]
"""
DENY_ALL = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny}\nspec: {podSelector: {}}\n"


def labelled(topology: str, plugin: str, apps: int) -> Lab:
    """A lab whose pods are of so many apps in turn, and declare six ports each."""
    wanted = registry.topology(topology)
    ports = tuple(ContainerPort(number, protocol) for protocol, number in PORTS)
    pods = (replace(p, labels=(("app", f"a{i % apps}"),), ports=ports) for i, p in enumerate(wanted.pods))
    plane = registry.options(registry.plugin(plugin), ())
    return Lab(design(replace(wanted, pods=tuple(pods)), plane))


def apply(lab: Lab, text: str) -> float:
    """Seconds until what a manifest asks for is in force."""
    documents = read(text, "bench")
    begun = time.perf_counter()
    found = applied(lab.design.topology, documents)
    lab.change(change.reshape(lab.design, found.pods, found.objects))
    return time.perf_counter() - begun


def changed(topology: str, plugin: str, policies: int) -> dict[str, Any]:
    """One of so many policies gets another port, nine times."""
    with labelled(topology, plugin, policies) as lab:
        lab.build()
        texts = [POLICY.format(name=f"p{i}", subject=i, peer=(i + 1) % policies, port=80) for i in range(policies)]
        apply(lab, "---\n".join(texts))
        times = [apply(lab, texts[i % policies].replace("80", str(8000 + i))) for i in range(9)]
    return {"median": statistics.median(times), "worst": max(times)}


def asked(plugin: str) -> dict[str, Any]:
    """All pairs of nine pods at six ports, open and denied; then a hundred cases."""
    with labelled("fleet,3,3", plugin, 9) as lab:
        lab.build()
        keys = [endpoint.key for endpoint in lab.cluster.endpoints]
        checks = [Check(a, b, 4, *port) for a in keys for b in keys if a != b for port in PORTS]

        def ask(verdict: Verdict) -> float:
            begun = time.perf_counter()
            found = probe(lab.namespaces, lab.cluster, checks)
            took = time.perf_counter() - begun
            assert all(outcome.verdict is verdict for outcome in found)
            return took

        def delete() -> None:
            topology = lab.design.topology
            lab.change(change.reshape(lab.design, topology.pods, replace(topology.objects, policies=())))

        figures = {"checks": len(checks), "open": statistics.median(ask(Verdict.DELIVERED) for _ in range(5))}
        apply(lab, DENY_ALL)
        figures["denied"] = statistics.median(ask(Verdict.DROPPED) for _ in range(5))
        delete()
        begun = time.perf_counter()
        for case in range(100):
            apply(lab, POLICY.format(name="case", subject=case % 9, peer=(case + 1) % 9, port=PORTS[case % 2][1]))
            probe(lab.namespaces, lab.cluster, checks)
            delete()
        return {**figures, "suite": time.perf_counter() - begun}


def main() -> None:
    for plugin in PLANES:
        for topology, policies in (("fleet,3,3", 3), ("fleet,100,10", 50)):
            found = inside(partial(changed, topology, plugin, policies))
            print(f"{plugin} {topology}: a changed policy is in force after {found['median'] * 1e3:.0f} ms, ", end="")
            print(f"{found['worst'] * 1e3:.0f} ms at worst", flush=True)
        found = inside(partial(asked, plugin))
        print(f"{plugin} fleet,3,3: {found['checks']} checks, open {found['open'] * 1e3:.0f} ms, ", end="")
        print(f"denied {found['denied'] * 1e3:.0f} ms; 100 cases of apply, ask all, delete: {found['suite']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
