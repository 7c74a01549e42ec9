"""A lab's own network, mount, PID, IPC and UTS namespaces, entered before its first interface exists.

Two forks: the outer process stays as it was and waits; a keeper makes the namespaces (with a user namespace, when not
root) and forks the lab, which is PID 1 in there.  The lab dies with the keeper and the keeper, once it has buried the lab,
with the outer process; and with PID 1 the kernel takes down every process, namespace, interface and mount of the lab.
Nothing else has to be cleaned up, but for a lab's name in the file system: whoever of the two survives takes it away.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from emulab.errors import MachineError
from emulab.kernel import syscalls

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AWAITED = (*_FORWARDED, signal.SIGCHLD)
_SWALLOWED, _SOON = 1.0, 0.001  # seconds after which an interrupted lab is interrupted again; the same, known to be swallowed
_ISOLATED = syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
ADVICE = (
    "run it with sudo, or allow unprivileged user namespaces: "
    "`sysctl kernel.apparmor_restrict_unprivileged_userns=0` on Ubuntu 24.04, "
    "`sysctl kernel.unprivileged_userns_clone=1` on Debian, `--privileged` for a container"
)


class Interrupted(BaseException):
    """A signal asked the lab to stop; the exit code is 128 + its number, as shells have it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.exit_code = 128 + signum


def run(lab: Callable[[], int], *, bury: Callable[[], None] = lambda: None, door: Callable[[], None] | None = None) -> int:
    """Run ``lab`` as PID 1 of a new sandbox and return its exit code.

    ``bury`` is called once the lab has ended, however it did, perhaps twice; ``door`` runs meanwhile in a thread of the
    outer process.  Raises `MachineError` when this machine does not allow the namespaces.  Signals reach the lab as
    `Interrupted`, once.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    report_read, report_write = os.pipe2(os.O_CLOEXEC)
    alive_read, alive_write = os.pipe2(os.O_CLOEXEC)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    keeper = os.fork()
    if keeper == 0:
        os.close(report_read)
        os.close(alive_write)
        _keep(lab, bury, report_write, alive_read)
    os.close(report_write)
    os.close(alive_read)
    try:
        if door is not None:
            threading.Thread(target=door, daemon=True).start()
        with open(report_read) as report:
            problem = report.read()
        status = _await(keeper)
    finally:
        os.close(alive_write)
        bury()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if problem:
        raise MachineError(f"cannot make a sandbox ({problem}): {ADVICE}")
    return status


def _await(child: int, parent: int = 0) -> int:
    """Hand on signals to ``child`` until it ends; returns its exit code.  They are blocked, so none comes at a bad moment.

    When ``parent`` is given and not our parent any more, ``child`` is killed.
    """
    while True:
        ended, raw = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(raw) if os.WIFEXITED(raw) else 128 + os.WTERMSIG(raw)
        number = signal.sigwait(_AWAITED)
        if parent and os.getppid() != parent:
            os.kill(child, signal.SIGKILL)
        elif number != signal.SIGCHLD:
            os.kill(child, number)


def _keep(lab: Callable[[], int], bury: Callable[[], None], report: int, alive: int) -> NoReturn:
    """The keeper: make the namespaces, fork PID 1, hand on signals, end as it ends."""
    status = 1
    try:
        parent = os.getppid()
        _die_with_parent(alive, signal.SIGTERM)
        try:
            _isolate()
        except OSError as error:
            os.write(report, f"{error.filename or 'unshare'}: {error.strerror}".encode())
            os._exit(MachineError.exit_code)
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        child = os.fork()
        if child == 0:
            os.close(theirs)
            os.close(report)
            _be_init(lab, ours)
        os.close(ours)
        os.close(report)
        status = _await(child, parent)
        bury()
    finally:
        os._exit(status)


def _die_with_parent(alive: int, by: signal.Signals = signal.SIGKILL) -> None:
    """A signal when the parent dies; ``alive`` is a pipe that tells whether it has died already."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, by)
    if select.select([alive], [], [], 0)[0]:
        os._exit(1)
    os.close(alive)


def _isolate() -> None:
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        syscalls.unshare(_ISOLATED)
        return
    syscalls.unshare(_ISOLATED | syscalls.CLONE_NEWUSER)
    for path, value in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{path}", "w") as file:
            file.write(value)


def _be_init(lab: Callable[[], int], alive: int) -> NoReturn:
    """PID 1 of the sandbox."""
    status = 1
    try:
        _die_with_parent(alive)
        for number in _FORWARDED:
            signal.signal(number, _interrupt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
        syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
        # Some containers mask /proc; the lab then sees the container's processes, and works all the same.
        with contextlib.suppress(PermissionError):
            syscalls.mount("proc", "/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
        _allow_descriptors()
        status = lab()
    except Interrupted as interrupted:
        signal.setitimer(signal.ITIMER_REAL, 0)
        status = interrupted.exit_code
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)


def _allow_descriptors() -> None:
    """Each pod takes a handful of descriptors; root may have as many as the kernel knows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (1 << 20, most):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, max(limit, most)))
            return
        except (ValueError, PermissionError):
            continue


def _interrupt(number: int, _: FrameType | None) -> None:
    """Raise once, however often the signal comes; and again, should somebody have swallowed it.

    In a weak reference's callback, as the import system has them, Python would print the exception and forget it.
    """
    for ignored in _FORWARDED:
        signal.signal(ignored, signal.SIG_IGN)

    def again(_number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)

    def forgotten(lost: sys.UnraisableHookArgs) -> None:
        if isinstance(lost.exc_value, Interrupted):
            signal.setitimer(signal.ITIMER_REAL, _SOON, _SWALLOWED)
        else:
            sys.__unraisablehook__(lost)

    sys.unraisablehook = forgotten
    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, _SWALLOWED, _SWALLOWED)
    raise Interrupted(number)
