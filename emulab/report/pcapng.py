"""What the taps saw as pcapng, one named interface per tap: ``node-a:eth0``, ``default/a1:eth0``.

Format: draft-ietf-opsawg-pcapng; section header, interface description and enhanced packet blocks.
"""

from __future__ import annotations

import struct
from pathlib import Path

from emulab.errors import InputError
from emulab.packet import Place
from emulab.probe.taps import Frame

_ETHERNET, _SNAP = 1, 2048
_IF_NAME, _IF_TSRESOL, _EPB_FLAGS = 2, 9, 2
_NANOSECONDS = b"\x09"
FILE_NAME = "emulab.pcapng"


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


def enhanced_packet(interface: int, time: int, data: bytes, length: int, outbound: bool) -> bytes:
    """``time`` in nanoseconds since the epoch, ``length`` as on the wire in bytes."""
    header = struct.pack("<IIIII", interface, time >> 32, time & 0xFFFFFFFF, len(data), length)
    flags = option(_EPB_FLAGS, struct.pack("<I", 2 if outbound else 1)) + option(0, b"")
    return block(6, header + data + b"\0" * (-len(data) % 4) + flags)


class PcapngWriter:
    """Collects frames and writes ``DIR/emulab.pcapng`` in the order of time when it closes.

    Raises `InputError` at once when the folder cannot be written.
    """

    def __init__(self, directory: str) -> None:
        path = Path(directory) / FILE_NAME
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb")
        except OSError as error:
            raise InputError(f"--pcap {directory}: cannot write there: {error.strerror}") from None
        self._frames: list[Frame] = []

    def __enter__(self) -> PcapngWriter:
        return self

    def __exit__(self, *_: object) -> None:
        interfaces: dict[Place, int] = {}
        with self._file as file:
            file.write(section_header())
            for frame in sorted(self._frames, key=lambda frame: frame.time):
                if frame.place not in interfaces:
                    interfaces[frame.place] = len(interfaces)
                    file.write(interface_description(str(frame.place)))
                index = interfaces[frame.place]
                file.write(enhanced_packet(index, frame.time, frame.data, frame.length, frame.outbound))

    def write(self, frame: Frame) -> None:
        """Keep one frame: taps are read one after the other, and their order is put right at the end."""
        self._frames.append(frame)
