"""The capture, as two readers see it that are not ours: Scapy, and tshark where there is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from emulab.packet import Place
from emulab.probe.taps import Frame
from emulab.report import pcapng

SECOND = 1_700_000_000_000_000_000
DATA = bytes.fromhex("0a580a010101 0a580a010201 0800") + bytes(21)  # 35 bytes: not a multiple of four
LATE = Frame(SECOND + 123_456_789, Place("default/a1", "eth0"), False, DATA, 2000)
EARLY = Frame(SECOND + 5, Place("node-a", "eth0"), True, DATA[:32], 32)


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    with pcapng.PcapngWriter.into(str(tmp_path / "new")) as writer:
        writer.write(LATE)
        writer.write(EARLY)
    return tmp_path / "new" / "emulab.pcapng"


def test_scapy_reads_it(capture: Path) -> None:
    from scapy.utils import RawPcapNgReader

    with RawPcapNgReader(str(capture)) as reader:
        read = [(data, meta.ifname, meta.tshigh << 32 | meta.tslow, meta.wirelen) for data, meta in reader]
    assert read == [
        (EARLY.data, b"node-a:eth0", EARLY.time, 32),
        (LATE.data, b"default/a1:eth0", LATE.time, 2000),
    ]


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
def test_tshark_reads_it(capture: Path) -> None:
    fields = ("frame.time_epoch", "frame.interface_name", "frame.packet_flags_direction", "frame.len", "frame.cap_len")
    command = ["tshark", "-n", "-r", str(capture), "-T", "fields", *(word for field in fields for word in ("-e", field))]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    (early, *first), (late, *second) = (line.split("\t") for line in shown)
    assert (early, late) == ("1700000000.000000005", "1700000000.123456789")
    assert (first[0], int(first[1], 0), *first[2:]) == ("node-a:eth0", 2, "32", "32")
    assert (second[0], int(second[1], 0), *second[2:]) == ("default/a1:eth0", 1, "2000", "35")


def test_memory_is_bounded_and_order_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pcapng, "_KEPT", 4)
    with pcapng.PcapngWriter.into(str(tmp_path)) as writer:
        for number in range(40):
            writer.write(EARLY._replace(time=SECOND + (number ^ 1)))  # neighbours swapped
            assert len(writer._frames) < 8
    from scapy.utils import RawPcapNgReader

    with RawPcapNgReader(str(tmp_path / "emulab.pcapng")) as reader:
        times = [meta.tshigh << 32 | meta.tslow for _, meta in reader]
    assert times == [SECOND + number for number in range(40)]
