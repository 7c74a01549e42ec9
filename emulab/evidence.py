"""Words and evidence about one flow: what policies say of it, and which rules of the kernel decided on its packet.  Pure.

Rules that come from policies carry ``comment "tier|policy|direction|origin"``; whatever else of a data plane drops is known
by the comment that is planned for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from emulab.objects import EGRESS, INGRESS
from emulab.oracle import Decision, Side
from emulab.state import KernelObject, NftTable

SCHEMA = "emulab/why/1"
_COMMENT = re.compile(r'comment "([^"]*)"')
_LONGEST = 127  # bytes of a comment: what is longer is cut


@dataclass(frozen=True)
class Evidence:
    """A rule that the packet met on ``node``: of a ``policy`` by its key ("" for what drops the rest), from its ``origin``.

    ``dropped`` says whether it ended there, ``packets`` by how much the rule's counter has risen meanwhile.
    """

    node: str
    direction: str
    policy: str
    origin: str
    rule: str
    dropped: bool
    packets: int | None = None

    def show(self) -> dict[str, object]:
        return {
            "node": self.node,
            "direction": self.direction or None,
            "policy": self.policy or None,
            "origin": self.origin or None,
            "rule": self.rule,
            "dropped": self.dropped,
            "packets": self.packets,
        }


def comment(rule: str) -> str:
    """The comment of a rule, "" if it has none."""
    found = _COMMENT.search(rule)
    return found[1] if found else ""


def origin(rule: str) -> tuple[str, str, str] | None:
    """(policy, direction, place in its manifest) from which a rule comes; None when it comes from none."""
    parts = comment(rule).split("|", 3)
    return (parts[1], parts[2], parts[3]) if len(parts) == 4 and parts[2] in (INGRESS, EGRESS) else None


def planned_comments(objects: Iterable[KernelObject]) -> set[str]:
    """The comments of all rules that are planned for a node."""
    tables = (thing for thing in objects if isinstance(thing, NftTable))
    return {found for table in tables for rule in table.rules if (found := comment(rule))}


@dataclass(frozen=True)
class Proof:
    """A decision of the oracle, and what came of one packet: whether it was ``delivered``, and by which rules it went.

    ``nodes`` tells the node of each pod, ``unenforced`` why policies that have a say are not enforced, "" if they are.
    """

    decision: Decision
    delivered: bool
    evidence: tuple[Evidence, ...]
    nodes: dict[str, str]
    lost: str = ""
    unenforced: str = ""

    @property
    def agree(self) -> bool:
        return not self.disagreements

    @property
    def disagreements(self) -> tuple[str, ...]:
        return tuple(self._disagreements())

    def of(self, side: Side) -> list[Evidence]:
        """What was met that speaks of one side: on its pod's node, in its direction."""
        node = self.nodes.get(side.pod)
        return [one for one in self.evidence if one.node == node and one.direction in (side.direction, "")]

    def _disagreements(self) -> Iterator[str]:
        decision, because = self.decision, f": {self.unenforced}" if self.unenforced else ""
        if decision.allowed and not self.delivered:
            yield f"policy allows it, and it was not delivered{because or (f': {self.lost}' if self.lost else '')}"
        if not decision.allowed and self.delivered:
            yield f"denied by {decision.denied_by}, and it was delivered{because}"
        if because:
            return
        for side in decision.sides:
            yield from self._about(side)
            if not side.allowed:
                return  # it came no further

    def _about(self, side: Side) -> Iterator[str]:
        found = self.of(side)
        what, where = f"{side.direction} of {side.pod}", f"on {self.nodes.get(side.pod)}"
        met = [one for one in found if one.policy]
        if side.allowed and side.rules and not any(_is(one, side.rules) and not one.dropped for one in met):
            told = ", ".join(f"{policy} {rule}" for policy, rule in side.rules)
            yield f"{what}: {where} the packet met no rule from {told}"
        if not side.isolated and met:
            yield f"{what}: not isolated, but {where} the packet met a rule of policy {met[0].policy}"
        if not side.allowed and not self.delivered:
            drops = [one for one in found if one.dropped]
            if not drops:
                yield f"{what}: {where} no rule of the data plane has dropped it{f': {self.lost}' if self.lost else ''}"
            elif side.rules and not any(_is(one, side.rules) for one in drops):
                yield f"{what}: {where} another rule has dropped it: {drops[-1].rule}"

    def show(self) -> dict[str, object]:
        """As JSON values, schema ``emulab/why/1``."""
        decision = self.decision
        return {
            "schema": SCHEMA,
            "from": decision.source,
            "to": decision.destination,
            "family": decision.family,
            "protocol": decision.protocol,
            "port": decision.port or None,
            "allowed": decision.allowed,
            "words": str(decision),
            "exception": decision.exception or None,
            "sides": [self._shown(side) for side in decision.sides],
            "delivered": self.delivered,
            "evidence": [one.show() for one in self.evidence],
            "agree": self.agree,
            "disagreements": list(self.disagreements),
        }

    def _shown(self, side: Side) -> dict[str, object]:
        return {
            "direction": side.direction,
            "pod": side.pod,
            "node": self.nodes.get(side.pod),
            "isolated": side.isolated,
            "allowed": side.allowed,
            "policies": list(side.policies),
            "rules": [{"policy": policy, "rule": rule} for policy, rule in side.rules],
        }


def _is(evidence: Evidence, rules: Sequence[tuple[str, str]]) -> bool:
    """Whether a rule of the kernel comes from one of these: one may stand for each of its ports, and its comment be cut."""
    if len(comment(evidence.rule).encode()) == _LONGEST:
        return any(policy.startswith(evidence.policy) and rule.startswith(evidence.origin) for policy, rule in rules)
    return any(evidence.policy == policy and f"{evidence.origin}.".startswith(f"{rule}.") for policy, rule in rules)
