"""The host on which a plugin is tried: the sandbox's own network namespace, folders of its own, containers, and a look at it all.

It is read by the kernel's dumps, as it is looked at again and again; only rules of nftables are what `nft` shows.
"""

from __future__ import annotations

import os
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

from emulab.cni.result import IPInterface, IPNetwork
from emulab.drift import Found
from emulab.errors import MachineError
from emulab.kernel import decode, nftables, syscalls
from emulab.kernel import netlink as nl
from emulab.kernel.decode import Interface
from emulab.kernel.namespaces import entered, returning
from emulab.kernel.netlink import Request, RouteSocket
from emulab.kernel.observe import RTM_GETQDISC

_COVERED = ("/run", "/var/lib", "/etc/cni")  # where plugins keep state: each is empty here, and gone afterwards
_KEPT = ("/run", "/var/lib")
_INTERFACE = "interface "
_IFA_ADDRESS, _IFA_LOCAL, _RTA_DST, _RTA_GATEWAY = 1, 2, 1, 5  # linux/if_addr.h, rtnetlink.h
_SETTLED = 3.0  # seconds for what the kernel takes down in the background


@dataclass(frozen=True)
class Seen:
    """An interface as the kernel has it.  It makes ``link_local`` addresses (IPv6) by itself, some time after it is up."""

    index: int
    mac: str
    mtu: int
    up: bool
    addresses: frozenset[IPInterface]
    link_local: frozenset[IPInterface] = field(compare=False)


