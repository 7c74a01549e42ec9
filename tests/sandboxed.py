"""Labs on the real kernel: each test's work runs inside a sandbox of its own, as root and as an ordinary user."""

from __future__ import annotations

import encodings.ascii  # noqa: F401
import os
import pickle
import signal
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any
from unittest import mock

from designed import catalogued

# Everything that a lab imports on demand: an ordinary user may not be able to read this interpreter's folders.
import emulab.probe.engine
import emulab.probe.mesh
import emulab.underlay  # noqa: F401
from emulab import registry
from emulab.drift import Deviation
from emulab.errors import InputError
from emulab.kernel import sandbox, syscalls
from emulab.lab import Lab, Probing
from emulab.planning import design
from emulab.probe import craft
from emulab.result import RunResult

craft.template(4, "udp", 32)  # Scapy, and all that it needs
for _name in registry.topologies():
    with suppress(InputError):  # one that wants numbers
        catalogued(_name)
registry.plugins()
NOBODY, PR_SET_DUMPABLE = 65534, 4
AS_ROOT = os.geteuid() == 0
Check = Callable[[Lab], Any]


def inside(work: Callable[[], Any], user: str) -> Any:
    """Run ``work`` in a sandbox and return its result; what it raises fails the test."""
    answer = os.memfd_create("answer")

    def lab() -> int:
        try:
            told = (True, work())
        except BaseException:
            told = (False, traceback.format_exc())
        with open(answer, "wb") as file:
            pickle.dump(told, file)
        return 0

    if user == "user" and AS_ROOT:
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
                syscalls.prctl(PR_SET_DUMPABLE, 1)  # or /proc/self would still be root's
                sandbox.run(lab)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
    elif sandbox.run(lab) == 128 + signal.SIGINT:  # it hands signals on
        raise KeyboardInterrupt
    with open(answer, "rb") as file:
        file.seek(0)
        data = file.read()
    assert data, "the sandbox ended without an answer"
    good, value = pickle.loads(data)
    assert good, value
    return value


def build(topology: str, plugin: str, settings: tuple[str, ...] = ()) -> Lab:
    """A lab, not built yet."""
    wanted = catalogued(topology)
    plane = registry.options(registry.plugin(plugin), settings)
    return Lab(design(wanted, plane))


def repaired(lab: Lab) -> list[Deviation]:
    """Repair it; returns what that saw first, which is what `Lab.drift` would have shown before."""
    looks: list[list[Deviation]] = []
    drift = lab.drift

    def look(only: Collection[str] | None = None) -> list[Deviation]:
        looks.append(drift(only))
        return looks[-1]

    with mock.patch.object(lab, "drift", look):
        lab.repair()
    return looks[0]


def verdicts(result: RunResult) -> dict[tuple[str, str, str, int], str]:
    """(from, to, protocol, family) -> verdict of each pod-to-pod flow."""
    return {
        (f.flow.source.removeprefix("default/"), f.flow.destination.removeprefix("default/"), f.flow.protocol, f.flow.family): (
            f.verdict.value
        )
        for f in result.flows
        if f.flow.kind.value == "pod-to-pod"
    }


def measured(lab: Lab, probing: Probing | None = None) -> dict[str, Any]:
    """A verification, as plain values."""
    return plain(lab.verify(probing or Probing()))


def plain(result: RunResult) -> dict[str, Any]:
    return {
        "ok": result.ok,
        "summary": result.summary(),
        "verdicts": verdicts(result),
        "findings": [
            (str(one.flow), finding.field, finding.before, finding.after, finding.place)
            for one in result.bad()
            for finding in one.findings
        ],
        "mtu": [(m.source, m.destination, m.family, m.mtu, m.full, m.over) for m in result.mtu],
        "kinds": {one.flow.kind.value for one in result.flows},
        "translated": sum(bool(one.translations) for one in result.flows),
    }
