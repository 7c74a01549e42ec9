"""`emulab heal`: undo partitions."""

from __future__ import annotations

import click

from emulab.cli.lab import change, dry_run_option, lab_option


@click.command("heal", short_help="Join what `emulab partition` has parted.")
@dry_run_option
@lab_option
def command(dry_run: bool, lab: str | None) -> int:
    """Undo all partitions.

    \b
    Examples:
      emulab heal
    """
    return change(lab, "healed", "heal", dry_run=dry_run)
