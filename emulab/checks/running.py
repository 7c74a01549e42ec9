"""Checks on the real kernel: each with each of its plugins in a lab of its own, several at once.

Every lab is a process's of its own, in a sandbox; what it finds out comes through a pipe, step by step, so that a lab that dies
has told what it knew.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from emulab.checks.check import Step, Wanted
from emulab.checks.rehearsal import Job
from emulab.checks.result import Done, Result
from emulab.errors import EmulabError
from emulab.kernel import sandbox, syscalls

if TYPE_CHECKING:
    from emulab.control.client import Here

_CHUNK = 1 << 16
_TRACING = 1.0  # seconds, at most, for packets to walk along with in a report
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class _Running:
    """A lab's process, the reading end of its pipe, and what has come out of it."""

    number: int
    pid: int
    pipe: int
    result: Result
    begun: float
    heard: bytearray
    whole: bool = False  # it has said that it came to its end

    def hear(self, data: bytes) -> None:
        self.heard += data
        while (end := self.heard.find(b"\n")) >= 0:
            message = json.loads(self.heard[:end])
            del self.heard[: end + 1]
            if "step" in message:
                step = self.result.job.check.steps[message["step"]]
                self.result.steps.append(Done(step, message["seconds"], message["outcomes"], message["error"]))
            elif "error" in message:
                self.result.error = message["error"]
            elif "note" in message:
                self.result.notes.append(message["note"])
            self.whole = True if "end" in message else self.whole

    def ended(self, code: int) -> Result:
        result = self.result
        result.seconds = time.monotonic() - self.begun
        if not self.whole and not result.why:
            by = f"killed by {signal.Signals(code - 128).name}" if code > 128 else f"gone (exit code {code})"
            result.error = f"the lab was {by} after {len(result.steps)} of {len(result.job.check.steps)} steps"
        return result


def run(jobs: Sequence[Job], parallel: int, artifacts: Path | None = None) -> Generator[Result, None, None]:
    """The jobs' results in their order, each as soon as it and those before it are there.

    With ``artifacts`` each lab's evidence goes into a folder of its own in there.  Raises `MachineError` when this machine does
    not allow sandboxes.  Interrupted, it takes all labs down first.
    """
    sandbox.run(lambda: 0)
    _load()
    folders = _folders(jobs, artifacts) if artifacts else [None] * len(jobs)
    waiting = list(zip(range(len(jobs)), jobs, folders, strict=True))[::-1]
    finished: dict[int, Result] = {}
    following = 0
    with selectors.DefaultSelector() as selector:
        running: dict[int, _Running] = {}
        try:
            while waiting or running:
                while waiting and len(running) < parallel:
                    one = _start(*waiting.pop())
                    running[one.pipe] = one
                    selector.register(one.pipe, selectors.EVENT_READ)
                for key, _ in selector.select():
                    one = running[key.fd]
                    data = os.read(one.pipe, _CHUNK)
                    if data:
                        one.hear(data)
                        continue
                    selector.unregister(one.pipe)
                    os.close(one.pipe)
                    status = os.waitpid(one.pid, 0)[1]
                    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
                    del running[key.fd]
                    finished[one.number] = one.ended(code)
                while following in finished:
                    yield finished.pop(following)
                    following += 1
        finally:
            _take_down(list(running.values()))


def _load() -> None:
    """Import once what every lab needs."""
    import emulab.control.operations
    import emulab.probe.engine
    import emulab.probe.mesh
    import emulab.probe.tracing
    import emulab.underlay  # noqa: F401
    from emulab.kernel import nftables
    from emulab.probe import craft

    nftables.prepare()
    craft.template(4, "udp", 32)


def _folders(jobs: Sequence[Job], artifacts: Path) -> list[Path | None]:
    """A name for each, of letters that every file system takes, and no name twice."""
    found: list[Path | None] = []
    for job in jobs:
        plain = re.sub(r"[^a-z0-9]+", "-", job.title.lower()).strip("-")[:100] or "check"
        name, again = plain, 2
        while artifacts / name in found:
            name, again = f"{plain}-{again}", again + 1
        found.append(artifacts / name)
    return found


def _start(number: int, job: Job, folder: Path | None) -> _Running:
    read, write = os.pipe2(os.O_CLOEXEC)
    result = Result(job, datetime.now(timezone.utc), artifacts=str(folder or ""))
    begun = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _be_lab(job, write, parent, folder)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.close(write)
    return _Running(number, pid, read, result, begun, bytearray())


def _take_down(running: Sequence[_Running]) -> None:
    """End the labs, and wait until they are gone; whoever is impatient meanwhile is not heard."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    for one in running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGTERM)
    for one in running:
        os.close(one.pipe)
        os.waitpid(one.pid, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _be_lab(job: Job, write: int, parent: int, folder: Path | None) -> NoReturn:
    """The process of one lab: in its sandbox everything happens."""
    code = 1
    try:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() == parent:
            code = sandbox.run(lambda: _live(job, write, folder))
    except EmulabError as error:
        _tell(write, error=str(error))
        code = 0
    except BaseException as error:
        _tell(write, error=_mistake(error))
    finally:
        os._exit(code)


def _live(job: Job, write: int, folder: Path | None) -> int:
    """The lab: build it, carry out the steps up to the first that cannot be."""
    from emulab.control.client import Here
    from emulab.control.live import LiveLab
    from emulab.lab import Lab

    try:
        with Lab(job.design) as lab:
            lab.build()
            here = Here(LiveLab(job.check.name, lab))
            outcomes: list[dict[str, Any]] = []
            for number, step in enumerate(job.check.steps):
                if not _step(here, number, step, write, outcomes):
                    break
            if folder:
                _record(here, job, outcomes, folder, write)
    except EmulabError as error:
        _tell(write, error=str(error))
    except Exception as error:
        _tell(write, error=_mistake(error))
    _tell(write, end=True)
    return 0


def _step(here: Here, number: int, step: Step, write: int, told: list[dict[str, Any]]) -> bool:
    start = time.monotonic()
    outcomes: list[dict[str, Any]] = []
    error = ""
    try:
        if step.do:
            here.ask(step.do, **step.arguments)
        for within, group in groupby(step.expected, lambda wanted: wanted.within):
            outcomes += _expect(here, list(group), within)
    except EmulabError as refused:
        error = str(refused)
    told += outcomes
    _tell(write, step=number, seconds=time.monotonic() - start, outcomes=outcomes, error=error)
    return not error


def _record(here: Here, job: Job, outcomes: list[dict[str, Any]], folder: Path, write: int) -> None:
    """The lab as it is at the end, and what was expected of it on the way."""
    from emulab import artifacts

    try:
        document = here.ask("record", title=job.title, seconds=_TRACING)
        artifacts.write(folder, {**document, "expectations": outcomes})
    except EmulabError as error:
        _tell(write, note=f"no evidence is kept: {error}")


def _expect(here: Here, wanted: Sequence[Wanted], within: float) -> list[dict[str, Any]]:
    answer = here.ask("expect", expectations=[one.expectation.show() for one in wanted], within=within)
    return [{"line": one.line, **outcome} for one, outcome in zip(wanted, answer["outcomes"], strict=True)]


def _tell(write: int, **facts: Any) -> None:
    data = json.dumps(facts).encode() + b"\n"
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(write, data) :]


def _mistake(error: BaseException) -> str:
    if os.environ.get("EMULAB_DEBUG"):
        traceback.print_exception(error)
    return f"this is a mistake in emulab: {type(error).__name__}: {error} (EMULAB_DEBUG=1 shows where)"
