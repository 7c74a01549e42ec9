"""The lines that `emulab plan` prints, typed by hand into nodes and pods, make the lab that emulab makes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from sandboxed import AS_ROOT, build, inside, measured

from emulab import underlay
from emulab.lab import Lab
from emulab.state import shell_lines

FOR_EVERYBODY = [("user", "flat", "flannel"), ("user", "flat", "flannel", "backend=host-gw")]
# An ordinary user's /proc/sys has no net.ipv4.neigh, which these planes set: emulab does it by rtnetlink, a typist cannot.
FOR_ROOT = [
    ("root", "two-racks", "flannel", "direct_routing=true"),
    ("root", "two-racks", "calico", "encap=cross-subnet"),
    ("root", "partial-mesh", "weave"),
]


def places(lab: Lab) -> Iterator[tuple[str, str]]:
    """(namespace, node whose mounts it sees): nodes first, since they make the pods' interfaces."""
    yield from ((node.name, node.name) for node in lab.cluster.nodes)
    yield from ((endpoint.key, endpoint.node) for endpoint in lab.cluster.endpoints)


def type_in(lab: Lab, name: str, node: str) -> str:
    """Type a namespace's lines there; returns what the shell complained about."""
    namespace, here = lab.namespaces[name], f"/proc/{os.getpid()}/fd"
    enter = ["nsenter", f"--net={here}/{namespace.net}", f"--mount={here}/{lab.namespaces[node].mounts}", "--", "sh", "-e"]
    lines = "\n".join(shell_lines(lab.plan[name]))
    done = subprocess.run(enter, input=lines, capture_output=True, text=True)
    return f"{name}: exit {done.returncode}: {done.stderr}" if done.returncode or done.stderr else ""


def build_by_hand(lab: Lab) -> list[str]:
    """As `Lab.build` does, with a typist for the data plane; returns the complaints."""
    lab.network = underlay.start(lab.cluster.topology, lab.namespaces)
    lab.namespaces.create([endpoint.key for endpoint in lab.cluster.endpoints])
    for node in lab.cluster.nodes:
        lab.namespaces.add_mounts(node.name)
        lab.namespaces.name_pods(node.name, {e.key: e.pod.netns for e in lab.cluster.endpoints_on(node.name)})
    complaints = [complaint for place in places(lab) if (complaint := type_in(lab, *place))]
    for name, _ in places(lab):  # the taps know interfaces by the numbers that emulab would have chosen
        namespace = lab.namespaces[name]
        namespace.links = {link: status.number for link, status in namespace.socket().links().items()}
    lab.wait_until_up()
    return complaints


def typed(user: str, topology: str, plugin: str, *settings: str) -> dict[str, Any]:
    def work() -> dict[str, Any]:
        with build(topology, plugin, settings) as lab:
            return {"complaints": build_by_hand(lab)} | measured(lab)

    found: dict[str, Any] = inside(work, user)
    return found


@pytest.mark.parametrize("case", FOR_EVERYBODY + (FOR_ROOT if AS_ROOT else []), ids=" ".join)
def test_typed_lines_make_the_same_lab(case: tuple[str, ...]) -> None:
    found = typed(*case)
    assert found["complaints"] == []
    assert found["findings"] == []
    assert found["ok"], found["summary"]
