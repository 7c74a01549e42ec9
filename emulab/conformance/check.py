"""A check: its name, what the specification demands, and how that is found out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from emulab.conformance.bench import Bench

INTERFACE, CHAINED, IPAM = "interface", "chained", "ipam"


@dataclass(frozen=True)
class Check:
    """``work`` returns what it found, or raises `Failed` or `NotApplicable`.  ``kinds`` of plugins it is for; ``since`` which
    version of the protocol."""

    name: str
    section: str
    demand: str
    work: Callable[[Bench], str]
    kinds: tuple[str, ...] = (INTERFACE, CHAINED, IPAM)
    since: str = "0.1.0"


def check(
    name: str, section: str, demand: str, kinds: tuple[str, ...] = (INTERFACE, CHAINED, IPAM), since: str = "0.1.0"
) -> Callable[[Callable[[Bench], str]], Check]:
    """Makes a check of a function."""
    return lambda work: Check(name, section, demand, work, kinds, since)
