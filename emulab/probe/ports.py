"""Who reaches which port: all checks at once, each judged by its answer.

TCP by connections that the kernel makes, UDP by datagrams, SCTP by connections where the kernel can, else by crafted INITs
(`emulab.probe.sctp`).  Who answers for a pod (`emulab.serving.responder`) says who it is and whom it saw.  A refusal comes
at once; those that stay silent share one deadline.

How long is silence?  Packets inside one kernel take microseconds, but a busy machine may take long to get to them.  So the
last things sent are *controls*: questions of every destination to itself, which no policy decides on.  Their answers show
that what was sent before has had its turn.  Then controls are sent once more, to see how slow the machine is now; the silent
get eight times as long, and no less than ``quiet``.  Those still silent are asked once more, from fresh ports, as a packet
may get lost in a full queue (``confirm``): dropped means silent twice.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable, Iterable, Iterator, Sequence

from emulab.errors import InputError, OverloadError
from emulab.kernel import counters
from emulab.kernel.namespaces import Namespaces
from emulab.model import OUTSIDE_HOST, SWITCHES, Cluster, Endpoint
from emulab.packet import Verdict, short
from emulab.probe.rounds import PROTOCOLS, Check, Outcome, Question, Round
from emulab.probe.unlimited import unlimited_errors

QUIET = 0.04
_MOST = 2048  # questions at once: connections are descriptors, and queues are finite
_FEW = 256  # where a link has a rate: what its queue surely holds
_LOOKS, _LOOKS_LOSSY = 2, 8  # how often the silent are asked; where links lose packets on purpose
_ATTEMPTS = 3  # on a machine that is too busy

__all__ = ["PROTOCOLS", "QUIET", "Check", "Outcome", "probe"]


def probe(
    namespaces: Namespaces,
    cluster: Cluster,
    checks: Sequence[Check],
    timeout: float = 2.0,
    *,
    quiet: float = QUIET,
    confirm: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Outcome]:
    """Ask everything, in batches of some thousand; the outcomes are in the order of ``checks``.

    ``timeout`` (seconds, for each batch) bounds what is waited for at all: controls, and servers that accept but say
    nothing.  ``quiet`` is the least time that the silent get.  ``on_progress`` is told (checks done, checks in all).
    Raises `InputError` for ends that do not exist or lack the family, `OverloadError` when not even controls are answered.
    """
    endpoints = {endpoint.key: endpoint for endpoint in cluster.endpoints}
    wanted = list(dict.fromkeys(checks))
    questions = [_question(namespaces, endpoints, check) for check in wanted]
    links = cluster.topology.links
    most = _FEW if any(link.rate for link in links) else _MOST
    patience = quiet + _slack(cluster, min(len(wanted), most))
    looks = (_LOOKS_LOSSY if any(link.loss for link in links) else _LOOKS) if confirm else 1
    with unlimited_errors(namespaces, _telling(namespaces, endpoints, wanted)):
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                found = _ask(namespaces, list(_batches(questions, most)), looks, patience, timeout, on_progress)
                break
            except OverloadError:  # a busy moment says nothing of the lab
                if attempt == _ATTEMPTS:
                    raise
    return [found[check] for check in checks]


def _ask(
    namespaces: Namespaces,
    batches: Sequence[list[Question]],
    looks: int,
    patience: float,
    timeout: float,
    on_progress: Callable[[int, int], None] | None,
) -> dict[Check, Outcome]:
    found: dict[Check, Outcome] = {}
    refused = _refused_neighbours(namespaces)
    for batch in batches:
        for _ in range(looks):
            with contextlib.closing(Round(namespaces, batch)) as round_:
                found.update({outcome.check: outcome for outcome in round_.run(patience, timeout)})
            batch = [one for one in batch if found[one.check].verdict is Verdict.DROPPED]
            if not batch:
                break
        if on_progress:
            on_progress(len(found), sum(map(len, batches)))
    more = _refused_neighbours(namespaces) - refused
    if more > 0 and any(outcome.verdict is Verdict.DROPPED for outcome in found.values()):
        limit = "net.ipv4.neigh.default.gc_thresh3, and ipv6's"
        raise OverloadError(
            f"the machine's neighbour table was full ({more} entries refused), so silence says nothing: raise {limit}"
        )
    return found


def _refused_neighbours(namespaces: Namespaces) -> int:
    """How often so far; the table is one for all namespaces."""
    return sum(counters.tables_full(namespaces[SWITCHES]).values())


def _question(namespaces: Namespaces, endpoints: dict[str, Endpoint], check: Check) -> Question:
    if check.destination not in endpoints:
        raise InputError(f"{check.destination}: ports are probed at pods, and there is none called so")
    if check.source not in namespaces:
        raise InputError(f"{short(check.source)}: nothing can be sent from there")
    if check.protocol not in PROTOCOLS or not 0 < check.port < 65536:
        raise InputError(f"{check.protocol}/{check.port}: tcp, udp or sctp, and a port from 1 to 65535 expected")
    try:
        target = endpoints[check.destination].address(check.family)
        own = endpoints[check.source].address(check.family) if check.source in endpoints else None
    except StopIteration:
        raise InputError(f"{short(check.source)} and {short(check.destination)} have no IPv{check.family} in common") from None
    return Question(check, own, target)


def _telling(namespaces: Namespaces, endpoints: dict[str, Endpoint], checks: Iterable[Check]) -> Iterator[str]:
    """Who may answer with ICMP errors: routers, and pods that are asked at ports that they do not declare."""
    yield from (name for name in namespaces if "/" not in name and name not in (SWITCHES, OUTSIDE_HOST))
    asked: dict[str, set[tuple[str, int]]] = {}
    for check in checks:
        if check.protocol != "tcp":
            asked.setdefault(check.destination, set()).add((check.protocol, check.port))
    for key, ports in asked.items():
        if key in namespaces and ports - {(port.protocol, port.number) for port in endpoints[key].pod.ports}:
            yield key


def _slack(cluster: Cluster, count: int) -> float:
    """What shaped links may add, in seconds: their delay for two round trips, their rate for all packets of a batch."""
    delays = sorted(link.delay for link in cluster.topology.links)[-2:]
    rates = [link.rate for link in cluster.topology.links if link.rate]
    return 4 * sum(delays) + (count * 400 * 8 / min(rates) if rates else 0.0)


def _batches(questions: Sequence[Question], most: int) -> Iterator[list[Question]]:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(64, min(most, soft // 4))
    for start in range(0, len(questions), most):
        yield list(questions[start : start + most])
