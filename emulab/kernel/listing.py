"""nftables tables as their listings: the planned one and the real one, both in the kernel's own words.

A listing differs from the commands that made it (defaults are spelled out, values and ranges written in another way).  So the
planned commands are carried out in a new namespace, too, and what is listed there is what the real one should show.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from emulab.drift import Listing
from emulab.kernel import nftables, syscalls
from emulab.kernel.namespaces import Namespace, Namespaces, entered, returning
from emulab.nft_delta import transactions
from emulab.state import NftTable, State

_AT_ONCE = 1500  # commands in one namespace: the library reads back all that is there before each transaction
_HEAD = re.compile(r"^table (\S+) (\S+) \{.*\n", re.MULTILINE)  # it may end in a remark

_listed: dict[NftTable, str] = {}
Key = tuple[str, str]  # a table's family and name


def tables(namespaces: Namespaces, desired: State) -> dict[str, list[NftTable]]:
    """All tables of each namespace.  One that ``desired`` has there is that very object unless its listing differs."""
    found = {name: _in_namespace(namespaces[name]) for name in desired if name in namespaces}
    planned = {
        (name, thing.family, thing.name): thing for name in found for thing in desired[name] if isinstance(thing, NftTable)
    }
    compared = [
        table
        for (name, *key), table in planned.items()
        if tuple(key) in found[name] and table not in _listed and not isinstance(table, Listing)
    ]
    for some in _batches(compared):
        _listed.update(_as_planned(some))
    return {
        name: [_table(*key, text, planned.get((name, *key))) for key, text in listings.items()]
        for name, listings in found.items()
    }


def _table(family: str, name: str, text: str, planned: NftTable | None) -> NftTable:
    if planned is None:
        return Listing(family, name, statements(family, name, text))
    if isinstance(planned, Listing):  # somebody else's, as it was found
        now = statements(family, name, text)
        same = sorted(now, key=_thing) == sorted(planned.rules, key=_thing)
        return planned if same else Listing(family, name, now, planned.rules)
    wanted = _listed[planned]
    if text == wanted:
        return planned
    # Chains and sets that came later are listed later: between them order means nothing.
    said, meant = (tuple(sorted(statements(family, name, t), key=_thing)) for t in (text, wanted))
    return planned if said == meant else Listing(family, name, said, meant)


def _thing(command: str) -> list[str]:
    """What a command is about, its kind and name: ``add rule ip t forward …``: rule, forward."""
    words = command.split(" ", 5)
    return [words[1], *words[4:5]]


def _in_namespace(namespace: Namespace) -> dict[Key, str]:
    with entered(namespace.net):
        if not nftables.tables():
            return {}
        with _StatelessNftables() as nft:
            return nft.listings()


def _parted(ruleset: str) -> dict[Key, str]:
    """The body of each table's listing."""
    blocks = _HEAD.split(ruleset)[1:]
    return {(family, name): body for family, name, body in zip(blocks[::3], blocks[1::3], blocks[2::3], strict=True)}


def _batches(all_of_them: Iterable[NftTable]) -> Iterator[list[NftTable]]:
    size, batch = 0, []
    for table in all_of_them:
        batch.append(table)
        size += 1 + len(table.rules)
        if size >= _AT_ONCE:
            yield batch
            size, batch = 0, []
    if batch:
        yield batch


def _as_planned(wanted: list[NftTable]) -> dict[NftTable, str]:
    """What the kernel lists for tables when nobody has touched them.

    Each gets a name of its own, so that none has to be deleted before the next: closing a socket after a deletion waits for
    an RCU grace period (nft_rcv_nl_event in net/netfilter/nf_tables_api.c).
    """
    with returning():
        syscalls.unshare(syscalls.CLONE_NEWNET)
        with _StatelessNftables() as nft:
            commands = [command for number, table in enumerate(wanted) for command in _renamed(table, f"t{number}")]
            for some in transactions(commands, nftables.room()):
                nft.run("\n".join(some))
            found = nft.listings()
    return {table: found[table.family, f"t{number}"] for number, table in enumerate(wanted)}


def _renamed(table: NftTable, name: str) -> Iterator[str]:
    old = re.compile(rf"(add \S+ (?:{table.family} )?){re.escape(table.name)}(?=\s|$)")
    yield f"add table {table.family} {name}"
    yield from (old.sub(rf"\g<1>{name}", rule, count=1) for rule in table.rules)


class _StatelessNftables(nftables.Nftables):
    """Listings without the values of counters and the time that elements have left."""

    def __init__(self) -> None:
        super().__init__()
        self._show(nftables.STATELESS)

    def __enter__(self) -> _StatelessNftables:
        return self

    def listings(self) -> dict[Key, str]:
        return _parted(self.run("list ruleset"))


def statements(family: str, name: str, listing: str) -> tuple[str, ...]:
    """A table's listing as commands of line syntax; an element per command and sorted: those of a hash come in any order."""
    return tuple(_commands(f"{family} {name}", (line for line in listing.splitlines() if line.strip())))


def _commands(table: str, lines: Iterator[str]) -> Iterator[str]:
    """The commands of one table, whose head has been read."""
    for line in lines:
        if line == "}":
            return
        words = line.split()
        if words[-1] != "{":  # flags, a comment: of the table itself
            yield f"add table {table} {{ {' '.join(words)}; }}"
            continue
        body = []
        for inner in lines:
            if inner == "\t}":
                break
            body.append(inner.strip())
        yield from (_chain if words[0] == "chain" else _set)(f"{table} {words[1]}", words[0], body)


def _declared(place: str, kind: str, words: list[str]) -> str:
    declaration = "; ".join(word.rstrip(";") for word in words)
    return f"add {kind} {place}" + (f" {{ {declaration}; }}" if declaration else "")


def _chain(place: str, kind: str, body: list[str]) -> Iterator[str]:
    head = [line for line in body if line.startswith(("type ", "comment "))]
    yield _declared(place, kind, head)
    yield from (f"add rule {place} {line}" for line in body if line not in head)


def _set(place: str, kind: str, body: list[str]) -> Iterator[str]:
    """A set or a map; also a named counter, a flowtable and the like, which have no elements."""
    start = next((number for number, line in enumerate(body) if line.startswith("elements = {")), len(body))
    head = body[:start]
    yield _declared(place, kind, head)
    filled_by_packets = any(line.startswith("flags ") and {"dynamic", "timeout"} & set(re.findall(r"\w+", line)) for line in head)
    if start < len(body) and not filled_by_packets:
        elements = " ".join(body[start:]).removeprefix("elements = {").removesuffix("}").strip()
        yield from (f"add element {place} {{ {element} }}" for element in sorted(elements.split(", ")))
