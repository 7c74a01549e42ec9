"""Who rewrote it: ties findings to conntrack entries and nftables rules of the namespace where a packet first differed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from emulab.kernel import conntrack, nftables
from emulab.kernel.conntrack import Entry, Tuple
from emulab.kernel.namespaces import Namespaces
from emulab.packet import PROTOCOL_NUMBERS, Finding, Flow, FlowResult, Kind, Verdict, text

_SOURCE_RULES, _DESTINATION_RULES = ("masquerade", "snat"), ("dnat", "redirect")


def explain(
    namespaces: Namespaces, results: Iterable[FlowResult], where: Sequence[str]
) -> tuple[list[FlowResult], list[Finding]]:
    """Fill in the rule of every rewrite; a translated connection between pods that no tap noticed is a finding, too.

    Returns the results and the findings that belong to no flow of them.
    """
    entries = {name: {entry.original: entry for entry in conntrack.translated(namespaces[name])} for name in where}
    rules: dict[str, list[str]] = {}
    explained = []
    for result in results:
        sent = _tuple(result.flow)
        if result.findings or result.translations:
            result = replace(
                result,
                findings=tuple(_named(f, sent, entries, rules, namespaces) for f in result.findings),
                translations=tuple(_named(f, sent, entries, rules, namespaces) for f in result.translations),
            )
        if result.flow.kind is Kind.POD and result.verdict is not Verdict.REWRITTEN:
            for name in where:
                entry = entries[name].get(sent)
                if entry:
                    finding = Finding("conntrack", "untranslated", str(entry), name, rule=str(entry))
                    result = replace(result, verdict=Verdict.REWRITTEN, findings=(*result.findings, finding))
        explained.append(result)
    return explained, []


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
