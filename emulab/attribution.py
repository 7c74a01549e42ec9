"""Who rewrote it: ties findings to conntrack entries and nftables rules of the namespace where a packet first differed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from emulab.kernel import nftables
from emulab.kernel.conntrack import Entry, Tuple
from emulab.kernel.namespaces import Namespaces
from emulab.packet import PROTOCOL_NUMBERS, Finding, Flow, Kind, Verdict, text
from emulab.result import RunResult

_SOURCE_RULES, _DESTINATION_RULES = ("masquerade", "snat"), ("dnat", "redirect")


def explain(namespaces: Namespaces, result: RunResult, translated: Mapping[str, Sequence[Entry]]) -> None:
    """Fill in the rule of every rewrite; a translated connection between pods that no tap noticed is a finding, too.

    ``translated`` is what connection tracking says, by namespace.
    """
    entries = {name: {entry.original: entry for entry in found} for name, found in translated.items()}
    rules: dict[str, list[str]] = {}
    hidden = {sent: (name, entry) for name, found in entries.items() for sent, entry in found.items()}
    for index, judged in enumerate(result.flows.recorded):
        sent = _tuple(judged.flow)
        if judged.findings or judged.translations:
            judged = replace(
                judged,
                findings=tuple(_named(f, sent, entries, rules, namespaces) for f in judged.findings),
                translations=tuple(_named(f, sent, entries, rules, namespaces) for f in judged.translations),
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


def _tuple(flow: Flow) -> Tuple:
    number = PROTOCOL_NUMBERS[flow.protocol][flow.family]
    sport, dport = (flow.sport, 0) if flow.protocol == "icmp" else (flow.sport, flow.dport)
    return Tuple(text(flow.source_address), text(flow.destination_address), number, sport, dport)


def _named(
    finding: Finding,
    sent: Tuple,
    entries: dict[str, dict[Tuple, Entry]],
    rules: dict[str, list[str]],
    namespaces: Namespaces,
) -> Finding:
    namespace = finding.place.partition(":")[0]
    if finding.field not in ("source", "destination", "source port", "destination port", "identifier"):
        return finding
    if namespace not in namespaces:
        return finding
    if namespace not in rules:
        rules[namespace] = _translating_rules(nftables.text(namespaces[namespace]))
    # A reply is changed by the rule that the request met, the other way round.
    source = finding.field in ("source", "source port", "identifier")
    words = _SOURCE_RULES if source == (finding.leg == "request") else _DESTINATION_RULES
    candidates = [rule for rule in rules[namespace] if any(word in rule.split() for word in words)]
    if len(candidates) == 1:
        return replace(finding, rule=candidates[0])
    entry = entries.get(namespace, {}).get(sent)
    return replace(finding, rule=str(entry)) if entry else finding


def _translating_rules(ruleset: str) -> list[str]:
    """The rules of ``nft list ruleset`` that translate, each as "family table chain: rule"."""
    table = chain = ""
    found = []
    for line in ruleset.splitlines():
        words = line.split()
        if words[:1] == ["table"]:
            table = " ".join(words[1:3])
        elif words[:1] == ["chain"]:
            chain = words[1]
        elif any(word in words for word in _SOURCE_RULES + _DESTINATION_RULES):
            found.append(f"{table} {chain}: {line.strip()}")
    return found
