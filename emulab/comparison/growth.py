"""What nodes of a larger cluster would hold, by the growth that was measured."""

from __future__ import annotations

from statistics import mean

from emulab.comparison import Comparison, Measured

FUTURE = 100, 30  # nodes, and pods on each: what reports extrapolate to


def extrapolated(comparison: Comparison, measured: Measured, nodes: int, pods: int) -> dict[str, float]:
    """How many objects a node would hold by kind, with ``nodes`` and ``pods`` on each; empty where growth was not measured.

    Of kinds that were counted in all columns.  It takes growth for linear: steps, such as Calico's next block of 64 addresses,
    are not in it.
    """
    by_what = {growth.what: growth for growth in measured.growth}
    if by_what.keys() != {"pod", "node"} or not measured.busy:
        return {}
    here = comparison.pods / comparison.nodes
    there = comparison.pods - here
    found = {}
    for kind in comparison.kinds:
        near, far = (by_what["pod"].slope(kind, elsewhere) or 0.0 for elsewhere in (False, True))
        alone = (by_what["node"].slope(kind, True) or 0.0) - far  # without the pod that came with it
        more_there, more_nodes = pods * (nodes - 1) - there, nodes - comparison.nodes
        now = mean(counts[kind] for counts in measured.busy.values())
        found[kind] = now + (pods - here) * near + more_there * far + more_nodes * alone
    return found
