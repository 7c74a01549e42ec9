"""`emulab diagram`: a cluster as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from emulab.cli.lab import connect, lab_option
from emulab.cli.options import cluster_options, design

if TYPE_CHECKING:
    from emulab.drawing import Drawing


@click.command("diagram", short_help="A cluster as a picture: SVG, Mermaid, Graphviz.")
@cluster_options
@click.option("--format", "format_", type=click.Choice(["svg", "mermaid", "dot"]), help="Default: what FILE ends in, else svg.")
@click.option("-o", "--output", metavar="FILE", help="Write there instead of to the terminal.")
@lab_option
@click.pass_context
def command(
    context: click.Context,
    topology: str | None,
    plugin: str,
    settings: tuple[str, ...],
    files: tuple[str, ...],
    ignore_unknown: bool,
    format_: str | None,
    output: str | None,
    lab: str | None,
) -> int:
    """Draw a cluster: its nodes, pods and devices, the tunnels between nodes, the underlay and what is beyond.

    Needs no privileges and touches nothing.  With --lab it is the running lab that is drawn, as it is designed by now: its
    pods, stopped nodes, and links that are down.

    \b
    Examples:
      emulab diagram -o flat.svg
      emulab diagram --plugin calico --format mermaid
      emulab diagram two-racks --plugin calico --set encap=cross-subnet -o racks.dot
      emulab diagram fleet,10,5 --plugin weave -o fleet.svg
      emulab diagram --lab flat-flannel -o now.svg
    """
    from emulab.drawing import Drawing, draw
    from emulab.errors import InputError

    given = [name for name in ("topology", "plugin", "settings", "files") if _typed(context, name)]
    if lab is not None and given:
        raise InputError("--lab draws a running lab: TOPOLOGY, --plugin, --set and -f do not go with it")
    if lab is None:
        drawing = draw(design(topology, plugin, settings, files, ignore_unknown))
    else:
        with connect(lab) as client:
            drawing = Drawing.read(client.ask("drawing"))
    text = _rendered(drawing, format_ or _format_of(output))
    if output is None:
        click.echo(text, nl=False)
        return 0
    try:
        with open(output, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InputError(f"{output}: cannot write there: {error.strerror}") from None
    return 0


def _typed(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _format_of(output: str | None) -> str:
    ending = (output or "").rpartition(".")[2].lower()
    return {"mmd": "mermaid", "mermaid": "mermaid", "dot": "dot", "gv": "dot"}.get(ending, "svg")


def _rendered(drawing: Drawing, format_: str) -> str:
    if format_ == "mermaid":
        from emulab.report import drawing_mermaid

        return drawing_mermaid.render(drawing)
    if format_ == "dot":
        from emulab.report import drawing_dot

        return drawing_dot.render(drawing)
    from emulab.report import drawing_svg

    return drawing_svg.render(drawing)
