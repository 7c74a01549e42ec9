"""`emulab fault`: break a lab on purpose."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from emulab.cli.lab import complete_any, connect, dump, format_option, lab_option, show_lines, table


def _complete_fault(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from emulab.faults import FAULTS

    return [CompletionItem(name, help=one.summary) for name, one in FAULTS.items() if name.startswith(incomplete)]


@click.group("fault", short_help="Break a lab on purpose, as real clusters break.")
def command() -> None:
    """Break a lab on purpose, and find out what is wrong with `emulab diagnose` and `emulab trace`.

    \b
    Examples:
      emulab fault list
      emulab fault inject missing-route --at node-a
      emulab fault inject --blind
      emulab fault clear
    """


@command.command("list", short_help="What can be broken here, and what is.")
@format_option
@lab_option
def list_(format_: str, lab: str | None) -> int:
    """List the faults: those that apply to this lab with the number of places, and those that are injected.

    \b
    Examples:
      emulab fault list
      emulab fault list --format json
    """
    with connect(lab) as client:
        found = client.ask("fault_list")
    if format_ == "json":
        dump({"schema": "emulab/faults/1", **found}, "json")
        return 0
    rows = [[one["name"], str(len(one["places"])) if one["places"] else "-", one["summary"]] for one in found["faults"]]
    table(["NAME", "PLACES", "WHAT HAPPENS"], rows)
    for one in found["injected"]:
        click.echo("injected: " + ("one that is to be found out" if one["blind"] else f"{one['name']} at {one['at']}"))
    return 0


@command.command("inject", short_help="Break something.")
@click.argument("name", required=False, shell_complete=_complete_fault)
@click.option("--at", metavar="NODE|POD|LINK", shell_complete=complete_any, help="Where; a link is called like its node.")
@click.option("--blind", is_flag=True, help="Do not say which, nor where: an exercise.  Without NAME it may be any.")
@lab_option
def inject(name: str | None, at: str | None, blind: bool, lab: str | None) -> int:
    """Break the lab by NAME, in the first place where it applies or at a given one; without NAME in any way.

    \b
    Examples:
      emulab fault inject missing-fdb
      emulab fault inject mtu-mismatch --at node-b
      emulab fault inject --blind
    """
    wanted: dict[str, Any] = {"name": name, "at": at, "blind": blind}
    with connect(lab) as client:
        done = client.ask("fault_inject", **wanted)
    if blind:
        click.echo("something is broken: find it by `emulab verify`, `emulab trace` and `emulab diagnose`")
        click.echo("(`emulab fault clear` undoes it and tells what it was)")
        return 0
    click.echo(f"{done['name']} at {done['at'].removeprefix('default/')}: {done['symptom']}")
    show_lines(done["lines"])
    return 0


@command.command("clear", short_help="Undo all faults.")
@lab_option
def clear(lab: str | None) -> int:
    """Undo all faults and tell what they were; whatever else was altered by hand is put back, too.

    \b
    Examples:
      emulab fault clear
    """
    with connect(lab) as client:
        done = client.ask("fault_clear")
    for one in done["cleared"]:
        click.echo(f"cleared: {one['name']} at {one['at'].removeprefix('default/')}")
    if not done["cleared"]:
        click.echo("no fault was injected")
    return 0
