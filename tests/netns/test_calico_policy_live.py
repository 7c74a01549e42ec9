"""Calico's policies change while they are in force: at once, and nobody else notices."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from clients import CLIENT, PODS, TEAM, passed, policy, said, source, sources, under
from talking import Servers, ask, client, say

from emulab import change
from emulab.errors import KernelError
from emulab.kernel import nftables
from emulab.kernel.namespaces import entered
from emulab.lab import Lab
from emulab.model import Pod
from emulab.objects import EGRESS, Objects, Peer, PortRange
from emulab.state import NftTable

ALLOWED = policy("p", source(Peer(pods=CLIENT), PortRange(1, 100)))


@pytest.mark.parametrize("user", ["root"])
def test_labels_and_policies_change_while_they_are_in_force(in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> list[str]:
        allowed, teams = policy("p", source(Peer(pods=CLIENT))), policy("p", source(Peer(namespaces=TEAM)))
        other = tuple(replace(pod, labels=(("app", "other"),)) if pod.name == "far" else pod for pod in PODS)
        unselected = tuple(replace(pod, labels=()) if pod.name == "web" else pod for pod in PODS)
        found = []
        under(lab, (allowed,))
        found.append(sources(lab))
        under(lab, (allowed,), pods=other)  # a client is none any more
        found.append(sources(lab))
        under(lab, (allowed,), pods=unselected)  # the policy selects nobody
        found.append(sources(lab))
        under(lab, (teams,))  # another rule
        found.append(sources(lab))
        lab.change(change.reshape(lab.design, PODS, Objects(policies=(teams,))))  # the namespace has lost its label
        found.append(sources(lab))
        under(lab, ())
        found.append(sources(lab))
        return found

    everybody = "far guest near node-a node-b"
    assert in_lab("flat", "calico", check) == ["far near node-a", "near node-a", everybody, "guest node-a", "node-a", everybody]


PORT = 9000  # that nobody declares: served by the tests themselves


@pytest.mark.parametrize("user", ["user"])
def test_an_established_connection_outlives_a_new_policy(in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> tuple[str, Any, Any]:
        under(lab, ())
        address = str(next(e for e in lab.cluster.endpoints if e.pod.name == "web").address(4))
        servers = Servers(lab.namespaces, [("default/web", "tcp", PORT)])
        try:
            with client(lab.namespaces, "default/far", address, PORT, "tcp", 5.0) as old:
                under(lab, (policy(), policy("out", selects=CLIENT, directions=(EGRESS,))))
                answered = say(old).by
                denied = ask(lab.namespaces, "default/far", address, PORT, timeout=0.3)
            under(lab, ())
            return answered, denied, ask(lab.namespaces, "default/far", address, PORT)
        finally:
            servers.close()

    answered, denied, allowed = in_lab("flat", "calico", check)
    assert (answered, denied, allowed.by) == ("web", "silent", "web")


class Newcomers(threading.Thread):
    """A new UDP flow every few milliseconds, from a port of its own, so that policy decides on each packet."""

    def __init__(self, lab: Lab, family: int) -> None:
        super().__init__()
        self._over = threading.Event()
        self._kind = socket.AF_INET if family == 4 else socket.AF_INET6
        self._source = lab.namespaces["default/far"]
        web = next(e for e in lab.cluster.endpoints if e.pod.name == "web")
        self._address = (str(web.address(family)), PORT)
        with entered(lab.namespaces[web.key].net):
            self._listener = socket.socket(self._kind, socket.SOCK_DGRAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._listener.bind(self._address)
        self.sent = 0
        self.start()

    def run(self) -> None:
        while not self._over.wait(0.002):
            with entered(self._source.net), socket.socket(self._kind, socket.SOCK_DGRAM) as made:
                made.sendto(b"?", self._address)
            self.sent += 1

    def lost(self) -> int:
        """End it; how many did not arrive."""
        self._over.set()
        self.join()
        self._listener.settimeout(1.0)
        arrived = 0
        with suppress(TimeoutError), self._listener:
            while arrived < self.sent:
                self._listener.recv(10)
                arrived += 1
        return self.sent - arrived


@pytest.mark.parametrize("user", ["user"])
def test_a_change_disturbs_nobody_else(in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> dict[str, Any]:
        kept = policy("kept", source(Peer(pods=CLIENT), PortRange(PORT, PORT), protocol="udp"))
        other = policy("other", selects=CLIENT)
        pods = (*PODS, Pod("late", "node-a", labels=(("app", "client"),)))
        steps = [((kept, other), PODS), ((kept, other), pods), ((kept, ALLOWED), pods), ((kept,), PODS)]
        under(lab, (kept,))
        flows = [Newcomers(lab, family) for family in (4, 6)]
        for policies, there in steps * 3:
            under(lab, policies, pods=there)
        undisturbed = [flow.lost() for flow in flows]
        victim = Newcomers(lab, 4)
        under(lab, (policy("kept"),))
        seen = victim.sent
        while victim.sent < seen + 20:
            time.sleep(0.001)
        under(lab, (kept,))
        return {"lost": undisturbed, "sent": min(flow.sent for flow in flows), "denied": victim.lost()}

    found = in_lab("flat", "calico", check)
    assert found["lost"] == [0, 0]
    assert found["sent"] > 50
    assert found["denied"] >= 20


def rules(lab: Lab) -> dict[str, int]:
    """The rules of node-a's table with their handles, and how many packets they have counted."""
    with entered(lab.namespaces["node-a"].net), nftables.Nftables() as nft:
        lines = [line.strip() for line in nft.listing().splitlines() if " # handle " in line]
    found = {}
    for line in lines:
        counted = re.search(r"counter packets (\d+) bytes \d+ ?", line)
        if counted:
            found[line.replace(counted[0], "")] = int(counted[1])
    return found


