"""The sessions in docs/ are real: each command is typed, and what is shown is what comes out.

A line that ends in … is shown in part, a line … stands for any number of lines; times and ages may differ.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from console import typed
from shown import SESSIONS

DOCS = Path(__file__).parents[2] / "docs"
TIMES = (
    (r"\d+(\.\d+)? (s|ms|us|µs)\b", "T"),
    (r"time=\d+(\.\d+)? ?m?s?", "time=T"),
    (r"time \d+ms", "time T"),
    (r"= [\d./]+ ms", "= T"),
    (r"\b\d+[smhd]$", "AGE"),
    (r"\d\d:\d\d:\d\d(\.\d+)?", "CLOCK"),
    (r"(vxlan [\d.:a-f]+):\d+( >)", r"\1:N\2"),  # a hash of the inner flow, with a seed that differs from boot to boot
    (r"(conntrack [SD]NAT [\d.:a-f]+):\d+( > [\d.:a-f]+):\d+", r"\1:N\2:N"),
)


def commands(document: str) -> list[tuple[str, list[str]]]:
    """(command, lines shown) of all consoles, in order."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```$", (DOCS / document).read_text(), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", "").splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def normal(line: str) -> str:
    for pattern, word in TIMES:
        line = re.sub(pattern, word, line)
    return " ".join(line.split())


def differs(shown: list[str], came: list[str]) -> str:
    """Where the output leaves what is shown; nothing when it does not."""
    rest = [normal(line) for line in came if line.strip() and not line.startswith("Running as user")]  # (tshark to root)
    skipping = False
    for line in (normal(one) for one in shown if one.strip()):
        if line == "…":
            skipping = True
            continue
        part = line.removesuffix("…").rstrip()
        while rest:
            met = rest.pop(0)
            if met == line or (line.endswith("…") and met.startswith(part)):
                break
            if not skipping:
                return f"shown: {line}\ncame:  {met}"
        else:
            return f"shown: {line}\ncame:  nothing"
        skipping = False
    return "" if skipping or not rest else f"not shown: {rest[0]}"


# Debian's host-local writes a lease's owner after its file: a kill in between, once in dozens of times, leaves half of it.
CHANCE = {"cni.md"}


@pytest.mark.parametrize("document", SESSIONS)
def test_a_session_is_what_it_shows(document: str, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("the sessions are root's")
    lines = commands(document)
    assert len(lines) > 5
    for attempt in range(2 if document in CHANCE else 1):
        (folder := tmp_path / str(attempt)).mkdir(mode=0o755)
        came_of_all = typed([command for command, _ in lines], folder, real=document == "../README.md")
        wrong = [
            f"$ {command}\n{told}\n{came.output}"
            for (command, shown), came in zip(lines, came_of_all, strict=True)
            if (told := differs(shown, came.output.splitlines()))
        ]
        if not wrong:
            return
    assert wrong == []


def test_examples_for_programs_work(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("the examples are root's")
    blocks = re.findall(r"^```sh\n(.*?)^```$", (DOCS / "json.md").read_text(), re.MULTILINE | re.DOTALL)
    examples = [line for block in blocks for line in block.splitlines()]
    assert len(examples) > 4
    for one in typed(["set -o pipefail", "emulab up", *examples, "emulab down"], tmp_path):
        assert one.code == 0, one


@pytest.mark.parametrize(
    ("shown", "came", "same"),
    [
        (["a", "b"], ["a", "b"], True),
        (["a", "b"], ["a", "c"], False),
        (["a", "…"], ["a", "b", "c"], True),
        (["a", "…", "c"], ["a", "b", "c"], True),
        (["a"], ["a", "b"], False),
        (["took 0.3 s"], ["took 0.41 s"], True),
        (["long…"], ["longer than this"], True),
        (["a", "b"], ["a"], False),
    ],
)
def test_a_wrong_output_would_be_found(shown: list[str], came: list[str], same: bool) -> None:
    assert (differs(shown, came) == "") is same
