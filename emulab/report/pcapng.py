<<<<<<< HEAD
"""What the taps saw, as one capture file: ``DIR/emulab.pcapng``, with one named interface per tap.

One file and not one per node, so that a packet's whole way can be followed in it, in the order of time; a display filter
such as ``frame.interface_name == "node-a:eth0"`` picks one place out of it.

Format: draft-ietf-opsawg-pcapng, sections 3 and 4.  Everything is little-endian, as the section header says.
=======
"""What the taps saw as pcapng, one named interface per tap: ``node-a:eth0``, ``default/a1:eth0``.

Format: draft-ietf-opsawg-pcapng; section header, interface description and enhanced packet blocks.
>>>>>>> work
"""

from __future__ import annotations

import struct
<<<<<<< HEAD
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from emulab.errors import InputError, MachineError
from emulab.packet import Place

if TYPE_CHECKING:
    from emulab.probe.taps import Frame

FILE_NAME = "emulab.pcapng"
_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_BYTE_ORDER = 0x1A2B3C4D
_ETHERNET = 1  # LINKTYPE_ETHERNET
_IF_NAME, _IF_TSRESOL, _SHB_USERAPPL, _EPB_FLAGS = 2, 9, 4, 2
_INBOUND, _OUTBOUND = 1, 2
_packet = struct.Struct("<IIIIIII")
_end = struct.Struct("<HHIII")
_WINDOW = 65536  # frames kept back: the taps are emptied one after the other, so that frames come only nearly in order


def section_header() -> bytes:
    """The block that opens the file; its length of -1 says: until the end of the file."""
    body = struct.pack("<IHHq", _BYTE_ORDER, 1, 0, -1) + _option(_SHB_USERAPPL, b"emulab") + _option(0, b"")
    return _block(_SECTION, body)


def interface_description(name: str) -> bytes:
    """A tap called ``name`` that sees Ethernet frames, with times in nanoseconds."""
    options = _option(_IF_NAME, name.encode()) + _option(_IF_TSRESOL, b"\x09") + _option(0, b"")
    return _block(_INTERFACE, struct.pack("<HHI", _ETHERNET, 0, 0) + options)


def enhanced_packet(interface: int, time: int, outbound: bool, data: bytes, length: int) -> bytes:
    """One frame: ``interface`` counts the descriptions from 0, ``time`` is in ns since the epoch, ``length`` is the frame's
    own, of which ``data`` may be the beginning only."""
    total = 44 + len(data) + -len(data) % 4
    head = _packet.pack(_PACKET, total, interface, time >> 32, time & 0xFFFFFFFF, len(data), length)
    tail = _end.pack(_EPB_FLAGS, 4, _OUTBOUND if outbound else _INBOUND, 0, total)
    return head + data + bytes(-len(data) % 4) + tail


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _block(kind: int, body: bytes) -> bytes:
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size


class PcapngWriter:
    """Writes frames to ``directory``/emulab.pcapng, replacing what is there; a context manager.

    The directory is made if it is missing.  Raises `InputError` when it cannot be written to, `MachineError` when writing
    fails later, as on a full disk.
    """

    def __init__(self, directory: str) -> None:
        self.path = Path(directory) / FILE_NAME
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("wb")
        except OSError as error:
            raise InputError(f"--pcap {directory}: a directory to write to was expected: {error.strerror}") from None
        self._interfaces: dict[Place, int] = {}
        self._waiting: list[Frame] = []
        self._file.write(section_header())
=======
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
>>>>>>> work

    def __enter__(self) -> PcapngWriter:
        return self

<<<<<<< HEAD
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def write(self, frame: Frame) -> None:
        self._waiting.append(frame)
        if len(self._waiting) >= 2 * _WINDOW:
            self._flush(keep=_WINDOW)

    def close(self) -> None:
        """Write what is still kept back; further calls do nothing."""
        if not self._file.closed:
            self._flush(keep=0)

    def _flush(self, keep: int) -> None:
        self._waiting.sort(key=itemgetter(0))
        ready = self._waiting[: len(self._waiting) - keep]
        del self._waiting[: len(ready)]
        try:
            for frame in ready:
                interface = self._interfaces.get(frame.place)
                if interface is None:
                    interface = self._interfaces[frame.place] = len(self._interfaces)
                    self._file.write(interface_description(str(frame.place)))
                self._file.write(enhanced_packet(interface, frame.time, frame.outbound, frame.data, frame.length))
            if not keep:
                self._file.close()
        except OSError as error:
            raise MachineError(f"{self.path}: cannot write: {error.strerror}") from None
=======
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
>>>>>>> work
