"""What the taps saw as pcapng, one named interface per tap: ``node-a:eth0``, ``default/a1:eth0``.

Format: draft-ietf-opsawg-pcapng; section header, interface description and enhanced packet blocks.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import IO

from emulab.errors import InputError, MachineError
from emulab.packet import Place
from emulab.probe.taps import Frame

_ETHERNET, _SNAP = 1, 2048
_COMMENT, _IF_NAME, _IF_TSRESOL, _EPB_FLAGS = 1, 2, 9, 2
_LONGEST = 65535  # bytes in an option
_NANOSECONDS = b"\x09"
FILE_NAME = "emulab.pcapng"
_KEPT = 65536  # frames


def option(code: int, value: bytes) -> bytes:
    """One option, padded to four bytes."""
    return struct.pack("<HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def block(kind: int, body: bytes) -> bytes:
    """A block: type, length, body, length."""
    length = 12 + len(body)
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def section_header() -> bytes:
    return block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface_description(name: str) -> bytes:
    options = option(_IF_NAME, name.encode()) + option(_IF_TSRESOL, _NANOSECONDS) + option(0, b"")
    return block(1, struct.pack("<HHI", _ETHERNET, 0, _SNAP) + options)


def enhanced_packet(interface: int, time: int, data: bytes, length: int, outbound: bool, comment: str = "") -> bytes:
    """``time`` in nanoseconds since the epoch, ``length`` as on the wire in bytes; ``comment`` is shown with the packet."""
    header = struct.pack("<IIIII", interface, time >> 32, time & 0xFFFFFFFF, len(data), length)
    options = option(_COMMENT, comment.encode()[:_LONGEST]) if comment else b""
    options += option(_EPB_FLAGS, struct.pack("<I", 2 if outbound else 1)) + option(0, b"")
    return block(6, header + data + b"\0" * (-len(data) % 4) + options)


class PcapngWriter:
    """Writes frames to ``file``, which it closes, in the order of time; the taps are read one after the other, so that some
    are kept back until their turn has come.  ``comment`` gives the words to a frame, if it has any.

    Raises `MachineError` when writing fails: a full disk.
    """

    def __init__(self, file: IO[bytes], comment: Callable[[Frame], str] = lambda _: "") -> None:
        self._comment, self._file = comment, file
        self._interfaces: dict[Place, int] = {}
        self._frames: list[Frame] = []
        self._file.write(section_header())

    @classmethod
    def into(cls, directory: str) -> PcapngWriter:
        """A writer of ``directory``/emulab.pcapng.  Raises `InputError` when there cannot be one."""
        path = Path(directory) / FILE_NAME
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return cls(path.open("wb"))
        except OSError as error:
            raise InputError(f"--pcap {directory}: cannot write there: {error.strerror}") from None

    def __enter__(self) -> PcapngWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush(keep=0)

    def write(self, frame: Frame) -> None:
        self._frames.append(frame)
        if len(self._frames) >= 2 * _KEPT:
            self._flush(_KEPT)

    def _flush(self, keep: int) -> None:
        self._frames.sort(key=lambda frame: frame.time)
        ready = self._frames[: len(self._frames) - keep]
        del self._frames[: len(ready)]
        try:
            for frame in ready:
                if frame.place not in self._interfaces:
                    self._interfaces[frame.place] = len(self._interfaces)
                    self._file.write(interface_description(str(frame.place)))
                index, words = self._interfaces[frame.place], self._comment(frame)
                self._file.write(enhanced_packet(index, frame.time, frame.data, frame.length, frame.outbound, words))
            if not keep:
                self._file.close()
        except OSError as error:
            raise MachineError(f"the capture cannot be written: {error.strerror}") from None
