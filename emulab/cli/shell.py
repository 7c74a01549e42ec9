"""`emulab shell`: a shell in a pod or node."""

from __future__ import annotations

import shutil
import sys

import click

from emulab.cli.lab import complete_any, lab_option


@click.command("shell", short_help="A shell in a pod or node.")
@click.argument("target", metavar="POD|NODE", shell_complete=complete_any)
@lab_option
def command(target: str, lab: str | None) -> int:
    """Open a shell there; the prompt says where you are.

    \b
    Examples:
      emulab shell a1
      emulab shell node-a
    """
    from emulab.cli.exec import enter

    terminal = sys.stdin.isatty()
    shell = ["bash", "--norc", "--noprofile"] if shutil.which("bash") else ["sh"]
    return enter(lab, target, (*shell, *(["-i"] if terminal else [])), stdin=True, terminal=terminal)
