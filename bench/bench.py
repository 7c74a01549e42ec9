"""Figures of emulab beside stock Mininet, on one machine in one run: ``python bench/bench.py [--quick]``, as root.

Timings differ from machine to machine and from minute to minute: the ratios are what to look at.
"""

from __future__ import annotations

import os
import pickle
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from emulab import change, registry
from emulab.kernel import sandbox
from emulab.lab import Lab, Probing
from emulab.planning import design

PLUGINS = ("flannel", "calico", "weave")
MININET = ["mn", "--switch", "lxbr", "--controller", "none", "--test", "pingall", "--topo"]
# A namespace of its own: Mininet puts its switch into the one that it is started in.
APART = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc"]


def wall(command: list[str], runs: int) -> float:
    """Median seconds of whole processes; fails when one fails."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def inside(work: Callable[[], Any]) -> Any:
    """Run ``work`` in a sandbox of its own process and return what it returns."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:

        def lab() -> int:
            with open(write, "wb") as pipe:
                pickle.dump(work(), pipe)
            return 0

        os._exit(sandbox.run(lab))
    os.close(write)
    with open(read, "rb") as pipe:
        data = pipe.read()
    _, _, usage = os.wait4(child, 0)
    return pickle.loads(data) | {"rss": usage.ru_maxrss / 1024}


def available() -> int:
    """Memory that the whole machine has left, in KB."""
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("MemAvailable"))


def fleet(topology: str, plugin: str, probing: Probing | None = None) -> dict[str, Any]:
    """Seconds of design, build, probe and take-down; KB per pod; whether all was delivered."""

    def work() -> dict[str, Any]:
        import emulab.underlay  # noqa: F401  (after imports, says the target)

        start = time.perf_counter()
        plane = registry.plugin(plugin)()
        wanted = design(registry.topology(topology), plane)
        designed = time.perf_counter()
        before = available()
        with Lab(wanted) as lab:
            lab.build()
            built = time.perf_counter()
            used = (before - available()) / len(wanted.cluster.endpoints)
            found: dict[str, Any] = {}
            if probing:
                result = lab.verify(probing)
                pairs = sum(map(len, result.flows.blocks))
                found = {"ok": result.ok, "pairs": pairs, "mesh": lab.timings["udp mesh"]}
            leaving = time.perf_counter()
        left = time.perf_counter()
        return {"design": designed - start, "build": built - designed, "kb": used, "down": left - leaving, **found}

    found: dict[str, Any] = inside(work)
    return found


def row(what: str, figure: str, beside: str, ratio: str, target: str) -> None:
    print(f"| {what} | {figure} | {beside} | {ratio} | {target} |", flush=True)


def small(runs: int) -> None:
    """Whole processes."""
    three = wall([*APART, *MININET, "single,3"], runs)
    for plugin in PLUGINS:
        ours = wall([sys.executable, "-m", "emulab", "run", "-q", "--plugin", plugin], runs)
        beside = f"{three:.2f} s (3 hosts, pingall)"
        row(f"`emulab run flat --plugin {plugin}`, whole process", f"{ours:.2f} s", beside, f"{ours / three:.1f}x", "2x")


def hundred(hosts: int) -> None:
    """A hundred pods beside ``hosts`` hosts of Mininet."""
    start = wall([*APART, *MININET[:-3], "--test", "none", "--topo", f"single,{hosts}"], 1)
    host = start * 1000 / hosts
    rate = hosts * (hosts - 1) / (wall([*APART, *MININET, f"single,{hosts}"], 1) - start)
    for plugin in PLUGINS:
        ten = fleet("fleet,10,10", plugin, Probing(("udp",), (4,), "ends"))
        pod, pairs = (ten["design"] + ten["build"]) * 10, ten["pairs"] / ten["mesh"]
        beside = f"{host:.0f} ms a host, up and down"
        row(f"{plugin}: build fleet,10,10", f"{pod:.1f} ms a pod", beside, f"{pod / host:.2f}x", "3 ms a pod")
        beside = f"{rate:,.0f} pings/s ({hosts} hosts)"
        row(f"{plugin}: all UDP pairs of 100 pods", f"{pairs:,.0f} pairs/s", beside, f"{pairs / rate:.0f}x", "100x")


