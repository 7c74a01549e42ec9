"""`emulab plan`: what would be programmed, touching nothing."""

from __future__ import annotations

import click

from emulab.cli.options import cluster_options, design


@click.command("plan", short_help="What would be programmed, as the lines a person would type.")
@cluster_options
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--only", metavar="NAME", help="One node or pod instead of all.")
def command(
    topology: str | None,
    plugin: str,
    settings: tuple[str, ...],
    files: tuple[str, ...],
    ignore_unknown: bool,
    format_: str,
    only: str | None,
) -> int:
    """Print what a data plane programs into every node and pod.

    The lines are those of ip(8), bridge(8), nft(8) and sysctl(8), in an order in which they can be typed.  Needs no
    privileges and touches nothing.

    With manifests (-f) and no TOPOLOGY named there are three nodes, or those of the manifests, and no pods but those of the
    manifests; the nodes and pods of a TOPOLOGY that is named stay.

    \b
    Examples:
      emulab plan
      emulab plan --plugin calico --only node-a
      emulab plan two-racks --plugin calico --set encap=cross-subnet
      emulab plan -f policies/ --plugin calico
      emulab plan fleet,3,2 --plugin weave --format json
    """
    from emulab.errors import InputError, nearest
    from emulab.report import plan as report

    wanted = design(topology, plugin, settings, files, ignore_unknown)
    state = wanted.plan
    if only is not None:
        key = only if only in state else f"default/{only}"
        if key not in state:
            names = [name.removeprefix("default/") for name in state]
            raise InputError(f"nothing is planned for '{only}'{nearest(only, names)}")
        state = {key: state[key]}
    show = report.as_json if format_ == "json" else report.as_text
    click.echo(show(wanted.plane, wanted.cluster, state))
    return 0
