"""How pods were attached: the calls of CNI plugins, or those that a built-in data plane stands for."""

from __future__ import annotations

from typing import Any

from emulab import birth
from emulab.control.live import LiveLab, operation
from emulab.etc_files import resolve
from emulab.planning import attached

SCHEMA = "emulab/cni-log/1"


@operation
def cni_log(live: LiveLab, pod: str | None = None) -> Any:
    """The calls for a pod, or for all, in the order in which they were made, by node for what would have been made."""
    lab = live.lab
    real = attached(lab.design.plan)
    known = {one.pod for one in lab.attaching.log}
    key = pod if pod is None or pod in known else next(iter({f"default/{pod}"} & known), None) or resolve(lab.cluster, pod)
    calls = []
    if real:
        for one in list(lab.attaching.log):
            if key in (None, one.pod):
                calls.append({"pod": one.pod, "node": one.node, "by": "", **one.invocation.show()})
    else:
        for endpoint in lab.cluster.endpoints:
            if key in (None, endpoint.key):
                made = birth.equivalent(lab.plane, lab.cluster, lab.plan, endpoint)
                calls += [{"pod": endpoint.key, "node": endpoint.node, **call} for call in made]
    return {"schema": SCHEMA, "lab": live.name, "plugin": lab.plane.name, "equivalent": not real, "calls": calls}
