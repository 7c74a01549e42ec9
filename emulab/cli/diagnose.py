"""`emulab diagnose`: what is wrong, in plain words."""

from __future__ import annotations

from typing import Any

import click

from emulab.cli.lab import connect, dump, format_option, lab_argument
from emulab.cli.progress import Progress

BY_DESIGN = "by-design"


@click.command("diagnose", short_help="Say in plain words what is wrong, and how to repair it.")
@lab_argument
@format_option
def command(lab: str | None, format_: str) -> int:
    """Look at the kernel, the plan and probes: what is wrong, where, by what evidence, and the command that repairs it.

    Exit code 1 when something is wrong; what a data plane cannot do by design is told, but is no fault.

    \b
    Examples:
      emulab diagnose
      emulab diagnose --format json
    """
    with connect(lab) as client, Progress() as progress:

        def show(event: dict[str, Any]) -> None:
            if event.get("event") == "progress":
                progress.update(event["done"], event["total"])

        found = client.ask("diagnose", show)
    wrong = [one for one in found if one["fault"] != BY_DESIGN]
    if format_ == "json":
        dump({"schema": "emulab/diagnosis/1", "diagnoses": found}, "json")
        return 1 if wrong else 0
    for one in found:
        where = one["where"].removeprefix("default/")
        click.echo(click.style(f"{one['fault']} at {where}", bold=True) + f": {one['words']}")
        for piece in one["evidence"]:
            click.echo(f"  - {piece}")
        click.echo(f"  repair: {one['repair']}")
    if not wrong:
        click.echo("nothing wrong")
    return 1 if wrong else 0
