"""Every command line that is shown is typed: the examples of --help, and what documents and manifests show.

The consoles of the documents in `SESSIONS` and the examples of json.md are typed by test_sessions.py, and their output compared.
Here the exit code counts.  Whoever shows a line that needs something (a pod, a fault, a file) adds it to `BEFORE` or `FILES`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from console import typed
from shown import DOCUMENTS, MANIFESTS, ROOT, SESSIONS, blocks, code_spans, commented, examples_of_help, shell_lines

from emulab.cli import COMMANDS

TYPED = {Path(one).name for one in SESSIONS} | {"json.md"}
NOT_TYPED = {
    "emulab fault inject": "CHANGELOG.md's name for a feature",
    **dict.fromkeys(("emulab check", "emulab check --json"), "names for features, in prose"),
    "emulab capture node-a | wireshark -k -i -": "it opens a window",
    "emulab run --plugin xyz": "typed by test_the_example_plugin, which makes one",
    "emulab plan --plugin xyz --only node-a": "typed by test_the_example_plugin, which makes one",
}
# Commands whose lines are not typed here, and where they are.
ELSEWHERE = {
    "cni": "docs/cni.md is a session, and tests/labs/test_cni_command.py has its own",
    "compare": "several labs a line: its own tests",
    "serve": "its page is looked at in tests/web",
}
# Some lines are typed a little differently.
SMALLER = (
    (re.compile(r"\bfleet,\d+,\d+"), "fleet,2,1"),  # what large ones do, tests/netns/test_planes.py sees
    # What is endless; the end of a capture by Ctrl-C is in tests/labs/test_session.py.
    (re.compile(r"^emulab capture (?!.*-c \d)"), "INTERRUPT_AFTER=60 emulab capture -c 1 "),
    (re.compile(r"^emulab watch"), "INTERRUPT_AFTER=0.5 emulab watch"),
)

DENY = """{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny-all}, spec: {podSelector: {}}}\n"""
SHOP = """
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {containers: [{name: web}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {selector: {app: web}, ports: [{port: 80}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {app: web}}, spec: {containers: [{name: web}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: api}, spec: {containers: [{name: api}]}}
---
"""
SERVICE = "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80}]}}\n"
CHECK = "topology: single-node\nplugin: flannel\nexpect: a1 reaches a2 without NAT\n"
FILES = {
    "shop.yaml": SHOP + SERVICE,
    "service.yaml": SERVICE,
    "deny.yaml": DENY,
    "policies/deny.yaml": DENY,
    "checks/shop.yaml": CHECK,
    "policies.yaml": CHECK,
    "few.yaml": """
pod-cidrs: [10.1.0.0/16, "fd00:10:1::/56"]
nodes:
  node-a: {pod-cidrs: [10.1.1.0/24], pods: {a1: 10.1.1.1}}
  node-b: {pod-cidrs: [10.1.2.0/24], pods: {b1: 10.1.2.1}}
  node-c: {pod-cidrs: [10.1.3.0/24], pods: {c1: 10.1.3.1, c2: 10.1.3.2}}
""",
    "mine.yaml": "pod-cidrs: [10.1.0.0/16]\nnodes: {node-a: {pods: 1}, node-b: {pods: 1}}\n",
}


# A lab, or none, and the commands whose lines are typed in it, in this order.
ACTS = {
    "no lab": ((), ("run", "plan", "plugins", "topologies", "doctor", "completion")),
    "labs": (("emulab up --name first",), ("down", "up")),
    "look": (
        (
            # few, since some lines look at each pair of pods
            *("emulab up ./few.yaml --name flat-calico", "emulab label pod c2 app=web", "emulab apply -f service.yaml"),
            "emulab exec a1 -- ping -q -i 0.1 10.1.3.1 > ping.log &",
        ),
        (  # what looks at each pair of pods comes before more pods do
            *("ls", "inspect", "exec", "shell", "cli", "capture", "watch", "probe", "verify", "fault", "diagnose"),
            *("drift", "repair", "get", "describe", "trace", "why", "policy"),
        ),
    ),
    "files": ((), ("check", "report", "diagram")),
    "change": (("emulab up",), ("apply", "delete", "label", "pod", "node", "link", "partition", "heal")),
}
STEPS = {*ACTS["labs"][1], *ACTS["change"][1], "fault", "drift", "repair"}  # their lines build on each other
BEFORE = {  # what a line needs, or the first of a command's lines
    'emulab completion zsh > "${fpath[1]}/_emulab"': ("fpath=(. .)",),
    "emulab completion fish > ~/.config/fish/completions/emulab.fish": ("mkdir -p ~/.config/fish/completions",),
    "emulab down flat-calico": ("emulab up --plugin calico",),
    "emulab down --all": ("emulab up",),
    "emulab get pods -o wide": ("emulab apply -f shop.yaml",),
    "emulab describe pod a1": ("emulab apply -f deny.yaml",),
    "emulab delete netpol deny-all": ("emulab apply -f deny.yaml -f shop.yaml",),
    "emulab delete ns shop": ("emulab apply -f shop.yaml",),
    "emulab delete -f shop.yaml --ignore-not-found": ("emulab apply -f shop.yaml",),
    "emulab report evidence/result.json": ("cp evidence/*/result.json evidence",),  # a check's, which has been there before
    "emulab diagram --lab flat-flannel -o now.svg": ("emulab up",),
    "emulab heal": ("emulab partition node-a",),
}
AFTER = {  # the last of a command's lines
    "describe": ("emulab delete netpol deny-all",),
    "fault": ("emulab fault clear",),
}
CODES = {
    "emulab trace a1 c1 --size 1451": 1,  # it is told to be too big
    "emulab drift --format json": 1,  # after the line that takes a route away
    "emulab watch": 130,  # Ctrl-C
    "emulab watch --format json": 130,
}


def shown() -> dict[str, list[str]]:
    """command -> its examples, then the lines of documents and manifests that are in no example.

    None that a session types, unless others build on it.
    """
    texts = {path: path.read_text() for path in DOCUMENTS} | {path: commented(path.read_text()) for path in MANIFESTS}
    known = {line.removeprefix("sudo ") for path, text in texts.items() if path.name in TYPED for line in shell_lines(text)}
    examples = {name: [line.removeprefix("sudo ") for line in examples_of_help(name)] for name in COMMANDS}
    known |= {line for name in STEPS for line in examples[name]} | {line.partition(" | ")[0] for line in known}
    found = {name: [line for line in lines if line not in known or name in STEPS] for name, lines in examples.items()}
    for text in texts.values():
        for line in shell_lines(text) + code_spans(text):
            line = line.removeprefix("sudo ").partition(" #")[0].strip()
            name = line.split(" ")[1] if line.startswith("emulab ") else ""
            if name in found and line not in known and not any(line in lines for lines in found.values()):
                found[name].append(line)
    return found


SHOWN = shown()


def played(act: str) -> list[str]:
    lab, names = ACTS[act]
    lines = list(lab)
    for name in names:
        for line in SHOWN[name]:
            again = line.startswith("emulab run ") and smaller(line) in map(smaller, lines)
            if line not in NOT_TYPED and not again:
                lines += ("emulab down --all",) if line.startswith("emulab up") else ()
                lines += (*BEFORE.get(line, ()), line)
        lines += AFTER.get(name, ())
    return lines


def smaller(line: str) -> str:
    for pattern, instead in SMALLER:
        line = pattern.sub(instead, line)
    return line


def test_every_command_is_in_one_act() -> None:
    assert sorted(name for names in (*(names for _, names in ACTS.values()), ELSEWHERE) for name in names) == sorted(COMMANDS)
    lines = {line for name in COMMANDS for line in SHOWN[name]}
    assert {*NOT_TYPED, *BEFORE, *CODES} - lines == set(), "no longer shown"


@pytest.mark.parametrize("act", ACTS)
def test_each_line_ends_as_it_should(act: str, tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    lines = played(act)
    done = typed([*map(smaller, lines), "emulab down --all"], tmp_path)
    expected = [CODES.get(line, 0) for line in (*lines, "")]
    wrong = [one for one, code in zip(done, expected, strict=True) if one.code != code]
    assert not wrong, "\n".join(f"$ {one.line}\n{one.output}\n(exit code {one.code})" for one in wrong)


def test_the_example_plugin(tmp_path: Path) -> None:
    """CONTRIBUTING.md's data plane, as a distribution of its own; it says what passes, and what does not."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    group, name, package = re.findall(r'\[project.entry-points."([a-z.]+)"\]\n +(\w+) = "(\w+)"', text)[0]
    metadata, folder = tmp_path / f"{package}-1.0.dist-info", tmp_path / package
    for made in (metadata, folder):
        made.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{name} = {package}\n")
    (folder / "__init__.py").touch()
    (folder / "xyz.py").write_text(next(content for language, content in blocks(text) if language == "python"))
    lines = [line for line in shell_lines(text) if "xyz" in line]
    _, planned, ran = typed([f"export PYTHONPATH={tmp_path}", *lines], tmp_path, real=True)
    assert planned.code == 0 and "ip route add 10.1.3.0/24 via 192.168.50.3" in planned.output, planned.output
    assert ran.code == 1 and re.search(r"pod -> outside +0 of 36 delivered", ran.output), ran.output
    assert not re.search(r"dropped: \S+ -> (?!internet)", ran.output), ran.output
