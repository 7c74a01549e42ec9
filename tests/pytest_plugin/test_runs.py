"""pytest with the plugin, as people run it: what passes, what fails and how it says so, and that no lab is left."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from console import UNWANTED
from lxml import etree
from sandboxed import AS_ROOT, NOBODY

# Loaded here, or pytester would load them anew for each run in this process.
import emulab.pytest_plugin.packets
import emulab.pytest_plugin.starting  # noqa: F401
from emulab.control import ending, places

pytest_plugins = ("pytester",)
SCHEMA = Path(__file__).parents[1] / "schemas" / "junit-10.xsd"
QUIET = ("-p", "no:cacheprovider", "-p", "no:randomly", *UNWANTED, "-W", "error", "--strict-markers", "-rA")

# Hypothesis is imported here, and would complain that its plugin was not there before.
PLAIN = ("-p", "no:hypothesispytest")


@pytest.fixture(autouse=True)
def no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)


def left(text: str) -> list[places.Place]:
    """Labs with that in their name which are up."""
    return [place for place in places.labs() if text in place.name]


GREEN = """
import pytest
from emulab.pytest_plugin import Capture, Lab, Pod, expect

pytestmark = pytest.mark.emulab(plugin=["flannel"])
POLICY = '''
apiVersion: v1
kind: Pod
metadata: {name: d1, labels: {app: db}}
spec: {nodeName: node-b, containers: [{name: c, image: i}]}
'''


@pytest.fixture(scope="module")
def client(lab: Lab) -> Pod:  # another fixture may use it
    return lab.pod("default/a1")


def test_words(lab: Lab, client: Pod) -> None:
    expect(client).reaches("c2", tcp=80).without_nat().encapsulated("vxlan", vni=1).in_hops(2).seen_as("10.1.1.1").with_mtu(1450)
    assert expect(lab.pod("a1")).reaches(lab.pod("a2"), udp=53).without_nat()
    expect(lab.node("node-a")).reaches("b1")
    expect(lab.select("*")).reaches("*", family=4).without_nat()
    expect(client).reaches("internet", family=4).with_nat()
    with lab.fault("vxlan-port-blocked", at="node-c"):
        expect(client).cannot_reach("c1", udp=53).dropped_at(lab.node("node-c"))
    expect(client).eventually(5).reaches("c1")


def test_changes(lab: Lab, capture, pod) -> None:
    with lab.apply(POLICY):
        assert pod("d1").labels == {"app": "db"} and pod("d1").node == "node-b"
        lab.label("pod", "d1", {"app": None, "tier": "db"})
        expect(pod("a1")).reaches("default/tier=db")
    with lab.pod_add("e1", "node-c"), lab.fault("missing-route"), lab.fault("ip-forward-off", at="node-c"):
        assert "e1" in [one.name for one in lab.pods]
    assert lab.ask("fault_list")["injected"] == []
    with capture("a1", "icmp") as packets:
        done = pod("a1").exec("ping", "-c", "2", "-i", "0.01", pod("c1").address)
        assert done.returncode == 0, done
    assert [one["IP"].dst for one in packets.frames] == ["10.1.3.1", "10.1.1.1"] * 2
    with lab.capture("node-a:eth0", "udp port 8472") as packets:
        lab.exec("a1", "ping", "-c", "1", "10.1.3.1")
    assert [one["VXLAN"]["IP"].src for one in packets.frames] == ["10.1.1.1", "10.1.3.1"]
    assert lab.exec("a1", "cat", input="hello").stdout == "hello"
    assert lab.trace("a1", "c1", tcp=80)["to"] == "default/c1"
    with lab.link_down("node-b"), lab.partition(["node-a"], ["node-c"]), lab.node_stop("node-b"):
        expect(pod("a1")).cannot_reach("c1")
    assert lab.verify(protocols=["udp"])["delivered"] > 0
"""
RED = """
from pathlib import Path

import pytest
from emulab.pytest_plugin import expect

pytestmark = pytest.mark.emulab(topology="flat")


def test_rewritten(lab):
    with lab.fault("masquerade-pods", at="node-a"):
        expect(lab.pod("a1")).reaches("c2", tcp=80).without_nat()


def test_forgotten(lab):
    expect(lab.pod("a1"))


@pytest.mark.parametrize("said", [
    lambda lab: lab.pod("a9"),
    lambda lab: lab.node("node-x"),
    lambda lab: lab.pod("node-a"),
    lambda lab: expect(lab.pod("a1")).reaches("c9"),
    lambda lab: expect(lab.pod("a1")).reaches("c1", tcp=80, udp=80),
    lambda lab: expect(lab.pod("a1")).reaches("c1").encapsulated("vlan"),
    lambda lab: lab.apply("nowhere.yaml"),
    lambda lab: lab.apply("kind: Pod\\nmetadata: {name: x}\\n"),
    lambda lab: lab.fault("masquerade-pod"),
    lambda lab: lab.exec("a9", "true"),
    lambda lab: lab.capture("a1:eth9").__enter__(),
], ids=[*map(str, range(11))])
def test_mistake(lab, said):
    said(lab)


