"""What the documents show: fenced blocks, and the command lines in them, in the prose, in manifests and in --help."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click

from emulab.cli import emulab

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
DOCUMENTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ENDS = {"|", ">", "<", ">>", "&&", "||", ";"}
# The documents (of docs/) whose consoles are typed, and compared with what is shown.
SESSIONS = (
    *("cni.md", "first-lab.md", "lost-packets.md", "policies.md", "services.md"),
    *("report.md", "checks.md", "pytest.md", "compare.md", "../README.md"),
)


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, content) of each fenced code block."""
    return FENCE.findall(text)


def shell_lines(text: str) -> list[str]:
    """The lines of shell blocks; of consoles those after the prompt."""
    lines = []
    for language, content in blocks(text):
        content = content.replace("\\\n", " ")
        if language == "sh":
            lines += content.splitlines()
        elif language == "console":
            lines += [line[2:] for line in content.splitlines() if line.startswith("$ ")]
    return lines


def code_spans(text: str) -> list[str]:
    """Code in the prose, but for what has words to be filled in, like FILE, or goes on, like `emulab …`."""
    return [span for span in re.findall(r"`([^`\n]+)`", FENCE.sub("", text)) if not re.search(r"…|\b[A-Z]{3,}\b", span)]


def command_lines(text: str) -> list[list[str]]:
    """Arguments of each `emulab …` in shell blocks (in consoles: after the prompt) and in code spans."""
    found = []
    for line in shell_lines(text) + code_spans(text):
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a code span in another language
            continue
        while words[:1] == ["sudo"]:
            del words[0]
        if words[:2] == ["./bootstrap.sh", "run"]:
            words[0] = "emulab"
        if words[:1] == ["emulab"]:
            end = next((i for i, word in enumerate(words) if word in _ENDS), len(words))
            found.append(words[1:end])
    return found


MANIFESTS = sorted(path for folder in ("policies", "services") for path in (ROOT / "examples" / folder).glob("*.yaml"))


def commented(manifest: str) -> str:
    """The command lines in a manifest's comments, which are indented there, as a block of them."""
    lines = [line[1:] for line in manifest.splitlines() if line.startswith("#     ")]
    return "\n".join(["```sh", *map(str.strip, lines), "```", ""])


def help_of(name: str) -> str:
    command = emulab.get_command(click.Context(emulab), name)
    assert command is not None
    return command.get_help(click.Context(command, info_name=f"emulab {name}"))


def examples_of_help(name: str) -> list[str]:
    """The command lines under "Examples:" in a command's help."""
    shown = help_of(name).partition("Examples:")[2].partition("\n\n")[0]
    return [line.strip() for line in shown.splitlines() if "emulab " in line]
