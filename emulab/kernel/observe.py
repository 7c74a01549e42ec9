"""The kernel of a running lab, read back into the objects of `emulab.state`.

One dump per kind of object and namespace, no processes.  Interfaces go by the numbers and names that they have now.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from emulab.drift import Found, Observed, pair_ends
from emulab.kernel import decode
from emulab.kernel import netlink as nl
from emulab.kernel.decode import Interface
from emulab.kernel.encode import AF_BRIDGE
from emulab.kernel.listing import tables
from emulab.kernel.namespaces import Namespace, Namespaces
from emulab.kernel.settings import settings
from emulab.state import KernelObject, State, Up, Veth

RTM_GETQDISC = 38
IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS = 29, 8
ELSEWHERE = "?"  # the other end of a pair that leads out of the lab
End = tuple[str, int]  # a namespace and the index of an interface in it


def observe(namespaces: Namespaces, desired: State, only: Collection[str] | None = None) -> Observed:
    """What each namespace of ``desired``, or of those ``only`` these, really holds.

    A pair is there twice, seen from either end.  Of sysctls and offloads there are those that ``desired`` names.
    """
    links = {name: _links(namespaces[name]) for name in desired if name in namespaces}
    peers = _peers(links, desired)
    wanted = {name: desired[name] for name in links if only is None or name in only}
    listed = tables(namespaces, wanted)
    return {name: (*_contents(namespaces[name], links, peers, things), *listed[name]) for name, things in wanted.items()}


def _links(namespace: Namespace) -> dict[int, Interface]:
    body = nl.ifinfomsg.pack(0, 0, 0, 0, 0) + nl.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
    found = (decode.interface(payload) for payload in _dump(namespace, nl.RTM_GETLINK, body))
    return {link.index: link for link in found}


def _dump(namespace: Namespace, kind: int, body: bytes) -> Iterator[bytes]:
    return (payload for _, payload in namespace.socket().dump(kind, body))


def _forwarding(namespace: Namespace, links: Iterable[Interface]) -> Iterable[bytes]:
    """Only bridges and VXLAN devices forward by such entries; of others there are filters for what they receive."""
    if not any(link.kind in ("bridge", "vxlan") for link in links):
        return ()
    return _dump(namespace, nl.RTM_GETNEIGH, nl.ndmsg.pack(AF_BRIDGE, 0, 0, 0, 0))


def _peers(links: Mapping[str, Mapping[int, Interface]], desired: State) -> dict[End, End]:
    """The other end of every end of a pair.

    An end names only the other's index, and the namespace by a number of its own.  Two ends that name each other are a pair;
    where several could be, it is the planned one, or else the first that is in no other pair.
    """
    ends = {(name, i): link for name, there in links.items() for i, link in there.items() if link.kind == "veth"}
    by_name = {(name, link.name): (name, link.index) for (name, _), link in ends.items()}
    abroad: dict[tuple[int, int], list[End]] = {}
    peers: dict[End, End] = {}
    for end, link in ends.items():
        if link.abroad:
            abroad.setdefault((link.index, link.lower), []).append(end)
        else:
            peers[end] = (end[0], link.lower)
    for here, there in pair_ends(desired).items():
        one, other = by_name.get(here), by_name.get(there)
        if one and other and one in abroad.get((ends[other].lower, ends[other].index), ()):
            peers[one] = other
    for end, link in ends.items():
        if end not in peers:
            for candidate in abroad.get((link.lower, link.index), ()):
                if candidate not in peers and candidate[0] != end[0]:
                    peers[end], peers[candidate] = candidate, end
                    break
    return peers


def _contents(
    namespace: Namespace,
    everywhere: Mapping[str, Mapping[int, Interface]],
    peers: Mapping[End, End],
    wanted: Iterable[KernelObject],
) -> Iterator[Found]:
    """All but nftables tables."""
    name, links = namespace.name, everywhere[namespace.name]
    names = decode.Names((index, link.name) for index, link in links.items())
    entries = dict.fromkeys(decode.forwarding(_forwarding(namespace, links.values()), names))
    defaults = {index: entry for index, link in links.items() if (entry := decode.default_entry(link))}
    for index, link in links.items():
        if link.own:
            continue
        if link.kind == "veth":
            yield _pair(name, link, peers.get((name, index)), everywhere)
        else:
            yield decode.device(link, names, flooding=defaults.get(index) in entries)
        if link.master:
            yield decode.port(link, names)
    yield from (Up(link.name) for link in links.values() if link.up)
    yield from decode.disciplines(_dump(namespace, RTM_GETQDISC, bytes(20)), names)
    yield from decode.addresses(_dump(namespace, nl.RTM_GETADDR, bytes(nl.ifaddrmsg.size)), names)
    yield from decode.routes(_dump(namespace, nl.RTM_GETROUTE, bytes(nl.rtmsg.size)), names)
    yield from decode.neighbours(_dump(namespace, nl.RTM_GETNEIGH, bytes(nl.ndmsg.size)), names)
    own = set(defaults.values())
    yield from (entry for entry in entries if entry not in own)
    yield from settings(namespace, wanted, links.values())


def _pair(name: str, link: Interface, end: End | None, everywhere: Mapping[str, Mapping[int, Interface]]) -> Veth:
    """A pair as seen from ``link`` in ``name``."""
    there = everywhere[end[0]].get(end[1]) if end else None
    if end is None or there is None:
        return Veth(link.name, ELSEWHERE, ELSEWHERE, ELSEWHERE, link.mtu, link.mac)
    home = end[0] if end[0] != name else None
    netns = home and home.removeprefix("default/").replace("/", ".")  # as `emulab.model.Pod.netns` has it
    return Veth(link.name, there.name, home, netns, link.mtu, link.mac, there.mac)
