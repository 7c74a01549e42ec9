"""A process beside the tests that holds one lab: as long as its standard input is open, the lab is up.

    python -m emulab.pytest_plugin.holder NAME WORDS…

starts the lab as `emulab up WORDS… --name NAME` does, by the same code, and says on a line where it is.  When the input ends,
for whatever reason (the tests are over, were interrupted or killed), the lab is taken down; after the line ``keep`` it stays.
Nothing has to be cleaned up by a process that may be killed, and a test process with threads never forks.
"""

from __future__ import annotations

import io
import json
import signal
import sys
from contextlib import redirect_stdout

from emulab.cli import emulab, guarded
from emulab.control import ending, places

KEEP = "keep"


def main(name: str, *words: str) -> int:
    """Start, hold, take down; returns the exit code of `emulab up` when there is no lab."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the tests' to hear
    with redirect_stdout(io.StringIO()):
        code = guarded(lambda: _up(["up", f"--name={name}", *words]))
    if code:
        return code
    place = places.find(name)
    print(json.dumps({"folder": str(place.folder)}), flush=True)
    if sys.stdin.readline().strip() == KEEP:
        return 0
    return guarded(lambda: _down(place))


def _up(words: list[str]) -> int:
    code = emulab.main(words, prog_name="emulab", standalone_mode=False)
    return code if isinstance(code, int) else 0


def _down(place: places.Place) -> int:
    ending.take_down(place)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
