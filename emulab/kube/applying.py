"""What follows from objects that are applied, deleted or labelled: the next pods, objects and nodes of a topology.  Pure.

All or nothing: the first mistake raises `InputError`, and whoever asked still has the topology that was.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from emulab.errors import InputError, nearest
from emulab.kube import showing, syntax
from emulab.kube.allocation import Allocator
from emulab.kube.document import Document, Kind
from emulab.kube.nodes import AskedNode, joined
from emulab.kube.nodes import topology as topology_of
from emulab.kube.placing import on_a_node, with_pods
from emulab.kube.pods import Asked
from emulab.kube.services import CONTROLLER, MANAGED_BY, SERVICE_NAME
from emulab.kube.system import SYSTEM_NAMESPACES, converged, namespaces
from emulab.model import Node, Pod, Topology
from emulab.objects import EndpointSlice, HostPod, Namespace, Objects, Policy, Service, Tier, Workload


class Applied(NamedTuple):
    """The next pods and objects; ``nodes`` as they were asked for; ``results``: (title, what became of it); ``warnings``."""

    pods: tuple[Pod, ...]
    objects: Objects
    nodes: tuple[AskedNode, ...] = ()
    results: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


def asked_nodes(documents: Sequence[Document]) -> list[AskedNode]:
    """The nodes among the documents."""
    return [one.kind.convert(one) for one in documents if (one.kind.api, one.kind.name) == ("v1", "Node")]


def applied(topology: Topology, documents: Sequence[Document], was: Topology | None = None) -> Applied:
    """Create or replace the objects of ``documents``.  Raises `InputError` with the place of the first mistake.

    Nodes that come with the documents must be in ``topology`` already: `AskedNode` says how they are wanted.  ``was`` is the
    topology without them.
    """
    _once(documents)
    _check_namespaces(topology, documents)
    values = [(document, document.kind.convert(document)) for document in documents if not _of_a_controller(document)]
    before = was or topology
    topology = relabelled(topology, {value.node.name: value.node.labels for _, value in values if isinstance(value, AskedNode)})
    for document, value in values:
        if not isinstance(value, (Asked, AskedNode, Namespace, Workload, Policy, Tier, EndpointSlice, Service)):
            document.fail((), f"{type(value).__name__}: nothing that can be applied")
        if isinstance(value, Workload) and value.template.node_name:
            on_a_node(topology, document, ("spec", "template", "spec", "nodeName"), value.template.node_name)
    plain = [value for _, value in values if not isinstance(value, (Asked, AskedNode, Service))]
    topology = replace(topology, objects=_with(topology.objects, plain))
    topology = _services(topology, [(document, value) for document, value in values if isinstance(value, Service)])
    topology = with_pods(topology, [value for _, value in values if isinstance(value, Asked)])
    placed = converged(topology)
    after = replace(topology, pods=placed.pods, objects=placed.objects)
    were, are = _Shown(before), _Shown(after)
    results = tuple((document.kind.title(document.name), _outcome(were, are, document)) for document in documents)
    told = tuple(dict.fromkeys(line for document in documents for line in document.warnings))
    nodes = tuple(value for _, value in values if isinstance(value, AskedNode))
    return Applied(after.pods, after.objects, nodes, results, (*told, *placed.missing))


def begun(usual: Topology, documents: Sequence[Document], named: bool) -> tuple[Topology, tuple[str, ...]]:
    """A topology with the objects of ``documents`` in it, and the warnings.

    ``usual`` is the one that the user ``named``: its nodes and pods stay, nodes of the documents join.  When none was named
    its nodes stay, unless the documents have nodes of their own, and its pods do not.
    """
    asked = asked_nodes(documents)
    if named:
        there = {node.name for node in usual.nodes}
        for one in asked:
            usual = usual if one.node.name in there else joined(usual, one)
    elif asked:
        _once(documents)
        usual = topology_of(asked, usual)
    else:
        usual = replace(usual, pods=())
    found = applied(usual, documents)
    topology = relabelled(usual, {one.node.name: one.node.labels for one in found.nodes})
    return replace(topology, pods=found.pods, objects=found.objects), found.warnings


def relabelled(topology: Topology, labels: dict[str, tuple[tuple[str, str], ...]]) -> Topology:
    """The topology with other labels on some nodes."""
    if not labels:
        return topology
    nodes = tuple(replace(node, labels=labels.get(node.name, node.labels)) for node in topology.nodes)
    return replace(topology, nodes=nodes)


def _once(documents: Iterable[Document]) -> None:
    seen: dict[tuple[str, str, str, str], Document] = {}
    for document in documents:
        if document.key in seen:
            first = seen[document.key]
            document.fail((), f"the same object is in {first.raw.file}:{first.raw.line(first.trail)}")
        seen[document.key] = document


def _check_namespaces(topology: Topology, documents: Iterable[Document]) -> None:
    known = {*namespaces(topology), *(one.name for one in documents if one.kind.api == "v1" and one.kind.name == "Namespace")}
    for document in documents:
        if document.kind.namespaced and document.namespace not in known:
            document.fail(
                ("metadata", "namespace"), f'namespaces "{document.namespace}" not found{_near(document.namespace, known)}'
            )


def _near(name: str, known: Iterable[str]) -> str:
    hint = nearest(name, known)
    return hint if "did you mean" in hint else ""


_PLACES: tuple[tuple[type, str], ...] = (
    (Namespace, "namespaces"),
    (Workload, "workloads"),
    (HostPod, "host_pods"),
    (Service, "services"),
    (EndpointSlice, "slices"),
    (Policy, "policies"),
    (Tier, "tiers"),
)


def identity(value: Any) -> tuple[str, ...]:
    """What makes an object that object, among those of its type."""
    api, kind = getattr(value, "api", ""), getattr(value, "kind", "") if isinstance(value, (Workload, Policy)) else ""
    return api, kind, getattr(value, "namespace", ""), value.name


def _with(objects: Objects, values: Iterable[Any]) -> Objects:
    """The objects with more of them, those that were there replaced in their places."""
    found: dict[str, dict[tuple[str, ...], Any]] = {}
    for value in values:
        field = next(name for kind, name in _PLACES if isinstance(value, kind))
        if field not in found:
            found[field] = {identity(one): one for one in getattr(objects, field)}
        found[field][identity(value)] = value
    return replace(objects, **{field: tuple(ones.values()) for field, ones in found.items()})


def _services(topology: Topology, asked: Sequence[tuple[Document, Service]]) -> Topology:
    """Services with everything allocated: first those who ask for something, so that nobody else takes it."""
    if not asked:
        return topology
    before = {one.key: one for one in topology.objects.services}
    allocator = Allocator(topology, before.values())
    allocated: dict[str, Service] = {}
    for document, value in sorted(asked, key=lambda pair: not _demanding(pair[1])):
        allocated[value.key] = allocator.allocate(document, value, before.get(value.key))
    new = [allocated[value.key] for _, value in asked if value.key not in before]
    services = tuple(allocated.get(key, one) for key, one in before.items())
    return replace(topology, objects=replace(topology.objects, services=(*services, *new)))


def _demanding(value: Service) -> bool:
    fixed = bool(value.addresses) or any(port.node_port for port in value.ports)
    return fixed or bool(value.manifest.get("spec", {}).get("loadBalancerIP"))


class _Shown:
    """A topology's objects as somebody sees them who looks; a kind is listed once."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._kinds: dict[tuple[str, str], dict[tuple[str, str], Any]] = {}

    def find(self, document: Document) -> dict[str, Any] | None:
        kind = document.kind
        if (kind.api, kind.name) not in self._kinds:
            values = showing.values(self._topology, kind)
            self._kinds[kind.api, kind.name] = {(getattr(one, "namespace", ""), one.name): one for one in values}
        value = self._kinds[kind.api, kind.name].get((document.namespace, document.name))
        return None if value is None else showing.wanted(showing.shown(kind, value))


