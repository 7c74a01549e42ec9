"""Network namespaces of the host join a running lab by `emulab-cni`: root's labs, and what an ordinary user's can."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from lodgers import CONF, PATH, PLUGIN, called, container, covered, devices, ip, remove, run, variables
from sandboxed import AS_ROOT, NOBODY, inside
from terminal import Terminal, talk

from emulab import cniplugin
from emulab.cni import files, runner
from emulab.conformance import running
from emulab.conformance.verdict import FAILED, PASSED, Report
from emulab.kernel import syscalls

ROOT = Path(__file__).parents[2]
QUICK = ("-q", "--protocol", "icmp", "--timeout", "2")
needs_root = pytest.mark.skipif(not AS_ROOT, reason="network namespaces of the host are root's")


@pytest.fixture
def root(sit_down: Callable[[str], Terminal]) -> Terminal:
    return sit_down("root")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for left in tmp_path.glob("*"):
        if left.is_mount():
            remove(left)


def typed(terminal: Terminal, *words: str, code: int = 0) -> str:
    done = terminal.emulab(*words)
    assert done.code == code, (words, done)
    return done.out


def seconds_of_add(netns: Path, conf: dict[str, Any]) -> float:
    """Processor time that the plugin takes; the interface is there afterwards."""
    called("DEL", netns, conf)
    before = os.times()
    assert run("ADD", netns, conf)[0] == 0
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def pods(terminal: Terminal) -> dict[str, Any]:
    return {pod["name"]: pod for pod in json.loads(typed(terminal, "get", "pods", "-o", "json"))["items"]}


@needs_root
@pytest.mark.parametrize("plugin", ["calico", "flannel", "weave"])
def test_a_container_of_the_host_is_a_pod_like_any_other(plugin: str, root: Terminal, folder: Path) -> None:
    typed(root, "up", "--plugin", plugin, "--name", "here")
    conf = {**CONF, "lab": "here", "labels": {"app": "real"}}
    with container(folder / "box1") as one:
        assert called("STATUS", "", conf) == (0, {})
        kubernetes = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=box1"
        code, result = run("ADD", one, conf, CNI_ARGS=kubernetes)
        assert code == 0, result
        seen = {address["local"] for address in ip(one, "addr show dev eth0")[0]["addr_info"]}
        assert {address["address"].split("/")[0] for address in result["ips"]} < seen
        pod = pods(root)["shop/web"]
        assert (pod["node"], pod["labels"]) == ("node-a", {"app": "real"})
        assert "all 7 pods see each other's own addresses" in typed(root, "verify", "-q")
        assert "✓ delivered and back" in typed(root, "trace", "shop/web", "c1")
        assert typed(root, "exec", "shop/web", "--", "hostname") == "web\n"
        assert called("CHECK", one, {**conf, "prevResult": result}) == (0, {})
        ip(one, "link add own0 type veth peer name own1")  # its owner's business, and no drift
        assert called("CHECK", one, {**conf, "prevResult": result}) == (0, {})
        typed(root, "drift")
        ip(one, "addr flush dev eth0")
        code, told = called("CHECK", one, {**conf, "prevResult": result})
        assert (code, told["code"]) == (1, 100)
        assert "missing: ip addr add" in told["details"]
        typed(root, "repair")
        assert called("CHECK", one, {**conf, "prevResult": result}) == (0, {})
        typed(root, "node", "stop", "node-a")
        assert (devices(one), called("CHECK", one, conf)[1]["code"]) == ({"lo", "own0", "own1"}, 11)
        typed(root, "node", "start", "node-a")
        assert called("CHECK", one, {**conf, "prevResult": result}) == (0, {})
        sleeper = subprocess.Popen(["nsenter", f"--net={one}", "sleep", "60"])
        assert called("DEL", one, conf) == called("DEL", one, conf) == (0, {})
        assert (devices(one), sleeper.poll()) == ({"lo", "own0", "own1"}, None)  # what is not ours stays
        sleeper.kill()
        sleeper.wait()
        assert "shop/web" not in pods(root)
        assert called("ADD", one, conf)[0] == 0
        typed(root, "down", "here")
        deadline = time.monotonic() + 10
        while devices(one) != {"lo", "own0", "own1"} and time.monotonic() < deadline:
            time.sleep(0.02)  # the kernel takes the other end down in the background
        assert devices(one) == {"lo", "own0", "own1"}
        assert called("DEL", one, conf) == (0, {})
        assert called("STATUS", "", conf)[1]["code"] == 50


@needs_root
def test_mistakes_have_their_codes_and_change_nothing(root: Terminal, folder: Path) -> None:
    typed(root, "up", "--plugin", "flannel", "--name", "here")
    typed(root, "node", "stop", "node-c")
    conf = {**CONF, "lab": "here"}
    (folder / "file").write_text("")
    with container(folder / "box1") as one, container(folder / "box2") as two:
        ip(two, "link add eth0 type veth peer name other0")
        cases: list[tuple[int, str, dict[str, Any], Path | str, dict[str, str]]] = [
            (7, "no node 'node-x' (did you mean 'node-", {"node": "node-x"}, one, {}),
            (11, "node node-c of lab here is stopped", {"node": "node-c"}, one, {}),
            (50, "no lab 'hree' (did you mean 'here'?)", {"lab": "hree"}, one, {}),
            (50, "no lab is up in /nowhere", {"lab": "/nowhere"}, one, {}),
            (7, "the name of a lab of one's own expected", {"lab": "alice/here"}, one, {}),
            (7, "node: the name of a running node expected (did you mean 'noed'?)", {"node": "", "noed": "node-a"}, one, {}),
            (7, "prevResult: emulab makes a container's interface", {"prevResult": {}}, one, {}),
            (7, "labels: an object expected, got a number", {"labels": 3}, one, {}),
            (7, "192.168.7.7", {"ips": ["192.168.7.7"]}, one, {}),
            (2, "'portMappings' is none of ours", {"runtimeConfig": {"portMappings": []}}, one, {}),
            (4, "MAC: the data plane decides", {}, one, {"CNI_ARGS": "MAC=02:00:00:00:00:01"}),
            (4, "KEY=VALUE expected, got 'IP'", {}, one, {"CNI_ARGS": "IP"}),
            (4, "CNI_IFNAME=net1: a pod has one interface here, and it is called eth0", {}, one, {"CNI_IFNAME": "net1"}),
            (8, "no network namespace", {}, folder / "file", {}),
            (8, "the host's own network namespace", {}, "/proc/self/ns/net", {}),
            (8, "No such file", {}, folder / "gone", {}),
            (101, "there is an interface eth0", {}, two, {}),
            (7, "there is a pod 'default/a1' already", {}, one, {"CNI_CONTAINERID": "a1"}),
        ]
        before = pods(root), devices(one), devices(two)
        for code, words, change, netns, more in cases:
            exit_code, told = called("ADD", netns, {**conf, **change}, **more)
            assert (exit_code, told.get("code")) == (1, code), (words, told)
            assert words in told["msg"], told
        assert (pods(root), devices(one), devices(two)) == before
        assert called("STATUS", "", {**conf, "node": "node-c"})[1]["code"] == 50
        assert called("ADD", one, conf)[0] == 0
        assert called("ADD", one, conf, CNI_CONTAINERID="other")[1]["code"] == 8  # it is a pod already


@needs_root
def test_addresses_names_and_rates_are_those_that_were_asked_for(root: Terminal, folder: Path) -> None:
    typed(root, "up", "--plugin", "flannel", "--name", "here")
    conf = {**CONF, "lab": "here"}
    long = "0123456789ab" + "c" * 52
    with container(folder / "box1") as one, container(folder / "box2") as two, container(folder / "box3") as three:
        fixed = {"args": {"cni": {"ips": ["10.1.1.77/24"], "labels": [{"key": "app", "value": "x"}]}}}
        rates = {"ingressRate": 10**7, "ingressBurst": 10**7, "egressRate": 2 * 10**7, "egressBurst": 10**7}
        extra = {"runtimeConfig": {"bandwidth": rates, "dns": {"servers": ["10.0.0.53"]}}}
        code, result = called("ADD", one, {**conf, **fixed, **extra}, CNI_CONTAINERID=long)
        assert (code, result["ips"][0]["address"], result["dns"]) == (0, "10.1.1.77/24", {"nameservers": ["10.0.0.53"]})
        assert pods(root)["default/0123456789ab"]["labels"] == {"app": "x"}
        queue = subprocess.run(["nsenter", f"--net={one}", "tc", "qdisc", "show", "dev", "eth0"], capture_output=True, text=True)
        assert "rate 20Mbit" in queue.stdout
        code, result = called("ADD", two, {**conf, "cniVersion": "0.2.0"}, CNI_ARGS="IP=10.1.1.78", CNI_CONTAINERID="Odd_Name")
        assert (code, result["ip4"]["ip"]) == (0, "10.1.1.78/24")
        assert any(name.startswith("default/odd-name-") for name in pods(root))
        assert min(seconds_of_add(three, conf) for _ in range(3)) < 0.15  # of processor time: the machine may be busy
        spared = [{"containerID": long, "ifname": "eth0"}]
        assert called("GC", "", {**conf, "name": "another", "cni.dev/valid-attachments": []}) == (0, {})
        assert called("GC", "", {**conf, "cni.dev/valid-attachments": spared}) == (0, {})
        assert len(pods(root)) == 7
        assert "default/0123456789ab" in pods(root)
        assert (devices(one), devices(two), devices(three)) == ({"lo", "eth0"}, {"lo"}, {"lo"})


@needs_root
def test_many_at_once_and_some_of_them_killed(root: Terminal, folder: Path) -> None:
    typed(root, "up", "--plugin", "calico", "--name", "here")
    conf = {**CONF, "lab": "here"}
    with ExitStack() as release:
        boxes = [release.enter_context(container(folder / f"box{number}")) for number in range(12)]
        with ThreadPoolExecutor(12) as pool:
            told = list(pool.map(lambda box: called("ADD", box, conf), boxes))
        assert [code for code, _ in told] == [0] * 12
        assert len({address["address"] for _, result in told for address in result["ips"]}) == 24
        assert len(pods(root)) == 18
        assert "PASS" in typed(root, "verify", *QUICK, "--from", "box7", "--to", "c1", "--to", "box9")
        with ThreadPoolExecutor(12) as pool:
            assert list(pool.map(lambda box: called("DEL", box, conf), boxes)) == [(0, {})] * 12
        for number, box in enumerate(boxes[:8]):
            half = subprocess.Popen([PLUGIN], env=variables("ADD", box), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert half.stdin
            half.stdin.write(json.dumps(conf).encode())
            half.stdin.close()
            time.sleep(number * 0.03)  # somewhere in the middle
            half.send_signal(signal.SIGKILL)
            half.wait()
            assert half.stdout
            half.stdout.close()
            assert called("DEL", box, conf) == (0, {})
            assert devices(box) == {"lo"}
        assert len(pods(root)) == 6
        typed(root, "drift")


def made(name: str, folder: Path) -> Path:
    """A program of tests/golang, with what Debian has and nothing else; its libraries are there already compiled."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "GOCACHE": str(folder / "cache")}
    environment |= {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode"}
    source = ROOT / "tests" / "golang" / f"{name}.go"
    subprocess.run(["go", "build", "-o", str(folder / name), str(source)], env=environment, check=True)
    return folder / name


@needs_root
def test_the_reference_library_attaches(root: Terminal, folder: Path) -> None:
    program = made("client", folder)
    typed(root, "up", "--plugin", "calico", "--name", "here")
    typed(root, "cni", "install", str(folder))
    entry = {key: value for key, value in CONF.items() if key not in ("cniVersion", "name")}
    network = {"cniVersion": "1.0.0", "name": "emulated", "plugins": [{**entry, "lab": "here"}]}
    (folder / "emulated.conflist").write_text(json.dumps(network))

    def client(command: str, netns: Path) -> subprocess.CompletedProcess[str]:
        words = [
            str(program),
            str(folder / "emulated.conflist"),
            str(folder),
            str(folder / "cache"),
            command,
            "real",
            str(netns),
        ]
        return subprocess.run(words, capture_output=True, text=True)

    with container(folder / "box") as box:
        added = client("add", box)
        assert added.returncode == 0, added.stderr
        assert json.loads(added.stdout)["interfaces"][0]["sandbox"] == str(box)
        assert client("check", box).returncode == 0
        assert "all 7 pods see each other's own addresses" in typed(root, "verify", *QUICK)
        assert "✓ delivered and back" in typed(root, "trace", "real", "b1")
        ip(box, "link set eth0 down")
        checked = client("check", box)
        assert (checked.returncode, "default/real is not as planned" in checked.stderr) == (1, True)
        assert client("del", box).returncode == 0
        assert devices(box) == {"lo"}
        assert client("del", box).returncode == 0


PODMAN = """
[containers]
cgroups = "disabled"
[network]
network_backend = "cni"
cni_plugin_dirs = ["{folder}/bin"]
network_config_dir = "{folder}/net.d"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
runtime = "crun"
tmp_dir = "{folder}/tmp"
"""


@needs_root
def test_podman_runs_a_real_container_in_the_lab(root: Terminal, folder: Path) -> None:
    for name in ("bin", "net.d", "tmp", "root/bin", "root/proc", "root/sys", "root/dev", "root/etc", "root/tmp"):
        (folder / name).mkdir(parents=True)
    (folder / "containers.conf").write_text(PODMAN.format(folder=folder))
    shutil.copy(made("pause", folder), folder / "root" / "bin")
    network = {"cniVersion": "1.0.0", "name": "emulated", "plugins": [{"type": "emulab", "lab": "here", "node": "node-b"}]}
    (folder / "net.d" / "emulated.conflist").write_text(json.dumps(network))
    stores = ["--root", str(folder / "storage"), "--runroot", "/run/libpod/run", "--storage-driver", "vfs"]
    environment = {"PATH": PATH, "HOME": str(folder), "CONTAINERS_CONF": str(folder / "containers.conf")}

    def podman(*words: str) -> str:
        done = subprocess.run(["podman", *stores, *words], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout.strip()

    with suppress(OSError):
        syscalls.unmount("/sys/fs/cgroup/unified")  # crun takes no part in a hybrid hierarchy
    with covered("/run/netns", "/run/crun", "/run/libpod"):
        if podman("info", "--format", "{{.Host.NetworkBackend}}") != "cni":
            pytest.skip("this podman has no CNI backend")
        typed(root, "up", "--plugin", "calico", "--name", "here")
        typed(root, "cni", "install", str(folder / "bin"))
        limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--security-opt", "seccomp=unconfined")
        words = ("--name", "real", "--network", "emulated", *limits, "--rootfs", str(folder / "root"), "/bin/pause")
        try:
            podman("run", "-d", *words)
            pod = pods(root)["default/real"]
            assert (pod["node"], pod["addresses"][0]) == ("node-b", podman("inspect", "real", "--format", ADDRESS))
            assert "all 7 pods see each other's own addresses" in typed(root, "verify", *QUICK)
            assert "✓ delivered and back" in typed(root, "trace", "a1", "real")
        finally:
            podman("rm", "-f", "-t", "0", "real")
        assert len(pods(root)) == 6


ADDRESS = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"


def forked(words: list[str], env: dict[str, str], **more: Any) -> subprocess.Popen[bytes]:
    """The plugin as a fork of this process: it never gets to the program, whose start takes most of a call."""

    def act() -> None:
        code = 70
        try:
            os.environ.clear()
            os.environ.update(env)
            talk(0, 1, 2)
            code = cniplugin.main()
        finally:
            sys.stdout.flush()
            os._exit(code)

    return subprocess.Popen(words, preexec_fn=act, **more)


@needs_root
def test_it_conforms(root: Terminal, folder: Path) -> None:
    typed(root, "up", "--plugin", "flannel", "--name", "here")
    (folder / "emulab").symlink_to(PLUGIN)
    (folder / "emulated.conf").write_text(json.dumps({**CONF, "lab": "here"}))
    before = pods(root)

    def work() -> Report:
        wanted = running.subject(folder / "emulab", files.load(folder / "emulated.conf"))
        with mock.patch.object(runner, "subprocess", SimpleNamespace(Popen=forked, PIPE=subprocess.PIPE)):
            return running.run(wanted, "emulated.conf", [folder], adds=4, kept=[root.folder])

    report = inside(work, "root")
    assert {one.name: one.found for one in report.verdicts if one.state == FAILED} == {}
    others = {one.name for one in report.verdicts if one.state != PASSED}
    assert others == {"prev-result", "second-interface"}  # it is no chained plugin, and refuses a second interface
    assert pods(root) == before


@needs_root
def test_a_user_attaches_what_is_in_the_labs_own_user_namespace(sit_down: Callable[[str], Terminal], folder: Path) -> None:
    """And nothing else: the kernel lets nobody into the network namespaces of a user namespace beside."""
    alice = sit_down("user")
    typed(alice, "up", "--plugin", "flannel", "--name", "here")
    conf = {**CONF, "lab": str(alice.folder / "here")}
    words = f"ip netns add rootless; printf %s {shlex.quote(json.dumps(conf))} | "
    words += " ".join(
        f"{key}={shlex.quote(value)}" for key, value in variables("ADD", "/run/netns/rootless", CNI_CONTAINERID="box").items()
    )
    told = typed(alice, "exec", "node-a", "--", "sh", "-c", f"{words} {PLUGIN}")
    assert json.loads(told)["interfaces"][0]["sandbox"] == "/run/netns/rootless"
    assert "all 7 pods see each other's own addresses" in typed(alice, "verify", *QUICK)
    with container(folder / "box") as box:
        code, told = called("ADD", box, conf)
        assert (code, told["code"]) == (1, 7)
        assert "is the lab of another user" in told["msg"]
    somebody: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    with subprocess.Popen(["unshare", "-Urn", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE, **somebody) as beside:
        assert beside.stdout and beside.stdout.readline()
        code, told = run("ADD", f"/proc/{beside.pid}/ns/net", conf, as_user=somebody)
        beside.kill()
    assert (code, told["code"]) == (1, 8)
    assert "it belongs to another user namespace than the lab (start the lab as root)" in told["msg"]
    assert len(pods(alice)) == 7
