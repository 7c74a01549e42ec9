"""What nftables rules do, read from an `NftTable`, be its rules commands (``add rule …``) or lines of `nft list`.

It is not a simulation: a rule is known by its effect (drop, translate) and by what it matches at first sight.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from emulab.state import NftTable

_EFFECTS = {
    "drop": "drop",
    "reject": "drop",
    "masquerade": "source",
    "snat": "source",
    "dnat": "destination",
    "redirect": "destination",
}
_HOOK = re.compile(r"type (\w+) hook (\w+) .*?;(?: *policy (\w+) ?;)?")
_COUNTER = re.compile(r"\bcounter (packets \d+ bytes \d+ ?)?")


class Rule(NamedTuple):
    """``hook`` is where its chain hangs, directly or by a jump; ``text`` has no counter; a chain's policy is a rule, too."""

    table: str
    chain: str
    hook: str
    text: str

    @property
    def effect(self) -> str:
        """ "drop", "source" or "destination" (what it rewrites), else ""."""
        return next((_EFFECTS[word] for word in self.text.split() if word in _EFFECTS), "")

    @property
    def bare(self) -> bool:
        """Whether it matches everything."""
        return self.text in ("policy drop", "drop", "reject")

    @property
    def random(self) -> bool:
        """Whether it takes some packets and spares others that look the same."""
        return "numgen" in self.text or "limit rate" in self.text

    def matched(self, what: str) -> list[str]:
        """The values that it wants of ``what``, as of "iifname" or "udp dport"; a set's are all of them."""
        found = re.search(rf"\b{what} (?:\{{([^}}]*)\}}|(?!!=)(\S+))", self.text)
        words = (found[1] or found[2]).split(",") if found else []
        return [word.strip().strip('"') for word in words]

    def __str__(self) -> str:
        return f"{self.table} {self.chain}: {self.text}"


def read(table: NftTable) -> list[Rule]:
    """All rules of a table, in order."""
    hooks: dict[str, str] = {}
    policies: dict[str, str] = {}
    rules: list[tuple[str, str]] = []
    for chain, text in _lines(table):
        base = _HOOK.search(text)
        if base:
            hooks[chain] = base[2]
            policies[chain] = base[3] or "accept"
        else:
            rules.append((chain, text))
    for chain, text in rules * 2:  # twice, for a jump within a jump
        target = re.search(r"(?:jump|goto) (\S+)", text)
        if target and chain in hooks:
            hooks.setdefault(target[1], hooks[chain])
    name = f"{table.family} {table.name}"
    found = [Rule(name, chain, hooks.get(chain, ""), _plain(text)) for chain, text in rules]
    return found + [Rule(name, chain, hooks[chain], "policy drop") for chain, policy in policies.items() if policy == "drop"]


def _lines(table: NftTable) -> Iterator[tuple[str, str]]:
    """(chain, what is said of it)."""
    chain = ""
    for line in table.rules:
        words = line.split()
        if words[:2] in (["add", "chain"], ["add", "rule"]):
            yield words[4], line.split(maxsplit=5)[5] if len(words) > 5 else ""
        elif words[:1] == ["chain"]:
            chain = words[1]
        elif words == ["}"]:
            chain = ""
        elif chain and words:
            yield chain, line.strip()


def _plain(text: str) -> str:
    return _COUNTER.sub("", text).strip()
