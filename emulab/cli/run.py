"""`emulab run`: build a cluster, prove it, leave no trace."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from emulab.cli import guarded
from emulab.cli.options import cluster_options, design

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
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--cli", "prompt", is_flag=True, help="Drop into Mininet's prompt, pods included, before leaving.")
@click.option("-q", "--quiet", is_flag=True, help="Only the findings and the verdict.")
def command(
    topology: str,
    plugin: str,
    settings: tuple[str, ...],
    protocols: tuple[str, ...],
    families: tuple[str, ...],
    taps: str,
    pcap: str | None,
    format_: str,
    prompt: bool,
    quiet: bool,
) -> int:
    """Boot TOPOLOGY, let a plugin program it, probe every pod pair and judge every packet.

    TOPOLOGY is a name (see `emulab topologies`), a name with numbers (fleet,10,5), or a YAML file; default: flat.

    \b
    Examples:
      sudo emulab run
      sudo emulab run --plugin calico
      sudo emulab run two-racks --plugin calico --set encap=cross-subnet
      sudo emulab run fleet,10,5 --plugin weave --protocol udp --taps ends
      sudo emulab run --plugin flannel --pcap /tmp/packets
      sudo emulab run --plugin calico --cli
      sudo emulab run --format json | jq .summary

    Exit codes: 0 as expected, 1 a packet was lost or rewritten, 2 bad input, 3 this machine cannot.
    """
    started = time.perf_counter()
    wanted = design(topology, plugin, settings)
    chosen = _families(wanted.topology.families, families)

    from emulab.kernel import sandbox
    from emulab.lab import Lab, Probing

    probing = Probing(protocols=protocols or PROTOCOLS, families=chosen, taps=taps)
    timings = {"plan": time.perf_counter() - started}
    return sandbox.run(lambda: guarded(lambda: _inside(Lab(wanted, timings), probing, pcap, format_, prompt, quiet)))


def _families(offered: tuple[int, ...], asked: tuple[str, ...]) -> tuple[int, ...]:
    from emulab.errors import InputError

    wanted = tuple(sorted({int(family) for family in asked})) or offered
    for family in wanted:
        if family not in offered:
            has = " and ".join(f"IPv{family}" for family in offered)
            raise InputError(f"--family {family}: the pods of this topology have {has} only")
    return wanted


def _inside(lab: Lab, probing: Probing, pcap: str | None, format_: str, prompt: bool, quiet: bool) -> int:
    """What happens in the sandbox."""
    with ExitStack() as release:
        on_frame = None
        if pcap is not None:
            from emulab.report.pcapng import PcapngWriter

            on_frame = release.enter_context(PcapngWriter(pcap)).write
        release.enter_context(lab)
        progress = release.enter_context(_Progress())
        lab.build()
        result = lab.verify(probing, progress.update, on_frame)
        progress.close()
        _print(result, format_, quiet)
        if prompt:
            from emulab.prompt import interact

            interact(lab, lambda: _print(lab.verify(probing), "text", quiet=False))
        return 0 if result.ok else 1


def _print(result: RunResult, format_: str, quiet: bool) -> None:
    if format_ == "json":
        from emulab.report import json_report

        json_report.write(result, sys.stdout)
    else:
        from emulab.report import text

        text.write(result, sys.stdout, quiet=quiet)
    sys.stdout.flush()


class _Progress:
    """A bar on stderr once a second has passed; nothing when stderr is no terminal."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._shown = sys.stderr.isatty() and not os.environ.get("CI")
        self._release = ExitStack()
        self._bar: object = None

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._release.close()
        self._shown = False

    def update(self, done: int, total: int) -> None:
        if not self._shown or (self._bar is None and time.monotonic() - self._start < 1):
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        if self._bar is None:
            columns = (TextColumn("probing"), BarColumn(), MofNCompleteColumn(), TextColumn("flows"))
            bar = Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=5)
            self._bar = self._release.enter_context(bar)
            bar.add_task("probe", total=total)
        assert isinstance(self._bar, Progress)
        self._bar.update(self._bar.task_ids[0], completed=done, total=total)
