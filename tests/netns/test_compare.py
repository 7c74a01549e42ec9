"""The figures of `emulab compare` beside an independent measurement of the same lab: ip, bridge, nft, tshark, ping."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sandboxed

from emulab import change
from emulab.comparing.figures import counts, talk
from emulab.comparing.iperf import throughput
from emulab.comparing.ways import Echoes, pairs
from emulab.comparison import FAR, Throughput, Way
from emulab.kernel.namespaces import entered
from emulab.lab import Lab
from emulab.model import SWITCHES
from emulab.report.pcapng import PcapngWriter

LABS = [
    *((variant, "root") for variant in ("flannel:backend=host-gw", "calico", "calico:encap=vxlan")),
    *((variant, "user") for variant in ("flannel", "weave")),
]
# What is seen and what is not: link-local addresses, and the tables that every device and address fills by itself.
LINK_LOCAL = ("fe80", "ff")


def build(variant: str, topology: str = "flat") -> Lab:
    plugin, _, settings = variant.partition(":")
    return sandboxed.build(topology, plugin, tuple(settings.split(",")) if settings else ())


def typed(lab: Lab, place: str, *command: str) -> Any:
    """What a command with JSON output says in a namespace."""
    with entered(lab.namespaces[place].net):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout or "[]")


def by_hand(lab: Lab, node: str) -> dict[str, int]:
    """The counts of a node by the programs that people use."""
    links = [one for one in typed(lab, node, "ip", "-j", "-d", "link") if one["ifname"] != "lo" and one.get("link_type") != "sit"]
    routes = [
        one
        for family in ("-4", "-6")
        for one in typed(lab, node, "ip", family, "-j", "route", "show", "table", "all")
        if one.get("table") != "local" and not one["dst"].startswith(LINK_LOCAL)
    ]
    neighbours = [one for one in typed(lab, node, "ip", "-j", "neigh") if not one["dst"].startswith(LINK_LOCAL)]
    macs = {endpoint.mac for endpoint in lab.cluster.endpoints}
    entries = {
        (one["mac"], one["ifname"], one.get("master"), one.get("dst")): one["state"]
        for one in typed(lab, node, "bridge", "-j", "fdb")
        if "dst" in one or "master" in one
    }
    static = [key for key, state in entries.items() if state == "static" or (key[3] and state == "permanent")]
    learned = [key for key, state in entries.items() if state not in ("static", "permanent") and key[0] in macs]
    rules = typed(lab, node, "nft", "-j", "list", "ruleset")["nftables"]
    named = [one[kind] for one in rules for kind in ("set", "map") if kind in one]
    return {
        "devices": len(links),
        "routes": len(routes),
        "fdb": len(static),
        "fdb_learned": len(learned),
        "neighbours": sum("PERMANENT" in one["state"] for one in neighbours),
        "neighbours_learned": sum(bool({"REACHABLE", "STALE", "DELAY", "PROBE"} & set(one["state"])) for one in neighbours),
        "rules": sum("rule" in one for one in rules),
        "elements": sum(len(one.get("elem", ())) for one in named),
    }


class Looked(NamedTuple):
    """One lab: pairs of counts, ours and by hand, the frames on the underlay, and per family the way, and pings' answers."""

    counted: list[tuple[Mapping[str, int], Mapping[str, int]]]
    packets: bytes
    ways: dict[int, tuple[Way, list[int | None]]]


def looked(variant: str, user: str) -> Looked:
    """Count after all have talked, look at packets, add a node with a pod, count again, and with one route more by hand."""

    def work() -> Looked:
        counted: list[tuple[Mapping[str, int], Mapping[str, int]]] = []

        def compare(node: str) -> None:
            counted.append((counts(lab, [node])[node], by_hand(lab, node)))

        with build(variant) as lab:
            lab.build()
            talk(lab)
            compare("node-a")
            compare("node-c")
            file = Kept()
            with PcapngWriter(file) as writer:
                found = dict(ways(lab, writer))
            lab.change(change.add_pod(change.add_node(lab.design, "node-d"), "d1", "node-d"))
            talk(lab)
            compare("node-a")
            compare("node-d")
            with entered(lab.namespaces["node-a"].net):
                subprocess.run(["ip", "route", "add", "blackhole", "198.51.100.0/24", "table", "77"], check=True)
            compare("node-a")
        return Looked(counted, file.content, found)

    def ways(lab: Lab, writer: PcapngWriter) -> Iterator[tuple[int, tuple[Way, list[int | None]]]]:
        pair = pairs(lab.cluster)[FAR]
        with closing(Echoes(lab, pair)) as echoes:
            for family in (4, 6):
                way = echoes.way(family)
                for frame in echoes.frames:
                    if frame.place.namespace == SWITCHES and not frame.outbound:
                        writer.write(frame)
                assert way.mtu is not None
                yield family, (way, [ping(lab, pair, family, way.mtu + more) for more in (0, 1)])

    answer: Looked = sandboxed.inside(work, user)
    return answer