def test_law(lab):
    with lab.fault("masquerade-pods", at="node-a"):
        lab.verify(protocols=["udp"], sources=["a1"])
"""
MISTAKES = (
    "no pod or node 'a9' (did you mean 'a*",
    "no node 'node-x' (did you mean 'node-*",
    "node-a is a node: lab.node('node-a')",
    "no pod or node 'c9' (did you mean 'c*",
    "tcp=80, udp=80: one of them expected",
    "encapsulation 'vlan' (did you mean 'vxlan'?)",
    "*nowhere.yaml: cannot read the manifest: No such file*",
    "text:*",
    "unknown fault 'masquerade-pod' (did you mean 'masquerade-pods'?)",
    "no pod or node 'a9' (did you mean 'a*",
    "default/a1 has no interface 'eth9' (No such device)",
)


def test_what_holds_passes_and_leaves_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_green=GREEN)
    result = pytester.runpytest_inprocess(*QUIET)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["PASSED test_green.py::test_words[[]flannel[]]"])
    assert left(f"-{os.getpid()}-") == []


def test_what_does_not_hold_says_so_in_the_packet_s_words(pytester: pytest.Pytester) -> None:
    """Every failure has its line; the lab is kept, and the command that is printed enters it."""
    pytester.makepyfile(test_red=RED)
    result = pytester.runpytest_inprocess(*QUIET, "--emulab-keep", "--junitxml=junit.xml", "--basetemp=temporary")
    (kept,) = left(f"test-red-flannel-{os.getpid()}-")
    try:
        result.assert_outcomes(failed=3 + len(MISTAKES))
        result.stdout.fnmatch_lines(
            [
                "E * ExpectationFailed: a1 reaches c2 tcp/80, without NAT: source 10.1.1.1 -> 10.1.1.0 at *:*",
                "E *→ a1:eth0 *10.1.1.1:* > 10.1.3.2:80 ttl 64",
                "E *→ node-a:flannel.1 *10.1.1.0:* > 10.1.3.2:80 ttl 63  source 10.1.1.1 -> 10.1.1.0, TTL 64 -> 63",
                "E *by nft ip nat POSTROUTING: ip saddr 10.1.1.0/24 counter masquerade",
                "E *← c2:eth0 *10.1.1.0:* > 10.1.3.2:80 ttl 62",
                "E *temporary/emulab0/a1-reaches-c2-tcp-80-without-NAT.pcapng",
                "E *temporary/emulab0/a1-reaches-c2-tcp-80-without-NAT.json",
                "test_red.py:11: ExpectationFailed",
                "*test_red.py:15: expect(a1) says nothing: .reaches(…) or .cannot_reach(…) expected",
            ],
            consecutive=False,
        )
        result.stdout.fnmatch_lines([f"E * LabError: {told}" for told in MISTAKES])
        result.stdout.fnmatch_lines(["E *ExpectationFailed: FAIL  of * flows * rewritten: a1 -> *"])
        assert "emulab/pytest_plugin/" not in result.stdout.str(), "nobody has to read the plugin's own code"
        packets = pytester.path / "temporary" / "emulab0" / "a1-reaches-c2-tcp-80-without-NAT.pcapng"
        comments = ["tshark", "-r", str(packets), "-T", "fields", "-e", "frame.comment"]
        assert "source 10.1.1.1 -> 10.1.1.0" in subprocess.run(comments, capture_output=True, text=True).stdout
        written = etree.parse(pytester.path / "junit.xml")
        etree.XMLSchema(etree.parse(SCHEMA)).assertValid(written)
        assert "source 10.1.1.1 -> 10.1.1.0" in written.xpath("//testcase[@name='test_rewritten[flannel]']/failure/@message")[0]
        result.stdout.fnmatch_lines(
            ["*enter it: *emulab shell -l test-red-flannel-* a1", f"lab '{kept.name}' is kept: * a1, *emulab down {kept.name}"]
        )
        entered = [sys.executable, "-m", "emulab", "exec", "-l", kept.name, "a1", "--", "hostname"]
        assert subprocess.run(entered, capture_output=True, text=True).stdout == "a1\n"
    finally:
        ending.take_down(kept)


def test_a_lab_that_cannot_be_is_one_line(pytester: pytest.Pytester) -> None:
    pytester.makefile(".yaml", broken="apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {nodeNam: y}\n")
    body = "def test(lab): pass"
    mark = "import pytest\npytestmark = pytest.mark.emulab({})\n" + body
    pytester.makepyfile(
        test_manifest=mark.format("manifests='broken.yaml'"),
        test_option=mark.format("set={'vnii': 7}"),
        test_plugin=mark.format("plugin='calicoo'"),
        test_topology=mark.format("topology='flatt', plugin=['flannel', 'calico']"),
        test_word=mark.format("plugins='calico'"),
    )
    result = pytester.runpytest_inprocess(*QUIET, "--continue-on-collection-errors")
    result.assert_outcomes(errors=6)
    result.stdout.fnmatch_lines_random(
        [
            "emulab up --plugin=flannel --filename=*: *broken.yaml:4: document 1, Pod default/x: spec.nodeNam: unknown*",
            "emulab up --plugin=flannel --set=vnii=7: *vnii*did you mean 'vni'*",
            "emulab up --plugin=calicoo: *did you mean 'calico'*",
            "emulab up --plugin=calico -- flatt: *did you mean 'flat'*",
            "emulab: no argument 'plugins' (did you mean 'plugin'?)",
        ]
    )
    assert "Traceback" not in result.stdout.str()


@pytest.mark.parametrize(("ci", "code", "word"), [("", 0, "skipped"), ("true", 1, "error")])
def test_a_machine_that_cannot_skips_and_in_ci_fails(pytester: pytest.Pytester, ci: str, code: int, word: str) -> None:
    """Here: one that allows no network namespace."""
    pytester.makepyfile("def test_one(lab): pass\ndef test_two(lab_per_test): pass")
    forbid = 'echo 0 > /proc/sys/user/max_net_namespaces; exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "bash", "-c", forbid, "-", *typed()]
    done = subprocess.run(command, env={**os.environ, "CI": ci}, capture_output=True, text=True, cwd=pytester.path)
    assert done.returncode == code, done.stdout
    assert f"2 {word}" in done.stdout
    assert "this machine cannot run labs: sandbox: " in done.stdout


def typed(*words: str) -> list[str]:
    return [sys.executable, "-m", "pytest", *QUIET, *words]


@pytest.fixture
def another(tmp_path: Path) -> Iterator[tuple[Path, Mapping[str, object]]]:
    """A folder of an ordinary user's, and how a process becomes theirs."""
    user: dict[str, object] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if AS_ROOT else {}
    folder = Path("/tmp", f"emulab-pytest-{os.getpid()}")
    folder.mkdir(mode=0o700)
    try:
        if AS_ROOT:
            os.chown(folder, NOBODY, NOBODY)
            readable = subprocess.run([sys.executable, "-c", "import emulab"], capture_output=True, cwd="/", **user)  # type: ignore[call-overload]
            if readable.returncode:
                pytest.skip("an ordinary user cannot read where emulab is installed")
        yield folder, user
    finally:
        shutil.rmtree(folder)


