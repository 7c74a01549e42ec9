"""How many of N random faults a diagnosis names, without being told: ``python bench/blind.py [N] [SEED]``, as root."""

from __future__ import annotations

import random
import sys
from typing import Any

from bench import inside
from emulab import registry
from emulab.diagnose import diagnose
from emulab.faults import FAULTS
from emulab.kernel.typed import type_lines
from emulab.lab import Lab, Probing
from emulab.planning import design

LABS = (
    ("flat", "flannel"),
    ("flat", "flannel", "direct_routing=true"),
    ("flat", "calico"),
    ("flat", "calico", "encap=vxlan"),
    ("two-racks", "calico", "encap=cross-subnet"),
    ("flat", "weave"),
    ("partial-mesh", "weave"),
)


def some(case: tuple[str, ...], faults: int, seed: int) -> dict[str, Any]:
    """Break one lab again and again; returns what was not told by its name, or not at its place."""
    dice, missed = random.Random(seed), []
    topology, plugin, *settings = case
    with Lab(design(registry.topology(topology), registry.options(registry.plugin(plugin), settings))) as lab:
        lab.build()
        scene = (lab.cluster, lab.plane, lab.design.desired)
        applicable = {name: places for name, fault in FAULTS.items() if (places := fault.places(*scene))}
        for _ in range(faults):
            name = dice.choice(sorted(applicable))
            place = dice.choice(applicable[name])
            type_lines(lab.namespaces, FAULTS[name].steps(*scene, place))
            deviations, result = lab.drift(), lab.verify(Probing(protocols=("icmp", "udp"), timeout=0.6))
            told = [(one.fault, one.where) for one in diagnose(*scene, deviations, result)]
            if told[:1] != [(name, place)]:
                missed.append(f"{name} at {place}: told {told}")
            lab.repair()
    return {"missed": missed}


def main() -> None:
    faults, seed = (int(word) for word in (*sys.argv[1:], *("50", "1")[len(sys.argv) - 1 :]))
    missed = []
    for number, case in enumerate(LABS):
        share = faults // len(LABS) + (number < faults % len(LABS))
        for line in inside(lambda: some(case, share, seed + number))["missed"]:  # noqa: B023 (called at once)
            missed.append(f"{' '.join(case)}: {line}")
    print(f"{faults - len(missed)} of {faults} random faults named, each at its place (seed {seed})", *missed, sep="\n")


if __name__ == "__main__":
    main()