def _of_a_controller(document: Document) -> bool:
    """Whether it is an EndpointSlice that a controller made for a selector: it follows by itself."""
    return document.kind.name == "EndpointSlice" and dict(document.labels).get(MANAGED_BY) == CONTROLLER


def _outcome(were: _Shown, are: _Shown, document: Document) -> str:
    if _of_a_controller(document):
        return "unchanged"
    old = were.find(document)
    return "created" if old is None else "unchanged" if old == are.find(document) else "configured"


def deleted(topology: Topology, keys: Collection[tuple[str, str, str, str]]) -> Applied:
    """Without those objects, (api, kind, namespace, name) each, and what goes with them: a namespace takes all that is in it."""
    gone = {(kind, namespace, name) for _, kind, namespace, name in keys}
    apis = {(api, kind, namespace, name) for api, kind, namespace, name in keys}
    spaces = {name for kind, _, name in gone if kind == "Namespace"}
    for name in sorted(spaces.intersection(SYSTEM_NAMESPACES)):
        raise InputError(f'namespaces "{name}" is forbidden: this namespace may not be deleted')
    objects = topology.objects

    def stays(kind: str, one: Any) -> bool:
        return one.namespace not in spaces and (kind, one.namespace, one.name) not in gone

    pods = tuple(pod for pod in topology.pods if stays("Pod", pod))
    objects = replace(
        objects,
        namespaces=tuple(one for one in objects.namespaces if one.name not in spaces),
        workloads=tuple(one for one in objects.workloads if stays(one.kind, one)),
        host_pods=tuple(one for one in objects.host_pods if stays("Pod", one)),
        services=tuple(one for one in objects.services if stays("Service", one)),
        slices=tuple(one for one in objects.slices if stays("EndpointSlice", one)),
        policies=tuple(
            one
            for one in objects.policies
            if one.namespace not in spaces and (one.api, one.kind, one.namespace, one.name) not in apis
        ),
        tiers=tuple(one for one in objects.tiers if ("Tier", "", one.name) not in gone),
    )
    avoid = {f"{namespace}/{name}" for kind, namespace, name in gone if kind == "Pod"}
    placed = converged(replace(topology, pods=pods, objects=objects), avoid)
    return Applied(placed.pods, placed.objects, warnings=placed.missing)


