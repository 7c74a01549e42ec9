"""From one nftables table to another, touching only the chains, sets and elements that differ.

Connections, counters and packets that meet other chains notice nothing, and no moment is without rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from emulab.state import NftTable

_ELEMENTS = 25  # that a kilobyte of a netlink message holds


@dataclass
class _Table:
    """A table by its parts; ``declared`` maps ("chain", name), ("set", name), ("map", name) to the rest of the line."""

    declared: dict[tuple[str, str], str] = field(default_factory=dict)
    rules: dict[str, list[str]] = field(default_factory=dict)
    elements: dict[str, list[str]] = field(default_factory=dict)


def _parse(table: NftTable) -> _Table:
    parsed = _Table()
    for command in table.rules:
        _, kind, _, _, name, *rest = command.split(" ", 5)
        words = rest[0] if rest else ""
        if kind == "rule":
            parsed.rules.setdefault(name, []).append(words)
        elif kind == "element":
            parsed.elements.setdefault(name, []).append(words)
        else:
            parsed.declared[kind, name] = words
    return parsed


def _members(texts: Iterable[str]) -> dict[str, None]:
    """The elements that commands name, ``{ a, b }`` each."""
    lists = (text.strip().removeprefix("{").removesuffix("}").split(",") for text in texts)
    return dict.fromkeys(member.strip() for members in lists for member in members)


def delta(before: NftTable, after: NftTable) -> list[str]:
    """The nft commands that turn ``before`` into ``after`` (both of one family and name).

    They are one transaction, or several as `transactions` cuts them: what is new is whole before anything leads to it, and
    what leads to something has changed before that goes.
    """
    old, new = _parse(before), _parse(after)
    where = f"{after.family} {after.name}"
    if any(key in new.declared and new.declared[key] != words for key, words in old.declared.items()):
        return [f"delete table {where}", f"add table {where}", *after.rules]  # another hook, another type: all anew
    fresh = [key for key in new.declared if key not in old.declared]
    leaving = [key for key in old.declared if key not in new.declared]
    commands = [f"add {kind} {where} {name} {new.declared[kind, name]}".rstrip() for kind, name in fresh]
    filled = [name for kind, name in fresh if kind == "set" and name in new.elements]
    commands += [f"add element {where} {name} {{ {', '.join(_members(new.elements[name]))} }}" for name in filled]
    for name, rules in new.rules.items():
        if ("chain", name) not in old.declared:
            commands += [f"add rule {where} {name} {rule}" for rule in rules]
    gone = [name for kind, name in leaving if kind == "chain"]
    for kind, name in old.declared:
        if kind == "chain" and name not in gone and old.rules.get(name, []) != new.rules.get(name, []):
            commands.append(f"flush chain {where} {name}")
            commands += [f"add rule {where} {name} {rule}" for rule in new.rules.get(name, [])]
    lost = {name for _, name in leaving}
    for verb, here, there in (("delete", old, new), ("add", new, old)):
        for name, texts in here.elements.items():
            if name in filled or texts == there.elements.get(name) or (verb == "delete" and name in lost):
                continue
            others = _members(there.elements.get(name, ()))
            if missing := [member for member in _members(texts) if member not in others]:
                commands.append(f"{verb} element {where} {name} {{ {', '.join(missing)} }}")
    # First what refers to others: rules to everything, maps to chains.
    commands += [f"flush chain {where} {name}" for name in gone if old.rules.get(name)]
    commands += [f"delete map {where} {name}" for kind, name in leaving if kind == "map"]
    commands += [f"delete chain {where} {name}" for name in gone]
    return commands + [f"delete set {where} {name}" for kind, name in leaving if kind == "set"]


def transactions(commands: Sequence[str], room: int | None) -> Iterator[list[str]]:
    """Commands in pieces of about ``room`` kilobytes of netlink messages each, at least one; None: all in one.

    A chain that is flushed has its rules again in the same piece, unless it is longer than that by itself.
    """
    piece: list[str] = []
    size = 0
    for run in _runs(commands) if room is not None else [commands]:
        cost = sum(1 + command.count(",") // _ELEMENTS for command in run)
        if piece and room is not None and size + cost > room:
            yield piece
            piece, size = [], 0
        piece += run
        size += cost
    if piece:
        yield piece


def _runs(commands: Iterable[str]) -> Iterator[list[str]]:
    """Commands that belong together: a flush of a chain with the rules that follow, a replaced table with all of it."""
    run: list[str] = []
    for command in commands:
        verb, kind, *_ = command.split(" ", 2)
        belongs = run and run[0].startswith(("flush chain", "delete table")) and verb == "add" and kind != "element"
        if not belongs and run:
            yield run
            run = []
        run.append(command)
    if run:
        yield run
