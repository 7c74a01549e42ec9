"""To ask about policies: why a flow passes, and who may talk to whom."""

from __future__ import annotations

import io
from typing import Any

from emulab.control.live import Emit, LiveLab, operation, progress
from emulab.control.operations.measuring import check_probe, present
from emulab.errors import InputError
from emulab.etc_files import resolve
from emulab.model import Cluster
from emulab.probe.flows import PORT

_MOST = 200_000  # checks of one matrix


@operation
def why(
    live: LiveLab,
    source: str,
    destination: str,
    protocol: str = "tcp",
    port: int | None = None,
    family: int | None = None,
    timeout: float = 1.0,
    report: str = "text",
    columns: int | None = None,
) -> Any:
    """Whether policies let a flow pass, by which rules, and what the kernel did with it: "text" or "json" (emulab/why/1)."""
    from emulab.probe import policing
    from emulab.report import why as page_of

    lab = live.lab
    here, there = resolve(lab.cluster, source, others=False), resolve(lab.cluster, destination)
    present(lab.design, here)
    check_probe(lab.cluster.topology.families, [protocol], [family] if family else [], port, None, timeout)
    if port is None and protocol != "icmp":
        port = declared(lab.cluster, there, protocol)
    with live.turn():
        proof = policing.why(lab, here, there, family=family, protocol=protocol, port=port, timeout=timeout)
    page = io.StringIO()
    if report == "json":
        page_of.write_json(proof, page)
    else:
        page_of.write_text(proof, page, columns)
    return {"ok": proof.agree, "report": page.getvalue()}


def declared(cluster: Cluster, pod: str, protocol: str) -> int:
    """The first port that a pod declares for a protocol, else the probes' own."""
    ports = (port for endpoint in cluster.endpoints if endpoint.key == pod for port in endpoint.pod.ports)
    return next((port.number for port in ports if port.protocol == protocol), PORT)


@operation
def policy_matrix(
    live: LiveLab,
    emit: Emit,
    sources: list[str] | None = None,
    destinations: list[str] | None = None,
    protocol: str | None = None,
    port: int | None = None,
    families: list[int] | None = None,
    timeout: float = 2.0,
    report: str = "text",
    columns: int | None = None,
) -> Any:
    """Who may talk to whom, and who does: ``report`` is "text", "json" (emulab/matrix/1) or "html"."""
    from emulab import access
    from emulab.enforcement import Enforcement
    from emulab.probe import ports
    from emulab.report import access as page_of

    lab = live.lab
    cluster = lab.design.present
    _check(cluster, protocol, port, families or [], timeout)
    here, there = (None if names is None else [_pod(cluster, name) for name in names] for names in (sources, destinations))
    with live.turn():
        asked = list(
            access.questions(
                cluster,
                access.columns(cluster, there, protocol, port, PORT),
                here,
                [family for family in cluster.topology.families if family in (families or (family,))],
            )
        )
        if len(asked) > _MOST:
            raise InputError(f"{len(asked):,} checks: choose some pods by --from and --to, {_MOST:,} at most")
        policies = Enforcement(lab.cluster, lab.plane)
        decided = access.decisions(policies.oracle, asked)
        lab.prime()
        outcomes = ports.probe(
            lab.namespaces,
            cluster,
            [ports.Check(source, to.pod, family, to.protocol, to.port) for source, to, family in asked],
            timeout,
            on_progress=progress(emit),
        )
    cells = [access.Cell(*one, said, came.verdict) for one, said, came in zip(asked, decided, outcomes, strict=True)]
    keys = tuple(policy.key for policy in lab.cluster.topology.objects.policies)
    found = access.Access(lab.plane.name, cluster.topology.name, keys, cells, policies.unenforced)
    page = io.StringIO()
    if report == "json":
        page_of.write_json(found, page)
    elif report == "html":
        page_of.write_html(found, page)
    else:
        page_of.write_text(found, page, columns)
    return {"ok": not found.mismatches, "report": page.getvalue(), "summary": found.summary()}


def _check(cluster: Cluster, protocol: str | None, port: int | None, families: list[int], timeout: float) -> None:
    if protocol not in (None, "tcp", "udp", "sctp"):
        raise InputError(f"no protocol '{protocol}' (known: tcp, udp, sctp)")
    check_probe(cluster.topology.families, [], families, port, None, timeout)


def _pod(cluster: Cluster, name: str) -> str:
    key = resolve(cluster, name, others=False)
    if not any(endpoint.key == key for endpoint in cluster.endpoints):
        raise InputError(f"{name} is no pod")
    return key
