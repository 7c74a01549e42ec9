"""`emulab run`: build a cluster, prove it, leave no trace."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emulab.cli import guarded
from emulab.cli.artifacts import artifacts_option, keep, prepared
from emulab.cli.options import cluster_options, design
from emulab.cli.progress import Progress

if TYPE_CHECKING:
    from emulab.lab import Lab, Probing
    from emulab.result import RunResult

PROTOCOLS = ("icmp", "udp", "tcp")


@click.command("run", short_help="Build a cluster, prove that no packet is rewritten, leave no trace.")
@cluster_options
@click.option("--protocol", "protocols", type=click.Choice(PROTOCOLS), multiple=True, help="Probe this one; may be repeated.")
@click.option("--family", "families", type=click.Choice(["4", "6"]), multiple=True, help="Probe this IP family only.")
@click.option(
    "--taps",
    type=click.Choice(["every", "ends"]),
    default="every",
    show_default=True,
    help="Watch every place, or only where packets leave and arrive (quicker).",
)
@click.option("--pcap", metavar="DIR", type=click.Path(), help="Write what the taps see as pcapng, for tshark and Wireshark.")
@artifacts_option
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--cli", "prompt", is_flag=True, help="Drop into Mininet's prompt, pods included, before leaving.")
@click.option("-q", "--quiet", is_flag=True, help="Only the findings and the verdict.")
def command(
    topology: str | None,
    plugin: str,
    settings: tuple[str, ...],
    files: tuple[str, ...],
    ignore_unknown: bool,
    protocols: tuple[str, ...],
    families: tuple[str, ...],
    taps: str,
    pcap: str | None,
    artifacts: str | None,
    format_: str,
    prompt: bool,
    quiet: bool,
) -> int:
    """Boot TOPOLOGY, let a plugin program it, probe every pod pair and judge every packet.

    TOPOLOGY is a name (see `emulab topologies`), a name with numbers (fleet,10,5), or a YAML file; default: flat.
    With manifests (-f) and no TOPOLOGY named there are three nodes, or those of the manifests, and no pods but those of the
    manifests; the nodes and pods of a TOPOLOGY that is named stay.

    \b
    Examples:
      sudo emulab run
      sudo emulab run --plugin calico
      sudo emulab run two-racks --plugin calico --set encap=cross-subnet
      sudo emulab run fleet,10,5 --plugin weave --protocol udp --taps ends
      sudo emulab run --plugin flannel --pcap /tmp/packets
      sudo emulab run --plugin calico --artifacts evidence
      sudo emulab run --plugin calico --cli
      sudo emulab run -f shop.yaml --plugin calico
      sudo emulab run --format json | jq .summary

    Exit codes: 0 as expected, 1 a packet was lost or rewritten, 2 bad input, 3 this machine cannot.
    """
    started = time.perf_counter()
    wanted = design(topology, plugin, settings, files, ignore_unknown)
    chosen = _families(wanted.topology.families, families)
    folder = prepared(artifacts)

    from emulab.kernel import sandbox
    from emulab.lab import Lab, Probing

    probing = Probing(protocols=protocols or PROTOCOLS, families=chosen, taps=taps)
    timings = {"plan": time.perf_counter() - started}
    return sandbox.run(lambda: guarded(lambda: _inside(Lab(wanted, timings), probing, pcap, folder, format_, prompt, quiet)))


def _families(offered: tuple[int, ...], asked: tuple[str, ...]) -> tuple[int, ...]:
    from emulab.errors import InputError

    wanted = tuple(sorted({int(family) for family in asked})) or offered
    for family in wanted:
        if family not in offered:
            has = " and ".join(f"IPv{family}" for family in offered)
            raise InputError(f"--family {family}: the pods of this topology have {has} only")
    return wanted


def _inside(lab: Lab, probing: Probing, pcap: str | None, folder: Path | None, format_: str, prompt: bool, quiet: bool) -> int:
    """What happens in the sandbox."""
    with ExitStack() as release:
        on_frame = None
        if pcap is not None:
            from emulab.report.pcapng import PcapngWriter

            on_frame = release.enter_context(PcapngWriter.into(pcap)).write
        release.enter_context(lab)
        progress = release.enter_context(Progress())
        lab.build()
        result = lab.verify(probing, progress.update, on_frame)
        progress.close()
        _print(result, format_, quiet)
        if folder:
            from emulab.recording import record

            keep(folder, record(lab, result))
        if prompt:
            from emulab.cli import cli
            from emulab.cli import lab as running
            from emulab.control.client import Here
            from emulab.control.live import LiveLab

            running.here = Here(LiveLab(lab.cluster.topology.name, lab))
            cli.interact(running.here)
        return 0 if result.ok else 1


def _print(result: RunResult, format_: str, quiet: bool) -> None:
    if format_ == "json":
        from emulab.report import json_report

        json_report.write(result, sys.stdout)
    else:
        from emulab.report import text

        text.write(result, sys.stdout, quiet=quiet)
    sys.stdout.flush()
