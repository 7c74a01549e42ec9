"""Kubernetes objects in a lab that runs, as they are typed: applied, shown, labelled, deleted, and mistakes without effect."""

from __future__ import annotations

import json
import os
import select
from pathlib import Path

import pytest
from terminal import Done, Terminal

SHOP = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: blue}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: nginx, ports: [{name: http, containerPort: 80}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: log, namespace: kube-system}
spec:
  selector: {matchLabels: {app: log}}
  template:
    metadata: {labels: {app: log}}
    spec:
      hostNetwork: true
      containers: [{name: log, ports: [{containerPort: 9100}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from: [{namespaceSelector: {matchLabels: {team: blue}}}]
    ports: [{port: http}]
"""
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec: {containers: [{name: c}]}\n"
CREATED = ["namespace/shop", "deployment.apps/web", "daemonset.apps/log", "service/web", "networkpolicy.networking.k8s.io/web"]
# What root's labs do not do otherwise: test_a_shop_comes_and_goes tries the way into them.
ORDINARY = pytest.mark.parametrize("user", ["user"])
UNENFORCED = "flannel"  # it enforces no policy, and that is told


@pytest.fixture
def typed(terminal: Terminal):  # type: ignore[no-untyped-def]
    """Type a command that must end with ``code``."""

    def run(*words: str, code: int = 0, stdin: str = "") -> Done:
        done = terminal.emulab(*words, stdin=stdin)
        assert done.code == code, (words, done)
        return done

    return run


def saved(terminal: Terminal, name: str, content: str | bytes) -> str:
    """A file that the terminal's user can read."""
    path = Path(terminal.home.parent, name)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    os.chmod(path, 0o644)
    return str(path)


def pods(typed, *words: str) -> list[str]:  # type: ignore[no-untyped-def]
    return [one["name"] for one in json.loads(typed("get", "pods", "-o", "json", *words).out)["items"]]


def test_a_shop_comes_and_goes(terminal: Terminal, typed) -> None:  # type: ignore[no-untyped-def]
    file = saved(terminal, "shop.yaml", SHOP)
    assert (
        "lab 'lab' is up: flannel on flat, 3 nodes, 0 pods"
        in typed(
            "up", "--name", "lab", "-f", saved(terminal, "ns.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n")
        ).out
    )
    done = typed("apply", "-f", file)
    assert done.out.splitlines() == [f"{one} created" for one in CREATED]
    assert "warning: NetworkPolicy shop/web: flannel" in done.err
    assert typed("apply", "-f", "-", stdin=SHOP).out.splitlines() == [f"{one} unchanged" for one in CREATED]
    web = pods(typed, "-n", "shop")
    assert len(web) == 3
    address = json.loads(typed("get", "pods", "-n", "shop", "-o", "json").out)["items"][2]["addresses"][0]
    typed("exec", web[0], "--", "ping", "-c1", "-W2", address)

    assert typed("get", "svc", "-n", "shop").out.splitlines()[1].split() == [
        "web",
        "NodePort",
        "10.96.1.0",
        "<none>",
        "80:30000/TCP",
    ]
    assert typed("get", "deploy", "-A").out.splitlines()[1].split() == ["shop", "web", "3/3", "3", "3"]
    assert typed("get", "ds").out.splitlines()[1].split()[:4] == ["kube-system/log", "3", "3", "3"]
    assert typed("get", "ns").out.split()[2:] == [
        *(word for name in ("default", "kube-node-lease", "kube-public", "kube-system", "shop", "x") for word in (name, "Active"))
    ]
    assert typed("get", "netpol", "shop/web", "-o", "name").out == "networkpolicy.networking.k8s.io/web\n"
    assert len(typed("get", "ep", "-n", "shop").out.splitlines()[1].split()[1].split(",")) == 3
    assert typed("get", "endpointslices", "-n", "shop").out.splitlines()[1].split()[1:3] == ["IPv4", "80"]
    assert [line.partition(" ")[0] for line in typed("get", "svc,netpol", "-n", "shop").out.splitlines()] == [
        "NAME",
        "web",
        "",
        "NAME",
        "web",
    ]
    for kind in ("ns", "deploy", "ds", "svc", "endpointslices", "netpol", "nodes", "pods"):
        shown = typed("get", kind, "-o", "yaml").out
        told = typed("apply", "-f", "-", stdin=shown).out.splitlines()
        assert told and all(line.endswith(" unchanged") for line in told), told

    assert (
        typed("label", "pod", web[0], "app=old", code=2).err
        == "error: 'app' already has a value (web), and --overwrite is false\n"
    )
    name = web[0].removeprefix("shop/")
    assert typed("label", "pod", name, "app=old", "--overwrite", "-n", "shop").out == f"pod/{name} labeled\n"
    assert len(pods(typed, "-n", "shop")) == 4, "another takes its place"
    assert name in typed("get", "pods", "--selector", "app=old").out
    assert typed("label", "ns", "shop", "team-").out == "namespace/shop unlabeled\n"
    assert typed("label", "ns", "shop", "team-").out == "namespace/shop not labeled\n"
    assert "team" not in typed("describe", "ns", "shop").out

    typed("pod", "unready", web[1])
    assert "NotReady" in typed("get", "pods", "-n", "shop").out
    assert len(typed("get", "ep", "-n", "shop").out.splitlines()[1].split()[1].split(",")) == 2
    assert typed("pod", "ready", web[1]).out == f"pod/{web[1]} is ready\n"

    typed("node", "add", "node-d")
    assert len(pods(typed, "-n", "kube-system")) == 5, "a DaemonSet follows the nodes; with the Service has come coredns"
    typed("node", "rm", "node-d")
    assert len(pods(typed, "-n", "kube-system")) == 4
    gone = typed("delete", "pod", web[1]).out
    assert gone == f'pod "{web[1].removeprefix("shop/")}" deleted\n'
    assert web[1] not in pods(typed, "-n", "shop") and len(pods(typed, "-n", "shop")) == 4, "made anew"

    scaled = SHOP.replace("replicas: 3", "replicas: 1")
    assert "deployment.apps/web configured\n" in typed("apply", "-f", "-", stdin=scaled).out
    assert len(pods(typed, "-n", "shop")) == 2
    assert typed("delete", "-f", file, "--dry-run").out.startswith("# node-")
    out = typed("delete", "-f", file).out
    assert out.splitlines()[0] == 'namespace "shop" deleted' and out.splitlines()[-1] == (
        'networkpolicy.networking.k8s.io "web" deleted'
    )
    assert pods(typed) == []
    assert typed("delete", "-f", file, code=2).err == 'error: namespaces "shop" not found\n'
    assert typed("delete", "-f", file, "--ignore-not-found").out == ""
    typed("verify", "-q")


@ORDINARY
def test_bandwidth_is_limited_at_both_ends(terminal: Terminal, typed) -> None:  # type: ignore[no-untyped-def]
    limits = "{kubernetes.io/ingress-bandwidth: 10M, kubernetes.io/egress-bandwidth: 5M}"
    slow = (POD % "slow").replace("{name: slow}", f"{{name: slow, annotations: {limits}}}")
    typed("up", "-f", saved(terminal, "slow.yaml", slow), "--name", "lab", "--plugin", "calico")
    assert "rate 5Mbit" in typed("exec", "slow", "--", "tc", "qdisc", "show", "dev", "eth0").out
    assert "rate 10Mbit" in typed("exec", "node-a", "--", "tc", "qdisc", "show").out
    assert typed("drift").out.strip().endswith("as planned")
    assert "receives 10 Mbit/s, sends 5 Mbit/s" in typed("describe", "pod", "slow").out
    assert typed("apply", "-f", "-", stdin=POD % "slow").out == "pod/slow configured\n"
    assert "rate" not in typed("exec", "slow", "--", "tc", "qdisc", "show", "dev", "eth0").out


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
WRONG: dict[str, tuple[str | bytes, str]] = {
    "field": (
        SHOP.replace("podSelector", "podSelecto"),
        "shop.yaml:41: document 5, NetworkPolicy shop/web: spec.podSelecto: unknown",
    ),
    "last of many": (
        (POD % "new") + "---\n" + (POD % "new2").replace("spec: {", "spec: {nodeName: x, "),
        "shop.yaml:9: document 2, Pod default/new2: spec.nodeName: no node 'x'",
    ),
    "clash": ((POD % "new") + "---\n" + (POD % "new"), "shop.yaml:6: document 2, Pod default/new: the same object is in "),
    "namespace": ((POD % "new, namespace: shp"), 'namespaces "shp" not found'),
    "address": (
        (POD % "new, annotations: {cni.projectcalico.org/ipAddrs: '[\"9.9.9.9\"]'}"),
        "9.9.9.9 is outside the pod CIDRs",
    ),
    "five megabytes": ("#" * (5 << 20), "more than 3 MiB"),
    "bomb": (BOMB, "shop.yaml:1: its aliases stand for"),
    "binary": (b"\x7fELF\xff\xfe\x00", "it is not UTF-8 text"),
    "nothing": ("# nothing\n", "no objects in it"),
}


def a_mistake_leaves_the_lab_as_it_was(terminal: Terminal, typed) -> None:  # type: ignore[no-untyped-def]
    wrong = {}
    for name, (content, told) in WRONG.items():
        file = saved(terminal, "shop.yaml", content)
        for verb in ("apply", "delete") if name in ("field", "bomb", "binary", "five megabytes") else ("apply",):
            done = terminal.emulab(verb, "-f", file)
            if done.code != 2 or told not in done.err or len(done.err.splitlines()) != 1 or done.out:
                wrong[name] = done
    assert wrong == {}
    for words, told in (
        (("apply",), "must specify -f"),
        (("apply", "-f", "nowhere.yaml"), "nowhere.yaml: cannot read the manifest: No such file"),
        (("apply", "-f", str(terminal.home)), "no manifest in this folder"),
        (("delete", "pod"), "no name was specified"),
        (("delete",), "either -f or KIND NAME expected"),
        (("delete", "pod", "a9"), 'pods "a9" not found (did you mean \'a'),
        (("delete", "pod", "a1", "a9"), 'pods "a9" not found'),
        (("delete", "pods", "-n", "shop", "a1"), 'pods "a1" not found'),
        (("delete", "cats", "tom"), "the server doesn't have a resource type 'cats'"),
        (("delete", "ns", "default"), 'namespaces "default" is forbidden'),
        (("label", "pod", "a1", "app"), "app: KEY=VALUE or KEY- expected"),
        (("label", "pod", "a1", "a=b", "a-"), "a: given twice"),
        (("label", "pod", "a1", "a=b c"), "no label"),
        (("describe", "pod", "a9"), 'pods "a9" not found'),
        (("get", "svc", "web"), 'services "web" not found'),
        (("get", "pods", "--selector", "a=b=c"), "selector a=b=c: e.g. app=web,tier!=db expected"),
        (("pod", "unready", "a9"), 'pods "a9" not found'),
    ):
        done = typed(*words, code=2)
        assert told in done.err and len(done.err.splitlines()) == 1, (words, done)


def a_big_request_arrives_and_a_folder_is_read_in_order(terminal: Terminal, typed) -> None:  # type: ignore[no-untyped-def]
    folder = terminal.home.parent / "many"
    folder.mkdir(mode=0o755)
    for number in (2, 1):
        saved(terminal, f"many/{number}.yaml", (POD % f"p{number}") + "# " + "x" * (2 << 20) + "\n")
    saved(terminal, "many/notes.txt", "no manifest")
    assert typed("apply", "-f", str(folder)).out == "pod/p1 created\npod/p2 created\n"
    typed("delete", "-f", str(folder))


def events_are_watched_to_the_end(terminal: Terminal, typed) -> None:  # type: ignore[no-untyped-def]
    watch = terminal.start("watch", "--format", "json")
    # Nothing says from outside that it listens: until it does, a harmless change is repeated.
    while not select.select([watch.out], [], [], 0.3)[0]:
        typed("link", "set", "node-a", "--rate", "100mbit")
    typed("apply", "-f", "-", stdin=POD % "p")
    typed("label", "pod", "p", "app=web")
    typed("delete", "pod", "p")
    typed("pod", "add", "a3", "--node", "node-a")
    typed("node", "stop", "node-b")
    typed("down")
    events = [json.loads(line) for line in watch.wait().out.splitlines()]
    told = [(one["event"], one.get("object") or one.get("pod")) for one in events if one["event"] != "link changed"]
    assert told == [
        ("pod added", "default/p"),
        ("created", "pod/p"),
        ("labeled", "pod/p"),
        ("pod removed", "default/p"),
        ("deleted", "pod/p"),
        ("pod added", "default/a3"),
        ("node stopped", None),
        ("lab down", None),
    ]


@ORDINARY
def test_in_a_lab(terminal: Terminal, typed, subtests: pytest.Subtests) -> None:  # type: ignore[no-untyped-def]
    """One after the other in one lab; the last takes it down."""
    typed("up", "--name", "lab")
    before = typed("inspect", "--format", "json").out
    for check in (a_mistake_leaves_the_lab_as_it_was, a_big_request_arrives_and_a_folder_is_read_in_order):
        with subtests.test(check.__name__):
            check(terminal, typed)
        assert typed("inspect", "--format", "json").out == before, check.__name__
    events_are_watched_to_the_end(terminal, typed)
