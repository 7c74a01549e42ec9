"""`emulab inspect`: a lab at a glance."""

from __future__ import annotations

import time

import click

from emulab.cli.get import show
from emulab.cli.lab import connect, dump, format_option, lab_argument


@click.command("inspect", short_help="A lab at a glance.")
@lab_argument
@format_option
def command(lab: str | None, format_: str) -> int:
    """Show a lab's plugin, nodes, pods and links.

    \b
    Examples:
      sudo emulab inspect
      sudo emulab inspect flat-calico --format json
    """
    from emulab.cli.ls import age

    with connect(lab) as client:
        found = client.ask("inspect")
    if format_ == "json":
        dump(found, "json")
        return 0
    options = " ".join(f"{key}={value}" for key, value in found["options"].items() if value is not None)
    what = f"{found['plugin']} on {found['topology']}"
    click.echo(f"lab '{found['name']}'  {what}  {age(time.time() - found['started'])}  {options}")
    for kind in ("nodes", "pods", "links"):
        click.echo("")
        show(kind, found[kind], wide=False)
    for pair in found["partitioned"]:
        click.echo(f"partitioned: {' | '.join(pair)}")
    return 0
