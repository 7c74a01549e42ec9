"""Kubernetes' words for a running lab: apply, delete, label, get, describe.  Manifests come as text and are read here.

All of it is all or nothing: one mistake, and the lab is as it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from emulab import change
from emulab.control.live import LiveLab, operation
from emulab.control.operations.changing import carry_out
from emulab.errors import InputError, nearest
from emulab.model import Topology
from emulab.planning import Design


@operation
def apply(
    live: LiveLab, texts: list[list[str]], namespace: str | None = None, ignore_unknown: bool = False, dry_run: bool = False
) -> Any:
    """Create or replace the objects of manifests, (name, text) each."""
    from emulab.kube import applying

    documents = _read(texts, namespace, ignore_unknown)
    told: list[applying.Applied] = []

    def work(design: Design) -> Design:
        before = design.topology
        design = _with_nodes(design, applying.asked_nodes(documents))
        found = applying.applied(design.topology, documents, before)
        told.append(found)
        if all(what == "unchanged" for _, what in found.results):
            return design
        return change.reshape(design, found.pods, found.objects)

    with live.turn():
        shown = carry_out(live, work, dry_run)
        found = told[-1]
        for document, (title, what) in zip(documents, found.results, strict=True):
            if not dry_run and what != "unchanged":
                live.tell(what, object=title, namespace=document.namespace)
        after = found.objects.policies
    applied = {document.key for document in documents}
    lacking = [(p, live.lab.plane.unenforced(p)) for p in after if (p.api, p.kind, p.namespace, p.name) in applied]
    warnings = [*found.warnings, *(f"{policy.kind} {policy.key}: {lacks}" for policy, lacks in lacking if lacks)]
    return {**shown, "results": [list(one) for one in found.results], "warnings": warnings}


def _read(texts: list[list[str]], namespace: str | None, ignore_unknown: bool) -> list[Any]:
    from emulab.kube import reading

    documents = []
    for one in texts:
        if len(one) != 2:
            raise InputError("texts: a name and a text each expected")
        documents += reading.read(one[1], one[0], ignore_unknown, namespace or "")
    if not documents:
        raise InputError("no objects in it", texts[0][0] if texts else None)
    return documents


def _with_nodes(design: Design, asked: Iterable[Any]) -> Design:
    """The design with the nodes that manifests ask for, and with their labels."""
    labels = {}
    for one in asked:
        name = one.node.name
        if any(node.name == name for node in design.topology.nodes):
            has = {address.ip for link in design.topology.links if link.node == name for address in link.addresses}
            if not has.issuperset(one.addresses):
                one.document.fail(("status", "addresses"), f"node {name} keeps its addresses, {', '.join(map(str, has))}")
        else:
            try:
                design = change.add_node(design, name, None, one.addresses)
            except InputError as error:
                one.document.fail((), str(error))
        leases = {lease.network for lease in design.cluster.leases_of(name)}
        if one.node.pod_cidrs and not leases.issuperset(one.node.pod_cidrs):
            one.document.fail(("spec",), f"podCIDRs: the node's are {', '.join(map(str, leases)) or 'chosen later'}")
        labels[name] = one.node.labels
    return change.relabel(design, labels) if labels else design


@operation
def delete(
    live: LiveLab,
    kind: str | None = None,
    names: list[str] | None = None,
    namespace: str | None = None,
    texts: list[list[str]] | None = None,
    ignore_not_found: bool = False,
    dry_run: bool = False,
) -> Any:
    """Delete objects by kind and names, or those that manifests (name, text) describe."""
    from emulab.kube import applying, kinds, showing

    if texts:
        wanted = [(one.kind, one.namespace, one.name) for one in _read(texts, namespace, False)]
    else:
        sort = kinds.kind(kind or "")
        wanted = [(sort, *_place(sort, name, namespace)) for name in dict.fromkeys(names or ())]
    with live.turn():
        topology = live.lab.cluster.topology
        found = []
        for sort, space, name in dict.fromkeys(wanted):
            if any(_is(value, space, name) for value in showing.values(topology, sort)):
                found.append((sort, space, name))
            elif not ignore_not_found:
                raise _not_found(topology, sort, space, name)
        nodes = [name for sort, _, name in found if (sort.api, sort.name) == ("v1", "Node")]
        keys = [(sort.api, sort.name, space, name) for sort, space, name in found if name not in nodes or sort.name != "Node"]
        warnings: list[str] = []

        def work(design: Design) -> Design:
            for node in nodes:
                design = change.remove_node(design, node)
            if not keys:
                return design
            left = applying.deleted(design.topology, keys)
            warnings.extend(left.warnings)
            return change.reshape(design, left.pods, left.objects)

        avoid = [f"{space}/{name}" for sort, space, name in found if sort.name == "Pod"]
        shown = carry_out(live, work, dry_run, avoid)
        if not dry_run:
            for sort, space, name in found:
                live.tell("deleted", object=sort.title(name), namespace=space)
    results = [[f'{_worded(sort)} "{name}"', "deleted"] for sort, _, name in found]
    return {**shown, "results": results, "warnings": warnings}


def _worded(kind: Any) -> str:
    return str(kind.title("")).rstrip("/")


def _place(kind: Any, name: str, namespace: str | None) -> tuple[str, str]:
    """(namespace, name) of an object that is called ``name`` or ``namespace/name``."""
    space, _, short = name.rpartition("/")
    if space and not kind.namespaced:
        raise InputError(f"{kind.plural} are in no namespace: '{short}' expected, got '{name}'")
    if space and namespace and space != namespace:
        raise InputError(f"'{name}' is not in namespace {namespace}")
    return (space or namespace or "default") if kind.namespaced else "", short


def _is(value: Any, namespace: str, name: str) -> bool:
    return value.name == name and getattr(value, "namespace", "") == namespace


def _not_found(topology: Topology, kind: Any, namespace: str, name: str) -> InputError:
    from emulab.kube import showing

    known = [value.name for value in showing.values(topology, kind) if getattr(value, "namespace", "") == namespace]
    close = nearest(name, known)
    what = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
    return InputError(f'{what} "{name}" not found{close if "did you mean" in close else ""}')


@operation
def label(
    live: LiveLab,
    kind: str,
    names: list[str],
    labels: dict[str, str | None],
    namespace: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Any:
    """Set labels, or take them off (null)."""
    from emulab.kube import applying, kinds

    sort = kinds.kind(kind)
    results: list[list[str]] = []

    def work(design: Design) -> Design:
        topology = design.topology
        for name in names:
            topology, what = applying.labelled(topology, sort, _place(sort, name, namespace), labels, overwrite)
            results.append([sort.title(name.rpartition("/")[2]), what])
        if topology == design.topology:
            return design
        if sort.name == "Node":
            design = change.relabel(design, {node.name: node.labels for node in topology.nodes})
        return change.reshape(design, topology.pods, topology.objects)

    with live.turn():
        shown = carry_out(live, work, dry_run)
        if not dry_run:
            for (title, what), name in zip(results, names, strict=True):
                if what != "not labeled":
                    live.tell("labeled", object=title, namespace=_place(sort, name, namespace)[0], labels=labels)
    return {**shown, "results": results, "warnings": []}


@operation
def pod_ready(live: LiveLab, names: list[str], ready: bool, dry_run: bool = False) -> Any:
    """Let pods be ready, or not: Services send nothing to those that are not."""
    with live.turn():
        topology = live.lab.cluster.topology
        pods = {*(pod.key for pod in topology.pods), *(pod.key for pod in topology.objects.host_pods)}
        keys = []
        for name in names:
            key = name if "/" in name else f"default/{name}"
            if key not in pods:
                raise InputError(f'pods "{name}" not found{nearest(name, [k.removeprefix("default/") for k in pods])}')
            keys.append(key)

        def work(design: Design) -> Design:
            chosen = tuple(replace(pod, ready=ready) if pod.key in keys else pod for pod in design.topology.pods)
            objects = design.topology.objects
            host = tuple(replace(pod, ready=ready) if pod.key in keys else pod for pod in objects.host_pods)
            return change.reshape(design, chosen, replace(objects, host_pods=host))

        shown = carry_out(live, work, dry_run)
        if not dry_run:
            for key in keys:
                live.tell("pod ready" if ready else "pod unready", pod=key)
    return shown


@operation
def kube_get(live: LiveLab, kind: str, name: str | None = None, namespace: str | None = None, selector: str | None = None) -> Any:
    """Objects of a kind as tables and as manifests: ``columns``, ``wide`` and ``items`` with ``cells`` and ``manifest``."""
    from emulab.kube import kinds, syntax
    from emulab.report import kube

    cluster = live.lab.cluster
    sort = kube.DERIVED.get(kind.lower()) or kinds.kind(kind)
    matches = syntax.typed_selector(selector) if selector else None
    found = [one for one in kube.items(cluster, sort) if namespace in (None, "", one["namespace"]) or not sort.namespaced]
    if name is not None:
        space, short = _place(sort, name, namespace)
        found = [one for one in found if (one["namespace"], one["name"]) == (space, short)]
        if not found:
            raise _not_found(cluster.topology, sort, space, short)
    if matches is not None:
        found = [one for one in found if matches.matches(one["manifest"]["metadata"].get("labels", {}))]
    usual, wide = kube.columns(sort)
    return {"plural": sort.plural, "namespaced": sort.namespaced, "columns": usual, "wide": wide, "items": found}


@operation
def describe(live: LiveLab, kind: str, name: str, namespace: str | None = None) -> Any:
    """An object in words."""
    from emulab.kube import kinds, showing
    from emulab.report import describe

    sort = kinds.kind(kind)
    space, short = _place(sort, name, namespace)
    value = next((one for one in showing.values(live.lab.cluster.topology, sort) if _is(one, space, short)), None)
    if value is None:
        raise _not_found(live.lab.cluster.topology, sort, space, short)
    return {"text": describe.text(live.lab.design, sort, value)}


@operation
def kube_names(live: LiveLab) -> Any:
    """What completion offers: names by every word for a kind."""
    from emulab.kube import kinds, showing

    topology = live.lab.cluster.topology
    found = {}
    for word, sort in kinds.known().items():
        found[word] = [
            value.name if getattr(value, "namespace", "") in ("", "default") else f"{value.namespace}/{value.name}"
            for value in showing.values(topology, sort)
        ]
    return found
