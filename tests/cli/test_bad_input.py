"""Every mistake of the user ends as one line on stderr and exit code 2, before anything has been started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tables import each_row

from emulab import registry
from emulab.cli import main

PLAIN = "pod-cidrs: [10.1.0.0/16]\nnodes:\n  node-a: {pods: 1}\n  node-b: {pods: 1}\n"

COMMANDS = [
    ("rnu", "no command 'rnu' (did you mean 'run'?)"),
    ("--verison", "No such option", "--version"),
    ("run --plugin flanel", "no plugin 'flanel' (did you mean 'flannel'?)"),
    ("run flatt", "no topology 'flatt' (did you mean 'flat'?)"),
    ("run --plguin calico", "No such option", "--plugin"),
    ("run --taps some", "some", "every", "ends"),
    ("run --protocol sctp", "sctp", "icmp", "udp", "tcp"),
    ("run --format xml", "xml", "text", "json"),
    ("run flat flat", "unexpected extra argument"),
    ("run fleet,1,2,3,4", "topology fleet,1,2,3,4:", "nodes"),
    ("run fleet,x,2", "'x' is no whole number"),
    ("run fleet,0,2", "fleet"),
    ("run flat,1", "takes no numbers"),
    ("run non-flat --plugin nat --family 6", "--family 6", "IPv4 only"),
    ("run --family 5", "5", "4", "6"),
    ("run --set vni", "--set vni: NAME=VALUE expected"),
    ("run --set vin=7", "plugin 'flannel' has no option 'vin' (did you mean 'vni'?)"),
    ("run --set vni=seven", "--set vni=seven: a whole number expected"),
    ("run --set vni=0", "vni 0 is out of range"),
    ("run --set vni=1 --set vni=2", "--set vni: given twice"),
    ("run --set direct_routing=maybe", "true or false expected"),
    ("run --set backend=vxlam", "unknown backend 'vxlam' (did you mean 'vxlan'?)"),
    ("run -p calico --set encap=sometimes", "encap", "sometimes"),
    ("run -p weave --set port=70000", "port 70000 is out of range"),
    ("run -p weave --set mtu=1499", "mtu 1499 does not fit", "1500"),
    ("run ./nowhere.yaml", "nowhere.yaml", "No such file"),
    ("plan --only node-x", "nothing is planned for 'node-x'", "did you mean 'node-"),
    ("diagram flatt", "no topology 'flatt' (did you mean 'flat'?)"),
    ("diagram --plugin flanel", "no plugin 'flanel' (did you mean 'flannel'?)"),
    ("diagram --set vni=0", "vni 0 is out of range"),
    ("diagram fleet,0,2", "fleet"),
    ("diagram --format png", "png", "svg", "mermaid", "dot"),
    ("diagram -o /nowhere/at-all/x.svg", "/nowhere/at-all/x.svg: cannot write there: No such file or directory"),
    ("diagram --lab flat-flannel two-racks", "--lab draws a running lab"),
    ("diagram --lab flat-flannel --plugin flannel", "--lab draws a running lab"),
    ("probe --all-ports --port 80", "--port does not go with --all-ports"),
    ("probe --all-ports --taps every", "--taps does not go with --all-ports"),
    ("probe --protocol sctp", "--protocol sctp goes with --all-ports"),
    ("completion tcsh", "tcsh", "bash"),
    ("serve --port 70000", "70000", "65535"),
    ("compare flanel calico", "no plugin 'flanel' (did you mean 'flannel'?)"),
    ("compare calico:encpa=vxlan flannel", "calico:encpa=vxlan: plugin 'calico' has no option 'encpa' (did you mean 'encap'?)"),
    ("compare calico:encap=vxlam flannel", "calico:encap=vxlam: unknown encap 'vxlam' (did you mean 'vxlan'?)"),
    ("compare calico:encap flannel", "calico:encap: encap: NAME=VALUE expected"),
    ("compare calico:vni=1,vni=2 flannel", "calico:vni=1,vni=2: vni: given twice"),
    ("compare weave:mtu=1499 flannel", "mtu 1499 does not fit"),
    ("compare weave weave", "weave is named twice"),
    ("compare weave", "weave alone: nothing to compare it with"),
    ("compare flannel weave flat", "flat is a topology, not a plugin: --topology flat"),
    ("compare -t flatt", "no topology 'flatt' (did you mean 'flat'?)"),
    ("compare -t fleet,0,0", "fleet: 0 nodes"),
    ("compare --fromat csv", "No such option", "--format"),
    ("compare --format xml", "xml", "csv", "html"),
    ("compare -o /nowhere/c.html", "--output /nowhere/c.html: cannot write there: No such file or directory"),
    ("compare -t non-flat weave weave:port=7000", "weave: one pod CIDR per family expected"),
    ("cni conformance /usr/bin/env", "Missing option", "--conf"),
    ("cni install /nowhere", "/nowhere: a folder expected"),
    ("cni install", "Missing argument 'DIR'"),
    ("cni conformance /usr/bin/env --conf nowhere.conflist", "nowhere.conflist: cannot be read: No such file"),
    ("cni conformance /nowhere/x --conf examples/cni/mynet.conflist", "/nowhere/x: an executable file expected"),
    ("cni conformance /etc/passwd --conf examples/cni/mynet.conflist", "/etc/passwd: an executable file expected"),
    (
        "cni conformance /usr/bin/env --conf examples/cni/mynet.conflist",
        "no plugin of type 'env' (known: bridge, host-local, portmap)",
    ),
    ("cni conformance /usr/bin/env --conf setup.cfg", "setup.cfg:1: not JSON"),
]

FILES = [
    ("", "topology.yaml:1:", "empty"),
    ("pod-cidrs: [10.1.0.0/16\nnodes: {}\n", "topology.yaml:", "broken YAML"),
    ("\tnodes: {}\n", "topology.yaml:1:", "broken YAML"),
    ("nodes: !!python/object/apply:os.system [true]\n", "topology.yaml:1:", "means nothing here"),
    ("- node-a\n", "topology.yaml:1:", "a mapping expected, got a list"),
    ("pod-cidrs: [10.1.0.0/16]\n", "no nodes"),
    ("nodes: {node-a: {pods: 1}}\n", "no pod-cidrs"),
    (PLAIN + "colour: blue\n", "topology.yaml:5:", "unknown key 'colour'"),
    (PLAIN.replace("pods", "pod", 1), "topology.yaml:3:", "unknown key 'pod' (did you mean 'pods'?)"),
    (PLAIN.replace("node-b", "node-a"), "topology.yaml:4:", "there are two 'node-a'"),
    (PLAIN.replace("{pods: 1}", "{pods: {p: }}"), "topology.yaml:4:", "there are two pods 'default/p'"),
    (PLAIN.replace("node-b", "Node_B"), "topology.yaml:4:", "'Node_B' is no name for a node", "RFC 1123"),
    (PLAIN.replace("pods: 1", "pods: {A_1: }", 1), "topology.yaml:3:", "'A_1' is no name for a pod", "RFC 1123"),
    (PLAIN.replace("node-b", "internet"), "topology.yaml:4:", "'internet' is a name of the underlay"),
    (PLAIN.replace("pods: 1", "pods: {a1: 10.2.0.1}", 1), "topology.yaml:3:", "10.2.0.1 is outside the pod CIDRs 10.1.0.0/16"),
    (PLAIN.replace("pods: 1", "pods: {a1: 10.1.0.9, a2: 10.1.0.9}", 1), "10.1.0.9 is taken by pod default/a1"),
    (PLAIN.replace("pods: 1", "pods: {a1: 10.1.0.300}", 1), "topology.yaml:3:", "10.1.0.300"),
    (PLAIN.replace("10.1.0.0/16", "10.1.0.0/16, 10.1.2.0/24"), "topology.yaml:1:", "one network per family expected"),
    (PLAIN.replace("10.1.0.0/16", "10.1.0.1/16"), "topology.yaml:1:", "a network expected", "host bits"),
    (PLAIN.replace("10.1.0.0/16", "192.168.0.0/16"), "topology.yaml:1:", "192.168.0.0/16", "192.168.50.0/24", "overlaps"),
    (PLAIN.replace("10.1.0.0/16", "224.1.0.0/16"), "topology.yaml:1:", "no host can have an address in it"),
    (PLAIN.replace("{", "{pod-cidrs: [10.1.7.0/24], "), "topology.yaml:4:", "overlaps 10.1.7.0/24 of node node-a"),
    (PLAIN.replace("{", "{pod-cidrs: [10.1.7.0/30], ").replace("pods: 1", "pods: 3", 1), "10.1.7.0/30"),
    (PLAIN.replace("10.1.0.0/16", "10.1.0.0/29").replace("pods: 1", "pods: 40"), "10.1.0.0/30 has no free address left for pod"),
    (PLAIN.replace("pods: 1", "segment: lam, pods: 1", 1), "topology.yaml:3:", "unknown segment 'lam' (did you mean 'lan'?)"),
    (PLAIN + "cut: [[node-a, node-x]]\n", "topology.yaml:5:", "unknown node 'node-x'", "did you mean 'node-"),
    (PLAIN.replace("pods: 1", "links: [{interface: uplink-to-rack-1}]", 1), "'uplink-to-rack-1'", "1 to 15 letters"),
    (PLAIN + "segments: {lan: {subnets: [10.9.0.0/24], mtu: 100}}\n", "MTU too small", "50 bytes"),
    (PLAIN.replace("pods: 1", "pods: 1, mtu: 9000", 1), "topology.yaml:3:", "MTU 9000 exceeds 1500"),
    (PLAIN.replace("pods: 1", "pods: 1, rate: fast", 1), "topology.yaml:3:", "100mbit", "fast"),
    (PLAIN.replace("pods: 1", "pods: 1, loss: 120%", 1), "topology.yaml:3:", "loss"),
    (PLAIN.replace("pods: 1", "pods: -1", 1), "topology.yaml:3:", "-1"),
]

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c}]}\n"
MANIFESTS: dict[str, tuple[str | bytes, str]] = {
    "binary": (b"\x7fELF\xff\x00", "m.yaml: cannot read the manifest: it is not UTF-8 text"),
    "too big": ("#" * (5 << 20), "m.yaml: more than 3 MiB"),
    "bomb": (BOMB, "m.yaml:1: its aliases stand for"),
    "empty": ("", "m.yaml: no objects in it"),
    "field": (POD.replace("spec", "spek"), "m.yaml:4: document 1, Pod default/p: spek: unknown field (did you mean 'spec'?)"),
    "node": (
        POD.replace("{containers", "{nodeName: x, containers"),
        "m.yaml:4: document 1, Pod default/p: spec.nodeName: no node",
    ),
    "namespace": (
        POD.replace("{name: p}", "{name: p, namespace: x}"),
        'm.yaml:3: document 1, Pod x/p: metadata.namespace: namespaces "x" not',
    ),
}

MODULES = [
    ("1 / 0\n", "plugin 'broken' raised ZeroDivisionError", "broken.py:1"),
    ("def f(:\n", "plugin 'broken'", "broken.py:1"),
    ("raise SystemExit(0)\n", "plugin 'broken' raised SystemExit", "broken.py:1"),
    ("import no_such_module\n", "plugin 'broken' raised ModuleNotFoundError", "no_such_module", "broken.py:1"),
    ("x = 1\n", "plugin 'broken': one DataPlane class", "broken.py"),
    (
        "from dataclasses import dataclass\nfrom emulab.dataplane import DataPlane\n@dataclass(frozen=True)\n"
        "class Broken(DataPlane):\n    name = 'broken'\n",
        "Broken lacks ipam, plan, wire",
    ),
    (
        "from dataclasses import dataclass\nfrom emulab.dataplane import DataPlane\n"
        "from emulab.ipam.host_local import HostLocal\n"
        "@dataclass(frozen=True)\nclass Broken(DataPlane):\n    name = 'broken'\n"
        "    def ipam(self, topology): return HostLocal(topology)\n    def wire(self, *_): ...\n"
        "    def plan(self, cluster):\n        return cluster.no_such_thing\n",
        "plugin 'broken' raised AttributeError",
        "no_such_thing",
        "broken.py:10",
    ),
]


def complaint(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that ``emulab words…`` writes; a hint where help is to be had may follow."""
    monkeypatch.setattr(sys, "argv", ["emulab", *words])
    with pytest.raises(SystemExit) as leaving:
        main()
    captured = capsys.readouterr()
    first, *rest = captured.err.splitlines()
    assert leaving.value.code == 2, captured.err
    assert captured.out == ""
    assert first.startswith("error: ")
    assert not rest or (len(rest) == 1 and rest[0].startswith("Try: emulab")), captured.err
    assert "Traceback" not in captured.err
    return first


