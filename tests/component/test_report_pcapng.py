"""The capture's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from emulab.errors import InputError
from emulab.report import pcapng


def test_no_frames_make_a_valid_file(tmp_path: Path) -> None:
    with pcapng.PcapngWriter.into(str(tmp_path)):
        pass
    assert (tmp_path / "emulab.pcapng").read_bytes() == pcapng.section_header()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"^--pcap {tmp_path}/file: cannot write there: "):
        pcapng.PcapngWriter.into(str(tmp_path / "file"))
