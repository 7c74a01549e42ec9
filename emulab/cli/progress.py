"""A progress bar for what takes over a second."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack


class Progress:
    """A bar on stderr once a second has passed; nothing when stderr is no terminal.

    ``forking``: the process forks meanwhile, so that no thread of ours may draw.
    """

    def __init__(self, doing: str = "probing", units: str = "flows", forking: bool = False) -> None:
        self._doing, self._units, self._forking = doing, units, forking
        self._start = time.monotonic()
        self._shown = sys.stderr.isatty() and not os.environ.get("CI")
        self._release = ExitStack()
        self._bar: object = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._release.close()
        self._shown = False

    def update(self, done: int, total: int) -> None:
        if not self._shown or (self._bar is None and time.monotonic() - self._start < 1):
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        if self._bar is None:
            columns = (TextColumn(self._doing), BarColumn(), MofNCompleteColumn(), TextColumn(self._units))
            bar = Progress(
                *columns, console=Console(stderr=True), transient=True, refresh_per_second=5, auto_refresh=not self._forking
            )
            self._bar = self._release.enter_context(bar)
            bar.add_task("probe", total=total)
        assert isinstance(self._bar, Progress)
        self._bar.update(self._bar.task_ids[0], completed=done, total=total, refresh=self._forking)
