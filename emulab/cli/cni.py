"""`emulab cni`: the Container Network Interface."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
import tempfile
from pathlib import Path

import click

from emulab.cli import guarded
from emulab.cli.lab import complete_pod, connect, dump, lab_argument
from emulab.errors import InputError, MachineError


@click.group("cni", short_help="The Container Network Interface: see plugins at work, test one, be one.")
def command() -> None:
    """What the Container Network Interface is about.

    \b
    Examples:
      emulab cni log --pod a1
      emulab cni conformance ./myplugin --conf 10-mynet.conflist
      emulab cni install /opt/cni/bin
    """


@command.command("log")
@lab_argument
@click.option("--pod", metavar="POD", shell_complete=complete_pod, help="This pod's calls only.")
@click.option("-o", "--output", type=click.Choice(["json"]), help="JSON instead of text.")
def log(lab: str | None, pod: str | None, output: str | None) -> int:
    """Show how the pods of a running lab were attached: each call of a plugin with environment, stdin, stdout and stderr.

    They are in the order in which the kubelet and its container runtime cause them.  Built-in data planes run no plugins: for
    them the calls are shown that the real ones would get, marked as equivalent.

    \b
    Examples:
      emulab cni log
      emulab cni log --pod a1
      emulab cni log --pod a1 -o json
    """
    with connect(lab) as client:
        found = client.ask("cni_log", pod=pod)
    if output == "json":
        dump(found, "json")
    else:
        from emulab.report import cni_log

        cni_log.write(found, sys.stdout)
    return 0


@command.command("install")
@click.argument("folder", metavar="DIR", type=click.Path())
def install(folder: str) -> int:
    """Put a link to the plugin `emulab-cni` into DIR, by the name `emulab`: that is its type in configurations.

    With it, container runtimes attach containers to a node of a running lab: {"type": "emulab", "lab": "flat-calico", "node":
    "node-a"} in a network of theirs.

    \b
    Examples:
      emulab cni install /opt/cni/bin
    """
    plugin, where = Path(sysconfig.get_path("scripts"), "emulab-cni"), Path(folder)
    if not plugin.exists():
        raise MachineError(f"{plugin}: there is no such file: emulab is not installed as a package")
    if not where.is_dir():
        raise InputError(f"{folder}: a folder expected")
    link = where / "emulab"
    if os.path.lexists(link) and not (link.is_symlink() and link.readlink().name == plugin.name):
        raise InputError(f"{link}: there is something else already")
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(plugin)
    except OSError as error:
        raise InputError(f"{link}: {error.strerror}") from None
    click.echo(f"{link} -> {plugin}")
    return 0


@command.command("conformance")
@click.argument("binary", metavar="BIN", type=click.Path())
@click.option("--conf", required=True, metavar="FILE", help="A network that names the plugin: .conflist, .conf or .json.")
@click.option("--path", "folders", multiple=True, metavar="DIR", help="Other plugins are here (CNI_PATH), too; repeatable.")
@click.option("--only", "names", multiple=True, metavar="CHECK", help="This check only; repeatable.")
@click.option("--junit", metavar="FILE", type=click.Path(), help="Write JUnit XML.")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
def conformance(binary: str, conf: str, folders: tuple[str, ...], names: tuple[str, ...], junit: str | None, format_: str) -> int:
    """Drive a plugin through the CNI specification, in a sandbox of its own, and tell where it leaves it.

    BIN is the plugin's executable, FILE a network in which its name is a plugin's type: that of an interface plugin, of one
    that comes later in a chain (those before it are run as well; a pair of interfaces stands for them where there are none),
    or of one for address management (`ipam`).  Nothing of it all remains on this machine.

    \b
    Examples:
      emulab cni conformance ./myplugin --conf 10-mynet.conflist
      emulab cni conformance /usr/lib/cni/portmap --conf chain.conflist --junit report.xml
      emulab cni conformance ./myplugin --conf mynet.conf --only del-twice --only del-no-netns
      emulab cni conformance ./myplugin --conf mynet.conf --format json | jq .summary

    Exit codes: 0 it conforms, 1 a check failed, 2 bad input, 3 this machine cannot.
    """
    from emulab.cni import files
    from emulab.conformance import running
    from emulab.conformance.verdict import Report
    from emulab.control import places
    from emulab.kernel import sandbox
    from emulab.report import conformance as shown
    from emulab.report import junit as xml

    plugin = Path(binary).absolute()
    wanted = running.subject(plugin, files.load(Path(conf)))
    checks = running.chosen(names)
    for folder in folders:
        if not Path(folder).is_dir():
            raise InputError(f"--path {folder}: a folder expected")
    where = running.folders(plugin, [Path(folder).absolute() for folder in folders])
    labs = [folder for folder in (places.home(),) if folder.is_dir()]  # `emulab-cni` is a plugin, too
    with tempfile.TemporaryFile("w+") as written:

        def inside() -> int:
            json.dump(running.run(wanted, conf, where, checks, kept=labs).show(), written)
            written.flush()
            return 0

        code = sandbox.run(lambda: guarded(inside))
        if code:
            return code
        written.seek(0)
        report = Report.read(json.load(written))
    if junit is not None:
        try:
            with open(junit, "w", encoding="utf-8") as file:
                xml.write(shown.suites(report), file)
        except OSError as error:
            raise InputError(f"--junit {junit}: {error.strerror}") from None
    (shown.write_json if format_ == "json" else shown.write_text)(report, sys.stdout)
    return 0 if report.ok else 1
