"""What can be asked of a lab, one function per operation; docs/control.md lists them."""

from __future__ import annotations

import io
import os
import queue
import random
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from ipaddress import ip_address
from typing import Any

from emulab import change, etc_files, mending
from emulab.control.enter import KINDS
from emulab.control.live import Answer, LiveLab, descriptor, operation
from emulab.diff import Diff, diff, lines
from emulab.errors import InputError, KernelError, nearest
from emulab.etc_files import resolve
from emulab.faults import FAULTS, fault
from emulab.kernel.typed import type_lines
from emulab.model import GATEWAY, OUTSIDE_HOST, SWITCHES
from emulab.packet import Verdict
from emulab.planning import Design
from emulab.report import objects
from emulab.verification import PROTOCOLS, Probing

Emit = Callable[[dict[str, Any]], None]
_MANY = 40  # pods, from which on a diagnosis looks at the ends only
_LEAST = {4: 60, 6: 80}  # bytes: IP, ICMP or UDP, and the payload by which a probe is known


@operation
def inspect(live: LiveLab) -> Any:
    """Everything there is to know about the lab at a glance."""
    lab = live.lab
    shown = objects.lab(lab.design)
    return {"schema": "emulab/lab/1", "name": live.name, "started": live.started, "faults": len(live.faults), **shown}


@operation
def get(live: LiveLab, kind: str, name: str | None = None) -> Any:
    """A list of pods, nodes, links or routes; ``name`` is one of them, or the node whose routes are wanted."""
    found: list[dict[str, Any]] = objects.kind(live.lab, kind)
    if name is None:
        return found
    key = resolve(live.lab.cluster, name, others=False)
    return [one for one in found if key in (one["name"], one.get("node") if kind in ("routes", "links") else None)]


@operation
def names(live: LiveLab) -> Any:
    """What completion offers."""
    cluster = live.lab.cluster
    pods = [endpoint.key.removeprefix("default/") for endpoint in cluster.endpoints]
    return {"pods": pods, "nodes": [node.name for node in cluster.nodes]}


@operation
def enter(live: LiveLab, target: str) -> Answer:
    """The namespaces of a pod or node, as descriptors in the order of ``kinds``."""
    lab = live.lab
    key = resolve(lab.cluster, target)
    node = next((e.node for e in lab.cluster.endpoints if e.key == key), key)
    if key not in lab.namespaces or node not in lab.namespaces:
        raise InputError(f"node {node} is stopped (emulab node start {node})")
    mounts = lab.namespaces[node].mounts
    found = [descriptor(f"/proc/self/ns/{kind}") for kind in KINDS[:4]]
    found.append(descriptor(f"/proc/self/fd/{lab.namespaces[key].net}"))
    found.append(descriptor(f"/proc/self/fd/{mounts}" if mounts is not None else "/proc/self/ns/mnt"))
    result = {
        "name": key,
        "kinds": list(KINDS),
        "hostname": key.rpartition("/")[2],
        "files": etc_files.of(lab.cluster, key),
        "pod": "/" in key,
        "lab": live.name,
        "node": node,
    }
    return Answer(result, found)


@operation
def down(live: LiveLab) -> Any:
    """Take the lab down: the answer comes first."""
    live.tell("lab down")
    threading.Timer(0.02, live.ending.set).start()
    return {"name": live.name}


@operation
def watch(live: LiveLab, emit: Emit) -> Any:
    """Events, until the lab goes down or the caller leaves."""
    listener = live.listen()
    emit({"event": "watching", "lab": live.name})
    try:
        while True:
            try:
                event = listener.get(timeout=5)
            except queue.Empty:
                emit({"event": "alive"})  # finds out whether anybody still listens
                continue
            if event is None:
                return {}
            emit(event)
    finally:
        live.unlisten(listener)


@operation
def verify(
    live: LiveLab,
    emit: Emit,
    sources: list[str] | None = None,
    destinations: list[str] | None = None,
    protocols: list[str] | None = None,
    families: list[int] | None = None,
    port: int | None = None,
    size: int | None = None,
    count: int = 1,
    taps: str = "every",
    timeout: float = 2.0,
    report: str = "text",
    quiet: bool = False,
    columns: int | None = None,
) -> Any:
    """Probe, judge, and report: ``report`` is "text", "json" (emulab/run/1) or "probe" (emulab/probe/1)."""
    from emulab.report import json_report, probe, text

    lab = live.lab
    probing = _probing(live, sources, destinations, protocols, families, port, size, count, taps, timeout)
    with live.turn():
        result = lab.verify(probing, lambda done, total: emit({"event": "progress", "done": done, "total": total}))
    _tell_verdicts(live, result)
    page = io.StringIO()
    if report == "json":
        json_report.write(result, page)
    elif report == "probe":
        probe.write_json(result, page)
    elif report == "table":
        probe.write_text(result, page, columns)
    else:
        text.write(result, page, quiet=quiet, columns=columns)
    return {"ok": result.ok, "report": page.getvalue(), "summary": result.summary()}


