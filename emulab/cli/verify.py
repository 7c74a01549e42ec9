"""`emulab verify`: measure a running lab and judge it."""

from __future__ import annotations

from typing import Any

import click

from emulab.cli.artifacts import artifacts_option, keep, prepared
from emulab.cli.lab import columns, connect, lab_option
from emulab.cli.probing import ask, probing_options


@click.command("verify", short_help="Probe a running lab and judge every packet.")
@probing_options
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("-q", "--quiet", is_flag=True, help="Only the findings and the verdict.")
@artifacts_option
@lab_option
def command(format_: str, quiet: bool, artifacts: str | None, lab: str | None, **wanted: Any) -> int:
    """Probe every pod pair, or those that are chosen, and judge; exit code 1 when a packet was lost or rewritten.

    \b
    Examples:
      emulab verify
      emulab verify --from a1 --to c2 --protocol tcp
      emulab verify --format json | jq .summary
      emulab verify --artifacts evidence
    """
    folder = prepared(artifacts)
    with connect(lab) as client:
        answer = ask(client, wanted, report=format_, quiet=quiet, columns=columns(), document=folder is not None or None)
    click.echo(answer["report"], nl=False)
    if folder:
        keep(folder, answer["document"])
    return 0 if answer["ok"] else 1
