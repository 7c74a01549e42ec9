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

from clients import CLIENT, PODS, QUIET, TEAM, Check, Prober, checks, policy, said, source, under

from emulab import change
from emulab.errors import KernelError
from emulab.kernel import nftables
from emulab.kernel.namespaces import entered
from emulab.lab import Lab
from emulab.model import Pod
from emulab.objects import EGRESS, Objects, Peer, PortRange
from emulab.selector import In
from emulab.state import NftTable

ALLOWED = policy("p", source(Peer(pods=CLIENT), PortRange(1, 100)))


def test_labels_and_policies_change_while_they_are_in_force(in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> list[str]:
        prober = Prober(lab)
        found = []

        def sources() -> None:
            good = prober.passed(checks([(source, "web", "tcp/80") for source in ("near", "far", "guest", "node-b")]))
            found.append(" ".join(dict.fromkeys(f"{one.source}" for one in sorted(good))))

        allowed = policy("p", source(Peer(pods=CLIENT)))
        under(lab, (allowed,))
        sources()
        other = tuple(replace(pod, labels=(("app", "other"),)) if pod.name == "far" else pod for pod in PODS)
        under(lab, (allowed,), pods=other)  # a client is none any more
        sources()
        unselected = tuple(replace(pod, labels=()) if pod.name == "web" else pod for pod in PODS)
        under(lab, (allowed,), pods=unselected)  # the policy selects nobody
        sources()
        under(lab, (allowed,))
        teams = policy("p", source(Peer(namespaces=TEAM)))
        under(lab, (teams,))  # another rule
        sources()
        lab.change(change.reshape(lab.design, PODS, Objects(policies=(teams,))))  # the namespace has lost its label
        sources()
        under(lab, ())
        sources()
        return found

    found = in_lab("flat", "calico", check)
    assert found == ["far near", "near", "far guest near node-b", "guest", "", "far guest near node-b"]


def test_an_established_connection_outlives_a_new_policy(in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> tuple[bytes, bytes, set[Check], set[Check]]:
        under(lab, ())
        prober = Prober(lab)
        wanted = Check("far", "web", "tcp/80", 4)
        listener = prober.listen(wanted)
        client = prober.connect(wanted)
        listener.settimeout(2)
        server, _ = listener.accept()
        for one in (client, server):
            one.settimeout(2)
        under(lab, (policy(), policy("out", selects=CLIENT, directions=(EGRESS,))))
        client.send(b"request")
        heard = server.recv(100)
        server.send(b"reply")
        answered = client.recv(100)
        listener.setblocking(False)
        denied = prober.passed([wanted])
        under(lab, ())
        return heard, answered, denied, prober.passed([wanted])

    heard, answered, denied, allowed = in_lab("flat", "calico", check)
    assert (heard, answered) == (b"request", b"reply")
    assert denied == set()
    assert allowed == {Check("far", "web", "tcp/80", 4)}


class Newcomers(threading.Thread):
    """A new UDP flow every few milliseconds, from a port of its own, so that policy decides on each packet."""

    def __init__(self, prober: Prober, check: Check) -> None:
        super().__init__()
        self._prober, self._check, self._over = prober, check, threading.Event()
        self._listener = prober.listen(check)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.sent = 0

    def run(self) -> None:
        while not self._over.wait(0.002):
            self._prober.connect(self._check).close()
            self.sent += 1

    def lost(self) -> int:
        """End it; how many did not arrive."""
        self._over.set()
        self.join()
        arrived, deadline = 0, time.monotonic() + QUIET
        while arrived < self.sent and time.monotonic() < deadline:
            with suppress(BlockingIOError):
                self._listener.recv(200)
                arrived += 1
        return self.sent - arrived


def test_a_change_disturbs_nobody_else(in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> dict[str, Any]:
        kept = policy("kept", source(Peer(pods=CLIENT), PortRange(53, 53), protocol="udp"))
        other = policy("other", selects=In("app", ("client",)))
        pods = (*PODS, Pod("late", "node-a", labels=(("app", "client"),)))
        steps = [((kept, other), PODS), ((kept, other), pods), ((kept, ALLOWED), pods), ((kept,), PODS)]
        under(lab, (kept,))
        prober = Prober(lab)
        flows = [Newcomers(prober, Check("far", "web", "udp/53", family)) for family in (4, 6)]
        for flow in flows:
            flow.start()
        for policies, there in steps * 3:
            under(lab, policies, pods=there)
        undisturbed = [flow.lost() for flow in flows]
        victim = Newcomers(prober, Check("far", "web", "udp/53", 4))
        victim.start()
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


def test_other_labels_touch_only_elements_of_sets(in_lab: Callable[..., Any]) -> None:
    """Rules keep their handles and counters, and whoever reads them finds the policy's place in the comment."""

    def check(lab: Lab) -> tuple[dict[str, int], dict[str, int]]:
        under(lab, (ALLOWED,))
        prober = Prober(lab)
        prober.passed(checks([("near", "web", "tcp/80"), ("guest", "web", "tcp/80")]))
        before = rules(lab)
        other = tuple(replace(pod, labels=()) if pod.name == "far" else pod for pod in PODS)
        under(lab, (ALLOWED,), pods=other)
        return before, rules(lab)

    before, after = in_lab("flat", "calico", check)
    assert before == after
    counted = {re.search(r'comment "(.*)"', rule)[1]: number for rule, number in before.items() if number}  # type: ignore[index]
    assert counted == {
        "default|default/p|ingress|ingress[0]": 1,
        "End of tier default. Drop if no policies passed packet": 1,
    }


def test_many_policies_at_once(in_lab: Callable[..., Any]) -> None:
    """More than one netlink message of an ordinary user holds."""

    def check(lab: Lab) -> tuple[str, str]:
        prober = Prober(lab)
        many = [
            policy(f"p{number}", *(source(Peer(pods=CLIENT), PortRange(1000 + port, 1000 + port)) for port in range(10)))
            for number in range(100)
        ]
        under(lab, (*many, ALLOWED))
        found = said(prober.passed(checks()))
        under(lab, ())
        return found, said(prober.passed(checks()))

    found, in_the_end = in_lab("flat", "calico", check)
    assert found.startswith("tcp/80: near far node-a; tcp/443: node-a; udp/53: near far node-a; from web: far tcp/80, ")
    assert "node-b" in in_the_end


def test_what_the_kernel_refuses_is_put_back(in_lab: Callable[..., Any]) -> None:
    """Be it that the same change brought a pod."""

    def check(lab: Lab) -> tuple[str, str, set[str]]:
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
        good = Prober(lab).passed(checks([(source, "web", "tcp/80") for source in ("near", "guest")]))
        return refused.partition(": Error")[0], "; ".join(map(str, lab.drift())), {one.source for one in good}

    refused, drift, sources = in_lab("flat", "calico", check)
    assert refused.startswith("node-a: nft table ip calico, ip6 calico")
    assert (drift, sources) == ("", {"near"})
