"""Random policies on the kernel, beside the oracle: ``python bench/policies.py [--plugin P] [--cases N] [--ports N]``, as root.

Prints how many cases and checks agree, and how long a case takes.  A case that does not agree is printed with its seed, which
leads to the same case again.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from policy_cases import case
from policy_kernel import SHAPES, Judge, addresses, apply, bare, everything
from sandboxed import inside

from emulab.errors import OverloadError


def run(plugin: str, settings: list[str], first: int, count: int, ports: int) -> dict[str, Any]:
    """All cases in one lab; stops at the fifth that does not agree."""
    wrong: list[str] = []
    skipped: list[int] = []
    with bare("flat", plugin, *settings) as lab:
        lab.build()
        names = plugin != "weave"
        apply(lab, case(first, ["10.0.0.1", "fd00::1"], names))  # now there are pods, and addresses
        judge, known, start = Judge(lab), addresses(lab), time.perf_counter()
        done = 0
        for seed in range(first, first + count):
            one = case(seed, known, names)
            meant = apply(lab, one)
            try:
                odd = judge.mismatches(everything(lab, random.Random(seed).sample(SHAPES, ports)), meant)
            except OverloadError:  # somebody else's labs
                skipped.append(seed)
                continue
            done += 1
            if odd:
                wrong.append("\n".join([str(one), *map(str, odd[:10]), f"{len(odd)} checks in all"]))
                print(wrong[-1], flush=True)
                if len(wrong) == 5:
                    break
            if done % 100 == 0:
                print(f"{plugin}: {done} cases, {judge.pairs:,} checks, {len(wrong)} wrong", file=sys.stderr, flush=True)
        return {"cases": done, "checks": judge.pairs, "seconds": time.perf_counter() - start, "wrong": wrong, "skipped": skipped}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plugin", action="append")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ports", type=int, default=len(SHAPES), help="how many ports are tried in each case")
    asked = parser.parse_args()
    wrong = 0
    for plugin in asked.plugin or ("calico", "weave"):
        work = partial(run, plugin, asked.settings, asked.seed, asked.cases, asked.ports)
        found = inside(work, "root")
        wrong += len(found["wrong"])
        rate = found["cases"] / found["seconds"]
        print(
            f"{plugin}: {found['cases']:,} cases, {found['checks']:,} checks, {len(found['wrong'])} cases wrong, "
            f"{len(found['skipped'])} not judged; "
            f"{found['seconds']:.0f} s, {rate:.1f} cases/s, {found['checks'] / found['seconds']:,.0f} checks/s"
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
