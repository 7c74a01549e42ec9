"""Real CNI plugins as a data plane: Debian's binaries in emulated nodes."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from sandboxed import AS_ROOT, build, inside, measured, repaired

from emulab import change
from emulab.errors import EmulabError
from emulab.kernel import syscalls
from emulab.kernel.attaching import NETWORKS, STATE
from emulab.kernel.namespaces import entered
from emulab.lab import Lab, Probing

EXAMPLES = Path(__file__).parents[2] / "examples" / "cni"
FOLDERS = ("/etc/cni", "/opt/cni", "/var/lib/cni")
QUICK = Probing(protocols=("icmp",), taps="ends")
LOSSY = Probing(protocols=("icmp", "udp"), timeout=0.5, mtu=False)


def example(name: str) -> str:
    (found,) = EXAMPLES.glob(f"{name}.conflist")
    return f"conflist={found}"


def planted(lab: Lab) -> list[str]:
    """What drift says of a healthy lab, and once somebody has been at what a plugin made."""
    found = [str(one) for one in lab.drift()]
    node = lab.namespaces[lab.cluster.nodes[0].name]
    device = next(link for link in node.socket().links() if link.startswith("veth"))
    with entered(node.net):
        subprocess.run(["ip", "link", "set", device, "down"], check=True)
    found += ["planted", *(str(one) for one in lab.drift() if device in str(one))]
    lab.repair()
    return [*found, "repaired", *(str(one) for one in lab.drift())]


HEALTHY = [
    ("user", "20-chain", "fleet,2,2"),
    ("root", "30-ptp", "fleet,2,2"),
    ("user", "50-plain", "single-node", "between=none", "masquerade=false"),
]
FLAT = [("root", "10-bridge", "flat", "between=host-gw"), ("user", "10-bridge", "flat")]


def each_case(cases: list[tuple[str, ...]]) -> pytest.MarkDecorator:
    users = [pytest.param(user if AS_ROOT else "user", case, id=" ".join((user, *case))) for user, *case in cases]
    return pytest.mark.parametrize(("user", "case"), users)


def flat(lab: Lab) -> None:
    """All meet as on a flat network, and what is altered by hand is named and mended."""
    found, drift = measured(lab), planted(lab)
    assert found["findings"] == []
    assert found["ok"]
    assert found["summary"]["flows"] == found["summary"]["delivered"] > 0
    assert {family for *_, family in found["verdicts"]} == {4, 6}
    assert found["kinds"] == {"pod-to-pod", "node-to-pod", "pod-to-outside"}
    assert found["translated"] > 0, "pods reach the outside by their node's address"
    assert drift[0] == "planted", "a healthy lab is as planned"
    assert drift[1] != "repaired", "what is altered by hand is named"
    assert drift[-1] == "repaired"


@each_case(HEALTHY)
def test_a_network_of_real_plugins_is_flat(case: list[str], in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> None:
        flat(lab)
        if name == "20-chain":
            rules_of_iptables_that_are_gone_are_named_and_left(lab)

    name, topology, *settings = case
    in_lab(topology, "cni", check, example(name), *settings)


def rules_of_iptables_that_are_gone_are_named_and_left(lab: Lab) -> None:
    with entered(lab.namespaces["node-1"].net):
        subprocess.run(["iptables", "-w", "-F", "CNI-FORWARD"], check=True, capture_output=True)
    said = [str(one) for one in repaired(lab)]
    assert len(said) == 1
    assert said[0].startswith("node-1: altered: nft table ip filter (chain CNI-FORWARD: missing: ")
    assert [str(one) for one in lab.drift()] == said


@each_case(FLAT)
def test_a_node_of_real_plugins_is_a_node_like_any_other(case: list[str], in_lab: Callable[..., Any]) -> None:
    """It is flat, has folders of its own while the machine has none, and comes and goes with its pods."""

    def check(lab: Lab) -> None:
        a_node_has_folders_of_its_own(lab)
        flat(lab)
        pods_and_nodes_come_and_go(lab)

    name, topology, *settings = case
    before = machine()
    in_lab(topology, "cni", check, example(name), *settings)
    assert before == machine()


def machine() -> dict[str, Any]:
    return {folder: os.path.exists(folder) and sorted(map(str, Path(folder).rglob("*"))) for folder in FOLDERS}


def a_node_has_folders_of_its_own(lab: Lab) -> None:
    for node, number in (("node-a", 1), ("node-b", 2)):
        mounts = lab.namespaces[node].mounts
        assert mounts is not None
        network, attached, results = lab.namespaces.in_mounts(lambda mounts=mounts: _look(mounts))  # type: ignore[misc]
        theirs = {"10.1.1.1", "10.1.1.2", "10.1.2.1", "10.1.2.2"}
        assert [address for address in attached if address in theirs] == [f"10.1.{number}.1", f"10.1.{number}.2"]
        assert network["plugins"][0]["ipam"]["ranges"][0][0]["subnet"] == f"10.1.{number}.0/24"
        assert len(results) == 2


def _look(mounts: int) -> tuple[Any, list[str], list[str]]:
    syscalls.setns(mounts, syscalls.CLONE_NEWNS)
    network = json.loads(Path(NETWORKS, "10-podnet.conflist").read_text())
    return network, sorted(os.listdir(f"{STATE}/networks/podnet")), os.listdir(f"{STATE}/results")


def pods_and_nodes_come_and_go(lab: Lab) -> None:
    lab.change(change.add_pod(lab.design, "x", "node-a"))
    (x,) = [endpoint for endpoint in lab.cluster.endpoints if endpoint.key == "default/x"]
    assert [str(a) for a in x.addresses] == ["10.1.1.3", "fd00:10:1::4"], "what host-local said, not what was foreseen"
    assert (lab.verify(QUICK).ok, lab.drift()) == (True, [])
    lab.change(change.remove_pod(lab.design, "default/x"))
    chain = ["bridge", "portmap", "bandwidth"]
    calls = [(e.invocation.command, e.invocation.plugin) for e in lab.attaching.log if e.pod == "default/x"]
    assert calls == [("ADD", one) for one in chain] + [("DEL", one) for one in reversed(chain)]
    lab.change(change.switch_node(lab.design, "node-b", False))
    lab.change(change.switch_node(lab.design, "node-b", True))
    assert (lab.verify(QUICK).ok, lab.drift()) == (True, [])


@pytest.mark.parametrize("user", ["user"])
def test_pods_on_the_underlay_reach_each_other_and_not_their_node(in_lab: Callable[..., Any]) -> None:
    found = in_lab("fleet,2,2", "cni", lambda lab: measured(lab, LOSSY), example("40-macvlan"), "between=none")
    assert set(found["verdicts"].values()) == {"delivered"}
    assert not found["ok"]
    assert all(flow.startswith("node-") or "-> internet" in flow for flow, *_ in found["findings"])


@pytest.mark.parametrize("user", ["root"])
def test_a_network_without_a_way_out_is_an_island_on_each_node(in_lab: Callable[..., Any]) -> None:
    found = in_lab("fleet,2,2", "cni", lambda lab: measured(lab, LOSSY), example("60-island"), "between=none")
    same = {verdict for (a, b, *_), verdict in found["verdicts"].items() if a[:2] == b[:2]}
    other = {verdict for (a, b, *_), verdict in found["verdicts"].items() if a[:2] != b[:2]}
    assert same == {"delivered"}
    assert "delivered" not in other
    assert not found["ok"]


@pytest.mark.parametrize("user", ["user"])
def test_fifty_pods_on_five_nodes(in_lab: Callable[..., Any]) -> None:
    found = in_lab("fleet,5,10", "cni", lambda lab: measured(lab, Probing(("udp",), taps="ends")), example("10-bridge"))
    assert found["ok"], found["findings"][:3]
    assert set(found["verdicts"].values()) == {"delivered"}
    assert len(found["verdicts"]) == 50 * 49 * 2


NARROW = """{"cniVersion": "1.0.0", "name": "narrow", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipam": {"type": "host-local", "ranges": [
    [{"subnet": "{{ subnet4 }}", "rangeStart": "{{ first4 }}", "rangeEnd": "{{ narrow }}"}], [{"subnet": "{{ subnet6 }}"}]]}},
  {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}]}"""


@pytest.fixture
def conflist() -> Iterator[Callable[[str], str]]:
    """A file that an ordinary user can read, too: every start of pytest closes the folder of its own ones to others."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)

        def write(text: str) -> str:
            path = folder / "10-net.conflist"
            path.write_text(text)
            path.chmod(0o644)
            return f"conflist={path}"

        yield write


