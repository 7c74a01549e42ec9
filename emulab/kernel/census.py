"""How many objects of each kind a namespace holds: `emulab.comparison.KINDS`.

Counted from the kernel's own dumps, whoever made the objects; nothing is known of a plan.  Formats: linux/rtnetlink.h,
neighbour.h.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping

from emulab.kernel import decode, nftables
from emulab.kernel import netlink as nl
from emulab.kernel.encode import AF_BRIDGE, NTF_EXT_LEARNED, NUD_NOARP, NUD_PERMANENT
from emulab.kernel.namespaces import Namespace, entered
from emulab.kernel.netlink import RouteSocket

_FAMILIES = (2, 10)
_RTA_TABLE, _RT_TABLE_LOCAL = 15, 255
_LEARNED = 0x02 | 0x04 | 0x08 | 0x10  # NUD_REACHABLE, STALE, DELAY, PROBE: there is an answer, if an old one
_LINK_LOCAL = (b"\xfe\x80", b"\xff")  # fe80::/10 as the kernel has it, and multicast


def census(namespace: Namespace, macs: Collection[str]) -> dict[str, int]:
    """The counts of one namespace, by kind; ``macs`` are the pods' own, of which FDB entries are learned."""
    socket = namespace.socket()
    found = {"devices": _devices(socket), "routes": sum(map(_counts_as_route, _dump(socket, nl.RTM_GETROUTE, nl.rtmsg.size)))}
    found["fdb"], found["fdb_learned"] = _fdb(socket, {nl.mac_bytes(mac) for mac in macs})
    found.update(_neighbours(socket))
    found["rules"], found["elements"] = _nftables(namespace)
    return found


def _dump(socket: RouteSocket, kind: int, size: int, family: int = 0) -> Iterator[bytes]:
    return (payload for _, payload in socket.dump(kind, bytes([family]) + bytes(size - 1)))


def _devices(socket: RouteSocket) -> int:
    return sum(not decode.interface(payload).own for payload in _dump(socket, nl.RTM_GETLINK, nl.ifinfomsg.size))


def _counts_as_route(payload: bytes) -> bool:
    """What `ip route show table all` shows, but what is made for every address and every device by itself."""
    family, _, _, _, table, _, _, _, flags = nl.rtmsg.unpack_from(payload)
    if family not in _FAMILIES or flags & decode.RTM_F_CLONED:
        return False
    values = dict(nl.attributes(payload[nl.rtmsg.size :]))
    table = struct.unpack("=I", values[_RTA_TABLE])[0] if _RTA_TABLE in values else table
    return table != _RT_TABLE_LOCAL and not _by_itself(family, values.get(1, b""))


def _by_itself(family: int, address: bytes) -> bool:
    """Link-local and multicast IPv6: every device has such addresses, and every bridge's port."""
    return family == 10 and address.startswith(_LINK_LOCAL)


def _neighbours(socket: RouteSocket) -> dict[str, int]:
    """Nothing is said of learned ones where `emulab.probe.neighbours` has entered what traffic would teach, and more."""
    programmed = learned = entered = 0
    for payload in _dump(socket, nl.RTM_GETNEIGH, nl.ndmsg.size):
        family, _, state, flags, _ = nl.ndmsg.unpack_from(payload)
        if family not in _FAMILIES or flags & decode.NTF_PROXY:
            continue
        values = dict(nl.attributes(payload[nl.ndmsg.size :]))
        if not _by_itself(family, values.get(decode.NDA_DST, b"")):
            programmed += bool(state & NUD_PERMANENT)
            learned += bool(state & _LEARNED)
            entered += bool(flags & NTF_EXT_LEARNED)
    return {"neighbours": programmed} if entered else {"neighbours": programmed, "neighbours_learned": learned}


def _fdb(socket: RouteSocket, macs: Collection[bytes]) -> tuple[int, int]:
    """Where MACs are: at a bridge's ports, at tunnels' other ends.  Devices' own addresses and what they listen to are not.

    Of the learned ones those of pods: which others there are depends on when which device last sent an IPv6 solicitation.
    """
    programmed, learned = set(), set()
    for payload in _dump(socket, nl.RTM_GETNEIGH, nl.ndmsg.size, AF_BRIDGE):
        _, index, state, _, _ = nl.ndmsg.unpack_from(payload)
        values = dict(nl.attributes(payload[nl.ndmsg.size :]))
        bridged, tunnelled = decode.NDA_MASTER in values, decode.NDA_DST in values
        entry = (index, bridged, values.get(decode.NDA_LLADDR), values.get(decode.NDA_DST))
        if state & (NUD_NOARP | NUD_PERMANENT):
            if tunnelled or (bridged and state & NUD_NOARP):
                programmed.add(entry)
        elif (bridged or tunnelled) and values.get(decode.NDA_LLADDR) in macs:
            learned.add(entry)
    return len(programmed), len(learned)


def _nftables(namespace: Namespace) -> tuple[int, int]:
    with entered(namespace.net):
        if not nftables.tables():
            return 0, 0
        with nftables.Nftables() as nft:
            listing = nft.ruleset()
    rules = sum("rule" in one for one in listing)
    named: list[Mapping[str, object]] = [one[kind] for one in listing for kind in ("set", "map") if kind in one]
    return rules, sum(len(_elements(one)) for one in named)


def _elements(named: Mapping[str, object]) -> list[object]:
    elements = named.get("elem", [])
    return elements if isinstance(elements, list) else [elements]
