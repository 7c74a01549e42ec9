"""Several data planes on the same cluster, measured by the same probes: a lab each, one after the other.

Every lab is in a sandbox of its own and ends with it.  Labs are built in turns, as often as it takes for a median; the last one
of each data plane is measured.
"""

from __future__ import annotations

import os
import pickle
import platform
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from emulab.comparing.figures import QUICK, STEPS, Effort, measure
from emulab.comparison import Column, Comparison, Measured
from emulab.errors import EmulabError, MachineError
from emulab.kernel import sandbox
from emulab.lab import Lab
from emulab.model import Topology
from emulab.planning import Design

_BUILDS = 3  # of which the median is told
_BROKEN = 70  # EX_SOFTWARE of sysexits.h
_PATIENCE = 1.0  # seconds for the last steps to be told
_INTERRUPTED = 128  # exit codes above are signals

Step = Callable[[], None]


class Plane(NamedTuple):
    """A column to be: its name as typed, and the design, or the reason why there is none."""

    name: str
    plugin: str
    options: Mapping[str, object]
    design: Design | None
    refused: str = ""


def compare(
    topology: Topology, planes: Sequence[Plane], quick: bool = False, on_progress: Callable[[int, int], None] | None = None
) -> Comparison:
    """Measure all that have a design.  What fails in one lab is said in its column, the others go on.

    ``on_progress`` is told (steps done, steps in all), from another thread.  Raises `MachineError` when this machine can run no
    lab at all.
    """
    from emulab import underlay  # noqa: F401  (whoever is first would pay for it)

    started = time.perf_counter()
    builds, effort = (1, QUICK) if quick else (_BUILDS, Effort())
    measurable = [plane for plane in planes if plane.design]
    done, total = 0, len(measurable) * (builds - 1 + STEPS + 1)

    def step() -> None:
        nonlocal done
        done += 1
        if on_progress:
            on_progress(done, total)

    times: dict[str, list[tuple[float, float]]] = {plane.name: [] for plane in planes}
    columns = {plane.name: Column(plane.name, plane.plugin, plane.options, failed=plane.refused) for plane in planes}
    failures: list[EmulabError] = []
    for turn in range(builds):
        for plane in measurable:
            if columns[plane.name].failed:
                continue
            last = turn == builds - 1
            try:
                took, found = _in_a_sandbox(lambda tell: _lab(plane.design, effort if last else None, tell), step)  # noqa: B023
            except EmulabError as error:
                columns[plane.name] = replace(columns[plane.name], failed=" ".join(str(error).splitlines()))
                failures.append(error)
                continue
            times[plane.name].append(took)
            if found is not None:
                columns[plane.name] = replace(columns[plane.name], measured=replace(found, builds=tuple(times[plane.name])))
    if failures and not any(column.measured for column in columns.values()):
        raise failures[0]
    machine = {"kernel": platform.release(), "machine": platform.machine(), "cpus": len(os.sched_getaffinity(0))}
    size = len(topology.nodes), len(topology.pods), topology.families
    took_all = time.perf_counter() - started
    return Comparison(topology.name, *size, tuple(columns.values()), machine, quick, took_all)


def _lab(design: Design | None, effort: Effort | None, step: Step) -> tuple[tuple[float, float], Measured | None]:
    """Build a lab, timed in seconds, and measure it if that is wanted."""
    assert design is not None
    with Lab(design) as lab:
        started = time.perf_counter()
        lab.build()
        took = time.perf_counter() - started, lab.timings["data plane"]
        step()
        return took, measure(lab, effort, step) if effort else None


def _in_a_sandbox(work: Callable[[Step], Any], step: Step) -> Any:
    """What ``work`` returns, from a sandbox of its own; ``step`` is called here whenever it calls its own there.

    Raises what `EmulabError` it raised.  When a signal ends it, so it does us.
    """
    answer = os.memfd_create("answer")
    read, write = os.pipe2(os.O_CLOEXEC)

    def tell() -> None:
        os.write(write, b".")

    def inside() -> int:
        try:
            result: tuple[Any, ...] = (True, work(tell))
        except EmulabError as error:
            result = (False, str(error), error.exit_code)
        except Exception as error:
            if os.environ.get("EMULAB_DEBUG"):
                traceback.print_exc()
            result = (
                False,
                f"this is a mistake in emulab: {type(error).__name__}: {error} (EMULAB_DEBUG=1 shows where)",
                _BROKEN,
            )
        with open(answer, "wb", closefd=False) as file:
            pickle.dump(result, file)
        return 0

    over = threading.Event()

    def listen() -> None:
        os.close(write)
        with open(read, "rb", buffering=0) as steps:
            while told := steps.read(64):
                for _ in told:
                    step()
        over.set()

    try:
        status = sandbox.run(inside, door=listen)
        over.wait(_PATIENCE)  # whoever forks next should have one thread
        if status > _INTERRUPTED:
            raise SystemExit(status)
        os.lseek(answer, 0, os.SEEK_SET)
        with open(answer, "rb", closefd=False) as file:
            content = file.read()
    finally:
        os.close(answer)
    if not content:
        raise MachineError("the lab ended without an answer")
    good, *told = pickle.loads(content)
    if good:
        return told[0]
    error = EmulabError(told[0])
    error.exit_code = told[1]
    raise error
