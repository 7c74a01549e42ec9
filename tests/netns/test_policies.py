"""The well-known NetworkPolicies on the real kernel: who reaches whom with each of the manifests in examples/policies.

A line of a table is ``from > to:port``; what is not in the namespace "default" has its namespace before it, "/udp" and
"@4" or "@6" stand for that protocol and that family only.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from emulab import change, kube
from emulab.kernel.namespaces import entered
from emulab.kube.document import Document
from emulab.lab import Lab
from emulab.model import OUTSIDE_HOST
from emulab.packet import Verdict
from emulab.probe.ports import Check, probe

EXAMPLES = Path(__file__).parents[2] / "examples" / "policies"
Manifests = dict[str, list[Document]]
AF = {4: socket.AF_INET, 6: socket.AF_INET6}
OUTSIDE = {4: "203.0.113.10", 6: "2001:db8:ffff::10"}


class Recipe(NamedTuple):
    """What passes with a policy and what does not."""

    name: str
    allowed: str
    denied: str
    beside: str = ""  # another policy in force


# Nodes: web, frontend, ops/backup and a1 are on node-a; api, db, myproject/worker and b1 on node-b; prod/shop, ops/monitor,
# kube-system/dns and c1 on node-c.
RECIPES = (
    Recipe(
        "default-deny-ingress",
        "node-a > web:80, node-b > db:6379, web > prod/shop:80, a1 > myproject/worker:80, db > kube-system/dns:53/udp",
        "a1 > web:80, c1 > web:80, frontend > web:80, prod/shop > db:6379, node-b > web:80, a1 > web:53/udp",
    ),
    Recipe(
        "default-deny-egress",
        "prod/shop > web:80, ops/backup > web:5000, node-a > web:80, prod/shop > myproject/worker:80",
        "a1 > web:80, web > db:6379, web > prod/shop:80, web > kube-system/dns:53/udp, web > internet:80",
    ),
    Recipe(
        "default-deny-all",
        "node-a > web:80, prod/shop > myproject/worker:80, prod/shop > internet:80",
        "a1 > web:80, web > prod/shop:80, prod/shop > web:80, web > internet:80",
    ),
    Recipe(
        "allow-all-ingress",
        "a1 > web:80, c1 > web:80, prod/shop > web:53/udp, node-b > web:80",
        "",
        beside="default-deny-ingress",
    ),
    Recipe(
        "allow-all-egress",
        "web > prod/shop:80, c1 > db:6379, web > internet:80, web > kube-system/dns:53/udp",
        "",
        beside="default-deny-egress",
    ),
    Recipe(
        "db",
        "b1 > db:6379@4, a1 > db:6379@4, frontend > db:6379, myproject/worker > db:6379, db > internet:5978@4",
        "c1 > db:6379, b1 > db:6379@6, a1 > db:6379@6, frontend > db:80, b1 > db:80, db > web:80, db > internet:80, "
        "db > internet:5978@6",
    ),
    Recipe(
        "end-port",
        "a1 > web:5000, c1 > web:5010, prod/shop > web:5000",
        "a1 > web:80, c1 > web:5011, a1 > web:53/udp",
    ),
    Recipe(
        "namespace-by-name",
        "prod/shop > web:80, ops/monitor > web:5000, ops/backup > web:53/udp",
        "a1 > web:80, c1 > web:80, myproject/worker > web:80, kube-system/dns > web:80",
    ),
    Recipe("deny-all-to-app", "a1 > db:6379, web > db:6379, node-a > web:80", "a1 > web:80, prod/shop > web:80, node-c > web:80"),
    Recipe(
        "limit-to-app",
        "frontend > api:80, frontend > api:5000, a1 > db:6379",
        "a1 > api:80, db > api:80, prod/shop > api:80",
    ),
    Recipe(
        "deny-unlisted",
        "frontend > web:80, frontend > web:53/udp, frontend > prod/shop:80",
        "a1 > web:80, c1 > web:80, frontend > db:6379, prod/shop > web:80",
    ),
    Recipe(
        "deny-from-other-namespaces",
        "a1 > web:80, c1 > web:80, web > db:6379, web > prod/shop:80",
        "prod/shop > web:80, ops/backup > web:80, kube-system/dns > db:6379",
    ),
    Recipe(
        "allow-from-same-namespace",
        "a1 > web:80, c1 > web:5011, prod/shop > db:6379",
        "prod/shop > web:80, ops/backup > web:80",
    ),
    Recipe(
        "allow-from-all-namespaces",
        "a1 > web:80, prod/shop > web:80, kube-system/dns > web:80, node-a > web:80",
        "node-b > web:80, node-c > web:53/udp",
    ),
    Recipe(
        "allow-from-namespace",
        "prod/shop > web:80, prod/shop > web:53/udp",
        "a1 > web:80, ops/monitor > web:80, myproject/worker > web:80",
    ),
    Recipe(
        "allow-from-pods-in-namespace",
        "ops/monitor > web:80",
        "ops/backup > web:80, prod/shop > web:80, a1 > web:80",
    ),
    Recipe(
        "allow-from-external",
        "a1 > web:80, prod/shop > web:80, node-b > web:80",
        "a1 > db:6379, prod/shop > db:6379, node-a > db:6379",
    ),
    Recipe(
        "allow-port",
        "ops/monitor > web:5000",
        "ops/monitor > web:80, ops/backup > web:5000, a1 > web:5000, ops/monitor > web:53/udp",
    ),
    Recipe(
        "allow-several-selectors",
        "api > db:6379, web > db:6379, frontend > db:80",
        "a1 > db:6379, b1 > db:6379, prod/shop > db:6379",
    ),
    Recipe("deny-egress", "a1 > web:80, c1 > web:80, a1 > db:6379", "web > db:6379, web > prod/shop:80, web > internet:80"),
    Recipe(
        "allow-dns-only",
        "web > kube-system/dns:53/udp, web > kube-system/dns:53, a1 > kube-system/dns:80",
        "web > kube-system/dns:80, web > db:6379, web > internet:80",
    ),
    Recipe(
        "deny-external-egress",
        "web > db:6379, web > prod/shop:80, web > kube-system/dns:53/udp, a1 > internet:80",
        "web > internet:80, web > internet:5978",
    ),
    Recipe("egress-cidr", "web > internet:80, web > internet:5978, a1 > db:6379", "web > db:6379, web > prod/shop:80"),
)
_LINE = re.compile(r"(\S+) > (\S+):(\d+)(?:/(udp))?(?:@([46]))?")


def checks(table: str) -> set[Check]:
    """A table's lines as checks, one per family."""
    found = set()
    for line in filter(None, table.split(", ")):
        match = _LINE.fullmatch(line)
        assert match, line
        source, destination, port, protocol, family = match.groups()
        for version in (4, 6) if family is None else (int(family),):
            found.add(Check(key(source), key(destination), version, protocol or "tcp", int(port)))
    return found