def _probing(
    live: LiveLab,
    sources: list[str] | None,
    destinations: list[str] | None,
    protocols: list[str] | None,
    families: list[int] | None,
    port: int | None,
    size: int | None,
    count: int,
    taps: str,
    timeout: float,
) -> Probing:
    cluster = live.lab.cluster
    _check_probe(cluster.topology.families, protocols or [], families or [], port, size, timeout)
    if not 1 <= count <= 1000 or taps not in ("every", "ends"):
        raise InputError("count: 1 to 1000, taps: every or ends expected")
    here = [resolve(cluster, name, others=False) for name in sources] if sources else None
    there = [resolve(cluster, name) for name in destinations] if destinations else None
    for name in here or ():
        _present(live.lab.design, name)
    nodes = {node.name for node in cluster.nodes}
    if there and (wrong := nodes.intersection(there) or {GATEWAY}.intersection(there)):
        raise InputError(f"{sorted(wrong)[0]}: probes go to pods and to {OUTSIDE_HOST}; trace goes to nodes, too")
    probing = Probing(
        protocols=tuple(dict.fromkeys(protocols or PROTOCOLS)),
        families=tuple(sorted(set(families))) if families else None,
        taps=taps,
        timeout=timeout,
        sources=here,
        destinations=there,
        size=size,
        count=count,
    )
    probing = probing if port is None else replace(probing, port=port)
    return replace(probing, mtu=probing.whole)


def _check_probe(
    offered: tuple[int, ...], protocols: list[str], families: list[int], port: int | None, size: int | None, timeout: float
) -> None:
    for family in families:
        if family not in offered:
            has = " and ".join(f"IPv{one}" for one in offered)
            raise InputError(f"IPv{family}: the pods of this topology have {has} only")
    for protocol in protocols:
        if protocol not in PROTOCOLS:
            raise InputError(f"no protocol '{protocol}' (known: {', '.join(PROTOCOLS)})")
    least = _LEAST[max(families or offered)]
    if port is not None and not 1 <= port <= 65535:
        raise InputError(f"port {port}: 1 to 65535 expected")
    if size is not None and not least <= size <= 65000:
        raise InputError(f"size {size}: {least} to 65000 bytes expected")
    if not 0 < timeout <= 60:
        raise InputError(f"timeout {timeout:g}: up to 60 seconds expected")


def _present(design: Design, name: str) -> None:
    node = next((e.node for e in design.cluster.endpoints if e.key == name), name)
    if not design.topology.running(node):
        raise InputError(f"node {node} is stopped (emulab node start {node})")


def _tell_verdicts(live: LiveLab, result: Any) -> None:
    for judged in result.flows.recorded:
        flow = judged.flow
        key = f"{flow.source} {flow.destination} {flow.protocol} {flow.family}"
        before = live.verdicts.get(key)
        if before not in (None, judged.verdict.value):
            facts = {"protocol": flow.protocol, "family": flow.family, "before": before, "after": judged.verdict.value}
            live.tell("verdict changed", **{"from": flow.source, "to": flow.destination}, **facts)
        live.verdicts[key] = judged.verdict.value


@operation
def trace(
    live: LiveLab,
    source: str,
    destination: str,
    protocol: str = "icmp",
    family: int | None = None,
    port: int | None = None,
    size: int | None = None,
    timeout: float = 1.0,
    report: str = "text",
    quiet: bool = False,
    columns: int | None = None,
    pcap: bool = False,
) -> Answer:
    """One packet's whole story: ``report`` is "text", "json" (emulab/trace/1) or "mermaid"; with ``pcap`` a file beside it."""
    from emulab.probe import tracing
    from emulab.report import trace_json, trace_mermaid, trace_pcapng, trace_text

    lab = live.lab
    here, there = resolve(lab.cluster, source, others=False), resolve(lab.cluster, destination)
    _present(lab.design, here)
    _check_probe(lab.cluster.topology.families, [protocol], [family] if family else [], port, size, timeout)
    frames: list[Any] = []
    with live.turn():
        options = {"family": family, "protocol": protocol, "port": port, "size": size, "timeout": timeout}
        told = tracing.trace(lab, here, there, **options, on_frame=frames.append)  # type: ignore[arg-type]
    page = io.StringIO()
    if report == "json":
        trace_json.write(told, page)
    elif report == "mermaid":
        trace_mermaid.write(told, page)
    else:
        trace_text.write(told, page, quiet=quiet, columns=columns)
    files = []
    if pcap:
        files.append(os.memfd_create("packets"))
        trace_pcapng.write(told, frames, os.fdopen(os.dup(files[0]), "wb"))
        os.lseek(files[0], 0, os.SEEK_SET)
    return Answer({"ok": told.verdict is Verdict.DELIVERED, "report": page.getvalue()}, files)