@pytest.mark.parametrize("user", ["root"])
def test_other_labels_touch_only_elements_of_sets(in_lab: Callable[..., Any]) -> None:
    """Rules keep their handles and counters, and whoever reads them finds the policy's place in the comment."""

    def check(lab: Lab) -> tuple[dict[str, int], dict[str, int]]:
        under(lab, (ALLOWED,))
        passed(lab, [("near", "web", "tcp/80"), ("guest", "web", "tcp/80")])
        before = rules(lab)
        other = tuple(replace(pod, labels=()) if pod.name == "far" else pod for pod in PODS)
        under(lab, (ALLOWED,), pods=other)
        return before, rules(lab)

    before, after = in_lab("flat", "calico", check)
    assert before == after
    counted = {re.search(r'comment "(.*)"', rule)[1]: number for rule, number in before.items() if number}  # type: ignore[index]
    assert counted == {
        "default|default/p|ingress|ingress[0]": 1,
        "End of tier default. Drop if no policies passed packet": 2,  # the silent are asked twice
    }


@pytest.mark.parametrize("user", ["user"])
def test_many_policies_at_once(in_lab: Callable[..., Any]) -> None:
    """More than one netlink message of an ordinary user holds."""

    def check(lab: Lab) -> tuple[str, str]:
        many = [
            policy(f"p{number}", *(source(Peer(pods=CLIENT), PortRange(1000 + port, 1000 + port)) for port in range(10)))
            for number in range(100)
        ]
        under(lab, (*many, ALLOWED))
        found = said(passed(lab))
        under(lab, ())
        return found, said(passed(lab))

    found, in_the_end = in_lab("flat", "calico", check)
    assert found.startswith("tcp/80: near far node-a; tcp/443: node-a; udp/53: near far node-a; from web: far tcp/80, ")
    assert "node-b" in in_the_end


@pytest.mark.parametrize("user", ["root"])
def test_what_the_kernel_refuses_is_put_back(in_lab: Callable[..., Any]) -> None:
    """Be it that the same change brought a pod."""

    def check(lab: Lab) -> tuple[str, str, str]:
        under(lab, (ALLOWED,))
        after = change.reshape(lab.design, (*PODS, Pod("late", "node-a")), Objects())
        broken = [
            replace(thing, rules=(*thing.rules, f"add rule {thing.family} calico nowhere drop"))
            if isinstance(thing, NftTable)
            else thing
            for thing in after.plan["node-a"]
        ]
        refused = ""
        try:
            lab.change(replace(after, plan={**after.plan, "node-a": tuple(broken)}))
        except KernelError as error:
            refused = str(error)
        return refused.partition(": Error")[0], "; ".join(map(str, lab.drift())), sources(lab)

    refused, drift, who = in_lab("flat", "calico", check)
    assert refused.startswith("node-a: nft table ip calico, ip6 calico")
    assert (drift, who) == ("", "far near node-a")
