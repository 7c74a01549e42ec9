"""`emulab cli`: Mininet's prompt in a running lab."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from emulab.cli.lab import connect, lab_argument

if TYPE_CHECKING:
    from emulab.control.client import Client, Here

# What makes sense while a lab is there; the others start one, or end it.
COMMANDS = (
    *("get", "inspect", "exec", "shell", "capture", "probe", "verify"),
    *("apply", "delete", "label", "describe"),
    *("pod", "node", "link", "partition", "heal", "drift", "repair", "trace", "fault", "diagnose"),
)


@click.command("cli", short_help="Mininet's prompt, with pods and nodes as words.")
@lab_argument
def command(lab: str | None) -> int:
    """Type commands as in Mininet: `a1 ping c2`, `node-a ip route`, `link down node-a`, `verify`.

    \b
    Examples:
      emulab cli
      echo "a1 ping -c1 c2" | emulab cli
    """
    with connect(lab) as client:
        interact(client)
    return 0


def interact(client: Client | Here) -> None:
    """Read commands until the user leaves."""
    import emulab.cli
    from emulab import prompt
    from emulab.cli import lab as running
    from emulab.cli.exec import enter
    from emulab.control.client import Here

    if isinstance(client, Here):
        running.here = client
    else:
        os.environ["EMULAB_LAB"] = client.place.name

    def type_in(target: str, words: Sequence[str]) -> int:
        return enter(None, target, tuple(words), stdin=True, terminal=sys.stdin.isatty())

    def command(words: Sequence[str]) -> int:
        return emulab.cli.guarded(lambda: emulab.cli.emulab.main(list(words), prog_name="emulab", standalone_mode=False) or 0)

    prompt.interact(client, type_in, command, COMMANDS)
