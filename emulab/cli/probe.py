"""`emulab probe`: measure, and leave the judging to others."""

from __future__ import annotations

from functools import partial
from typing import Any

import click
from click.core import ParameterSource

from emulab.cli.lab import columns, connect, lab_option
from emulab.cli.probing import PROTOCOLS, ask, probing_options

_ONE_PORT = ("port", "size", "count", "taps")  # options of flows to one port


@click.command("probe", short_help="Probe a running lab, a line per flow.")
@partial(probing_options, protocols=(*PROTOCOLS, "sctp"))
@click.option("--all-ports", is_flag=True, help="Every port that a pod declares, from every pod.")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@lab_option
def command(format_: str, lab: str | None, all_ports: bool, **wanted: Any) -> int:
    """Probe and print what happened to each flow; exit code 0 whatever happened (see `emulab verify`).

    With --all-ports, every ordered pair of pods and every port that the destination declares (in its manifest), TCP, UDP and
    SCTP: a matrix of signs for each port.  Something answers at all of them; what stays silent was asked twice.

    \b
    Examples:
      emulab probe --from a1
      emulab probe --from a1 --to b1 --to c1 --protocol udp --count 3
      emulab probe --from a1 --to internet --format json
      emulab probe --from a1 --to svc/web
      emulab probe --from a1 --to c1 --protocol icmp --family 4 --size 1451
      emulab probe --all-ports
      emulab probe --all-ports --from a1 --protocol tcp --format json
    """
    context = click.get_current_context()
    if not all_ports and "sctp" in wanted["protocols"]:
        raise click.UsageError("--protocol sctp goes with --all-ports")
    if all_ports:
        for name in _ONE_PORT:
            if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
                raise click.UsageError(f"--{name} does not go with --all-ports")
            del wanted[name]
    do, text = ("ports", "text") if all_ports else ("verify", "table")
    with connect(lab) as client:
        answer = ask(client, wanted, do, report="probe" if format_ == "json" else text, columns=columns())
    click.echo(answer["report"], nl=False)
    return 0
