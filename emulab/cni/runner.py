"""A plugin's process: no shell, a session of its own, its time and its output limited, nothing of it left.

It runs in the namespaces of the calling thread: whoever enters a node's network and mounts first runs plugins there.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress

from emulab.cni.invocation import Outcome

STDOUT_MAX = 4 << 20  # a result with ten thousand routes is a tenth of it
STDERR_MAX = 64 << 10  # what is kept; the rest is read and forgotten
_AFTERWARDS = 0.5  # seconds for output that is still in pipes when the plugin has ended, or that its children hold open
_PIECE = 1 << 16


def run(path: str, env: Mapping[str, str], stdin: bytes, timeout: float) -> Outcome:
    """Run ``path`` with exactly ``env``, ``stdin`` and no arguments, for ``timeout`` seconds at most.

    Raises OSError when it cannot be started.  What it leaves behind in its process group is killed; a daemon that made a
    session of its own, as the `dhcp` plugin's, is not.
    """
    process = subprocess.Popen(
        [path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(env),
        cwd="/",
        start_new_session=True,
        bufsize=0,
    )
    with process:
        try:
            return _communicate(process, stdin, timeout)
        finally:
            _end(process)


def _communicate(process: subprocess.Popen[bytes], stdin: bytes, timeout: float) -> Outcome:
    assert process.stdin and process.stdout and process.stderr
    feed, stdout, stderr = process.stdin.fileno(), process.stdout.fileno(), process.stderr.fileno()
    out, err = bytearray(), bytearray()
    limits = {stdout: (out, STDOUT_MAX + 1), stderr: (err, STDERR_MAX)}
    problem = ""
    deadline = time.monotonic() + timeout
    ended = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as waiting:
            os.set_blocking(feed, False)
            waiting.register(feed, selectors.EVENT_WRITE)
            for stream in limits:
                waiting.register(stream, selectors.EVENT_READ)
            waiting.register(ended, selectors.EVENT_READ)
            alive = True
            while (alive or any(stream in waiting.get_map() for stream in limits)) and not problem:
                left = deadline - time.monotonic()
                ready = waiting.select(max(0.0, left))
                if left <= 0 and not ready:
                    problem = f"did not end within {timeout:g} s, and was killed" if alive else ""
                    break
                for key, _ in ready:
                    if key.fd == ended:
                        alive = False
                        waiting.unregister(ended)
                        deadline = min(deadline, time.monotonic() + _AFTERWARDS)
                    elif key.fd == feed:
                        stdin = _feed(key.fd, stdin)
                        if not stdin:
                            waiting.unregister(key.fd)
                            process.stdin.close()
                            break  # its number may be another file's from now on
                    elif not _read(key.fd, *limits[key.fd]):
                        waiting.unregister(key.fd)
                if len(out) > STDOUT_MAX:
                    problem = f"printed more than {STDOUT_MAX >> 20} MiB, and was killed"
    finally:
        os.close(ended)
    code = _end(process)
    return Outcome(code, bytes(out[:STDOUT_MAX]), bytes(err), problem)


def _feed(stream: int, data: bytes) -> bytes:
    """What is still to be written.  A plugin need not read it."""
    try:
        return data[os.write(stream, data) :] if data else data
    except BlockingIOError:
        return data
    except BrokenPipeError:
        return b""


def _read(stream: int, into: bytearray, most: int) -> bool:
    piece = os.read(stream, _PIECE)
    into += piece[: max(0, most - len(into))]
    return bool(piece)


def _end(process: subprocess.Popen[bytes]) -> int:
    """Kill the group before its leader is buried: until then its number is nobody else's."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        with suppress(ChildProcessError):
            while True:  # its orphans are ours where this process is PID 1
                os.waitpid(-process.pid, 0)
    return process.returncode
