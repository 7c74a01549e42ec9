"""`emulab compare`: the same cluster, the same probes, one column per data plane."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, TextIO

import click
from click.shell_completion import CompletionItem

from emulab.cli.options import DEFAULT_TOPOLOGY, complete_plugin, complete_topology

if TYPE_CHECKING:
    from emulab.comparing import Plane
    from emulab.model import Topology

DEFAULT = ("flannel", "calico", "weave")
FORMATS = ("text", "json", "csv", "html")


def _complete_column(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [] if ":" in incomplete else complete_plugin(context, parameter, incomplete)


@click.command("compare", short_help="Data planes side by side, measured: cost, growth, speed, failures.")
@click.argument("columns", nargs=-1, metavar="[PLUGIN[:K=V,...]]...", shell_complete=_complete_column)
@click.option(
    "-t",
    "--topology",
    default=DEFAULT_TOPOLOGY,
    show_default=True,
    metavar="T",
    shell_complete=complete_topology,
    help="The cluster that all of them get: a name, a name with numbers, or a YAML file.",
)
@click.option("--format", "format_", type=click.Choice(FORMATS), help="Default: what FILE's ending says, else text.")
@click.option("-o", "--output", metavar="FILE", type=click.Path(), help="Write there instead of printing.")
@click.option("--quick", is_flag=True, help="One build each, fewer exchanges, no throughput.")
@click.option("-q", "--quiet", is_flag=True, help="Only what follows from the figures, not the table.")
def command(columns: tuple[str, ...], topology: str, format_: str | None, output: str | None, quick: bool, quiet: bool) -> int:
    """Measure data planes on the same cluster with the same probes; default: flannel, calico and weave.

    Each column is a PLUGIN, or a PLUGIN with options after a colon, in a lab of its own that leaves nothing behind.  Measured
    are what is around a packet and what that costs, MTU, hops, what each node holds and how that grows with pods and nodes,
    times, policies, and what happens when a node dies or a link is cut.

    \b
    Examples:
      sudo emulab compare
      sudo emulab compare calico calico:encap=vxlan flannel flannel:backend=host-gw
      sudo emulab compare --topology two-racks calico:encap=cross-subnet flannel
      sudo emulab compare --topology fleet,5,4 --quick
      sudo emulab compare -o choice.html
      sudo emulab compare --format json | jq -r .advice[]

    Exit codes: 0 all columns measured, 1 some could not be, 2 bad input, 3 this machine cannot.
    """
    from emulab import registry

    wanted = registry.topology(topology)
    planes = [_plane(name, wanted) for name in _distinct(columns or DEFAULT)]
    if all(plane.design is None for plane in planes):
        from emulab.errors import InputError

        raise InputError("; ".join(f"{plane.name}: {plane.refused}" for plane in planes))
    with ExitStack() as release:
        out = release.enter_context(_opened(output)) if output else sys.stdout
        return _measure(wanted, planes, quick, quiet, _format(format_, output), out)


def _distinct(columns: tuple[str, ...]) -> tuple[str, ...]:
    from emulab.errors import InputError

    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice:
        raise InputError(f"{twice} is named twice: every column once")
    if len(columns) < 2:
        raise InputError(f"{columns[0]} alone: nothing to compare it with; name another plugin, or the same with other options")
    return columns


def _plane(name: str, topology: Topology) -> Plane:
    """A column.  A mistake in it is everybody's business; what the plugin refuses about the topology is its own."""
    from emulab import registry
    from emulab.comparing import Plane
    from emulab.errors import InputError, PluginError
    from emulab.planning import design

    plugin, _, settings = name.partition(":")
    if plugin.partition(",")[0] in registry.topologies():
        raise InputError(f"{name} is a topology, not a plugin: --topology {name}")
    kind = registry.plugin(plugin)
    try:
        plane = registry.options(kind, [setting for setting in settings.split(",") if setting])
    except InputError as error:
        raise InputError(f"{name}: {str(error).removeprefix('--set ')}") from None
    options = plane.options()
    try:
        return Plane(name, plugin, options, design(topology, plane))
    except PluginError:
        raise
    except InputError as error:
        refused = str(error)
    try:
        design(registry.topology(DEFAULT_TOPOLOGY), plane)
    except InputError as error:  # no topology would do: it is the options
        raise InputError(f"{name}: {str(error).removeprefix(f'{plugin}: ')}") from None
    return Plane(name, plugin, options, None, refused.removeprefix(f"{plugin}: "))


def _opened(path: str) -> TextIO:
    from emulab.errors import InputError

    try:
        return open(path, "w", encoding="utf-8", newline="")
    except OSError as error:
        raise InputError(f"--output {path}: cannot write there: {error.strerror}") from None


def _format(format_: str | None, output: str | None) -> str:
    ending = (output or "").rpartition(".")[2]
    return format_ or (ending if ending in FORMATS else "text")


def _measure(topology: Topology, planes: list[Plane], quick: bool, quiet: bool, format_: str, out: TextIO) -> int:
    from emulab.cli.progress import Progress
    from emulab.comparing import compare

    with Progress("comparing", "steps", forking=True) as progress:
        found = compare(topology, planes, quick, progress.update)
    if format_ == "json":
        from emulab.report import comparison_json

        comparison_json.write(found, out)
    elif format_ == "csv":
        from emulab.report import comparison_csv

        comparison_csv.write(found, out)
    elif format_ == "html":
        from emulab.report import comparison_html

        comparison_html.write(found, out)
    else:
        from emulab.report import comparison_text

        comparison_text.write(found, out, quiet=quiet)
    out.flush()
    return 0 if found.complete else 1
