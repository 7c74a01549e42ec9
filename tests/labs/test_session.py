"""A lab session as it is typed, from `up` to `down`: every plugin, as root and as an ordinary user."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time

import pytest
from sandboxed import AS_ROOT
from terminal import Terminal

SETTINGS = {"flannel": [], "calico": ["--set", "encap=vxlan"], "weave": []}
QUICK = ("--protocol", "udp", "--timeout", "1")
NODES = {"node-a", "node-b", "node-c"}
# What root's labs do not do otherwise: test_a_whole_session tries the way into them.
ORDINARY = pytest.mark.parametrize("user", ["user"])


@pytest.mark.parametrize(("plugin", "user"), [("flannel", "root" if AS_ROOT else "user"), ("calico", "user"), ("weave", "user")])
def test_a_whole_session(plugin: str, terminal: Terminal) -> None:
    def typed(*words: str, code: int = 0, stdin: str = "") -> str:
        done = terminal.emulab(*words, stdin=stdin)
        assert done.code == code, (words, done)
        return done.out

    up = typed("up", "--plugin", plugin, *SETTINGS[plugin])
    assert re.search(rf"lab 'flat-{plugin}' is up: {plugin} on flat, 3 nodes, 6 pods", up)
    assert json.loads(typed("ls", "--format", "json"))[0]["name"] == f"flat-{plugin}"
    assert typed("exec", "a1", "--", "hostname") == "a1\n"
    assert "10.1.1.1\ta1" in typed("exec", "a1", "--", "cat", "/etc/hosts")
    assert "svc.cluster.local" in typed("exec", "a1", "--", "cat", "/etc/resolv.conf")
    assert "192.168.50.2\tnode-b" in typed("exec", "node-b", "--", "cat", "/etc/hosts")
    assert set(typed("exec", "node-a", "--", "ls", "/run/netns").split()) == {"a1", "a2"}
    assert typed("exec", "-i", "c1", "--", "cat", stdin="hello") == "hello"
    typed("exec", "a1", "--", "ping", "-c1", "-W2", "10.1.3.1")
    assert {node["name"] for node in json.loads(typed("get", "nodes", "-o", "json"))["items"]} == NODES

    assert "pod/a3 added on node-a (10.1." in typed("pod", "add", "a3", "--node", "node-a", "--label", "app=web")
    found = {pod["name"]: pod for pod in json.loads(typed("get", "pods", "-o", "json"))["items"]}
    assert found["default/a3"]["labels"] == {"app": "web"}
    typed("node", "add", "node-d")
    typed("pod", "add", "shop/d1", "--node", "node-d")
    assert "PASS" in typed("verify", "-q")
    typed("pod", "rm", "a3")
    typed("node", "rm", "node-d")

    typed("node", "stop", "node-b")
    assert "node-b (stopped)" in typed("diagram", "--lab", f"flat-{plugin}")
    told = json.loads(typed("probe", *QUICK, "--from", "a1", "--to", "b1", "--to", "c1", "--format", "json"))
    assert {(p["to"], p["verdict"]) for p in told["probes"]} >= {("default/c1", "delivered")}
    assert not any(p["verdict"] == "delivered" for p in told["probes"] if p["to"] == "default/b1")
    typed("node", "start", "node-b")
    typed("link", "down", "node-a")
    lost = typed("verify", "-q", *QUICK, "--from", "a1", "--to", "c1", "--to", "b1", code=1)
    assert "FAIL  of 4 flows 4 dropped" in lost
    typed("link", "up", "node-a")
    typed("partition", "node-a | node-c")
    lost = typed("verify", "-q", "--timeout", "1.5", "--from", "a1", "--to", "c1", code=0 if plugin == "weave" else 1)
    assert ("PASS" if plugin == "weave" else "FAIL") in lost  # Weave goes around by node-b
    typed("heal")
    assert "PASS" in typed("verify", "-q")
    assert typed("down") == f"lab 'flat-{plugin}' is down\n"
    assert os.listdir(terminal.folder) == []
    assert terminal.emulab("ls").err == "no lab is up\n"


@ORDINARY
def test_several_labs(terminal: Terminal) -> None:
    for name in ("one", "two"):
        assert terminal.emulab("up", "single-node", "--name", name).code == 0
    done = terminal.emulab("exec", "a1", "--", "true")
    assert (done.code, done.err) == (2, "error: several labs are up: choose one by -l (one, two)\n")
    assert terminal.emulab("exec", "a1", "-l", "two", "--", "true").code == 0
    assert terminal.emulab("exec", "a1", "--", "true", env={"EMULAB_LAB": "one"}).code == 0
    taken = terminal.emulab("up", "--name", "one")
    assert taken.code == 2 and "lab 'one' is up already" in taken.err
    assert terminal.emulab("down", "--all").out == "lab 'one' is down\nlab 'two' is down\n"


def captures_go_into_tshark(terminal: Terminal) -> None:
    capture = terminal.start("capture", "node-a:eth0", "-w", "-", "-c", "2", "udp", "port", "8472")
    assert capture.err.readline() == b"capturing on node-a:eth0\n"
    terminal.emulab("exec", "a1", "--", "ping", "-c1", "-W2", "10.1.3.1")
    data = capture.out.read()
    assert capture.wait().code == 0
    fields = ["-T", "fields", "-e", "frame.interface_name", "-e", "icmp.type", "-d", "udp.port==8472,vxlan"]
    read = subprocess.run(["tshark", "-r", "-", *fields], input=data, capture_output=True, check=True)
    assert read.stdout.decode().split("\n")[:2] == ["node-a:eth0\t8", "node-a:eth0\t0"]


def an_impatient_end_of_a_capture_is_its_end(terminal: Terminal) -> None:
    """Ctrl-C again and again, from its first word to its last breath: a real process, since Python's end takes its time."""
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(terminal.home)}
    command = [sys.executable, "-m", "emulab", "capture", "a1", "icmp"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as capture:
        assert capture.stdout and capture.stderr
        assert capture.stderr.readline() == b"capturing on default/a1:eth0\n"
        while capture.poll() is None:
            capture.send_signal(signal.SIGINT)
        assert (capture.returncode, capture.stderr.read()) == (0, b"")
        assert capture.stdout.read()[:4] == b"\n\r\r\n"


def a_shell_on_a_terminal(terminal: Terminal) -> None:
    child, keyboard = os.forkpty()
    if child == 0:
        terminal.become()
        from terminal import main

        main(("shell", "a1"))
    assert "a1 (lab):" in _read_until(keyboard, "(lab):")
    os.write(keyboard, b"hostname; echo $((6*7)); sh -c 'echo asleep; exec sleep 60'\n")
    assert "a1\n42\nasleep\n" in _read_until(keyboard, "\nasleep\n")
    os.write(keyboard, b"\x03")
    assert "(lab):" in _read_until(keyboard, "(lab):"), "Ctrl-C ends what runs, not the shell"
    os.write(keyboard, b"exit 5\n")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5


def _read_until(keyboard: int, word: str, seconds: float = 10) -> str:
    seen, deadline = "", time.monotonic() + seconds
    while word not in seen.replace("\r", "") and time.monotonic() < deadline:
        if select.select([keyboard], [], [], 0.2)[0]:
            seen += os.read(keyboard, 4096).decode(errors="replace")
    return seen.replace("\r", "")


BAD = {
    "no lab": (("exec", "-l", "lob", "a1", "--", "true"), 2, "no lab 'lob' (did you mean 'lab'?)"),
    "no pod": (("exec", "a9", "--", "true"), 2, "no pod or node 'a9' (did you mean 'a2'?)"),
    "no command": (("exec", "a1", "--", "no-such-command"), 127, "no-such-command: no such command here"),
    "no program": (("exec", "a1", "--", "/etc/passwd"), 126, "/etc/passwd: Permission denied"),
    "exit code": (("exec", "a1", "--", "sh", "-c", "exit 9"), 9, ""),
    "signal": (("exec", "a1", "--", "sh", "-c", "kill -9 $$"), 137, ""),
    "pod twice": (("pod", "add", "a1", "--node", "node-a"), 2, "there is a pod 'default/a1' already"),
    "pod on no node": (("pod", "add", "x", "--node", "node-x"), 2, "no node 'node-x' (did you mean 'node-"),
    "bad name": (("pod", "add", "A_1", "--node", "node-a"), 2, "is no name for a pod"),
    "bad address": (("pod", "add", "x", "--node", "node-a", "--ip", "10.1.1.x"), 2, "'10.1.1.x' is no IP address"),
    "taken address": (("pod", "add", "x", "--node", "node-a", "--ip", "10.1.1.2"), 2, "10.1.1.2 is taken by pod default/a2"),
    "outside address": (("pod", "add", "x", "--node", "node-a", "--ip", "9.9.9.9"), 2, "outside the pod CIDRs"),
    "bad label": (("pod", "add", "x", "--node", "node-a", "--label", "app"), 2, "KEY=VALUE expected"),
    "no such pod": (("pod", "rm", "a7"), 2, "no pod or node 'a7'"),
    "a node is no pod": (("pod", "rm", "node-a"), 2, "node-a is a node: a pod expected"),
    "node twice": (("node", "add", "node-a"), 2, "there is a node 'node-a' already"),
    "running": (("node", "start", "node-a"), 2, "node node-a is running already"),
    "no segment": (("node", "add", "n", "--segment", "wan"), 2, "no segment 'wan'"),
    "up already": (("link", "up", "node-a"), 2, "the link of node-a is up already"),
    "no rate": (("link", "set", "node-a", "--rate", "fast"), 2, "--rate fast: a number and one of"),
    "nothing": (("link", "set", "node-a"), 2, "nothing to set"),
    "no netem": (("link", "set", "node-a", "--delay", "10ms"), 3, "modprobe sch_netem"),
    "not parted": (("heal",), 2, "nothing is partitioned"),
    "one side": (("partition", "node-a,node-b,node-c"), 2, "at least two sides"),
    "no kind": (("get", "cats"), 2, "the server doesn't have a resource type 'cats'"),
    "no port": (("probe", "--port", "70000"), 2, "port 70000: 1 to 65535 expected"),
    "too small": (("probe", "--size", "10"), 2, "size 10: 80 to 65000 bytes expected"),
    "no interface": (("capture", "a1:eth7"), 2, "default/a1 has no interface 'eth7'"),
    "no filter": (("capture", "a1", "foo bar"), 2, "filter 'foo bar': "),
    "no folder": (("capture", "a1", "-w", "/nowhere/x"), 2, "/nowhere/x: cannot write there"),
    "lab name": (("up", "--name", "Lab_1"), 2, "'Lab_1' is no name for a lab"),
}


def bad_input_gets_a_line_and_an_exit_code(terminal: Terminal) -> None:
    wrong = {}
    for name, (words, code, told) in BAD.items():
        done = terminal.emulab(*words)
        if done.code != code or told not in done.err or "Traceback" in done.err:
            wrong[name] = done
    assert wrong == {}


def a_stopped_node_cannot_be_entered(terminal: Terminal) -> None:
    sleeper = terminal.start("exec", "b1", "--", "sh", "-c", "echo here; exec sleep 60")
    assert sleeper.out.readline() == b"here\n"
    assert terminal.emulab("node", "stop", "node-b").code == 0
    assert sleeper.wait().code == 137  # killed with its machine
    for words in (("exec", "b1", "--", "true"), ("pod", "add", "b9", "--node", "node-b"), ("probe", "--from", "b1")):
        done = terminal.emulab(*words)
        assert (done.code, done.err) == (2, "error: node node-b is stopped (emulab node start node-b)\n")
    assert "already" in terminal.emulab("node", "stop", "node-b").err
    assert "node-b is switched off  (node-stopped)" in terminal.emulab("trace", "a1", "b1", "-q").out
    told = terminal.emulab("diagnose")
    assert told.code == 0 and "as the lab is now: node-b is stopped" in told.out and "emulab node start node-b" in told.out
    assert terminal.emulab("node", "start", "node-b").code == 0


def what_would_be_typed(terminal: Terminal) -> None:
    shown = terminal.emulab("pod", "add", "a3", "--node", "node-a", "--dry-run").out
    assert "# node-a\nip netns add a3\n" in shown
    assert re.search(r"ip route add 10\.1\.1\.0/32 dev cali[0-9a-f]{11} scope link", shown)
    assert "nft 'add element ip calico" in shown


COMPLETED = {
    "pods": ("emulab exec b", {"b1", "b2"}),
    "pods and nodes": ("emulab trace n", {"node-a", "node-b", "node-c"}),
    "labs": ("emulab down la", {"lab"}),
    "plugins": ("emulab up --plugin fl", {"flannel"}),
    "topologies": ("emulab run two", {"two-racks"}),
    "faults": ("emulab fault inject one", {"one-way-loss"}),
    "kinds": ("emulab get dep", {"deploy", "deployment", "deployment.apps", "deployments", "deployments.apps"}),
    "kinds to delete": ("emulab delete ro", set()),
    "objects": ("emulab describe ns kube-", {"kube-node-lease", "kube-public", "kube-system"}),
    "nodes with routes": ("emulab get routes n", {"node-a", "node-b", "node-c"}),
}


def completion_knows_labs_pods_nodes_plugins_and_topologies(terminal: Terminal) -> None:
    wrong = {}
    for name, (line, words) in COMPLETED.items():
        asked = {"_EMULAB_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
        found = {shown.partition(",")[2] for shown in terminal.emulab(env=asked).out.splitlines()} - {""}
        if not words <= found:
            wrong[name] = found
    assert wrong == {}


def mininets_prompt(terminal: Terminal) -> None:
    typed = "pods\na1 ping -c1 -W2 c2\nnode-a hostname\nlink down node-a\nget links\nlink up node-a\ntrace a1 c1 -q\nnope\n"
    done = terminal.emulab("cli", stdin=typed)
    for words in (
        "node-a       10.1.1.1",
        "1 received",
        "node-a\n",
        "Down",
        "delivered and back",
        "no command, node or pod 'nope'",
    ):
        assert words in done.out, words


def faults_and_diagnoses(terminal: Terminal) -> None:
    assert terminal.emulab("diagnose").out == "nothing wrong\n"
    assert terminal.emulab("fault", "inject", "proxy-arp-off", "--at", "a1").code == 0
    done = terminal.emulab("diagnose", "--format", "json")
    assert (done.code, json.loads(done.out)["diagnoses"][0]["fault"]) == (1, "proxy-arp-off")
    assert terminal.emulab("fault", "list").out.endswith("injected: proxy-arp-off at default/a1\n")
    assert terminal.emulab("fault", "clear").out == "cleared: proxy-arp-off at a1\n"
    first = ("fault", "inject", "missing-route", "--at", "node-a")
    assert terminal.emulab(*first).code == 0
    again = terminal.emulab(*first)
    assert (again.code, "missing-route is injected at 'node-a' already" in again.err) == (2, True)
    taken = terminal.emulab("fault", "inject", "tunnel-down", "--at", "node-b")
    assert (taken.code, "cannot be injected" in taken.err) == (2, True)
    for _ in range(6):
        assert "something is broken" in terminal.emulab("fault", "inject", "--blind").out
    told = json.loads(terminal.emulab("fault", "list", "--format", "json").out)["injected"]
    assert told == [{"name": "missing-route", "at": "node-a", "blind": False}, *[{"blind": True}] * 6]
    assert terminal.emulab("diagnose").code == 1
    assert terminal.emulab("repair").code == 0
    assert terminal.emulab("diagnose").out == "nothing wrong\n"
    wrong = terminal.emulab("fault", "inject", "missing-fdb")
    assert (wrong.code, "cannot be injected" in wrong.err) == (2, True)
    assert "did you mean 'missing-route'" in terminal.emulab("fault", "inject", "mising-route").err


IN_A_LAB = {
    ("flannel", "root"): (captures_go_into_tshark, an_impatient_end_of_a_capture_is_its_end, a_shell_on_a_terminal),
    ("flannel", "user"): (
        *(captures_go_into_tshark, a_shell_on_a_terminal, bad_input_gets_a_line_and_an_exit_code),
        *(completion_knows_labs_pods_nodes_plugins_and_topologies, mininets_prompt, a_stopped_node_cannot_be_entered),
    ),
    ("calico", "user"): (what_would_be_typed, faults_and_diagnoses),
}


@pytest.mark.parametrize(("plugin", "user"), [key for key in IN_A_LAB if AS_ROOT or key[1] == "user"])
def test_in_a_lab(plugin: str, user: str, terminal: Terminal, subtests: pytest.Subtests) -> None:
    """One after the other in one lab, and each leaves it as it was."""
    assert terminal.emulab("up", "--plugin", plugin, "--name", "lab").code == 0
    before = terminal.emulab("inspect", "--format", "json").out
    assert before
    for check in IN_A_LAB[plugin, user]:
        with subtests.test(check.__name__):
            check(terminal)
        assert terminal.emulab("inspect", "--format", "json").out == before, check.__name__
    assert terminal.emulab("drift").code == 0
