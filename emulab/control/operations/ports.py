"""Who reaches which declared port: every ordered pair of pods, every port, in one go."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

from emulab.control.live import Emit, LiveLab, operation, progress
from emulab.control.operations.measuring import check_timeout
from emulab.enforcement import Enforcement
from emulab.errors import InputError
from emulab.etc_files import resolve
from emulab.model import Cluster
from emulab.packet import Finding, Flow, FlowResult, Kind, Verdict, short
from emulab.probe import payload, sctp
from emulab.probe.ports import PROTOCOLS, Check, Outcome, probe
from emulab.result import RunResult


@operation
def ports(
    live: LiveLab,
    emit: Emit,
    sources: list[str] | None = None,
    destinations: list[str] | None = None,
    protocols: list[str] | None = None,
    families: list[int] | None = None,
    timeout: float = 2.0,
    report: str = "text",
    columns: int | None = None,
) -> Any:
    """Probe every port that pods declare, from all pods or from ``sources``: ``report`` is "text" or "probe" (emulab/probe/1)."""
    lab = live.lab
    with live.turn():
        checks = list(_checks(lab.cluster, lab.namespaces, sources, destinations, protocols, families))
        check_timeout(timeout)
        lab.prime()
        outcomes = probe(lab.namespaces, lab.cluster, checks, timeout, on_progress=progress(emit))
        result = judged(lab.cluster, lab.plane, outcomes)
    page = io.StringIO()
    if report == "probe":
        from emulab.report import probe as listed

        listed.write_json(result, page)
    else:
        from emulab.report import ports as drawn

        by_hand = any(check.protocol == "sctp" for check in checks) and not sctp.supported()
        drawn.write(result.flows, page, columns, [f"{sctp.MISSING}: probed with packets made by hand"] if by_hand else [])
    return {"report": page.getvalue(), "summary": result.summary()}


def _checks(
    cluster: Cluster,
    present: Any,
    sources: Sequence[str] | None,
    destinations: Sequence[str] | None,
    protocols: Sequence[str] | None,
    families: Sequence[int] | None,
) -> Iterator[Check]:
    for protocol in protocols or ():
        if protocol not in PROTOCOLS:
            raise InputError(f"{protocol} has no ports that a pod could declare: tcp, udp or sctp expected")
    for family in families or ():
        if family not in cluster.topology.families:
            has = " and ".join(f"IPv{one}" for one in cluster.topology.families)
            raise InputError(f"IPv{family}: the pods of this topology have {has} only")
    pods = {endpoint.key: endpoint for endpoint in cluster.endpoints}
    here = [key for key in pods if key in present]
    if sources:
        here = list(dict.fromkeys(resolve(cluster, name) for name in sources))
    there = list(dict.fromkeys(resolve(cluster, name) for name in destinations)) if destinations else list(pods)
    for name in there:
        if name not in pods:
            raise InputError(f"{name}: only pods declare ports")
        if destinations and not pods[name].pod.ports:
            raise InputError(f"{short(name)} declares no ports")
    for source in here:
        for destination in there:
            for family in cluster.topology.families if source != destination else ():
                for port in pods[destination].pod.ports:
                    if port.protocol in (protocols or PROTOCOLS) and family in (families or (family,)):
                        yield Check(source, destination, family, port.protocol, port.number)


def judged(cluster: Cluster, plane: Any, outcomes: Sequence[Outcome]) -> RunResult:
    """The outcomes as a run's result, in the light of what policies say."""
    result = RunResult(plane.name, plane.options(), cluster)
    pods = {endpoint.key: endpoint for endpoint in cluster.endpoints}
    policies = Enforcement(cluster, plane)
    for number, outcome in enumerate(outcomes):
        check = outcome.check
        kind = Kind.POD if check.source in pods else Kind.NODE
        target = pods[check.destination].address(check.family)
        own = outcome.sent_from.packed if outcome.sent_from else bytes(len(target.packed))
        ends = (check.source, check.destination, check.family, check.protocol, own, target.packed)
        flow = Flow(number, kind, *ends, 0, check.port, payload.SIZE)
        found = FlowResult(flow, outcome.verdict, findings=tuple(_findings(outcome)))
        result.flows.recorded.append(policies.judge(found) if policies.active else found)
    return result


def _findings(outcome: Outcome) -> Iterator[Finding]:
    check, place = outcome.check, f"{outcome.check.destination}:eth0"
    if outcome.verdict in (Verdict.DROPPED, Verdict.REFUSED):
        what = "nothing, twice" if outcome.verdict is Verdict.DROPPED else "a refusal"
        yield Finding("delivery", f"an answer from {short(check.destination)}", what, f"{check.source}:eth0")
    if outcome.verdict is Verdict.REWRITTEN:
        if outcome.seen_as != outcome.sent_from:
            yield Finding("source", str(outcome.sent_from), str(outcome.seen_as), place)
        if outcome.answered_by != check.destination:
            yield Finding("destination", check.destination, outcome.answered_by, place)
