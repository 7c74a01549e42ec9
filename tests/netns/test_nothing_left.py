"""However a run ends, the machine is afterwards what it was before."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import terminal
from sandboxed import inside

from emulab.kernel import sandbox

RUN = [sys.executable, "-m", "emulab", "run", "-q"]
ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT
VOLATILE = ("conntrack_count", "random", "uuid", "neigh/default/gc_stale_time")
Snapshot = dict[str, Any]


def start(temporary: Path, *words: str) -> subprocess.Popen[str]:
    """A run as the leader of a session of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = os.environ | {"TMPDIR": str(temporary)}
    return subprocess.Popen([*RUN, *words], text=True, start_new_session=True, env=environment, **pipes)  # type: ignore[call-overload,no-any-return]


def processes() -> dict[int, int]:
    """pid -> session of everything that runs (zombies do not)."""
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            state, _, _, session = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:4]
            if state != "Z":
                found[int(entry)] = int(session)
    return found


def of_session(leader: int) -> list[int]:
    return sorted(pid for pid, session in processes().items() if session == leader)


def descendants(pid: int) -> int:
    """How many there are, found without a look at all processes of the machine."""
    with suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return len(children) + sum(descendants(int(child)) for child in children)
    return 0


def eventually(met: Callable[[], bool], seconds: float = 3.0) -> bool:
    """Whether ``met`` becomes true in time."""
    deadline = time.monotonic() + seconds
    while not (good := met()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return good


def shown(*command: str) -> Any:
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout or "[]")


