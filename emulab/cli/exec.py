"""`emulab exec`: run a command in a pod or node."""

from __future__ import annotations

import sys

import click

from emulab.cli.lab import complete_any, connect, lab_option


@click.command("exec", short_help="Run a command in a pod or node.")
@click.argument("target", metavar="POD|NODE", shell_complete=complete_any)
@click.argument("arguments", metavar="-- COMMAND [ARG]...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("-i", "--stdin", is_flag=True, help="Pass standard input on; else the command reads nothing.")
@click.option("-t", "--tty", is_flag=True, help="Give the command this terminal, with job control.")
@lab_option
def command(target: str, arguments: tuple[str, ...], stdin: bool, tty: bool, lab: str | None) -> int:
    """Run a command in the namespaces of a pod or node; no shell looks at it.

    Exit code: the command's; 128 + N if signal N ended it, 127 if there is no such command, 126 if it cannot be run.

    At ports that a pod's manifest declares, something answers already; for a server of your own at such a port, let it go first:
    emulab label pod web-1 emulab.io/responder=off

    \b
    Examples:
      emulab exec a1 -- ping -c 3 10.1.3.1
      emulab exec node-a -- ip route
      emulab exec -it a1 -- bash
      echo hello | emulab exec -i a1 -- tee /tmp/hello
    """
    if tty and not sys.stdin.isatty():
        click.echo("Unable to use a TTY - input is not a terminal", err=True)
        tty = False
    return enter(lab, target, arguments, stdin=stdin or tty, terminal=tty)


def enter(lab: str | None, target: str, arguments: tuple[str, ...], *, stdin: bool, terminal: bool) -> int:
    """Run a command there and return its exit code."""
    from emulab.control import enter as entering

    with connect(lab) as client:
        found = client.ask("enter", target=target)
        namespaces = dict(zip(found["kinds"], client.descriptors(), strict=True))
    where = entering.Target(found["name"], namespaces, found["hostname"], found["files"], found["pod"])
    prompt = f"{found['hostname']} ({found['lab']}):\\w\\$ "
    env = {"EMULAB_LAB": found["lab"], "EMULAB_NODE": found["node"], "PS1": prompt, "HOSTNAME": found["hostname"]}
    return entering.run(where, arguments, stdin=stdin, terminal=terminal, env=env)
