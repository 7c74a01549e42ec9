"""`emulab probe`: measure, and leave the judging to others."""

from __future__ import annotations

from typing import Any

import click

from emulab.cli.lab import columns, connect, lab_option
from emulab.cli.probing import ask, probing_options


@click.command("probe", short_help="Probe a running lab, a line per flow.")
@probing_options
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@lab_option
def command(format_: str, lab: str | None, **wanted: Any) -> int:
    """Probe and print what happened to each flow; exit code 0 whatever happened (see `emulab verify`).

    \b
    Examples:
      emulab probe --from a1
      emulab probe --from a1 --to b1 --to c1 --protocol udp --count 3
      emulab probe --from a1 --to internet --format json
      emulab probe --from a1 --to svc/web
      emulab probe --from a1 --to c1 --protocol icmp --family 4 --size 1451
    """
    with connect(lab) as client:
        report = "probe" if format_ == "json" else "table"
        answer = ask(client, wanted, report=report, columns=columns())
    click.echo(answer["report"], nl=False)
    return 0
