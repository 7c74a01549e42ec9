"""`emulab watch`: what happens in a lab."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from emulab.cli.lab import connect, format_option, lab_option
from emulab.errors import MachineError


@click.command("watch", short_help="Show events as they happen.")
@format_option
@lab_option
def command(format_: str, lab: str | None) -> int:
    """Print an event per line (pod added, link down, verdict changed, …) until the lab goes down or Ctrl-C.

    \b
    Examples:
      emulab watch
      emulab watch --format json
    """

    def show(event: dict[str, Any]) -> None:
        if event["event"] in ("alive", "watching"):
            return
        if format_ == "json":
            click.echo(json.dumps(event))
            return
        clock = time.strftime("%H:%M:%S", time.localtime(event.pop("time")))
        name = event.pop("event")
        click.echo("  ".join([clock, name, *(f"{key}={_short(value)}" for key, value in event.items())]))

    with connect(lab) as client:
        try:
            client.ask("watch", show)
        except MachineError:  # it has gone down
            return 0
    return 0


def _short(value: Any) -> str:
    if isinstance(value, list):
        between = "|" if any(isinstance(one, list) for one in value) else ","
        return between.join(map(_short, value))
    return str(value).removeprefix("default/")
