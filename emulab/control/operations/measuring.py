"""To measure a lab: probes, a trace, a diagnosis."""

from __future__ import annotations

import io
import os
from dataclasses import asdict, replace
from typing import Any

from emulab import services
from emulab.control.live import Answer, Emit, LiveLab, operation, progress
from emulab.errors import InputError
from emulab.etc_files import resolve
from emulab.model import GATEWAY, OUTSIDE_HOST
from emulab.packet import Kind, Verdict
from emulab.planning import Design
from emulab.verification import PROTOCOLS, Probing

_MANY = 40  # pods, from which on a diagnosis looks at the ends only
_LEAST = {4: 60, 6: 80}  # bytes: IP, ICMP or UDP, and the payload by which a probe is known


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
    document: bool = False,
) -> Any:
    """Probe, judge, and report: ``report`` is "text", "json" (emulab/run/1) or "probe" (emulab/probe/1).

    With ``document`` flows of interest are traced, too, and the answer has it all as ``document`` (emulab/report/1).
    """
    from emulab.recording import record
    from emulab.report import json_report, probe, text

    lab = live.lab
    probing = probing_of(live, sources, destinations, protocols, families, port, size, count, taps, timeout)
    with live.turn():
        result = lab.verify(probing, progress(emit))
        recorded = {"document": record(lab, result)} if document else {}
    tell_verdicts(live, result)
    page = io.StringIO()
    if report == "json":
        json_report.write(result, page)
    elif report == "probe":
        probe.write_json(result, page)
    elif report == "table":
        probe.write_text(result, page, columns)
    else:
        text.write(result, page, quiet=quiet, columns=columns)
    return {"ok": result.ok, "report": page.getvalue(), "summary": result.summary(), **recorded}


def probing_of(
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
    check_probe(cluster.topology.families, protocols or [], families or [], port, size, timeout)
    if not 1 <= count <= 1000 or taps not in ("every", "ends"):
        raise InputError("count: 1 to 1000, taps: every or ends expected")
    here = [OUTSIDE_HOST if name == OUTSIDE_HOST else resolve(cluster, name, others=False) for name in sources or ()] or None
    there = [services.find(cluster, name) or resolve(cluster, name) for name in destinations] if destinations else None
    for name in here or ():
        present(live.lab.design, name)
    if here and OUTSIDE_HOST in here and not (there and all(name.startswith(services.PREFIX) for name in there)):
        raise InputError(f"{OUTSIDE_HOST} sends to Services only: name them by --to svc/NAME")
    nodes = {node.name for node in cluster.nodes}
    if there and (wrong := nodes.intersection(there) or {GATEWAY}.intersection(there)):
        raise InputError(f"{sorted(wrong)[0]}: probes go to pods, Services and {OUTSIDE_HOST}; trace goes to nodes, too")
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


def check_probe(
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
    check_timeout(timeout)


def check_timeout(timeout: float) -> None:
    if not 0 < timeout <= 60:
        raise InputError(f"timeout {timeout:g}: up to 60 seconds expected")


def tell_verdicts(live: LiveLab, result: Any) -> None:
    for judged in result.flows.recorded:
        flow = judged.flow
        key = f"{flow.source} {flow.destination} {flow.protocol} {flow.family}"
        if flow.kind is Kind.SERVICE:  # which has several addresses and ports
            key += f" {flow.destination_address.hex()} {flow.dport}"
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
    protocol: str | None = None,
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
    here = OUTSIDE_HOST if source == OUTSIDE_HOST else resolve(lab.cluster, source, others=False)
    there = services.find(lab.cluster, destination) or resolve(lab.cluster, destination)
    present(lab.design, here)
    check_probe(lab.cluster.topology.families, [protocol] if protocol else [], [family] if family else [], port, size, timeout)
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
def diagnose(live: LiveLab, emit: Emit) -> Any:
    """What is wrong, in plain words, by the kernel, the plan and probes."""
    from emulab.diagnose import diagnose as conclude

    lab = live.lab
    many = len(lab.cluster.endpoints) > _MANY
    usual = Probing(protocols=("icmp", "udp"), timeout=1.0, services=False)
    quick = Probing(protocols=("udp",), taps="ends", timeout=1.0, nodes=False, outside=False, services=False)
    probing = quick if many else usual
    with live.turn():
        deviations = lab.drift()
        result = lab.verify(probing, progress(emit))
        found = conclude(lab.cluster, lab.plane, lab.design.real, deviations, result)
    tell_verdicts(live, result)
    return [asdict(one) for one in found]


def present(design: Design, name: str) -> None:
    node = next((e.node for e in design.cluster.endpoints if e.key == name), name)
    if node != OUTSIDE_HOST and not design.topology.running(node):
        raise InputError(f"node {node} is stopped (emulab node start {node})")
