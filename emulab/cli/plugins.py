"""`emulab plugins`: the data planes and their options."""

from __future__ import annotations

import click


@click.command("plugins", short_help="The data planes and their options.")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(format_: str) -> int:
    """List the data planes with their options and defaults.

    \b
    Examples:
      emulab plugins
      emulab run --plugin flannel --set vni=7 --set direct_routing=true
    """
    import json
    from dataclasses import fields

    from emulab import registry

    found = [(name, text, fields(registry.plugin(name))) for name, text in registry.plugins().items()]
    if format_ == "json":
        shown = [{"name": n, "summary": t, "options": registry.plugin(n)().options()} for n, t, _ in found]
        click.echo(json.dumps({"schema": "emulab/plugins/1", "plugins": shown}, indent=2))
        return 0
    for name, text, options in found:
        click.echo(f"{name:<10} {text}")
        if options:
            click.echo(" " * 11 + "--set " + ", ".join(f"{o.name}={_show(o.default)}" for o in options))
    return 0


def _show(value: object) -> str:
    return "auto" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
