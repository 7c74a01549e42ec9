"""To keep what a lab is and does as one document, for reports."""

from __future__ import annotations

from typing import Any

from emulab.control.live import Emit, LiveLab, operation, progress
from emulab.control.operations.measuring import probing_of, tell_verdicts
from emulab.errors import InputError
from emulab.recording import SECONDS
from emulab.recording import record as keep


@operation
def record(
    live: LiveLab,
    emit: Emit,
    sources: list[str] | None = None,
    destinations: list[str] | None = None,
    protocols: list[str] | None = None,
    families: list[int] | None = None,
    taps: str = "every",
    timeout: float = 2.0,
    title: str = "",
    seconds: float = SECONDS,
) -> Any:
    """Probe and judge as `verify` does, and trace flows of interest for ``seconds`` at most: a document, ``emulab/report/1``."""
    if not 0 <= seconds <= 600:
        raise InputError(f"seconds {seconds:g}: 0 to 600 expected")
    probing = probing_of(live, sources, destinations, protocols, families, None, None, 1, taps, timeout)

    with live.turn():
        result = live.lab.verify(probing, progress(emit))
        document = keep(live.lab, result, title=title, seconds=seconds, on_progress=progress(emit))
    tell_verdicts(live, result)
    return document