def key(name: str) -> str:
    return name if "/" in name or name.startswith("node-") or name == OUTSIDE_HOST else f"default/{name}"


@pytest.fixture(scope="module")
def manifests() -> Manifests:
    """Read beforehand: what reads them is imported on demand, and an ordinary user may not be able to."""
    return {path.stem: kube.read(path.read_text(), path.name) for path in EXAMPLES.glob("*.yaml")}


def apply(lab: Lab, manifests: Manifests, *names: str) -> None:
    """The cluster with these policies and no others."""
    documents = [document for name in ("cluster", *names) for document in manifests[name]]
    bare = lab.cluster.topology
    bare = replace(bare, objects=replace(bare.objects, policies=()))
    applied = kube.applied(bare, documents)
    lab.change(change.reshape(lab.design, applied.pods, applied.objects))


@contextmanager
def listening_outside(lab: Lab, wanted: Iterable[Check]) -> Iterator[None]:
    """The kernel completes connections to the outside host, at the ports that are asked for."""
    with ExitStack() as sockets, entered(lab.namespaces[OUTSIDE_HOST].net):
        for family, port in {(check.family, check.port) for check in wanted if check.destination == OUTSIDE_HOST}:
            listener = sockets.enter_context(socket.socket(AF[family], socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((OUTSIDE[family], port))
            listener.listen(64)
        yield


def connected(lab: Lab, wanted: set[Check], expected: set[Check]) -> set[Check]:
    """Which of the checks reach the outside host.  Silence is believed after those expected have had their answer."""
    poller, pending, found = select.epoll(), dict[int, Check](), set[Check]()
    with ExitStack() as sockets:
        sockets.callback(poller.close)
        for check in wanted:
            with entered(lab.namespaces[check.source].net):
                one = sockets.enter_context(socket.socket(AF[check.family], socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            one.connect_ex((OUTSIDE[check.family], check.port))
            poller.register(one, select.EPOLLOUT)
            pending[one.fileno()] = check
        start = time.monotonic()
        while pending and (left := start + (0.3 if expected <= found else 5.0) - time.monotonic()) > 0:
            for number, event in poller.poll(left):
                poller.unregister(number)
                check = pending.pop(number)
                if not event & select.EPOLLERR:
                    found.add(check)
    return found


def reached(lab: Lab, wanted: set[Check], expected: set[Check]) -> set[Check]:
    """Which of the checks are answered, by whom they ask and to whom they are."""
    outside = {check for check in wanted if check.destination == OUTSIDE_HOST}
    found = connected(lab, outside, expected & outside) if outside else set()
    for outcome in probe(lab.namespaces, lab.cluster, sorted(wanted - outside)):
        assert outcome.verdict in (Verdict.DELIVERED, Verdict.DROPPED), outcome
        if outcome.verdict is Verdict.DELIVERED:
            found.add(outcome.check)
    return found


EVERYTHING = {check for recipe in RECIPES for check in checks(f"{recipe.allowed}, {recipe.denied}".strip(", "))}


def mistaken(lab: Lab, manifests: Manifests) -> dict[str, list[str]]:
    """Per recipe, what passes and should not, and the other way round; "" stands for no policy at all."""
    wrong = {}
    with listening_outside(lab, EVERYTHING):
        apply(lab, manifests)
        wrong[""] = sorted(map(str, EVERYTHING - reached(lab, EVERYTHING, EVERYTHING)))
        for recipe in RECIPES:
            apply(lab, manifests, recipe.name, *filter(None, [recipe.beside]))
            expected = checks(recipe.allowed)
            found = reached(lab, expected | checks(recipe.denied), expected)
            wrong[recipe.name] = sorted(map(str, found ^ expected))
        apply(lab, manifests)
        wrong["removed"] = sorted(map(str, EVERYTHING - reached(lab, EVERYTHING, EVERYTHING)))
    return {name: lines for name, lines in wrong.items() if lines}


def test_every_example_is_in_the_table(manifests: Manifests) -> None:
    assert set(manifests) == {recipe.name for recipe in RECIPES} | {"cluster"}


@pytest.mark.parametrize(("user", "plane"), [("root", "weave"), ("user", "calico")])
def test_recipes(plane: str, manifests: Manifests, in_lab: Callable[..., Any]) -> None:
    assert in_lab("flat", plane, lambda lab: mistaken(lab, manifests)) == {}


@pytest.mark.parametrize("user", ["user"])
def test_where_nothing_is_enforced_nothing_is_blocked(manifests: Manifests, in_lab: Callable[..., Any]) -> None:
    """With all policies in force at once."""

    def check(lab: Lab) -> tuple[int, list[str]]:
        apply(lab, manifests, *(recipe.name for recipe in RECIPES))
        with listening_outside(lab, EVERYTHING):
            blocked = EVERYTHING - reached(lab, EVERYTHING, EVERYTHING)
        return len(lab.cluster.topology.objects.policies), sorted(map(str, blocked))

    in_force, blocked = in_lab("flat", "flannel", check)
    assert in_force >= len(RECIPES)
    assert blocked == []
