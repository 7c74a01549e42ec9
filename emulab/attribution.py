"""Who rewrote it: ties findings to conntrack entries and nftables rules of the namespace where a packet first differed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from emulab.kernel import nftables
from emulab.kernel.conntrack import Entry, Tuple
from emulab.kernel.namespaces import Namespaces
from emulab.kubeproxy.ports import SHARED
from emulab.packet import PROTOCOL_NUMBERS, Finding, Flow, Kind, Verdict, text
from emulab.result import RunResult

_SOURCE_RULES, _DESTINATION_RULES = ("masquerade", "snat"), ("dnat", "redirect")


def explain(namespaces: Namespaces, result: RunResult, translated: Mapping[str, Sequence[Entry]]) -> None:
    """Fill in the rule of every rewrite; a translated connection between pods that no tap noticed is a finding, too.

    ``translated`` is what connection tracking says, by namespace.
    """
    entries = {name: {entry.original: entry for entry in found} for name, found in translated.items()}
    rules: dict[str, _Rules] = {}
    hidden = {sent: (name, entry) for name, found in entries.items() for sent, entry in found.items()}
    for index, judged in enumerate(result.flows.recorded):
        sent = original(judged.flow)
        if judged.findings or judged.translations:
            judged = replace(
                judged,
                findings=tuple(_named(f, judged.flow, entries, rules, namespaces) for f in judged.findings),
                translations=tuple(_named(f, judged.flow, entries, rules, namespaces) for f in judged.translations),
            )
        if judged.flow.kind is Kind.POD and judged.verdict is not Verdict.REWRITTEN and sent in hidden:
            judged = replace(judged, verdict=Verdict.REWRITTEN, findings=(*judged.findings, _unseen(*hidden[sent])))
        result.flows.recorded[index] = judged
    for block in result.flows.blocks:
        pods = {str(endpoint.address(block.family)) for endpoint in block.endpoints}
        for sent, (name, entry) in hidden.items():
            if {sent.source, sent.destination} <= pods and sent.protocol == PROTOCOL_NUMBERS[block.protocol][block.family]:
                result.findings.append(_unseen(name, entry))


def _unseen(name: str, entry: Entry) -> Finding:
    """What the kernel says that it translated, though every packet looked as sent wherever we saw it."""
    return Finding("conntrack", "untranslated", str(entry), name, rule=str(entry))


def original(flow: Flow) -> Tuple:
    """A flow as connection tracking knows it."""
    number = PROTOCOL_NUMBERS[flow.protocol][flow.family]
    sport, dport = (flow.sport, 0) if flow.protocol == "icmp" else (flow.sport, flow.dport)
    return Tuple(text(flow.source_address), text(flow.destination_address), number, sport, dport)


def _named(
    finding: Finding,
    flow: Flow,
    entries: dict[str, dict[Tuple, Entry]],
    rules: dict[str, _Rules],
    namespaces: Namespaces,
) -> Finding:
    namespace, sent = finding.place.partition(":")[0], original(flow)
    if finding.field not in ("source", "destination", "source port", "destination port", "identifier"):
        return finding
    if flow.kind is Kind.SERVICE:  # its first sight may be at the far end
        namespace = next((name for name, found in entries.items() if sent in found), namespace)
    if namespace not in namespaces:
        return finding
    if namespace not in rules:
        rules[namespace] = _Rules(nftables.text(namespaces[namespace]))
    entry = entries.get(namespace, {}).get(sent)
    # A reply is changed by the rule that the request met, the other way round.
    source = finding.field in ("source", "source port", "identifier")
    words = _SOURCE_RULES if source == (finding.leg == "request") else _DESTINATION_RULES
    candidates = rules[namespace].of(words)
    if flow.kind is Kind.SERVICE and words is _DESTINATION_RULES and entry:
        candidates = rules[namespace].of_service(flow, entry) or candidates
    if len(candidates) == 1:
        return replace(finding, rule=candidates[0])
    return replace(finding, rule=str(entry)) if entry else finding


class _Rules:
    """The rules of ``nft list ruleset`` that translate, each as "family table chain: rule"."""

    def __init__(self, ruleset: str) -> None:
        self._found: dict[str, list[str]] = {}  # by the word that translates
        self._services: dict[str, list[str]] = {}  # kube-proxy's: by what its chains' names begin with
        table = chain = ""
        for line in ruleset.splitlines():
            words = line.split()
            if words[:1] == ["table"]:
                table = " ".join(words[1:3])
            elif words[:1] == ["chain"]:
                chain = words[1]
            else:
                rule = f"{table} {chain}: {line.strip()}"
                for word in set(words).intersection(_SOURCE_RULES + _DESTINATION_RULES):
                    self._found.setdefault(word, []).append(rule)
                if "dnat" in words and "/" in chain:
                    service = "/".join(chain.split("-", 2)[-1].split("/")[:3])
                    self._services.setdefault(service, []).append(rule)

    def of(self, words: Sequence[str]) -> list[str]:
        return [rule for word in words for rule in self._found.get(word, ())]

    def of_service(self, flow: Flow, entry: Entry) -> list[str]:
        """The rules that lead from this Service to where the connection was led."""
        there = {f"{entry.reply.source} . {entry.reply.sport}", f"{entry.reply.source}:{entry.reply.sport}"}
        there |= {f"[{entry.reply.source}]:{entry.reply.sport}"}
        rules = self._services.get(f"{flow.destination.removeprefix('svc/')}/{flow.protocol}", [])
        if len(rules) == 1 and f" map @{SHARED}-" in rules[0]:
            return rules
        return [rule for rule in rules if any(re.search(rf"(^| ){re.escape(one)}(,| |$)", rule) for one in there)]
