"""From one nftables table to another in one transaction, touching only the chains, sets and elements that differ.

Connections, counters and packets that meet other chains notice nothing, and no moment is without rules.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from emulab.state import NftTable


@dataclass
class _Table:
    """A table by its parts; ``declared`` maps ("chain", name), ("set", name), ("map", name) to the rest of the line."""

    declared: dict[tuple[str, str], str] = field(default_factory=dict)
    rules: dict[str, list[str]] = field(default_factory=dict)
    elements: dict[str, dict[str, None]] = field(default_factory=dict)


@lru_cache(maxsize=8)
def _parse(table: NftTable) -> _Table:
    """Kept, as the table that a change leads to is the one from which the next begins."""
    parsed = _Table()
    for command in table.rules:
        _, kind, _, _, name, *rest = command.split(" ", 5)
        words = rest[0] if rest else ""
        if kind == "rule":
            parsed.rules.setdefault(name, []).append(words)
        elif kind == "element":
            members = words.strip().removeprefix("{").removesuffix("}").split(",")
            parsed.elements.setdefault(name, {}).update(dict.fromkeys(member.strip() for member in members))
        else:
            parsed.declared[kind, name] = words
    return parsed


def delta(before: NftTable, after: NftTable) -> list[str]:
    """The nft commands, one transaction, that turn ``before`` into ``after`` (both of one family and name)."""
    old, new = _parse(before), _parse(after)
    where = f"{after.family} {after.name}"
    if any(key in new.declared and new.declared[key] != words for key, words in old.declared.items()):
        return [f"delete table {where}", f"add table {where}", *after.rules]  # another hook, another type: all anew
    commands = [
        f"add {kind} {where} {name}{f' {words}' if words else ''}"
        for (kind, name), words in new.declared.items()
        if (kind, name) not in old.declared
    ]
    leaving = [key for key in old.declared if key not in new.declared]
    for kind, name in old.declared:
        if kind == "chain" and old.rules.get(name, []) != new.rules.get(name, []):
            commands.append(f"flush chain {where} {name}")
    for name, rules in new.rules.items():
        if rules != old.rules.get(name, []):
            commands += [f"add rule {where} {name} {rule}" for rule in rules]
    for verb, here, there in (("delete", old, new), ("add", new, old)):
        for name, members in here.elements.items():
            others = there.elements.get(name, {})
            missing = [member for member in members if member not in others] if members.keys() - others.keys() else []
            if missing and not any(key[1] == name for key in leaving if verb == "delete"):
                commands.append(f"{verb} element {where} {name} {{ {', '.join(missing)} }}")
    # First what refers to others: maps to chains, chains to sets.
    order = {"map": 0, "chain": 1, "set": 2}
    return commands + [f"delete {kind} {where} {name}" for kind, name in sorted(leaving, key=lambda key: order[key[0]])]
