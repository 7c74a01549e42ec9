"""`emulab compare` as it is typed: the whole document, a column that cannot be measured, and an end by Ctrl-C."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from sandboxed import AS_ROOT
from terminal import Terminal

NUMBERS = ("setup/lab", "setup/data-plane", "rtt/same node/median", "rtt/other node/p99")


def table(document: dict[str, Any]) -> dict[tuple[str, int | None], list[Any]]:
    return {(row["key"], row["family"]): row["values"] for row in document["rows"]}


@pytest.mark.parametrize("user", ["user"])
def test_the_document_of_three_planes(terminal: Terminal) -> None:
    """What differs by what these planes are; root's is in docs/compare.md."""
    done = terminal.emulab("compare", "--quick", "--format", "json")
    assert (done.code, done.err) == (0, "")
    document = json.loads(done.out)
    assert [column["name"] for column in document["columns"]] == ["flannel", "calico", "weave"]
    found = table(document)
    assert found["reached", None] == [True] * 3
    assert [found["overhead/other node", family] for family in (4, 6)] == [[50, 0, 50], [70, 0, 50]]
    assert [found["mtu/other node", family] for family in (4, 6)] == [[1450, 1500, 1376], [1430, 1500, 1376]]
    assert found["hops/other node", 6] == [2, 2, 0] and found["hops/same node", 4] == [0, 1, 0]
    assert found["ttl/other node", 4] == [62, 62, 64]
    assert found["encapsulation/other node", 4][:2] == ["VXLAN, UDP 8472, VNI 1", "none"]
    assert found["growth/node/routes", None] == [2, 2, 0] and found["growth/node/devices", None] == [0, 0, 1]
    assert found["growth/pod-elsewhere/fdb_learned", None] == [0, 0, 3]
    assert found["growth/pod/routes", None] == [0, 2, 0] and found["growth/pod/devices", None] == [1, 1, 1]
    assert found["policy/NetworkPolicy ingress", None] == found["policy/NetworkPolicy egress", None] == [False, True, True]
    assert found["policy/Calico GlobalNetworkPolicy", None] == [False, True, False]
    assert found["death/others", None] == [True] * 3 and found["death/left", None] == [6, 2, 0]
    assert found["cut", 4] == found["cut", 6] == [False, False, True]
    assert found["throughput/other node", None] == [None] * 3
    assert all(number > 0 for key in NUMBERS for family in (None, 4, 6) for number in found.get((key, family), ()))
    for column in document["columns"]:
        held = [counts["busy"]["routes"] for counts in column["nodes"].values()]
        index = document["columns"].index(column)
        assert found["held/routes", None][index] == sum(held) / len(held)
        assert [one["what"] for one in column["growth"]] == ["pod", "node"]
    assert any("weave goes around over a third one" in sentence for sentence in document["advice"])


def test_a_topology_that_one_refuses_is_measured_by_the_others(sit_down: Callable[[str], Terminal]) -> None:
    done = sit_down("root" if AS_ROOT else "user").emulab(
        "compare", "--quick", "-t", "non-flat", "calico", "weave", "flannel", "--format", "csv"
    )
    assert (done.code, done.err) == (1, "")
    head, *lines = csv.reader(io.StringIO(done.out))
    assert head[-3:] == ["calico", "weave", "flannel"]
    mtu = next(line for line in lines if line[1] == "MTU, other node")
    assert mtu[-3:] == ["1500", "not measured", "1450"]


@pytest.mark.skipif(not AS_ROOT, reason="the other test's user is as good")
def test_interrupted_it_leaves_nothing(sit_down: Callable[[str], Terminal]) -> None:
    terminal = sit_down("root")
    running = terminal.start("compare", "--format", "json")
    deadline = time.monotonic() + 20
    while not sandboxes(running.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    inside = sandboxes(running.pid)
    assert inside
    done = running.stop(signal.SIGINT)
    assert (done.code, done.out) == (130, "")
    assert not any(os.path.exists(f"/proc/{pid}") for pid in inside)


def sandboxes(pid: int) -> set[int]:
    """The children of a process that are in other network namespaces, and theirs."""
    found = set()
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as children:
            for child in map(int, children.read().split()):
                if os.readlink(f"/proc/{child}/ns/net") != os.readlink(f"/proc/{pid}/ns/net"):
                    found.add(child)
                found |= sandboxes(child)
    except OSError:
        return found
    return found
