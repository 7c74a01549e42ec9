"""`emulab pod`: pods come and go in a running lab."""

from __future__ import annotations

import click

from emulab.cli.lab import change, complete_node, complete_pod, dry_run_option, lab_option
from emulab.errors import InputError


@click.group("pod", short_help="Add and remove pods of a running lab, let them be ready or not.")
def command() -> None:
    """Add and remove pods, let them be ready or not.

    \b
    Examples:
      emulab pod add a3 --node node-a
      emulab pod add shop/web --node node-b --ip 10.1.2.77 --label app=web
      emulab pod rm a3
      emulab pod unready a2
    """


@command.command("add", short_help="Add a pod.")
@click.argument("name")
@click.option("--node", required=True, shell_complete=complete_node, help="The node that it runs on.")
@click.option("--ip", "addresses", multiple=True, metavar="A", help="A fixed address; once per family.")
@click.option("--label", "labels", multiple=True, metavar="K=V", help="May be repeated.")
@dry_run_option
@lab_option
def add(name: str, node: str, addresses: tuple[str, ...], labels: tuple[str, ...], dry_run: bool, lab: str | None) -> int:
    """Add the pod NAME, or NAMESPACE/NAME; returns when it can be reached.

    \b
    Examples:
      emulab pod add a3 --node node-a
      emulab pod add a3 --node node-a --dry-run
    """
    pairs = {}
    for label in labels:
        key, equals, value = label.partition("=")
        if not equals or not key:
            raise InputError(f"--label {label}: KEY=VALUE expected")
        pairs[key] = value
    wanted = {"name": name, "node": node, "addresses": list(addresses), "labels": pairs, "dry_run": dry_run}
    return change(lab, f"pod/{name} added on {node}", "pod_add", **wanted)


@command.command("rm", short_help="Remove pods.")
@click.argument("names", nargs=-1, required=True, shell_complete=complete_pod)
@dry_run_option
@lab_option
def remove(names: tuple[str, ...], dry_run: bool, lab: str | None) -> int:
    """Remove pods; what runs in them is killed.

    \b
    Examples:
      emulab pod rm a3
    """
    return change(lab, "\n".join(f"pod/{name} removed" for name in names), "pod_rm", names=list(names), dry_run=dry_run)


def _readiness(verb: str, ready: bool, about: str) -> None:
    @command.command(verb, short_help=f"{about}.", help=f"{about}.\n\n\b\nExamples:\n  emulab pod {verb} a1\n")
    @click.argument("names", nargs=-1, required=True, shell_complete=complete_pod)
    @dry_run_option
    @lab_option
    def run(names: tuple[str, ...], dry_run: bool, lab: str | None) -> int:
        told = "\n".join(f"pod/{name} {'is' if ready else 'is not'} ready" for name in names)
        return change(lab, told, "pod_ready", names=list(names), ready=ready, dry_run=dry_run)


_readiness("ready", True, "Let pods be ready: Services send to them again")
_readiness("unready", False, "Let pods be not ready: Services send nothing new to them")
