"""`emulab link`: cut and shape the nodes' uplinks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from emulab.cli.lab import change, complete_node, dry_run_option, lab_option
from emulab.errors import InputError
from emulab.quantity import RATES, SHARES, TIMES, quantity


@click.group("link", short_help="Cut and shape the nodes' links.")
def command() -> None:
    """Cut and shape the nodes' uplinks; a link is called like its node.

    \b
    Examples:
      emulab link down node-a
      emulab link up node-a
      emulab link set node-b --rate 10mbit
    """


def _state(verb: str, up: bool, about: str) -> Callable[..., Any]:
    @command.command(verb, short_help=f"{about}.", help=f"{about}.\n\n\b\nExamples:\n  emulab link {verb} node-a\n")
    @click.argument("node", shell_complete=complete_node)
    @dry_run_option
    @lab_option
    def run(node: str, dry_run: bool, lab: str | None) -> int:
        return change(lab, f"link/{node} {verb}", "link_set", node=node, up=up, dry_run=dry_run)

    return run


_state("down", False, "Take the carrier from a node's uplink")
_state("up", True, "Give a node's uplink its carrier back")


@command.command("set", short_help="Shape a node's uplink.")
@click.argument("node", shell_complete=complete_node)
@click.option("--rate", metavar="R", help="e.g. 10mbit; 0: unshaped.")
@click.option("--delay", metavar="T", help="e.g. 50ms; needs sch_netem.")
@click.option("--loss", metavar="P", help="e.g. 1%; needs sch_netem.")
@dry_run_option
@lab_option
def shape(node: str, rate: str | None, delay: str | None, loss: str | None, dry_run: bool, lab: str | None) -> int:
    """Set what a node's uplink carries; what is not named stays as it is.

    \b
    Examples:
      emulab link set node-b --rate 10mbit
      emulab link set node-b --rate 0
      emulab link set node-b --delay 50ms --loss 1%
    """
    wanted = {
        "rate": None if rate is None else int(quantity("--rate", rate, RATES)),
        "delay": None if delay is None else quantity("--delay", delay, TIMES),
        "loss": None if loss is None else quantity("--loss", loss, SHARES),
    }
    given = {key: value for key, value in wanted.items() if value is not None}
    if not given:
        raise InputError("nothing to set: --rate, --delay or --loss expected")
    return change(lab, f"link/{node} set", "link_set", node=node, dry_run=dry_run, **given)
