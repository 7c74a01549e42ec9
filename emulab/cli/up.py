"""`emulab up`: start a lab that stays."""

from __future__ import annotations

import re
import time

import click

from emulab.cli.options import cluster_options, design


@click.command("up", short_help="Start a lab that stays until `emulab down`.")
@cluster_options
@click.option("-n", "--name", metavar="LAB", help="The lab's name; default: TOPOLOGY-PLUGIN.")
def command(
    topology: str | None, plugin: str, settings: tuple[str, ...], files: tuple[str, ...], ignore_unknown: bool, name: str | None
) -> int:
    """Start a cluster and return when it is ready.  It outlives this terminal.

    With manifests (-f) and no TOPOLOGY named there are three nodes, or those of the manifests, and no pods but those of the
    manifests; the nodes and pods of a TOPOLOGY that is named stay.

    \b
    Examples:
      sudo emulab up
      emulab exec a1 -- ping -c 3 10.1.3.1
      sudo emulab down
      sudo emulab up --plugin calico
      sudo emulab up fleet,10,5 --plugin weave --name big
      sudo emulab up -f shop.yaml --plugin calico
    """
    started = time.perf_counter()
    wanted = design(topology, plugin, settings, files, ignore_unknown)

    from emulab.control import keeper

    shown = wanted.topology
    label = name or re.sub("[^a-z0-9]+", "-", f"{shown.name}-{plugin}".lower()).strip("-")[:63]
    keeper.start(label, wanted)
    took = time.perf_counter() - started
    size = f"{len(shown.nodes)} nodes, {len(wanted.cluster.endpoints)} pods"
    click.echo(f"lab '{label}' is up: {plugin} on {shown.name}, {size} ({took:.2f} s)")
    return 0
