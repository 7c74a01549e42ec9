"""Which nftables rules a packet met, and what they decided: the kernel's own trace of it, as ``nft monitor trace`` shows it.

A temporary table, first at its hooks, marks the packets (`meta nftrace set 1`); for those the kernel multicasts an event for
each rule that matches and each policy that applies.  Formats: linux/netfilter/nf_tables.h (NFTA_TRACE_*), nfnetlink.h.
The listeners are raw sockets: nothing runs beside the lab, and an ordinary user's namespaces allow them, too.
"""

from __future__ import annotations

import errno
import re
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import NamedTuple

from emulab.errors import MachineError
from emulab.kernel import nftables
from emulab.kernel.closing import close_all
from emulab.kernel.conntrack import NETLINK_ADD_MEMBERSHIP
from emulab.kernel.namespaces import Namespace, Namespaces, entered
from emulab.kernel.netlink import SOL_NETLINK, attributes, messages

TABLE = "emulab-trace"
_NETFILTER, _GROUP = 12, 9  # NFNLGRP_NFTRACE
_MESSAGE = 10 << 8 | 17  # NFNL_SUBSYS_NFTABLES, NFT_MSG_TRACE
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_TABLE, _CHAIN, _RULE_HANDLE, _TYPE, _VERDICT, _ID = 1, 2, 3, 4, 5, 6  # NFTA_TRACE_*
_NETWORK_HEADER, _TRANSPORT_HEADER, _IIF, _OIF, _POLICY_VERDICT = 8, 9, 10, 12, 16
_POLICY, _RULE = 1, 3  # NFT_TRACETYPE_*
_VERDICTS = {0: "drop", 1: "accept", 2: "stolen", 3: "queue", 4: "repeat", -1: "continue", -2: "break", -3: "jump", -4: "goto"}
_VERDICTS |= {-5: "return"}
_BUFFER = 1 << 22  # bytes for events; the kernel gives as much of it as net.core.rmem_max allows
_FIRST = -10000  # a priority before every one that has a name
_HANDLE = re.compile(r" # handle (\d+)$")
_COUNTED = re.compile(r"\bcounter packets (\d+) bytes \d+")


class Event(NamedTuple):
    """A rule, or a chain's policy, that a packet met; ``rule`` is its text, "policy drop" for a policy.

    ``network`` is the packet's IP header and ``transport`` the first bytes of the next, as they were at the chain's begin;
    ``before`` and ``after`` name the interfaces it came by and leaves by, as far as the hook knows them; ``handle`` is the
    rule's number in its table.
    """

    namespace: str
    family: str
    table: str
    chain: str
    rule: str
    verdict: str
    before: int
    after: int
    network: bytes
    transport: bytes
    handle: int = 0

    def __str__(self) -> str:
        return f"nft {self.family} {self.table} {self.chain}: {self.rule}"

    @property
    def dropped(self) -> bool:
        return self.verdict == "drop"


class Watch:
    """Traces the packets that ``matches`` describe (nft expressions by family: "ip", "ip6", "bridge") in namespaces.

    A namespace without any table of its own is left as it is: there no rule can decide.
    """

    def __init__(self, namespaces: Namespaces, names: Iterable[str], matches: Sequence[str]) -> None:
        self._traced: list[tuple[Namespace, socket.socket, tuple[str, ...]]] = []
        self._rules: dict[str, dict[tuple[str, str, int], str]] = {}
        self._counted: dict[str, dict[tuple[str, str, int], int]] = {}
        try:
            for name in names:
                self._begin(namespaces[name], matches)
        except BaseException:
            self.close()
            raise

    def _begin(self, namespace: Namespace, matches: Sequence[str]) -> None:
        with entered(namespace.net), ExitStack() as release:
            if not nftables.tables():
                return
            nft = release.enter_context(nftables.Nftables())
            listing = nft.listing()
            families = tuple(line.split()[1] for line in listing.splitlines() if line.startswith("table "))
            ours = tuple(f for f, served in (("inet", {"ip", "ip6", "inet"}), ("bridge", {"bridge"})) if served & {*families})
            if not ours:
                return
            self._rules[namespace.name] = dict(_rules(listing))
            self._counted[namespace.name] = dict(_counts(listing))
            listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETFILTER)
            self._traced.append((namespace, listener, ours))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            listener.bind((0, 0))
            listener.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, _GROUP)
            try:
                nft.run("\n".join(line for family in ours for line in _table(family, matches)))
            except ValueError as error:
                raise MachineError(f"{namespace.name}: cannot trace nftables: {error}") from None

    def events(self) -> dict[str, list[Event]]:
        """What was met since the last call, by namespace, in order."""
        found: dict[str, list[Event]] = {}
        for namespace, listener, _ in self._traced:
            events: list[tuple[int, Mapping[int, bytes]]] = []
            for data in _received(listener):
                for kind, _, _, body in messages(data):
                    if kind == _MESSAGE:
                        events.append((body[0], dict(attributes(body[4:]))))
            found[namespace.name] = list(_decoded(namespace.name, events, self._rules[namespace.name]))
        return found

    def risen(self, name: str) -> dict[tuple[str, str, int], int]:
        """By how many packets the counters in a namespace have risen since the beginning: (family, table, handle) -> number."""
        namespace = next((one for one, _, _ in self._traced if one.name == name), None)
        if namespace is None:
            return {}
        with entered(namespace.net), nftables.Nftables() as nft:
            now = dict(_counts(nft.listing()))
        return {key: packets - self._counted[name].get(key, 0) for key, packets in now.items()}

    def close(self) -> None:
        """Take the tables away again."""
        close_all([listener for _, listener, _ in self._traced])
        while self._traced:
            namespace, _, ours = self._traced.pop()
            with suppress(ValueError):  # somebody has flushed the ruleset meanwhile
                nftables.run(namespace, "\n".join(f"delete table {family} {TABLE}" for family in ours))