class Host:
    """Made once, in the sandbox.  ``folders`` of plugins stay in sight, ``masters`` are interfaces to be made."""

    def __init__(self, folders: Iterable[Path], masters: Iterable[str] = ()) -> None:
        held = {folder: os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for folder in folders}
        for covered in _COVERED:
            if os.path.isdir(covered):
                syscalls.mount("tmpfs", covered, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=755")
        for folder, number in held.items():
            if not folder.exists():
                folder.mkdir(parents=True)
                syscalls.mount(f"/proc/self/fd/{number}", str(folder), None, syscalls.MS_BIND)
            os.close(number)
        os.makedirs("/run/netns")
        self._socket = RouteSocket()
        lines = ["link set lo up"]
        for number, master in enumerate(masters):
            lines.append(f"link add {master} up type veth peer name uplink{number}")
            lines.append(f"link set uplink{number} up")
        self.ip("", *lines)

    def ip(self, words: str, *lines: str) -> None:
        """`ip WORDS`, or with them before each of some lines, in one process; raises `MachineError` when it fails."""
        line = ["ip", *words.split(), *(["-batch", "-"] if lines else [])]
        try:
            done = subprocess.run(line, input="\n".join(lines), capture_output=True, text=True)
        except FileNotFoundError:
            raise MachineError("there is no command `ip` here: install iproute2") from None
        if done.returncode:
            raise MachineError(f"{' '.join(line)}: {done.stderr.strip()}")

    def add(self, container: str) -> str:
        """A new network namespace, named as `ip netns add` does it; its path."""
        path = f"/run/netns/{container}"
        Path(path).touch()
        with returning():
            syscalls.unshare(syscalls.CLONE_NEWNET)
            syscalls.mount("/proc/thread-self/ns/net", path, None, syscalls.MS_BIND)
        return path

    def remove(self, container: str) -> None:
        """As `ip netns del` does it: what is in there, the kernel takes down in the background."""
        with suppress(FileNotFoundError):
            syscalls.unmount(f"/run/netns/{container}")
            os.unlink(f"/run/netns/{container}")

    def empty(self, container: str) -> None:
        """Take away the interfaces of a container at once, and with them whatever hangs on their other ends on the host."""
        if os.path.exists(f"/run/netns/{container}"):
            with self._in(container) as socket:
                for link in [link for link in _links(socket) if not link.own]:
                    with suppress(OSError):  # it was the other end of one before
                        socket.execute([Request(nl.RTM_DELLINK, 0, nl.ifinfomsg.pack(0, 0, link.index, 0, 0))])

    def interface(self, ifname: str, container: str | None = None) -> Seen | None:
        """The interface of a container, or of the host; None when there is none."""
        with self._in(container) as socket:
            link = next((link for link in _links(socket) if link.name == ifname), None)
            if link is None:
                return None
            addresses = frozenset(_addresses(socket, link.index))
            link_local = frozenset(one for one in addresses if one.version == 6 and one.is_link_local)
            return Seen(link.index, link.mac, link.mtu, link.up, addresses - link_local, link_local)

    def routes(self, container: str) -> set[tuple[IPNetwork, str]]:
        """(destination, gateway or "") in all tables of a container."""
        with self._in(container) as socket:
            return set(_routes(socket))

    def look(self) -> frozenset[str]:
        """Everything that a plugin can leave behind here: interfaces, addresses, routes, queueing, nftables' rules, files."""
        socket = self._socket
        names = decode.Names((link.index, link.name) for link in _links(socket))
        addresses = decode.addresses(_dump(socket, nl.RTM_GETADDR, nl.ifaddrmsg), names)
        routes = decode.routes(_dump(socket, nl.RTM_GETROUTE, nl.rtmsg), names)
        queues = decode.disciplines(_dump(socket, RTM_GETQDISC, decode.tcmsg), names)
        kernel = (f"{_INTERFACE}{name}" for name in names.values()), _told("address", addresses), _told("route", routes)
        return frozenset(one for found in (*kernel, _told("queue", queues), _rules(), _files()) for one in found)

    def settled(self, before: frozenset[str]) -> frozenset[str]:
        """A look once the kernel has taken down all that came since ``before``, or had time enough for it.

        That begins with interfaces: where none is left, nothing of the kind is under way.
        """
        deadline = time.monotonic() + _SETTLED
        while True:
            now = self.look()
            if not any(one.startswith(_INTERFACE) for one in now - before) or time.monotonic() > deadline:
                return now
            time.sleep(0.02)

    @contextmanager
    def _in(self, container: str | None) -> Iterator[RouteSocket]:
        """A socket in a container, or on the host."""
        if container is None:
            yield self._socket
            return
        net = os.open(f"/run/netns/{container}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            with entered(net):
                socket = RouteSocket()
        finally:
            os.close(net)
        with closing(socket):
            yield socket


def _dump(socket: RouteSocket, kind: int, head: struct.Struct) -> list[bytes]:
    return [payload for _, payload in socket.dump(kind, bytes(head.size))]


def _links(socket: RouteSocket) -> Iterator[Interface]:
    return map(decode.interface, _dump(socket, nl.RTM_GETLINK, nl.ifinfomsg))


def _addresses(socket: RouteSocket, wanted: int) -> Iterator[IPInterface]:
    for payload in _dump(socket, nl.RTM_GETADDR, nl.ifaddrmsg):
        _, prefix, _, _, index = nl.ifaddrmsg.unpack_from(payload)
        if index == wanted:
            values = dict(nl.attributes(payload[nl.ifaddrmsg.size :]))
            yield ip_interface((values.get(_IFA_LOCAL, values[_IFA_ADDRESS]), prefix))


def _routes(socket: RouteSocket) -> Iterator[tuple[IPNetwork, str]]:
    for payload in _dump(socket, nl.RTM_GETROUTE, nl.rtmsg):
        family, prefix, *_ = nl.rtmsg.unpack_from(payload)
        if family in (2, 10):
            values = dict(nl.attributes(payload[nl.rtmsg.size :]))
            destination = ip_network((values.get(_RTA_DST, bytes(4 if family == 2 else 16)), prefix))
            hops = [gateway for _, gateway in decode.next_hops(values.get(decode.RTA_MULTIPATH, b""))]
            for gateway in hops or [values.get(_RTA_GATEWAY, b"")]:
                yield destination, str(ip_address(gateway)) if gateway else ""


def _told(what: str, things: Iterable[Found]) -> Iterator[str]:
    """Each by the line that a person would type for it."""
    return (f"{what} {line.partition(' add ')[2].removesuffix(' nodad')}" for thing in things for line in thing.lines())


def _rules() -> Iterator[str]:
    """Each with its chain.  iptables-nft shows up in them, the older iptables of its own tables does not."""
    if not nftables.tables():
        return
    place = ""
    listed = subprocess.run(["nft", "-s", "list", "ruleset"], capture_output=True, text=True).stdout
    for line in listed.splitlines():
        words = line.strip()
        if words.startswith(("table ", "chain ", "set ", "map ")):
            outer = "" if words.startswith("table ") else place.split(" / ")[0]
            place = f"{outer} / {words}".removeprefix(" / ").rstrip(" {")
            yield f"rule of {place}"
        elif words not in ("", "}"):
            yield f"rule of {place}: {words}"


def _files() -> Iterator[str]:
    for folder in _KEPT:
        for path in Path(folder).rglob("*"):
            if not path.is_relative_to("/run/netns") and path.is_file():
                yield f"file {path}"


def difference(before: frozenset[str], after: frozenset[str]) -> Sequence[str]:
    """What is there now and was not."""
    return sorted(after - before)
