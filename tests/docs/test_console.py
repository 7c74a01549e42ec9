"""The `emulab` that stands in for the real one, where lines are typed, is as the real one."""

from __future__ import annotations

from pathlib import Path

from console import typed

LINES = (
    "emulab topologies | cat; echo ${PIPESTATUS[0]}",
    "emulab nope",
    "mkdir -p there && cd there && emulab report here.json; cd ..",
    "emulab report - <<< '{}' | cat",
    "echo before > both; emulab exec a1 -- true >> both 2>&1; cat both",
    "EMULAB_LAB=nowhere emulab exec 'a 1' -- true",
    "emulab completion bash > late & wait; wc -l late",
)


def test_the_stand_in_is_as_the_real_one(tmp_path: Path) -> None:
    """Words, folder, environment, pipes, files, exit codes, and what runs in the background."""
    stood_in = typed(LINES, tmp_path)
    assert stood_in == typed(LINES, tmp_path, real=True)
    assert [one.code for one in stood_in] == [0, 2, 0, 0, 0, 2, 0] and "nowhere" in stood_in[5].output