@operation
def pod_add(
    live: LiveLab,
    name: str,
    node: str,
    addresses: list[str] | None = None,
    labels: dict[str, str] | None = None,
    dry_run: bool = False,
) -> Any:
    """Add a pod."""
    wanted = [_address(text) for text in addresses or ()]
    with live.turn():
        shown = _change(live, lambda design: change.add_pod(design, name, node, wanted, labels), dry_run)
        if not dry_run:
            key = resolve(live.lab.cluster, name)
            endpoint = next(e for e in live.lab.cluster.endpoints if e.key == key)
            shown["addresses"] = [str(address) for address in endpoint.addresses]
            live.tell("pod added", pod=key, node=node, addresses=shown["addresses"])
    return shown


@operation
def pod_rm(live: LiveLab, names: list[str], dry_run: bool = False) -> Any:
    """Remove pods, all or none."""
    with live.turn():
        keys = [_pod(live, name) for name in names]

        def without(design: Design) -> Design:
            for key in keys:
                design = change.remove_pod(design, key)
            return design

        shown = _change(live, without, dry_run)
        if not dry_run:
            for key in keys:
                live.tell("pod removed", pod=key)
    return shown


@operation
def node_add(
    live: LiveLab, name: str, segment: str | None = None, addresses: list[str] | None = None, dry_run: bool = False
) -> Any:
    """Add a node."""
    wanted = [_address(text) for text in addresses or ()]
    with live.turn():
        shown = _change(live, lambda design: change.add_node(design, name, segment, wanted), dry_run)
        if not dry_run:
            shown["addresses"] = [str(a.ip) for a in live.lab.cluster.topology.uplink(name).addresses]
            live.tell("node added", node=name, addresses=shown["addresses"])
    return shown


@operation
def node_rm(live: LiveLab, name: str, dry_run: bool = False) -> Any:
    """Remove a node and its pods."""
    return _node_change(live, name, "node removed", change.remove_node, dry_run)


@operation
def node_stop(live: LiveLab, name: str, dry_run: bool = False) -> Any:
    """Switch a node off."""
    return _node_change(live, name, "node stopped", lambda design, node: change.switch_node(design, node, False), dry_run)


@operation
def node_start(live: LiveLab, name: str, dry_run: bool = False) -> Any:
    """Switch a node on."""
    return _node_change(live, name, "node started", lambda design, node: change.switch_node(design, node, True), dry_run)


@operation
def link_set(
    live: LiveLab,
    node: str,
    up: bool | None = None,
    rate: int | None = None,
    delay: float | None = None,
    loss: float | None = None,
    dry_run: bool = False,
) -> Any:
    """Give a node's uplink another state or shape: bit/s, seconds, fraction."""
    with live.turn():
        name = _node(live, node)
        shown = _change(live, lambda d: change.set_link(d, name, up=up, rate=rate, delay=delay, loss=loss), dry_run)
        if not dry_run:
            event = "link changed" if up is None else f"link {'up' if up else 'down'}"
            live.tell(event, node=name, **objects.shape(live.lab.cluster.topology.uplink(name)))
    return shown


@operation
def partition(live: LiveLab, groups: list[list[str]], dry_run: bool = False) -> Any:
    """Part groups of nodes from each other."""
    with live.turn():
        sides = [[_node(live, name) for name in group] for group in groups]
        shown = _change(live, lambda design: change.partition(design, sides), dry_run)
        if not dry_run:
            live.tell("partition", groups=sides)
    return shown


@operation
def heal(live: LiveLab, dry_run: bool = False) -> Any:
    """Join what was parted."""
    with live.turn():
        shown = _change(live, change.heal, dry_run)
        if not dry_run:
            live.tell("healed")
    return shown


@operation
def drift(live: LiveLab) -> Any:
    """What is not as planned."""
    with live.turn():
        return _deviations(live.lab.drift())


@operation
def repair(live: LiveLab, names: list[str] | None = None, dry_run: bool = False) -> Any:
    """Put back what is not as planned, everywhere or in some nodes and pods."""
    cluster = live.lab.cluster
    wanted = [name if name == SWITCHES else resolve(cluster, name) for name in names] if names else None
    with live.turn():
        if dry_run:
            found = mending.of(live.lab.drift(), wanted)
            return {"lines": _typed(mending.mend(live.lab.design.desired, found), live.lab.design), "dry_run": True}
        mended = live.lab.repair(wanted)
        if not live.lab.drift():
            live.faults.clear()
        if mended:
            live.tell("repaired", deviations=len(mended))
    return {"mended": _deviations(mended), "dry_run": False}


