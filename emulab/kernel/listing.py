"""nftables tables as their listings: the planned one and the real one, both in the kernel's own words.

A listing differs from the commands that made it (defaults are spelled out, values and ranges written in another way).  So the
planned commands are carried out in a namespace of their own, and what is listed there is what the real one should show.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from emulab.drift import Listing
from emulab.kernel import applier, nftables
from emulab.kernel.namespaces import Namespaces, entered
from emulab.kernel.netlink import NetlinkSocket
from emulab.state import KernelObject, NftTable

_SCRATCH = "planned tables"
_NETLINK_NETFILTER = 12
_NFT_MSG_GETTABLE = 10 << 8 | 1  # NFNL_SUBSYS_NFTABLES in linux/netfilter/nfnetlink.h, the message in nf_tables.h
_STATELESS = 1 << 2  # NFT_CTX_OUTPUT_STATELESS in nftables/libnftables.h
_COUNTED = re.compile(r"\b(counter) packets \d+ bytes \d+")

_wanted: dict[NftTable, tuple[str, ...]] = {}


def tables(namespaces: Namespaces, name: str, objects: Iterable[KernelObject]) -> list[Listing]:
    """All tables of a namespace, each with what it would be as planned in ``objects``."""
    with entered(namespaces[name].net):
        netfilter = NetlinkSocket(_NETLINK_NETFILTER)
        try:
            if not any(True for _ in netfilter.dump(_NFT_MSG_GETTABLE, bytes(4))):
                return []  # most namespaces, and a hundred times quicker than asking the library
        finally:
            netfilter.close()
        found = statements(_list("list ruleset"))
    planned = {(thing.family, thing.name): thing for thing in objects if isinstance(thing, NftTable)}
    return [
        Listing(*key, rules, _as_planned(namespaces, planned[key]) if key in planned else None) for key, rules in found.items()
    ]


def _as_planned(namespaces: Namespaces, table: NftTable) -> tuple[str, ...]:
    """What the kernel lists for ``table`` when nobody has touched it."""
    if table not in _wanted:
        namespaces.create([_SCRATCH])
        try:
            applier.add(namespaces, {_SCRATCH: (table,)})
            with entered(namespaces[_SCRATCH].net):
                _wanted[table] = statements(_list("list ruleset"))[table.family, table.name]
        finally:
            namespaces.remove([_SCRATCH])
    return _wanted[table]


def _list(command: str) -> str:
    with _StatelessNftables() as nft:
        return nft.run(command)


class _StatelessNftables(nftables.Nftables):
    """Listings without the values of counters and the time that elements have left."""

    def __init__(self) -> None:
        super().__init__()
        nftables._library().nft_ctx_output_set_flags(self._context, _STATELESS)


def statements(listing: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """A ruleset's listing as commands of line syntax, by (family, name) of the table.

    An element per command, sorted: the kernel lists those of a hash in any order.
    """
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    lines = iter(_COUNTED.sub(r"\1", line) for line in listing.splitlines() if line.strip() and not line.startswith("#"))
    for line in lines:
        _, family, name, *_ = line.split()  # table ip NAME {
        found[family, name] = tuple(_table(f"{family} {name}", lines))
    return found


def _table(table: str, lines: Iterator[str]) -> Iterator[str]:
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
