"""`emulab down`: take labs down."""

from __future__ import annotations

import click

from emulab.cli.lab import lab_argument


@click.command("down", short_help="Take a lab down.")
@lab_argument
@click.option("--all", "everything", is_flag=True, help="All labs of yours.")
def command(lab: str | None, everything: bool) -> int:
    """Take LAB down, or the only lab there is.  Nothing of it remains.

    \b
    Examples:
      sudo emulab down
      sudo emulab down flat-calico
      sudo emulab down --all
    """
    from emulab.control import ending, places

    if everything and lab:
        raise click.UsageError("--all and a name exclude each other", click.get_current_context())
    for place in places.labs() if everything else [places.find(lab)]:
        ending.take_down(place)
        click.echo(f"lab '{place.name}' is down")
    return 0
