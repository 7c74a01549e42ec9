"""Comparisons on paper: figures that are written here, for tests of what is made of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from emulab.comparison import (
    FAR,
    KINDS,
    NEAR,
    Column,
    Comparison,
    Counts,
    Cut,
    Death,
    Growth,
    Measured,
    RoundTrips,
    Throughput,
    Tried,
    Way,
)

NODES = ("node-a", "node-b", "node-c")


def held(**counts: int) -> Counts:
    return {**dict.fromkeys(KINDS, 0), **counts}


def growth(what: str, *steps: tuple[int, int]) -> Growth:
    """``steps``: routes of node-a, and of each other node."""
    return Growth(
        what, "node-a", tuple({n: held(routes=here if n == "node-a" else there) for n in NODES} for here, there in steps)
    )


def measured(**values: Any) -> Measured:
    """A plane that adds nothing, enforces nothing and goes around nothing."""
    way = Way("default/a1", "default/b1", "none", 0, 62, 1500)
    usual: dict[str, Any] = {
        "builds": ((0.2, 0.05), (0.1, 0.04), (0.9, 0.5)),
        "reached": (60, 60),
        "ways": {(NEAR, 4): replace(way, encapsulation="", overhead=None, ttl=64), (FAR, 4): way, (FAR, 6): way},
        "busy": {node: held(routes=10, devices=3) for node in NODES},
        "idle": {node: held(routes=10, devices=3) for node in NODES},
        "pods": {"default/a1": held(neighbours_learned=2), "default/b1": held(neighbours_learned=3)},
        "growth": (growth("pod", (10, 10), (11, 10), (12, 10)), growth("node", (12, 10), (14, 12), (16, 14))),
        "round_trips": {(FAR, 4): RoundTrips(50e-6, 90e-6, 500, 500)},
        "throughput": {(FAR, 4): Throughput(reason="iperf3 is not installed")},
        "policies": (Tried("NetworkPolicy ingress", 4, 4, "nothing is blocked"),),
        "death": Death("node-x", 24, 24, {**dict.fromkeys(KINDS, 0), "routes": 2, "neighbours_learned": 1}, "lost"),
        "cuts": {4: Cut(("node-a", "node-b"), None, 0.5)},
    }
    return Measured(**{**usual, **values})


def comparison(*found: Measured | str, **values: Any) -> Comparison:
    """Columns a, b, c, …: what was measured, or why nothing was."""
    columns = tuple(
        Column(name, "plugin", {"mtu": None}, failed=one) if isinstance(one, str) else Column(name, "plugin", {"mtu": None}, one)
        for name, one in zip("abcdefgh", found, strict=False)
    )
    made = Comparison("flat", 3, 6, (4, 6), columns, {"kernel": "6.1", "machine": "x86_64", "cpus": 2}, seconds=9.0)
    return replace(made, **values)


def tunnelled(four: int, six: int, mtu: int = 1450) -> dict[tuple[str, int], Way]:
    return {(FAR, f): Way("a", "b", "VXLAN, UDP 4789, VNI 1", o, 62, mtu) for f, o in ((4, four), (6, six))}
