"""`emulab get`: the objects of a lab."""

from __future__ import annotations

from typing import Any

import click

from emulab.cli.lab import complete_any, connect, dump, lab_option, output_option, table

KINDS = ("pods", "nodes", "links", "routes")
_COLUMNS = {
    "pods": (("NAME", "STATUS", "IP", "NODE"), ("MAC", "INTERFACE", "LABELS")),
    "nodes": (("NAME", "STATUS", "IP", "POD-CIDRS", "PODS"), ("SEGMENT",)),
    "links": (("NAME", "STATUS", "SEGMENT", "MTU", "SHAPE"), ()),
    "routes": (("NODE", "DESTINATION", "VIA", "DEVICE"), ("PROTOCOL", "TYPE", "FLAGS")),
}


@click.command("get", short_help="List pods, nodes, links or routes.")
@click.argument("kind", type=click.Choice([*KINDS, "pod", "po", "node", "no", "link", "route"]), metavar="KIND")
@click.argument("name", required=False, shell_complete=complete_any)
@output_option
@lab_option
def command(kind: str, name: str | None, output: str | None, lab: str | None) -> int:
    """List the lab's pods, nodes, links or routes; NAME is one of them, or the node whose links or routes are wanted.

    \b
    Examples:
      emulab get pods
      emulab get pods -o wide
      emulab get nodes -o json
      emulab get routes node-a
    """
    with connect(lab) as client:
        found = client.ask("get", kind=kind, name=name)
    plural = next(one for one in KINDS if one.startswith(kind.rstrip("s")[:2]))
    if output in ("json", "yaml"):
        dump({"kind": "List", "items": found}, output)
    elif output == "name":
        for one in found:
            click.echo(f"{plural[:-1]}/{one['name']}")
    elif found:
        show(plural, found, wide=output == "wide")
    else:
        click.echo(f"no {plural} found", err=True)
    return 0


def show(kind: str, found: list[dict[str, Any]], wide: bool) -> None:
    """A table of objects."""
    usual, more = _COLUMNS[kind]
    headings = [*usual, *(more if wide else ())]
    table(headings, [[_cell(one, heading) for heading in headings] for one in found])


def _rate(bits: int) -> str:
    """As tc(8) takes it: 10mbit."""
    for unit, size in (("gbit", 10**9), ("mbit", 10**6), ("kbit", 10**3)):
        if bits % size == 0:
            return f"{bits // size}{unit}"
    return f"{bits}bit"


def _cell(one: dict[str, Any], heading: str) -> str:
    if heading == "NAME":
        return str(one["name"]).removeprefix("default/")
    if heading == "SHAPE":
        rate, delay, loss = one["rate"], one["delay"], one["loss"]
        shown = [_rate(rate) if rate else "", f"{delay * 1e3:g} ms" if delay else "", f"{loss:.0%} loss" if loss else ""]
        return ", ".join(filter(None, shown)) or "-"
    value = one[{"IP": "addresses", "POD-CIDRS": "pod_cidrs"}.get(heading, heading.lower())]
    if isinstance(value, dict):
        value = [f"{key}={text}" for key, text in value.items()]
    return ",".join(map(str, value)) or "-" if isinstance(value, list) else "-" if value is None else str(value)
