"""`emulab partition`: part nodes from each other."""

from __future__ import annotations

import click

from emulab.cli.lab import change, complete_node, dry_run_option, lab_option


@click.command("partition", short_help="Let the underlay carry nothing between groups of nodes.")
@click.argument("groups", metavar="A,B [|] C...", nargs=-1, required=True, shell_complete=complete_node)
@dry_run_option
@lab_option
def command(groups: tuple[str, ...], dry_run: bool, lab: str | None) -> int:
    """Part groups of nodes; a single group is parted from all the others.

    \b
    Examples:
      emulab partition node-a,node-b node-c
      emulab partition "node-a | node-b,node-c"
      emulab partition node-a
      emulab heal
    """
    sides = [[name.strip() for name in side.split(",") if name.strip()] for side in " | ".join(groups).split("|")]
    wanted = [side for side in sides if side]
    shown = " | ".join(",".join(side) for side in wanted)
    return change(lab, f"partitioned: {shown}", "partition", groups=wanted, dry_run=dry_run)