def _received(listener: socket.socket) -> Iterator[bytes]:
    """All that is there.  When more came than the buffer held, netlink says so once; the first are still to be had."""
    while True:
        try:
            yield listener.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                return


def _table(family: str, matches: Sequence[str]) -> Iterator[str]:
    """The marking table; one that a killed predecessor left is replaced."""
    name = f"{family} {TABLE}"
    yield from (f"add table {name}", f"delete table {name}", f"add table {name}")
    for hook in ("prerouting", "output"):
        yield f"add chain {name} {hook} {{ type filter hook {hook} priority {_FIRST} ; }}"
        for match in matches:
            yield f"add rule {name} {hook} {match} meta nftrace set 1"


def _rules(listing: str) -> Iterator[tuple[tuple[str, str, int], str]]:
    """(family, table, handle) -> text of every rule in ``nft -a list ruleset``; a handle is unique in its table."""
    family = table = ""
    for line in listing.splitlines():
        if line.startswith("table "):
            _, family, table, *_ = line.split()
        elif found := _HANDLE.search(line):
            yield (family, table, int(found[1])), _COUNTED.sub("counter", line[: found.start()].strip())


def _counts(listing: str) -> Iterator[tuple[tuple[str, str, int], int]]:
    """(family, table, handle) -> packets of every rule that counts."""
    family = table = ""
    for line in listing.splitlines():
        if line.startswith("table "):
            _, family, table, *_ = line.split()
        elif (found := _HANDLE.search(line)) and (counter := _COUNTED.search(line)):
            yield (family, table, int(found[1])), int(counter[1])


def _decoded(
    namespace: str, events: Iterable[tuple[int, Mapping[int, bytes]]], rules: Mapping[tuple[str, str, int], str]
) -> Iterator[Event]:
    """Only the first event of each pass through a base chain carries the packet's headers and interfaces."""
    heads: dict[bytes, Mapping[int, bytes]] = {}
    for number, values in events:
        if _NETWORK_HEADER in values:
            heads[values.get(_ID, b"")] = values
        head = heads.get(values.get(_ID, b""), values)
        family = _FAMILIES.get(number, "")
        table, chain = (values.get(name, b"").rstrip(b"\0").decode() for name in (_TABLE, _CHAIN))
        kind, handle = _number(values.get(_TYPE, b"")), 0
        if table == TABLE or kind not in (_POLICY, _RULE):
            continue
        if kind == _POLICY:
            verdict = _VERDICTS.get(_number(values.get(_POLICY_VERDICT, b"")), "")
            rule = f"policy {verdict}"
        else:
            verdict = _VERDICTS.get(_number(dict(attributes(values.get(_VERDICT, b""))).get(1, b"")), "")
            handle = int.from_bytes(values.get(_RULE_HANDLE, b""), "big")
            rule = rules.get((family, table, handle), f"rule with handle {handle}")
        before, after = (_number(head.get(name, b"")) for name in (_IIF, _OIF))
        network, transport = (head.get(name, b"") for name in (_NETWORK_HEADER, _TRANSPORT_HEADER))
        yield Event(namespace, family, table, chain, rule, verdict, before, after, network, transport, handle)


def _number(value: bytes) -> int:
    """A signed number in network order; 0 when it is missing."""
    return int(struct.unpack("!i", value)[0]) if len(value) == 4 else 0
