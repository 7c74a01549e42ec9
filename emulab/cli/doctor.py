"""`emulab doctor`: what this machine lacks, and how to get it."""

from __future__ import annotations

import click

from emulab.cli import guarded


@click.command("doctor", short_help="What this machine lacks, and how to get it.")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(format_: str) -> int:
    """Try everything that a lab needs in a scratch sandbox.

    \b
    Examples:
      emulab doctor
      sudo emulab doctor

    Exit code 0 when labs can run, 3 when something required is missing.
    """
    from emulab.errors import MachineError
    from emulab.kernel import sandbox

    try:
        return sandbox.run(lambda: guarded(lambda: _examine(format_)))
    except MachineError as error:
        click.echo(f"✗ sandbox: {error}")
        return error.exit_code


def _examine(format_: str) -> int:
    import json
    import os

    from emulab.kernel.capabilities import kernel_checks, tool_checks
    from emulab.kernel.namespaces import Namespaces

    checks = [*tool_checks(), *kernel_checks(Namespaces())]
    lacking = [check for check in checks if check.missing and check.capability.required]
    if format_ == "json":
        shown = [
            {
                "name": check.capability.name,
                "purpose": check.capability.purpose,
                "required": check.capability.required,
                "ok": not check.missing,
                "reason": check.missing,
                "advice": check.capability.advice if check.missing else None,
            }
            for check in checks
        ]
        click.echo(json.dumps({"schema": "emulab/doctor/1", "ok": not lacking, "checks": shown}, indent=2))
        return 3 if lacking else 0
    with open("/proc/self/uid_map") as mapping:
        ordinary = mapping.read().split()[1] != "0"
    who = "as an ordinary user, in a user namespace" if ordinary else "as root"
    click.echo(f"✓ sandbox          {who}, Linux {os.uname().release}")
    for check in checks:
        one = check.capability
        mark = "✓" if not check.missing else "✗" if one.required else "-"
        click.echo(f"{mark} {one.name:<16} {one.purpose}")
        if check.missing:
            click.echo(f"  {'missing' if one.required else 'missing, optional'}: {check.missing}")
            click.echo(f"  to get it: {one.advice}")
    click.echo("labs can run here" if not lacking else "labs cannot run here: see ✗ above")
    return 3 if lacking else 0
