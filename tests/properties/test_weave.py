"""On any mesh that Weave can have, frames arrive once, and by the promised way."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations, permutations

from hypothesis import given, settings
from hypothesis import strategies as st
from meshed import lan

from emulab.dataplane import build_cluster
from emulab.model import Cluster, Topology
from emulab.state import BridgePort, FdbEntry, NftTable, State, Vxlan
from emulab_plugins.weave import Weave


class Fabric:
    """What the bridges ``datapath`` of a plan do with a frame, as bridge(8) and nft(8) say."""

    def __init__(self, cluster: Cluster, plan: State) -> None:
        nodes = [node.name for node in cluster.nodes]
        self.ports: dict[str, dict[str, BridgePort]] = {}
        self.fdb: dict[str, dict[str, str]] = {}
        self.trees: dict[str, set[tuple[str, str]] | None] = {}
        for node in nodes:
            of = plan[node]
            self.ports[node] = {p.device: p for p in of if isinstance(p, BridgePort) and p.bridge == "datapath"}
            self.fdb[node] = {entry.mac: entry.device for entry in of if isinstance(entry, FdbEntry)}
            rules = [r for table in of if isinstance(table, NftTable) and table.family == "bridge" for r in table.rules]
            found = re.findall(r'([0-9a-f:]{17}) \. "(vxlan-\d+)"', " ".join(rules))
            self.trees[node] = set(found) if rules else None
        ends = {(d.local, d.remote): (node, d.name) for node in nodes for d in plan[node] if isinstance(d, Vxlan)}
        self.far = {end: ends[remote, local] for (local, remote), end in ends.items()}

    def broadcast(self, source: str, mac: str) -> Counter[str]:
        """How many copies each node's own bridge ``weave`` gets."""
        copies: Counter[str] = Counter()
        frames = [(source, "vethwe-datapath")]
        for node, came_by in frames:
            assert len(frames) < 1000, "the frame goes round in circles"
            for port in self.ports[node].values():
                isolated = port.isolated and self.ports[node][came_by].isolated
                tree = self.trees[node]
                if port.device == came_by or isolated:
                    continue
                if port.device == "vethwe-datapath":
                    copies[node] += 1
                elif tree is None or (mac, port.device) in tree:
                    frames.append(self.far[node, port.device])
        return copies

    def unicast(self, source: str, mac: str) -> list[str]:
        """The nodes that a frame to ``mac`` meets, by static entries alone."""
        path = [source]
        while mac in self.fdb[path[-1]]:
            assert len(path) < 100, "the frame goes round in circles"
            path.append(self.far[path[-1], self.fdb[path[-1]][mac]][0])
        return path


@st.composite
def meshes(draw: st.DrawFn) -> Topology:
    """Any connected graph: a random tree, and some of the other edges."""
    letters = "abcdefg"[: draw(st.integers(2, 7))]
    kept = {frozenset((letters[n], letters[draw(st.integers(0, n - 1))])) for n in range(1, len(letters))}
    others = [pair for pair in map("".join, combinations(letters, 2)) if frozenset(pair) not in kept]
    return lan(letters, *draw(st.lists(st.sampled_from(others), unique=True) if others else st.just([])))


@settings(max_examples=80)
@given(meshes())
def test_on_any_mesh_a_broadcast_reaches_each_node_once_and_a_frame_the_promised_way(topology: Topology) -> None:
    cluster = build_cluster(topology, Weave().ipam(topology))
    fabric = Fabric(cluster, Weave().plan(cluster))
    nodes = {node.name for node in cluster.nodes}
    for source in cluster.endpoints:
        assert fabric.broadcast(source.node, source.mac) == dict.fromkeys(nodes - {source.node}, 1)
    for source, destination in permutations(cluster.endpoints, 2):
        tunnels = Weave().wire(cluster, source, destination, 4).tunnels
        promised = [source.node] + [f"node-{'abcdefg'[int(t.destination) % 256 - 1]}" for t in tunnels]
        assert promised[-1] == destination.node
        if topology.cut:
            assert fabric.unicast(source.node, destination.mac) == promised
