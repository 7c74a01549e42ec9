"""`emulab topologies`: the catalogue."""

from __future__ import annotations

import click


@click.command("topologies", short_help="The catalogue of clusters.")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(format_: str) -> int:
    """List the topologies by name; a path to a YAML file works like a name.

    \b
    Examples:
      emulab topologies
      emulab run fleet,10,5 --plugin calico
      emulab run ./mine.yaml
    """
    import json

    from emulab import registry

    found = registry.topologies()
    if format_ == "json":
        shown = [{"name": name, "summary": text} for name, text in found.items()]
        click.echo(json.dumps({"schema": "emulab/topologies/1", "topologies": shown}, indent=2))
        return 0
    for name, text in found.items():
        click.echo(f"{name:<14} {text}")
    return 0
