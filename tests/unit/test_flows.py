"""The ports that probes are sent from."""

from __future__ import annotations

from emulab.probe.flows import source_port


def test_source_ports_are_nobody_elses() -> None:
    """Neither node ports nor those that a kernel gives to a pod's own connections: one of these may wait for its end."""
    used = {source_port(round_, index) for round_ in range(100) for index in range(0, 1000, 13)}
    assert min(used) >= 1024 and max(used) < 30000


def test_a_source_port_comes_again_late() -> None:
    """Connection tracking knows a connection for minutes, and shows none that it knows to a new rule."""
    rounds = [{source_port(round_, index) for index in range(900)} for round_ in range(20)]
    assert sum(map(len, rounds)) == len(set().union(*rounds))
