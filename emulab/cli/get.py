"""`emulab get`: the objects of a lab."""

from __future__ import annotations

from typing import Any

import click

from emulab.cli.kube import complete_object, kind_argument
from emulab.cli.lab import connect, dump, lab_option, output_option, table
from emulab.errors import InputError

_OURS = {"pods": "pods", "pod": "pods", "po": "pods", "nodes": "nodes", "node": "nodes", "no": "nodes"}
_OURS |= {"links": "links", "link": "links", "routes": "routes", "route": "routes"}
_COLUMNS = {
    "pods": (("NAME", "STATUS", "IP", "NODE"), ("READY", "MAC", "INTERFACE", "LABELS")),
    "nodes": (("NAME", "STATUS", "IP", "POD-CIDRS", "PODS"), ("SEGMENT",)),
    "links": (("NAME", "STATUS", "SEGMENT", "MTU", "SHAPE"), ()),
    "routes": (("NODE", "DESTINATION", "VIA", "DEVICE"), ("PROTOCOL", "TYPE", "FLAGS")),
}


@click.command("get", short_help="List pods, nodes, links, routes, and Kubernetes objects.")
@kind_argument
@click.argument("name", required=False, shell_complete=complete_object)
@click.option("-n", "--namespace", metavar="NS", help="What is in this namespace only; default: all, default's by bare names.")
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Everything, with a column NAMESPACE.")
@click.option("--selector", metavar="S", help="What has these labels only: app=web,tier!=db.")
@output_option
@lab_option
def command(
    kind: str,
    name: str | None,
    namespace: str | None,
    everywhere: bool,
    selector: str | None,
    output: str | None,
    lab: str | None,
) -> int:
    """List objects of a KIND; NAME is one of them, or the node whose links or routes are wanted.

    KIND is pods, nodes, links, routes, namespaces, deployments, daemonsets, services, endpoints, endpointslices or
    networkpolicies, or kubectl's short form.  -o yaml writes manifests that `emulab apply` takes; so does -o json, but for
    pods and nodes, of which it has what docs/json.md says.

    \b
    Examples:
      emulab get pods
      emulab get pods -o wide
      emulab get nodes -o json
      emulab get routes node-a
      emulab get svc -n shop
      emulab get svc,ep,netpol -A
      emulab get deploy web -o yaml
    """
    if "," in kind:
        if name is not None or output in ("json", "yaml"):
            raise InputError(f"{kind}: several kinds are listed as tables only, without a name")
        for place, one in enumerate(kind.split(",")):
            if place and output != "name":
                click.echo()
            _get(one, name, namespace, everywhere, selector, output, lab)
        return 0
    return _get(kind, name, namespace, everywhere, selector, output, lab)


def _get(
    kind: str,
    name: str | None,
    namespace: str | None,
    everywhere: bool,
    selector: str | None,
    output: str | None,
    lab: str | None,
) -> int:
    """One kind."""
    ours = _OURS.get(kind.lower())
    space = None if everywhere else namespace
    with connect(lab) as client:
        if ours is None or (output == "yaml" and ours in ("pods", "nodes")) or (selector and ours not in ("links", "routes")):
            answer = client.ask("kube_get", kind=kind, name=name, namespace=space, selector=selector)
            return _kubernetes(answer, output, name, bool(namespace), everywhere)
        found = client.ask("get", kind=ours, name=name)
    if ours == "pods" and space:
        found = [one for one in found if one["namespace"] == space]
    if output in ("json", "yaml"):
        dump({"kind": "List", "items": found}, output)
    elif output == "name":
        for one in found:
            click.echo(f"{ours[:-1]}/{one['name']}")
    elif found:
        show(ours, found, wide=output == "wide", bare=bool(namespace) or everywhere, everywhere=everywhere and ours == "pods")
    else:
        click.echo(f"no {ours} found", err=True)
    return 0


def _kubernetes(answer: dict[str, Any], output: str | None, name: str | None, bare: bool, everywhere: bool) -> int:
    """What the lab says of a kind, as kubectl would print it."""
    items, namespaced = answer["items"], answer["namespaced"]
    if output in ("json", "yaml"):
        shown = [one["manifest"] for one in items]
        dump(shown[0] if name is not None else {"apiVersion": "v1", "kind": "List", "items": shown}, output)
        return 0
    if output == "name":
        for one in items:
            click.echo(f"{one['title']}")
        return 0
    if not items:
        click.echo(f"no {answer['plural']} found", err=True)
        return 0
    headings = [*answer["columns"], *(answer["wide"] if output == "wide" else [])]
    rows = [[one["cells"][heading] for heading in headings] for one in items]
    if namespaced and everywhere:
        headings = ["NAMESPACE", *headings]
        rows = [[one["namespace"], *row] for one, row in zip(items, rows, strict=True)]
    elif namespaced and not bare:
        rows = [[_named(one), *row[1:]] for one, row in zip(items, rows, strict=True)]
    table(headings, rows)
    return 0


def _named(one: dict[str, Any]) -> str:
    return str(one["name"] if one["namespace"] == "default" else f"{one['namespace']}/{one['name']}")


def show(kind: str, found: list[dict[str, Any]], wide: bool, bare: bool = False, everywhere: bool = False) -> None:
    """A table of objects."""
    usual, more = _COLUMNS[kind]
    headings = [*usual, *(more if wide else ())]
    rows = [[_cell(one, heading) for heading in headings] for one in found]
    if bare and kind == "pods":
        rows = [[str(one["name"]).rpartition("/")[2], *row[1:]] for one, row in zip(found, rows, strict=True)]
    if everywhere:
        headings = ["NAMESPACE", *headings]
        rows = [[one["namespace"], *row] for one, row in zip(found, rows, strict=True)]
    table(headings, rows)


def _rate(bits: int) -> str:
    """As tc(8) takes it: 10mbit."""
    for unit, size in (("gbit", 10**9), ("mbit", 10**6), ("kbit", 10**3)):
        if bits % size == 0:
            return f"{bits // size}{unit}"
    return f"{bits}bit"


def _cell(one: dict[str, Any], heading: str) -> str:
    if heading == "NAME":
        return str(one["name"]).removeprefix("default/")
    if heading == "STATUS" and one.get("ready") is False and one["status"] == "Running":
        return "NotReady"
    if heading == "READY":
        return f"{int(one['ready'])}/1"
    if heading == "SHAPE":
        rate, delay, loss = one["rate"], one["delay"], one["loss"]
        shown = [_rate(rate) if rate else "", f"{delay * 1e3:g} ms" if delay else "", f"{loss:.0%} loss" if loss else ""]
        return ", ".join(filter(None, shown)) or "-"
    value = one[{"IP": "addresses", "POD-CIDRS": "pod_cidrs"}.get(heading, heading.lower())]
    if isinstance(value, dict):
        value = [f"{key}={text}" for key, text in value.items()]
    return ",".join(map(str, value)) or "-" if isinstance(value, list) else "-" if value is None else str(value)