def _deviations(found: list[Any]) -> list[dict[str, Any]]:
    return [
        {
            "namespace": one.namespace,
            "kind": one.kind,
            "planned": "; ".join(one.planned.lines()) if one.planned else None,
            "found": "; ".join(one.found.lines()) if one.found else None,
            "text": str(one),
        }
        for one in found
    ]


@operation
def fault_list(live: LiveLab) -> Any:
    """The library, with the places where each applies here, and what is injected, unless that is to be found out."""
    design = live.lab.design
    known = [
        {
            "name": one.name,
            "summary": one.summary,
            "symptom": one.symptom,
            "places": one.places(design.present, design.plane, design.desired),
        }
        for one in FAULTS.values()
    ]
    return {"faults": known, "injected": [one if not one["blind"] else {"blind": True} for one in live.faults]}


@operation
def fault_inject(live: LiveLab, name: str | None = None, at: str | None = None, blind: bool = False) -> Any:
    """Break the lab in a known way; without a name, or a place, any that applies."""
    with live.turn():
        design = live.lab.design
        chosen = [fault(name)] if name else list(FAULTS.values())
        where = (design.present, design.plane, design.desired)
        cases = [(one, place) for one in chosen for place in one.places(*where)]
        if at is not None:
            wanted = resolve(design.cluster, at, others=False)
            cases = [(one, place) for one, place in cases if place == wanted]
        if not cases:
            told = f" at '{at}'" if at else " here: nothing can break in this way"
            raise InputError(f"fault {name or 'of any kind'} cannot be injected{told}")
        broken, place = random.choice(cases) if blind or not name else cases[0]
        steps = broken.steps(*where, place)
        try:
            type_lines(live.lab.namespaces, steps)
        except KernelError:
            live.lab.repair()
            raise
        live.faults.append({"name": broken.name, "at": place, "blind": blind})
        live.tell("fault injected", **({} if blind else {"fault": broken.name, "at": place}))
    if blind:
        return {"blind": True}
    lines: dict[str, list[str]] = {}
    for step in steps:
        lines.setdefault(step.namespace, []).append(step.line)
    return {"name": broken.name, "at": place, "symptom": broken.symptom, "lines": lines}


@operation
def fault_clear(live: LiveLab) -> Any:
    """Undo all faults, and whatever else is not as planned; tells what they were."""
    with live.turn():
        were, live.faults[:] = list(live.faults), []
        mended = live.lab.repair()
        live.tell("faults cleared", faults=[one["name"] for one in were])
    return {"cleared": were, "mended": _deviations(mended)}


@operation
def diagnose(live: LiveLab, emit: Emit) -> Any:
    """What is wrong, in plain words, by the kernel, the plan and probes."""
    from emulab.diagnose import diagnose as conclude

    lab = live.lab
    many = len(lab.cluster.endpoints) > _MANY
    usual = Probing(protocols=("icmp", "udp"), timeout=1.0)
    probing = Probing(protocols=("udp",), taps="ends", timeout=1.0, nodes=False, outside=False) if many else usual
    with live.turn():
        deviations = lab.drift()
        result = lab.verify(probing, lambda done, total: emit({"event": "progress", "done": done, "total": total}))
        found = conclude(lab.cluster, lab.plane, lab.design.desired, deviations, result)
    _tell_verdicts(live, result)
    return [asdict(one) for one in found]


def _node_change(live: LiveLab, name: str, event: str, work: Callable[[Design, str], Design], dry_run: bool) -> Any:
    with live.turn():
        node = _node(live, name)
        shown = _change(live, lambda design: work(design, node), dry_run)
        if not dry_run:
            live.tell(event, node=node)
    return shown


def _change(live: LiveLab, work: Callable[[Design], Design], dry_run: bool) -> dict[str, Any]:
    """Plan a change, and carry it out unless it is only to be shown."""
    before = live.lab.design
    after = work(before)
    changes = diff(before.desired, after.desired) if dry_run else live.lab.change(after)
    return {"lines": _typed(changes, before, after), "dry_run": dry_run}


def _typed(changes: Diff, *designs: Design) -> dict[str, list[str]]:
    return lines(changes, {e.key: (e.node, e.pod.netns) for design in designs for e in design.cluster.endpoints})


def _address(text: str) -> Any:
    try:
        return ip_address(text)
    except ValueError:
        raise InputError(f"'{text}' is no IP address") from None


def _node(live: LiveLab, name: str) -> str:
    known = [node.name for node in live.lab.cluster.nodes]
    if name not in known:
        raise InputError(f"no node '{name}'{nearest(name, known)}")
    return name


def _pod(live: LiveLab, name: str) -> str:
    key = resolve(live.lab.cluster, name, others=False)
    if "/" not in key:
        raise InputError(f"{name} is a node: a pod expected")
    return key
