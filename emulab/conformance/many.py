"""Checks of what happens beside the usual: many at once, one killed half-way, garbage, readiness."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from emulab.cni.result import Result
from emulab.conformance.bench import Bench, Box
from emulab.conformance.check import check
from emulab.conformance.verdict import Blocked, Failed

_KILLS = 7  # at eighths of the time that an ADD takes


@check("add-many", "2, ADD; 3, lifecycle", "containers may be added and deleted at the same time; no two get the same address")
def add_many(bench: Bench) -> str:
    with ExitStack() as release:
        boxes = [release.enter_context(bench.box(watched=number == bench.adds)) for number in range(1, bench.adds + 1)]
        with ThreadPoolExecutor(bench.adds) as pool:
            results = list(pool.map(lambda box: _tried(bench, box), boxes))
            failures = [one for one in results if isinstance(one, str)]
            given = Counter(str(ip.address.ip) for one in results if isinstance(one, Result) for ip in one.ips)
            ended = list(pool.map(lambda pair: _ended(bench, *pair), zip(boxes, results, strict=True)))
        if failures:
            raise Failed(f"{len(failures)} of {bench.adds} ADDs at the same time fail: {failures[0]}")
        if wrong := [one for one in ended if one]:
            raise Failed(f"{len(wrong)} of {bench.adds} DELs at the same time fail: {wrong[0]}")
        bench.left(boxes[-1])
        fixed = ""
        if twice := [address for address, count in given.items() if count > 1]:
            if _first_address(bench) != _first_address(bench, beside=True):
                raise Failed(f"{len(twice)} addresses were given to more than one container, such as {twice[0]}")
            fixed = "; the configuration says which address"
        return f"{bench.adds} at once, {len(given)} addresses{fixed}, nothing is left"


def _first_address(bench: Bench, beside: bool = False) -> str | None:
    """Of a container alone, or ``beside`` another: only a configuration that says which address it is makes it the same."""
    with ExitStack() as release:
        if beside:
            bench.add(release.enter_context(bench.box()))
        result = bench.add(release.enter_context(bench.box()))
        return str(result.ips[0].address) if result.ips else None


def _tried(bench: Bench, box: Box) -> Result | str:
    try:
        return bench.add(box)
    except Blocked as error:
        return str(error).removeprefix("ADD does not work: ")


def _ended(bench: Bench, box: Box, result: Result | str) -> str:
    try:
        bench.delete(box, result if isinstance(result, Result) else None)
    except Failed as error:
        return str(error)
    return ""


@check("add-killed", "3, deleting an attachment", "an ADD that is killed (SIGKILL) is cleaned up by DEL, and can be tried again")
def add_killed(bench: Bench) -> str:
    with bench.box() as box:
        bench.add(box)
        seconds = bench.log[-1].seconds
    killed = 0
    for eighth in range(1, _KILLS + 1):
        with bench.box(watched=True) as box:
            outcome = bench.call("ADD", box, timeout=seconds * eighth / 8)
            killed += bool(outcome.problem)
            when = f"killed after {eighth}/8 of its time"
            try:
                bench.delete(box)
                bench.left(box)
                bench.succeeds(bench.call("ADD", box), "a new ADD")
            except Failed as failed:
                raise Failed(f"{when}: {failed}") from None
    return f"killed {killed} times"


@check("gc", "2, GC", "takes away what belongs to no valid attachment, and nothing else", since="1.1.0")
def gc(bench: Bench) -> str:
    with bench.box(watched=True) as kept:
        bench.add(kept)
        valid = bench.host.look() - kept.before
        seen = bench.host.interface(kept.ifname, kept.name)
        with bench.box(watched=True) as stale:
            bench.add(stale)
            bench.host.remove(stale.name)
            bench.succeeds(bench.call("GC", request=bench.request(None, attachments=[kept])), "GC")
            if left := sorted(bench.host.settled(stale.before) - stale.before):
                raise Failed(f"of what belongs to nobody is left: {', '.join(left[:4])}")
            if gone := sorted(valid - bench.host.look()):
                raise Failed(f"of what is valid it took away: {', '.join(gone[:4])}")
            if bench.host.interface(kept.ifname, kept.name) != seen:
                raise Failed(f"it changed {kept.ifname} of a valid attachment")
    return "what belonged to nobody is gone"


@check("status", "2, STATUS", "exits with 0 when it is ready for ADD", since="1.1.0")
def status(bench: Bench) -> str:
    bench.succeeds(bench.call("STATUS", request=bench.request(None)), "STATUS")
    return "ready"


CHECKS = (add_many, add_killed, gc, status)