class Kept(io.BytesIO):
    """A file whose content outlives its end."""

    content = b""

    def close(self) -> None:
        self.content = self.getvalue()
        super().close()


@pytest.mark.parametrize(("variant", "user"), LABS)
def test_figures_are_what_the_programs_show(variant: str, user: str, tmp_path: Path) -> None:
    """Counts; the overhead from the frames of an echo; hops and MTU by ping with DF, to which one byte more gets no answer."""
    lab = looked(variant, user)
    found = lab.counted
    assert [ours for ours, _ in found] == [theirs for _, theirs in found]
    assert {kind: found[4][0][kind] - found[2][0][kind] for kind in found[4][0]} == {**dict.fromkeys(found[4][0], 0), "routes": 1}
    capture = tmp_path / "packets.pcapng"
    capture.write_bytes(lab.packets)
    seen = read(capture)
    for family, (way, answers) in lab.ways.items():
        wire, inner, protocols, vni = seen[family]
        assert way.overhead == wire - 14 - inner
        assert ("vxlan" in protocols.split(":")) == way.encapsulation.startswith("VXLAN")
        assert way.encapsulation == "none" or way.encapsulation.endswith(f"VNI {vni}")
        assert answers == [way.ttl, None]


def test_a_planted_entry_of_every_kind_is_counted() -> None:
    plants = {
        "neighbours": "ip neigh add 192.168.50.77 lladdr 02:00:00:00:00:77 dev eth0",
        "fdb": "bridge fdb add 02:00:00:00:00:77 dev flannel.1 dst 192.168.50.77",
        "rules": "nft add rule ip flannel-ipv4 forward counter",
        "elements": "nft add table ip t ; add set ip t s { type ipv4_addr ; elements = { 192.0.2.1 } ; }",
        "devices": "ip link add more type bridge",
    }

    def work() -> dict[str, dict[str, int]]:
        found = {}
        with build("flannel") as lab:
            lab.build()
            for kind, line in plants.items():
                before = counts(lab, ["node-a"])["node-a"]
                words = ["nft", line.removeprefix("nft ")] if line.startswith("nft ") else line.split()
                with entered(lab.namespaces["node-a"].net):
                    subprocess.run(words, check=True)
                after = counts(lab, ["node-a"])["node-a"]
                found[kind] = {name: after[name] - before[name] for name in before if not name.endswith("_learned")}
        return found

    for kind, more in sandboxed.inside(work, "root").items():
        assert {name: number for name, number in more.items() if number} == {kind: 1}


def read(capture: Path) -> dict[int, tuple[int, int, str, str]]:
    """(length of the frame, of the innermost IP packet, protocols, VNI) of the first echo request of each family."""
    fields = ["frame.len", "ip.len", "ipv6.plen", "frame.protocols", "vxlan.vni"]
    ports = [word for port in (8472, 4789, 6784) for word in ("-d", f"udp.port=={port},vxlan")]
    shown = [word for field in fields for word in ("-e", field)]
    command = ["tshark", "-r", str(capture), "-Y", "icmp.type == 8 or icmpv6.type == 128", *ports, "-T", "fields", *shown]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[int, tuple[int, int, str, str]] = {}
    for line in done.stdout.splitlines():
        wire, four, six, protocols, vni = line.split("\t")
        family = 6 if "icmpv6" in protocols.split(":") else 4
        inner = int(six.split(",")[-1]) + 40 if family == 6 else int(four.split(",")[-1])
        found.setdefault(family, (int(wire), inner, protocols, vni))
    return found


def ping(lab: Lab, pair: Any, family: int, size: int) -> int | None:
    """The TTL of the answer to a packet of ``size`` bytes with DF; None: there is none."""
    there, payload = str(pair[1].address(family)), size - (28 if family == 4 else 48)
    with entered(lab.namespaces[pair[0].key].net):
        command = ["ping", "-c1", "-W0.2", "-M", "do", "-s", str(payload), there]
        done = subprocess.run(command, capture_output=True, text=True)
    told = done.stdout.partition("ttl=")[2]
    return int(told.split()[0]) if done.returncode == 0 else None


def test_a_stream_has_a_rate_or_a_reason() -> None:
    def work() -> list[Throughput]:
        found = []
        with build("calico") as lab:
            lab.build()
            pair = pairs(lab.cluster)[FAR]
            found.append(throughput(lab.namespaces, *pair, 4))
            lab.change(change.partition(lab.design, [[pair[0].node], [pair[1].node]]))
            found.append(throughput(lab.namespaces, *pair, 4))
            os.environ["PATH"] = ""
            found.append(throughput(lab.namespaces, *pair, 4))
        return found

    if shutil.which("iperf3") is None:
        pytest.skip("needs iperf3")
    good, lost, missing = sandboxed.inside(work, "root")
    assert good.rate is not None and good.rate > 1e6
    assert (lost.rate, missing) == (None, Throughput(reason="iperf3 is not installed"))
    assert lost.reason.startswith("iperf3: ")
