"""Calico's policies change while they are in force: at once, and nobody else notices."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

import pytest
from clients import CLIENT, PODS, TEAM, passed, policy, said, source, sources, under
from in_turn import in_turn
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


def labels_and_policies_change_while_they_are_in_force(lab: Lab) -> None:
    allowed, teams = policy("p", source(Peer(pods=CLIENT))), policy("p", source(Peer(namespaces=TEAM)))
    other = tuple(replace(pod, labels=(("app", "other"),)) if pod.name == "far" else pod for pod in PODS)
    unselected = tuple(replace(pod, labels=()) if pod.name == "web" else pod for pod in PODS)
    everybody = "far guest near node-a node-b"
    under(lab, (allowed,))
    assert sources(lab) == "far near node-a"
    under(lab, (allowed,), pods=other)
    assert sources(lab) == "near node-a", "a client is none any more"
    under(lab, (allowed,), pods=unselected)
    assert sources(lab) == everybody, "the policy selects nobody"
    under(lab, (teams,))
    assert sources(lab) == "guest node-a", "another rule"
    lab.change(change.reshape(lab.design, PODS, Objects(policies=(teams,))))
    assert sources(lab) == "node-a", "the namespace has lost its label"
    under(lab, ())
    assert sources(lab) == everybody


PORT = 9000  # that nobody declares: served by the tests themselves


def an_established_connection_outlives_a_new_policy(lab: Lab) -> None:
    under(lab, ())
    address = str(next(e for e in lab.cluster.endpoints if e.pod.name == "web").address(4))
    with closing(Servers(lab.namespaces, [("default/web", "tcp", PORT)])):
        with client(lab.namespaces, "default/far", address, PORT, "tcp", 5.0) as old:
            under(lab, (policy(), policy("out", selects=CLIENT, directions=(EGRESS,))))
            assert say(old).by == "web"
            assert ask(lab.namespaces, "default/far", address, PORT, timeout=0.3) == "silent"
        under(lab, ())
        allowed = ask(lab.namespaces, "default/far", address, PORT)
        assert not isinstance(allowed, str) and allowed.by == "web"


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


def a_change_disturbs_nobody_else(lab: Lab) -> None:
    kept = policy("kept", source(Peer(pods=CLIENT), PortRange(PORT, PORT), protocol="udp"))
    other = policy("other", selects=CLIENT)
    pods = (*PODS, Pod("late", "node-a", labels=(("app", "client"),)))
    steps = [((kept, other), PODS), ((kept, other), pods), ((kept, ALLOWED), pods), ((kept,), PODS)]
    under(lab, (kept,))
    flows = [Newcomers(lab, family) for family in (4, 6)]
    for policies, there in steps * 3:
        under(lab, policies, pods=there)
    assert [flow.lost() for flow in flows] == [0, 0]
    assert min(flow.sent for flow in flows) > 50
    victim = Newcomers(lab, 4)
    under(lab, (policy("kept"),))
    seen = victim.sent
    while victim.sent < seen + 20:
        time.sleep(0.001)
    under(lab, (kept,))
    assert victim.lost() >= 20


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


def other_labels_touch_only_elements_of_sets(lab: Lab) -> None:
    """Rules keep their handles and counters, and whoever reads them finds the policy's place in the comment."""
    under(lab, (ALLOWED,))
    passed(lab, [("near", "web", "tcp/80"), ("guest", "web", "tcp/80")])
    before = rules(lab)
    other = tuple(replace(pod, labels=()) if pod.name == "far" else pod for pod in PODS)
    under(lab, (ALLOWED,), pods=other)
    assert rules(lab) == before
    counted = {re.search(r'comment "(.*)"', rule)[1]: number for rule, number in before.items() if number}  # type: ignore[index]
    assert counted == {
        "default|default/p|ingress|ingress[0]": 1,
        "End of tier default. Drop if no policies passed packet": 2,  # the silent are asked twice
    }


def many_policies_at_once(lab: Lab) -> None:
    """More than one netlink message of an ordinary user holds."""
    many = [
        policy(f"p{number}", *(source(Peer(pods=CLIENT), PortRange(1000 + port, 1000 + port)) for port in range(10)))
        for number in range(100)
    ]
    under(lab, (*many, ALLOWED))
    found = said(passed(lab))
    assert found.startswith("tcp/80: near far node-a; tcp/443: node-a; udp/53: near far node-a; from web: far tcp/80, ")
    under(lab, ())
    assert "node-b" in said(passed(lab))


def what_the_kernel_refuses_is_put_back(lab: Lab) -> None:
    """Be it that the same change brought a pod."""
    under(lab, (ALLOWED,))
    after = change.reshape(lab.design, (*PODS, Pod("late", "node-a")), Objects())
    broken = [
        replace(thing, rules=(*thing.rules, f"add rule {thing.family} calico nowhere drop"))
        if isinstance(thing, NftTable)
        else thing
        for thing in after.plan["node-a"]
    ]
    with pytest.raises(KernelError, match=r"^node-a: nft table ip calico, ip6 calico: Error"):
        lab.change(replace(after, plan={**after.plan, "node-a": tuple(broken)}))
    assert [str(one) for one in lab.drift()] == []
    assert sources(lab) == "far near node-a"


CHECKS = {
    "root": (
        other_labels_touch_only_elements_of_sets,
        labels_and_policies_change_while_they_are_in_force,
        what_the_kernel_refuses_is_put_back,
    ),
    "user": (an_established_connection_outlives_a_new_policy, a_change_disturbs_nobody_else, many_policies_at_once),
}


@pytest.mark.parametrize("user", CHECKS)
def test_policies_change_while_they_are_in_force(user: str, in_lab: Callable[..., Any]) -> None:
    in_lab("flat", "calico", lambda lab: in_turn(lab, CHECKS[user]))