def labelled(
    topology: Topology, kind: Kind, place: tuple[str, str], labels: Mapping[str, str | None], overwrite: bool
) -> tuple[Topology, str]:
    """With other labels on one object, (namespace, name), and "labeled", "unlabeled" or "not labeled"; None takes one off.

    Raises `InputError` when there is no such object, and, as kubectl does, for a label that has another value, unless it may
    ``overwrite`` it.
    """
    namespace, name = place
    there = [one for one in showing.values(topology, kind) if getattr(one, "namespace", "") == namespace]
    value = next((one for one in there if one.name == name), None)
    if value is None:
        raise InputError(f'{kind.plural} "{name}" not found{_near(name, [one.name for one in there])}')
    had = dict(value.labels)
    for key, text in labels.items():
        if not syntax.is_key(key) or not syntax.is_value(text or ""):
            raise InputError(f"{key}={text}: no label, e.g. app=web expected")
        if text is not None and had.get(key, text) != text and not overwrite:
            raise InputError(f"'{key}' already has a value ({had[key]}), and --overwrite is false")
    new = {key: text for key, text in {**had, **labels}.items() if text is not None}
    if new == had:
        return topology, "not labeled"
    changed = replace(value, labels=tuple(sorted(new.items())))
    what = "labeled" if any(text is not None for text in labels.values()) else "unlabeled"
    if isinstance(value, EndpointSlice):
        changed = replace(changed, service=new.get(SERVICE_NAME, ""))
    if isinstance(value, Node):
        return relabelled(topology, {name: changed.labels}), what
    if isinstance(value, Pod):
        return replace(topology, pods=tuple(changed if pod.key == value.key else pod for pod in topology.pods)), what
    return replace(topology, objects=_with(topology.objects, [changed])), what
