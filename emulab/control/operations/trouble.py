"""What is not as planned: found, put back, or brought about on purpose."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any

from emulab import mending
from emulab.control.live import LiveLab, operation
from emulab.diff import lines as typed_lines
from emulab.errors import InputError, KernelError
from emulab.etc_files import resolve
from emulab.faults import FAULTS, Fault, Step, fault
from emulab.kernel.typed import type_lines
from emulab.model import SWITCHES
from emulab.planning import Design


@operation
def drift(live: LiveLab) -> Any:
    """What is not as planned."""
    with live.turn():
        return _deviations(live.lab.drift())


@operation
def repair(live: LiveLab, names: list[str] | None = None, dry_run: bool = False) -> Any:
    """Put back what is not as planned, everywhere or in some nodes and pods."""
    cluster = live.lab.cluster
    wanted = [name if name == SWITCHES else resolve(cluster, name) for name in names] if names else None
    with live.turn():
        if dry_run:
            found = mending.of(live.lab.drift(), wanted)
            return {"lines": typed_lines(mending.mend(live.lab.design.real, found), live.lab.design.places), "dry_run": True}
        mended = live.lab.repair(wanted)
        if not live.lab.drift():
            live.faults.clear()
        if mended:
            live.tell("repaired", deviations=len(mended))
    return {"mended": _deviations(mended), "dry_run": False}


@operation
def fault_list(live: LiveLab) -> Any:
    """The library, with the places where each applies here, and what is injected, unless that is to be found out."""
    design = live.lab.design
    known = [
        {
            "name": one.name,
            "summary": one.summary,
            "symptom": one.symptom,
            "places": one.places(design.present, design.plane, design.real),
        }
        for one in FAULTS.values()
    ]
    return {"faults": known, "injected": [one if not one["blind"] else {"blind": True} for one in live.faults]}


@operation
def fault_inject(live: LiveLab, name: str | None = None, at: str | None = None, blind: bool = False) -> Any:
    """Break the lab in a known way; without a name, or a place, any that applies and is not there yet."""
    with live.turn():
        ways = breakages(live.lab.design, name, at, [(one["name"], one["at"]) for one in live.faults])
        if blind or not name:
            random.shuffle(ways)
        else:
            del ways[1:]
        broken, place, steps = _break(live, ways)
        live.faults.append({"name": broken.name, "at": place, "blind": blind})
        live.tell("fault injected", **({} if blind else {"fault": broken.name, "at": place}))
    if blind:
        return {"blind": True}
    lines: dict[str, list[str]] = {}
    for step in steps:
        lines.setdefault(step.namespace, []).append(step.line)
    return {"name": broken.name, "at": place, "symptom": broken.symptom, "lines": lines}


def breakages(
    design: Design, name: str | None, at: str | None, injected: Collection[tuple[str, str]] = ()
) -> list[tuple[Fault, str]]:
    """The faults that may be meant, each with its place.  Raises `InputError` where none applies, or all are ``injected``."""
    chosen = [fault(name)] if name else list(FAULTS.values())
    cases = [(one, place) for one in chosen for place in one.places(design.present, design.plane, design.real)]
    if at is not None:
        wanted = resolve(design.cluster, at, others=False)
        cases = [(one, place) for one, place in cases if place == wanted]
    if not cases:
        told = f" at '{at}'" if at else " here: nothing can break in this way"
        raise InputError(f"fault {name or 'of any kind'} cannot be injected{told}")
    left = [(one, place) for one, place in cases if (one.name, place) not in injected]
    if not left:
        told = f" at '{at}'" if at else ""
        raise InputError(f"fault {name or 'of any kind'} is injected{told} already (emulab fault clear undoes it)")
    return left


def _break(live: LiveLab, ways: list[tuple[Fault, str]]) -> tuple[Fault, str, list[Step]]:
    """Do the first of these that can be done as things are: another fault may have taken what this one would break.

    What had been broken before is so afterwards, whatever failed.
    """
    design, namespaces = live.lab.design, live.lab.namespaces
    where = (design.present, design.plane, design.real)
    while True:
        broken, place = ways.pop(0)
        steps = broken.steps(*where, place)
        try:
            type_lines(namespaces, steps)
        except KernelError:
            live.lab.repair()
            for earlier in live.faults:
                type_lines(namespaces, fault(earlier["name"]).steps(*where, earlier["at"]))
            if not ways:
                raise
        else:
            return broken, place, steps


@operation
def fault_clear(live: LiveLab) -> Any:
    """Undo all faults, and whatever else is not as planned; tells what they were."""
    with live.turn():
        were, live.faults[:] = list(live.faults), []
        mended = live.lab.repair()
        live.tell("faults cleared", faults=[one["name"] for one in were])
    return {"cleared": were, "mended": _deviations(mended)}


def _deviations(found: list[Any]) -> list[dict[str, Any]]:
    return [
        {
            "namespace": one.namespace,
            "kind": one.kind,
            "planned": "; ".join(one.planned.lines()) if one.planned else None,
            "found": "; ".join(one.found.lines()) if one.found else None,
            "text": str(one),
        }
        for one in found
    ]
