"""Packets of one pod or node, captured beside the test."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emulab.pytest_plugin.lab import Lab


class Capture:
    """As a context manager it captures while its block runs: all that was sent in there, and nothing else.

    ``path`` is a pcapng file for tshark and Wireshark; ``frames`` are its packets as Scapy's, once the block has ended.
    """

    def __init__(self, lab: Lab, target: str, filter: str, path: Path) -> None:
        self._lab, self._target, self._filter, self.path = lab, target, filter, path
        self._running: subprocess.Popen[str] | None = None

    def __enter__(self) -> Capture:
        __tracebackhide__ = True
        words = ["capture", f"--write={self.path}", "--", self._target, *self._filter.split()]
        running = subprocess.Popen(
            self._lab.typed(*words),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=self._lab.environment,
            start_new_session=True,  # Ctrl-C is not what ends it
        )
        assert running.stderr is not None
        told = running.stderr.readline()
        if not told.startswith("capturing"):
            from emulab.pytest_plugin.members import LabError

            running.communicate()
            raise LabError(told.strip().removeprefix("error: "))
        self._running = running
        return self

    def __exit__(self, *_: object) -> None:
        if self._running is not None:
            self._running.send_signal(signal.SIGINT)
            self._running.communicate()
            self._running = None

    @property
    def frames(self) -> list[Any]:
        """The packets as Scapy's: ``frames[0]["IP"].src``; what a VXLAN carries at Linux' port is dissected, too."""
        from emulab.probe.words import read

        return read(self.path)

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        return f"<packets of {self._target} in {self.path}>"
