"""A trace as a capture whose packets say where they are, what changed there and why (``frame.comment`` in tshark)."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import IO

from emulab.packet import short
from emulab.probe.taps import Frame
from emulab.report.pcapng import PcapngWriter
from emulab.trace import Hop, Trace


def write(trace: Trace, frames: Iterable[Frame], file: IO[bytes]) -> None:
    """``frames`` are those that the trace's ``on_frame`` got; raises as `PcapngWriter` does."""
    hops = {(hop.time, hop.place, hop.direction == "out"): hop for hop in trace.hops}
    last = trace.way(trace.loss.leg)[-1:] if trace.loss else ()

    def comment(frame: Frame) -> str:
        hop = hops.get((frame.time / 1e9, frame.place, frame.outbound))
        if hop is None:
            return short(str(frame.place))
        lost = f"\nlost: {trace.reason}" if hop in last else ""
        return words(hop) + lost

    with PcapngWriter(file, comment) as writer:
        for frame in frames:
            writer.write(frame)


class _Kept(io.BytesIO):
    """A file that keeps what was written when it is closed."""

    kept = b""

    def close(self) -> None:
        self.kept = self.getvalue()
        super().close()


def packed(trace: Trace, frames: Iterable[Frame]) -> bytes:
    """The same capture in memory."""
    file = _Kept()
    write(trace, frames, file)
    return file.kept


def words(hop: Hop) -> str:
    """One hop in a few lines."""
    changed = f": {', '.join(hop.changed)}" if hop.changed else ""
    verb = "leaves by" if hop.direction == "out" else "arrives at"
    return "\n".join([f"{hop.leg} {verb} {short(str(hop.place))}{changed}", *(f"because {why}" for why in hop.why)])