PARALLEL = """
import pytest
from emulab.pytest_plugin import expect

@pytest.mark.emulab(plugin=["flannel", "calico"])
def test_flow(lab_per_test):
    expect(lab_per_test.pod("a1")).reaches("c1").without_nat().in_hops(2)

def test_default(lab):
    assert lab.plugin == "flannel" and len(lab.nodes) == 3
"""


def test_two_workers_of_an_ordinary_user(another: tuple[Path, Mapping[str, object]]) -> None:
    """Several labs at once; and of a worker that is killed nothing stays."""
    folder, user = another
    (folder / "test_flows.py").write_text(PARALLEL)
    (folder / "test_end.py").write_text("import os\ndef test_killed(lab): print(lab.name); os.kill(os.getpid(), 9)\n")
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder), "HOME": str(folder)}
    done = subprocess.run(
        typed("-n", "2", "--basetemp", str(folder / "temporary"), "--maxfail=9"),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        **user,  # type: ignore[call-overload]
    )
    assert "1 failed, 3 passed" in done.stdout, done.stdout + done.stderr
    assert "crashed while running 'test_end.py::test_killed'" in done.stdout
    deadline = time.monotonic() + 20
    while list((folder / "emulab").iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list((folder / "emulab").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_lab(pytester: pytest.Pytester, number: signal.Signals) -> None:
    pytester.makepyfile(test_stop=f"import os, time\ndef test(lab): os.killpg(0, {number.value}); time.sleep(60)")
    # Who runs these tests in the background ignores SIGINT, and so would all that they start.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    own = {"cwd": pytester.path, "start_new_session": True, "preexec_fn": heard}
    run = subprocess.Popen(typed(), stdout=subprocess.PIPE, text=True, **own)
    out = run.communicate()[0]
    assert run.returncode == (2 if number is signal.SIGINT else -number), out
    deadline = time.monotonic() + 20
    while (still := left(f"-{run.pid}-")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert still == []


def test_it_is_not_there_where_it_is_not_wanted(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test(): pass")
    result = pytester.runpytest_inprocess("-p", "no:emulab", "--emulab-keep", *PLAIN)
    result.stderr.fnmatch_lines(["*unrecognized arguments: --emulab-keep"])
    shown = pytester.runpytest_inprocess("--help", *PLAIN).stdout
    shown.fnmatch_lines(["packets between pods (emulab):", "*--emulab-keep*", "*--emulab-artifacts=DIR*"])
    pytester.runpytest_inprocess("--markers", *PLAIN).stdout.fnmatch_lines(["@pytest.mark.emulab(topology=, plugin=,*"])


def test_who_does_not_use_it_imports_next_to_nothing() -> None:
    program = "import sys, pytest; import emulab.pytest_plugin.hooks; print(*(m for m in sys.modules if m.startswith('emulab')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    loaded = "emulab emulab.pytest_plugin emulab.pytest_plugin.vocabulary emulab.pytest_plugin.hooks"
    assert done.stdout.split() == loaded.split()
