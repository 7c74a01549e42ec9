"""docs/diagram.md: what its commands print, and the pictures that they make, are those that are shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from emulab.cli import emulab

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "diagram.md").read_text()
CONSOLES = re.findall(r"^```console\n(.*?)^```$(?:\n\n^```mermaid\n(.*?)^```$)?", PAGE, re.MULTILINE | re.DOTALL)
TYPED = [(line[2:], console, mermaid) for console, mermaid in CONSOLES for line in console.splitlines() if line.startswith("$ ")]


@pytest.mark.parametrize(("line", "console", "mermaid"), TYPED, ids=[line for line, *_ in TYPED])
def test_a_command_makes_what_is_shown(
    line: str, console: str, mermaid: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line)[1:]
    assert emulab.main(words, prog_name="emulab", standalone_mode=False) == 0
    for made in tmp_path.iterdir():
        assert made.read_text() == (DOCS / "img" / made.name).read_text(), f"cd docs/img && {line}"
        assert f"](img/{made.name})" in PAGE
    out = capsys.readouterr().out
    if "-o" in words:
        assert (out, len(list(tmp_path.iterdir()))) == ("", 1)
        return
    shown = mermaid or console.partition("\n")[2]
    assert out.startswith(shown.removesuffix("…\n"))
    assert out == shown or shown.endswith("…\n")


def test_pictures_and_commands_are_there() -> None:
    assert len(TYPED) > 6
    assert len(re.findall(r"\]\(img/[\w-]+\.svg\)", PAGE)) == len([line for line, *_ in TYPED if "-o " in line])