def namespaces() -> list[str]:
    """The network namespaces that any process is in or holds."""
    found = set()
    for pid in processes():
        with suppress(OSError):
            links = [f"/proc/{pid}/ns/net", *(f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd"))]
            for link in links:
                with suppress(OSError):
                    found.add(os.readlink(link))
    return sorted(name for name in found if name.startswith("net:"))


def snapshot(temporary: Path) -> Snapshot:
    return {
        "processes": sorted(processes()),
        "namespaces": namespaces(),
        "mounts": Path("/proc/self/mounts").read_text(),
        "links": shown("ip", "-j", "link"),
        "files": sorted(map(str, temporary.rglob("*"))),
    }


def forked(temporary: Path, output: int, *words: str) -> int:
    """The pid of a run as `start` makes it, but for Python's own start, in which a lab has nothing to leave."""
    if child := os.fork():
        return child
    try:
        os.setsid()
        for number in range(3):
            os.dup2(output, number)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest's workers ignore it
        warnings.simplefilter("ignore", ResourceWarning)  # as outside of pytest
        os.environ["TMPDIR"], tempfile.tempdir = str(temporary), None
        terminal.main([*RUN[3:], *words])
    finally:  # it never returns
        os._exit(70)


def buried(pid: int) -> bool:
    """Whether a child has ended."""
    with suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return True


def kill_at_random(temporary: Path, words: list[str], times: int, at_once: int, seed: int) -> tuple[list[str], set[int]]:
    """SIGKILL to a process of each run; returns what was left, and which were hit (0 outer, 1 keeper, 2 PID 1).

    As PID 1 of a sandbox, whose /proc shows the runs and nothing else of the machine.  The moments are those of a run's life,
    as long as it takes here.
    """
    chance = random.Random(seed)
    silence = os.open(os.devnull, os.O_RDWR)
    begun = time.monotonic()
    os.waitpid(forked(temporary, silence, *words), 0)
    life = time.monotonic() - begun
    before, left, hit = snapshot(temporary), [], set()

    def clean() -> bool:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # orphans are ours to bury
                pass
        return sorted(processes()) == before["processes"] and snapshot(temporary) == before  # (the latter starts programs)

    for number in range(0, times, at_once):
        runs = [forked(temporary, silence, *words) for _ in range(at_once)]
        due = sorted((time.monotonic() + chance.uniform(0, life), chance.random(), run) for run in runs)
        for moment, share, run in due:
            time.sleep(max(0.0, moment - time.monotonic()))
            if family := of_session(run):
                index = int(share * len(family))
                hit.add(index)
                with suppress(ProcessLookupError):
                    os.kill(family[index], signal.SIGKILL)
        for run in runs:
            assert eventually(lambda pid=run: buried(pid), 30)  # type: ignore[misc]
        if not eventually(clean):
            after = snapshot(temporary)
            left += [f"round {number}: {k}: {before[k]} -> {after[k]}" for k in before if before[k] != after[k]]
    return left, hit


def test_killed_at_any_moment(tmp_path: Path) -> None:
    small = ["fleet,2,1", "--protocol", "icmp"]  # all that a run makes and does, once
    left, hit = inside(lambda: kill_at_random(tmp_path, small, times=50, at_once=5, seed=20), "root")
    assert left == []
    assert hit >= {0, 1, 2}  # and programs that PID 1 has started


def host() -> Snapshot:
    """What the machine's owner could notice."""
    addresses = shown("ip", "-j", "addr")
    for address in (address for link in addresses for address in link.get("addr_info", ())):
        address.pop("valid_life_time", None), address.pop("preferred_life_time", None)
    rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True)
    return {
        "links": shown("ip", "-j", "link"),
        "addresses": addresses,
        "routes": shown("ip", "-j", "route", "show", "table", "all"),
        "routes6": shown("ip", "-j", "-6", "route", "show", "table", "main"),
        "rules": shown("ip", "-j", "rule"),
        "nft": (rules.returncode, rules.stdout),
        "netns": sorted(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else None,
        "mounts": Path("/proc/self/mounts").read_text(),
        "sysctls": sysctls(),
    }


def sysctls() -> dict[str, str]:
    found = {}
    for family in ("ipv4", "ipv6"):
        for path in Path("/proc/sys/net", family).rglob("*"):
            if not any(word in str(path) for word in VOLATILE):
                with suppress(OSError, UnicodeDecodeError):
                    found[str(path)] = path.read_text()
    return found


def test_whole_runs_leave_the_host_as_it_was(tmp_path: Path) -> None:
    before = host()
    assert len(before["sysctls"]) > 100
    run = start(tmp_path, "--plugin", "flannel")
    output, errors = run.communicate(timeout=60)
    assert (run.returncode, errors) == (0, ""), output
    leaders = [run.pid]
    for plugin in ("calico", "weave"):
        said = os.memfd_create("said")
        leaders.append(forked(tmp_path, said, "--plugin", plugin))
        assert os.waitstatus_to_exitcode(os.waitpid(leaders[-1], 0)[1]) == 0, os.pread(said, 10_000, 0).decode()
        os.close(said)
    assert eventually(lambda: not set(leaders) & set(processes().values()))
    assert list(tmp_path.iterdir()) == []
    after = host()
    assert {key: after[key] for key in after if after[key] != before[key]} == {}


def test_two_equal_labs_at_once(tmp_path: Path) -> None:
    runs = [start(tmp_path, "single-node"), start(tmp_path, "single-node")]
    ends = [run.communicate(timeout=60) for run in runs]
    assert [(run.returncode, errors) for run, (_, errors) in zip(runs, ends, strict=True)] == [(0, "")] * 2


@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["to the process", "to its group, as a terminal does"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
def test_a_signal_ends_a_run(number: signal.Signals, code: int, send: Callable[[int, int], None], tmp_path: Path) -> None:
    """At moments all over the start: none may be lost, and none may meet a process that is gone already."""
    mounts = Path("/proc/self/mounts").read_text()
    ends = []
    for milliseconds in (0, 0, 0, 5, 10, 20, 50, 100, 200):
        output = os.memfd_create("output")
        run = forked(tmp_path, output, "fleet,10,10")
        assert eventually(lambda leader=run: descendants(leader) >= 2, 10), "no sandbox"  # type: ignore[misc]
        time.sleep(milliseconds / 1000)
        send(run, number)
        lost = not eventually(lambda pid=run: os.waitid(os.P_PID, pid, ENDED), 5)  # type: ignore[misc]
        if lost:
            os.killpg(run, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(run, 0)[1])
        said = os.pread(output, 10_000, 0).decode()
        os.close(output)
        # Killed by the signal itself, before the handlers stand, is the same to a shell.
        ends.append((status if status >= 0 else 128 - status, f"still running after 5 s: {said}" if lost else said))
        assert eventually(lambda leader=run: of_session(leader) == [])  # type: ignore[misc]
    assert ends == [(code, "")] * len(ends)
    assert Path("/proc/self/mounts").read_text() == mounts
    assert list(tmp_path.iterdir()) == []


def interrupted_where_nothing_can_be_raised() -> int:
    """A lab that gets its signal in a weak reference's callback; Python forgets what is raised there."""

    class Thing:
        pass

    sys.unraisablehook = sys.__unraisablehook__  # pytest has one of its own
    thing = Thing()
    told = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    del thing
    assert told() is None
    time.sleep(10)
    return 0


def test_a_signal_that_python_swallows(capfd: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    assert sandbox.run(interrupted_where_nothing_can_be_raised) == 143
    assert time.monotonic() - started < 5
    assert capfd.readouterr().err == ""


def test_a_place_that_takes_no_files(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = start(tmp_path, "--pcap", str(tmp_path / "file" / "packets"))
    output, errors = run.communicate(timeout=60)
    assert (run.returncode, output, errors.count("\n")) == (2, "", 1), errors
    assert errors.startswith("error: ") and "packets" in errors and "Traceback" not in errors