def thousand(plugin: str) -> None:
    """A thousand pods on a hundred nodes."""
    many = fleet("fleet,100,10", plugin, Probing(("udp",), (4,), "ends", nodes=False, outside=False))
    row(f"{plugin}: build fleet,100,10", f"{many['design'] + many['build']:.1f} s", "", "", "4 s")
    row(f"{plugin}: take it down", f"{many['down']:.2f} s", "", "", "1 s")
    row(f"{plugin}: memory a pod", f"{many['kb']:.0f} KB", "", "", "450 KB")
    told = f"{many['pairs']:,} pairs in {many['mesh']:.1f} s, {many['rss']:.0f} MB"
    row(f"{plugin}: all UDP pairs of 1,000 pods", told, "", "", "999,000 in 20 s, 200 MB")


def staying(runs: int) -> None:
    """Labs that stay: the command line around them, a change of a large one, a trace."""
    ours, lab = [sys.executable, "-m", "emulab"], ["--lab", "bench"]
    wall([*ours, "up", "single-node", "--name", "bench"], 1)
    subprocess.run(["ip", "netns", "add", "emulab-bench"], check=True)
    try:
        plain = wall(["ip", "netns", "exec", "emulab-bench", "true"], runs) + wall([sys.executable, "-c", "pass"], runs)
        entered = wall([*ours, "exec", *lab, "a1", "--", "true"], runs)
        beside = f"{plain * 1e3:.0f} ms (ip netns exec, and python)"
        row("`emulab exec a1 -- true`", f"{entered * 1e3:.0f} ms", beside, f"{entered / plain:.1f}x", "1.3x, 150 ms")
        row("`emulab --help`", f"{wall([*ours, '--help'], runs) * 1e3:.0f} ms", "", "", "150 ms")
        row("`emulab trace a1 a2`", f"{wall([*ours, 'trace', *lab, 'a1', 'a2'], runs) * 1e3:.0f} ms", "", "", "1 s")
    finally:
        subprocess.run(["ip", "netns", "del", "emulab-bench"], check=True)
        wall([*ours, "down", "bench"], 1)
    for plugin in PLUGINS[:2]:
        one = inside(lambda plugin=plugin: one_more(plugin))  # type: ignore[misc]
        told = f"{one['applied'] * 1e3:.0f} ms, after {one['planned'] * 1e3:.0f} ms of planning"
        row(f"{plugin}: one more pod beside 1,000", told, "", "", "50 ms")


def one_more(plugin: str) -> dict[str, float]:
    """Seconds to plan, and to compare and apply, one more pod in a cluster of a thousand."""
    with Lab(design(registry.topology("fleet,100,10"), registry.plugin(plugin)())) as lab:
        lab.build()
        times = []
        for number in range(5):
            start = time.perf_counter()
            after = change.add_pod(lab.design, f"x{number}", "node-5")
            planned = time.perf_counter()
            lab.change(after)
            times.append((planned - start, time.perf_counter() - planned))
        planned, applied = sorted(times, key=sum)[2]
        return {"planned": planned, "applied": applied}


def main() -> None:
    quick = "--quick" in sys.argv
    print("| what | emulab | stock Mininet | ratio | target |\n|---|---|---|---|---|")
    small(3 if quick else 7)
    staying(3 if quick else 7)
    hundred(30)  # more, and Mininet overruns the neighbour table of a machine as it comes
    for plugin in PLUGINS[: 1 if quick else None]:
        thousand(plugin)


if __name__ == "__main__":
    main()
