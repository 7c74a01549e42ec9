"""`emulab drift`: what was altered by hand."""

from __future__ import annotations

import click

from emulab.cli.lab import connect, dump, format_option, lab_argument


@click.command("drift", short_help="Compare the kernel with the plan.")
@lab_argument
@format_option
def command(lab: str | None, format_: str) -> int:
    """Name everything that is missing, altered or extra; exit code 1 if there is something.

    \b
    Examples:
      emulab drift
      emulab exec node-a -- ip route del 10.1.2.0/24
      emulab drift --format json
    """
    with connect(lab) as client:
        found = client.ask("drift")
    if format_ == "json":
        dump({"schema": "emulab/drift/1", "deviations": found}, "json")
    else:
        for one in found:
            click.echo(one["text"])
        many = f"{len(found)} deviation{'s' if len(found) > 1 else ''} (emulab repair puts the plan back)"
        click.echo(many if found else "no drift: the kernel is as planned")
    return 1 if found else 0
