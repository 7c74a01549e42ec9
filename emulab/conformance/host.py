"""The host on which a plugin is tried: the sandbox's own network namespace, folders of its own, containers, and a look at it all.

Only `ip`, `tc` and `nft` are used, and what they show: a plugin is not judged by the code that judges it.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

from emulab.cni.result import IPInterface, IPNetwork
from emulab.errors import MachineError
from emulab.kernel import syscalls

_COVERED = ("/run", "/var/lib", "/etc/cni")  # where plugins keep state: each is empty here, and gone afterwards
_KEPT = ("/run", "/var/lib")
_SETTLED = 3.0  # seconds for what the kernel takes down in the background


@dataclass(frozen=True)
class Seen:
    """An interface as the kernel has it."""

    index: int
    mac: str
    mtu: int
    up: bool
    addresses: frozenset[IPInterface]


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
        self.ip("link set lo up")
        for number, master in enumerate(masters):
            self.ip(f"link add {master} type veth peer name uplink{number}")
            self.ip(f"link set {master} up")
            self.ip(f"link set uplink{number} up")

    def ip(self, line: str) -> str:
        """`ip LINE`; raises `MachineError` when it fails."""
        try:
            done = subprocess.run(["ip", *line.split()], capture_output=True, text=True)
        except FileNotFoundError:
            raise MachineError("there is no command `ip` here: install iproute2") from None
        if done.returncode:
            raise MachineError(f"ip {line}: {done.stderr.strip()}")
        return done.stdout

    def add(self, container: str) -> str:
        """A new network namespace; its path."""
        self.ip(f"netns add {container}")
        return f"/run/netns/{container}"

    def remove(self, container: str) -> None:
        if os.path.exists(f"/run/netns/{container}"):
            self.ip(f"netns del {container}")

    def interface(self, ifname: str, container: str | None = None) -> Seen | None:
        """The interface of a container, or of the host; None when there is none."""
        for one in self._json("addr", container):
            if one["ifname"] == ifname:
                found = frozenset(
                    ip_interface(f"{address['local']}/{address['prefixlen']}")
                    for address in one["addr_info"]
                    if "local" in address
                )
                return Seen(one["ifindex"], one.get("address", ""), one["mtu"], "UP" in one["flags"], found)
        return None

    def routes(self, container: str) -> set[tuple[IPNetwork, str]]:
        """(destination, gateway or "") in all tables of a container."""
        found = set()
        for family in (4, 6):
            for one in self._json(f"-{family} route show table all", container):
                everywhere = "0.0.0.0/0" if family == 4 else "::/0"
                hops = one.get("nexthops") or [one]
                destination = ip_network(everywhere if one["dst"] == "default" else one["dst"])
                found |= {(destination, hop.get("gateway", "")) for hop in hops}
        return found

    def look(self) -> frozenset[str]:
        """Everything that a plugin can leave behind here: interfaces, addresses, routes, queueing, nftables' rules, files."""
        shown = self._json("addr", None)
        links = {f"interface {one['ifname']}" for one in shown}
        addresses = {
            f"address {address['local']}/{address['prefixlen']} of {one['ifname']}"
            for one in shown
            for address in one["addr_info"]
            if address.get("scope") == "global"
        }
        routes = {
            f"route {one['dst']} {one.get('gateway', '')} by {one.get('dev', '')}"
            for family in (4, 6)
            for one in self._json(f"-{family} route", None)
            if not one["dst"].startswith("fe80:")
        }
        queues = {f"queue {line}" for line in self._said("tc", "qdisc", "show").splitlines() if "noqueue" not in line}
        return frozenset(links | addresses | routes | queues | set(self._rules()) | set(_files()))

    def settled(self, before: frozenset[str]) -> frozenset[str]:
        """A look once all that came since ``before`` has gone, or there was time enough for it."""
        deadline = time.monotonic() + _SETTLED
        while (now := self.look()) - before and time.monotonic() < deadline:
            time.sleep(0.02)
        return now

    def _rules(self) -> Iterator[str]:
        """Each with its chain.  iptables-nft shows up in them, the older iptables of its own tables does not."""
        place = ""
        for line in self._said("nft", "-s", "list", "ruleset").splitlines():
            words = line.strip()
            if words.startswith(("table ", "chain ", "set ", "map ")):
                place = f"{place.split(' / ')[0] if not words.startswith('table ') else ''} / {words}".removeprefix(" / ").rstrip(
                    " {"
                )
                yield f"rule of {place}"
            elif words not in ("", "}"):
                yield f"rule of {place}: {words}"

    def _json(self, line: str, container: str | None) -> list[dict[str, Any]]:
        where = f"-n {container} " if container else ""
        text = self.ip(f"{where}-j {line}")
        return [one for one in json.loads(text or "[]") if one]

    def _said(self, *words: str) -> str:
        with suppress(FileNotFoundError):
            return subprocess.run(words, capture_output=True, text=True).stdout
        return ""


def _files() -> Iterator[str]:
    for folder in _KEPT:
        for path in Path(folder).rglob("*"):
            if not path.is_relative_to("/run/netns") and path.is_file():
                yield f"file {path}"


def difference(before: frozenset[str], after: frozenset[str]) -> Sequence[str]:
    """What is there now and was not."""
    return sorted(after - before)
