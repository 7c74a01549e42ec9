"""`emulab node`: nodes come and go, and are switched off and on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from emulab.cli.lab import change, complete_node, dry_run_option, lab_option


@click.group("node", short_help="Add, remove, stop and start nodes of a running lab.")
def command() -> None:
    """Add, remove, stop and start nodes.

    \b
    Examples:
      emulab node add node-d
      emulab node stop node-b
      emulab node start node-b
      emulab node rm node-d
    """


@command.command("add", short_help="Add a node.")
@click.argument("name")
@click.option("--segment", metavar="S", help="The switch that it is linked to; default: the first.")
@click.option("--ip", "addresses", multiple=True, metavar="A", help="Its underlay address; once per family.")
@dry_run_option
@lab_option
def add(name: str, segment: str | None, addresses: tuple[str, ...], dry_run: bool, lab: str | None) -> int:
    """Add a node; the others learn of it as the real plugin would tell them.

    \b
    Examples:
      emulab node add node-d
      emulab node add node-d --ip 192.168.50.77
    """
    wanted = {"name": name, "addresses": list(addresses), "dry_run": dry_run}
    return change(lab, f"node/{name} added", "node_add", **wanted, **({"segment": segment} if segment else {}))


def _simple(verb: str, done: str, about: str) -> Callable[..., Any]:
    """A command that takes a node's name and nothing else."""

    example = f"{about}.\n\n\b\nExamples:\n  emulab node {verb} node-b\n"

    @command.command(verb, short_help=about.partition(":")[0] + ".", help=example)
    @click.argument("name", shell_complete=complete_node)
    @dry_run_option
    @lab_option
    def run(name: str, dry_run: bool, lab: str | None) -> int:
        return change(lab, f"node/{name} {done}", f"node_{verb}", name=name, dry_run=dry_run)

    return run


_simple("rm", "removed", "Remove a node and its pods: the cluster forgets it")
_simple("stop", "stopped", "Switch a node off: the cluster is not told, and its pods stay its pods")
_simple("start", "started", "Switch a node on again: its pods come back with their addresses")