@pytest.mark.parametrize("user", ["root"])
def test_a_pod_that_cannot_be_attached_changes_nothing(in_lab: Callable[..., Any], conflist: Callable[[str], str]) -> None:
    def live(lab: Lab) -> Any:
        try:
            lab.change(change.add_pod(lab.design, "x", "node-1"))
        except EmulabError as error:
            said = (error.exit_code, str(error))
        calls = [(e.invocation.command, e.invocation.plugin) for e in lab.attaching.log if e.pod == "default/x"]
        pods = [endpoint.key for endpoint in lab.cluster.endpoints]
        return said, calls, pods, lab.drift(), "default/x" in lab.namespaces, lab.verify(QUICK).ok

    said, calls, pods, drift, there, ok = in_lab(
        "fleet,1,2", "cni", live, conflist(NARROW.replace("{{ narrow }}", "10.128.0.3")), "between=none"
    )
    assert said[0] == 1
    assert "default/x on node-1: bridge ADD: failed to allocate" in said[1]
    assert "\n" not in said[1]
    assert calls == [("ADD", "bridge"), ("DEL", "tuning"), ("DEL", "bridge")]
    assert (pods, drift, there, ok) == (["default/p1-1", "default/p1-2"], [], False, True)


BROKEN = {
    "a plugin in the middle": ((EXAMPLES / "70-half-way.conflist").read_text(), "default/p1-1 on node-1: tuning ADD: "),
    "no such plugin": ('{"cniVersion": "1.0.0", "name": "n", "type": "brigde"}', "there is no plugin 'brigde' in "),
    "one family lacks": (
        """{"cniVersion": "1.0.0", "name": "n", "type": "bridge", "ipam": {"type": "host-local", "subnet": "{{ subnet4 }}"}}""",
        "has no IPv6 address, which all pods of this topology have: its network gave it 10.128.0.2",
    ),
    "no address": ('{"cniVersion": "1.0.0", "name": "n", "type": "bridge"}', "its network gave it none"),
    "one subnet for all": (
        """{"cniVersion": "1.0.0", "name": "n", "type": "bridge", "ipam": {"type": "host-local",
        "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd09::/64"}]]}}""",
        "would both have 10.9.0.2",
    ),
}


@pytest.mark.parametrize(("case", "user"), [*zip(BROKEN, itertools.cycle(("root", "user")))])
def test_a_network_that_cannot_be_is_told_in_a_line(case: str, user: str, conflist: Callable[[str], str]) -> None:
    text, said = BROKEN[case]
    setting = conflist(text)

    def work() -> str:
        with build("fleet,2,1", "cni", (setting, "between=none")) as lab:
            try:
                lab.build()
            except EmulabError as error:
                return str(error)
        return ""

    found = inside(work, user)
    assert said in found
    assert "\n" not in found
