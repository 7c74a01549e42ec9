"""`emulab repair`: put back what was altered."""

from __future__ import annotations

import click

from emulab.cli.lab import complete_any, connect, dry_run_option, lab_option, show_lines


@click.command("repair", short_help="Put back what is not as planned.")
@click.argument("names", metavar="[NODE|POD]...", nargs=-1, shell_complete=complete_any)
@dry_run_option
@lab_option
def command(names: tuple[str, ...], dry_run: bool, lab: str | None) -> int:
    """Bring the kernel back to the plan, everywhere or in some nodes and pods.

    \b
    Examples:
      emulab repair
      emulab repair node-a
      emulab repair --dry-run
    """
    with connect(lab) as client:
        answer = client.ask("repair", names=list(names), dry_run=dry_run)
    if dry_run:
        show_lines(answer["lines"])
        return 0
    for one in answer["mended"]:
        click.echo(f"repaired: {one['text']}")
    if not answer["mended"]:
        click.echo("nothing to repair")
    return 0
