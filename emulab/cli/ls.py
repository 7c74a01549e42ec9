"""`emulab ls`: the labs that are up."""

from __future__ import annotations

import time
from typing import Any

import click

from emulab.cli.lab import dump, format_option, table


@click.command("ls", short_help="The labs that are up.")
@click.option("-a", "--all", "everybody", is_flag=True, help="As root: those of all users.")
@format_option
def command(everybody: bool, format_: str) -> int:
    """List your labs.

    \b
    Examples:
      sudo emulab ls
      emulab ls --format json
    """
    from emulab.control import places
    from emulab.control.client import Client
    from emulab.errors import EmulabError

    found: list[dict[str, Any]] = []
    for place in places.labs(everybody):
        try:
            with Client(place) as client:
                shown = client.ask("inspect")
        except EmulabError:
            found.append({"name": place.name, "status": "not answering"})
            continue
        found.append(
            {
                "name": place.name,
                "status": "up",
                "plugin": shown["plugin"],
                "topology": shown["topology"],
                "nodes": len(shown["nodes"]),
                "pods": len(shown["pods"]),
                "started": shown["started"],
            }
        )
    if format_ == "json":
        dump(found, "json")
    elif not found:
        click.echo("no lab is up", err=True)
    else:
        rows = [[str(one.get(key, "")) for key in ("name", "status", "plugin", "topology", "nodes", "pods")] for one in found]
        for row, one in zip(rows, found, strict=True):
            row.append(age(time.time() - one["started"]) if "started" in one else "")
        table(["NAME", "STATUS", "PLUGIN", "TOPOLOGY", "NODES", "PODS", "AGE"], rows)
    return 0


def age(seconds: float) -> str:
    """As kubectl shows it: 42s, 7m, 3h, 2d."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"