@each_row("case", COMMANDS, ids=lambda case: case[0])
def test_what_is_typed(case: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    line, *expected = case
    said = complaint(line.split(), monkeypatch, capsys)
    assert [words for words in expected if words not in said] == [], said


@pytest.mark.parametrize("command", ["plan", "run"])
@each_row("case", FILES, ids=lambda case: case[-1])
def test_what_a_file_says(
    case: tuple[str, ...], command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content, *expected = case
    (tmp_path / "topology.yaml").write_text(content)
    said = complaint([command, str(tmp_path / "topology.yaml")], monkeypatch, capsys)
    assert [words for words in expected if words not in said] == [], said


@pytest.mark.parametrize("command", ["plan", "diagram", "run", "up"])
@each_row("content, told", MANIFESTS.values(), ids=MANIFESTS)
def test_what_a_manifest_says(
    content: str | bytes,
    told: str,
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "m.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    assert told in complaint([command, "-f", str(tmp_path / "m.yaml")], monkeypatch, capsys)


def test_where_there_is_no_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no manifest in this folder" in complaint(["plan", "-f", str(tmp_path)], monkeypatch, capsys)
    assert "No such file" in complaint(["plan", "-f", str(tmp_path / "x.yaml")], monkeypatch, capsys)


@pytest.mark.parametrize("case", MODULES, ids=lambda case: case[1])
def test_what_a_plugin_does(
    case: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content, *expected = case
    (tmp_path / "broken.py").write_text(content)
    known = registry._catalogue
    monkeypatch.setattr(registry, "_catalogue", lambda group: {**known(group), "broken": registry._Entry("broken")})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    said = complaint(["plan", "--plugin", "broken"], monkeypatch, capsys)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    assert [words for words in expected if words not in said] == [], said
