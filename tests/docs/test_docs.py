"""What the documents say is what the program does: names, command lines, JSON keys, links.  Nothing is run."""

from __future__ import annotations

import io
import json
import re
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import click
import pytest
from shown import DOCUMENTS, FENCE, MANIFESTS, ROOT, blocks, command_lines, commented, examples_of_help, help_of
from tables import each_row

from emulab import kube, registry
from emulab.cli import COMMANDS, emulab
from emulab.model import Cluster, Endpoint, Link, Node, Pod, Segment, Topology
from emulab.packet import Finding, Flow, FlowResult, Headers, Kind, MtuResult, Observation, Outer, Place, Verdict
from emulab.report import json_report
from emulab.result import RunResult

README = (ROOT / "README.md").read_text()
JSON = (ROOT / "docs" / "json.md").read_text()
PLANNED = "xyz"  # the data plane that CONTRIBUTING.md writes

LINES = [(path.name, line) for path in DOCUMENTS for line in command_lines(path.read_text())]
LINES += [(path.name, line) for path in MANIFESTS for line in command_lines(commented(path.read_text()))]


def parse(words: list[str]) -> None:
    """Parse as the command line does; an unknown command, option or choice is a `click.UsageError`."""
    root = emulab.make_context("emulab", list(words), resilient_parsing=True)
    if words in (["--help"], ["--version"]):
        return
    name, command, rest = emulab.resolve_command(root, words)
    assert command is not None
    if rest == ["--help"]:
        return
    context = command.make_context(name, rest, parent=root)
    plugin, topology = context.params.get("plugin"), context.params.get("topology")
    if plugin is not None and plugin != PLANNED:
        registry.options(registry.plugin(plugin), context.params["settings"])
    if topology is not None and not topology.endswith(".yaml"):
        registry.topology(topology)


@each_row("name", COMMANDS)
def test_every_command_has_examples_and_is_in_the_readme(name: str) -> None:
    assert "Examples:" in help_of(name)
    assert f"emulab {name}" in README


@each_row("name", COMMANDS)
def test_examples_of_the_help_parse(name: str) -> None:
    examples = examples_of_help(name)
    assert examples
    for example in examples:
        example = re.sub(r"^source <\((.*)\)$", r"\1", example)
        for words in command_lines(f"```sh\n{example}\n```\n"):
            parse(words)


def test_every_plugin_topology_and_exit_code_is_in_the_readme() -> None:
    names = [*registry.plugins(), *registry.topologies()]
    assert [name for name in names if f"| `{name}` |" not in README] == []
    assert [code for code in (0, 1, 2, 3, 130) if f"| {code} |" not in README] == []


def test_every_option_with_its_default_is_in_the_readme() -> None:
    for name in registry.plugins():
        row = next(line for line in README.splitlines() if line.startswith(f"| `{name}` |"))
        for option, value in registry.plugin(name)().options().items():
            shown = "auto" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            assert f"`{option}={shown}`" in row


def test_the_readme_is_short_and_its_test_command_is_what_ci_runs() -> None:
    assert len(README.splitlines()) < 250
    assert "sudo ./bootstrap.sh test" in README
    assert "\n./bootstrap.sh test" in (ROOT / ".ci" / "run").read_text()


def test_there_are_command_lines() -> None:
    assert len([line for name, line in LINES if name == "README.md"]) > 10


@each_row("document, words", LINES, ids=[f"{name}: {' '.join(words)}" for name, words in LINES])
def test_command_lines_parse(document: str, words: list[str]) -> None:
    if words:
        parse(words)


@each_row("words", [["rum"], ["run", "--plugins", "calico"], ["run", "--taps", "some"], ["plan", "a", "b"]])
def test_a_wrong_command_line_would_be_found(words: list[str]) -> None:
    with pytest.raises(click.UsageError):
        parse(words)


@each_row("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = FENCE.sub("", path.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            assert (path.parent / target.partition("#")[0]).exists(), target


def test_the_files_of_the_house_exist() -> None:
    text = "".join(path.read_text() for path in DOCUMENTS)
    for name in re.findall(r"`((?:emulab|docs|plugins|topologies|tests)/[\w./-]+)`", text):
        assert PLANNED in name or re.search(r"/\d$", name) or (ROOT / name).exists(), name


@each_row("path", MANIFESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_example_says_what_it_does_and_can_be_applied(path: Path) -> None:
    """Beside the cluster in its folder, on the nodes of `flat`."""
    assert path.read_text().startswith("# ")
    cluster = path.with_name("cluster.yaml")
    files = (path,) if path == cluster else (cluster, path)
    documents = [document for file in files for document in kube.read(file.read_text(), file.name)]
    results = kube.applied(registry.topology("flat"), documents).results
    assert [outcome for _, outcome in results] == ["created"] * len(documents)


def test_the_examples_of_a_folder_can_all_be_in_force_together() -> None:
    for folder in {path.parent for path in MANIFESTS}:
        documents = [document for path in sorted(folder.glob("*.yaml")) for document in kube.read(path.read_text(), path.name)]
        kube.applied(registry.topology("flat"), documents)


def test_the_example_plugin_plans(tmp_path: Path) -> None:
    from emulab.planning import design

    source = next(content for language, content in blocks((ROOT / "CONTRIBUTING.md").read_text()) if language == "python")
    module: dict[str, Any] = {"__name__": "emulab.model"}  # dataclass looks its module up
    exec(compile(source, "CONTRIBUTING.md", "exec"), module)
    plan = design(registry.topology("flat"), module["Xyz"]()).plan
    assert {"node-a", "default/a1"} <= set(plan)


# docs/json.md against what is written


def result() -> RunResult:
    """One flow with all that a flow can have, one MTU check, one finding of the cluster."""
    nodes = (Node("node-a"), Node("node-b"))
    links = tuple(Link(n.name, "lan", addresses=(ip_interface(f"192.168.50.{i}/24"),)) for i, n in enumerate(nodes, 1))
    pods = (Pod("a1", "node-a"), Pod("b1", "node-b"))
    topology = Topology("pair", (Segment("lan", (ip_network("192.168.50.0/24"),)),), nodes, links, pods, ())
    ends = ip_address("10.1.1.1"), ip_address("10.1.2.1")
    cluster = Cluster(topology, (), tuple(Endpoint(pod, (end,)) for pod, end in zip(pods, ends, strict=True)))
    packed = ends[0].packed, ends[1].packed
    flow = Flow(0, Kind.POD, "default/a1", "default/b1", 4, "tcp", *packed, 7, 1)
    inner = Headers(*packed, "tcp", 7, 1, True, 63, 60, "SYN")
    hop = Observation(1.0, Place("node-a", "eth0"), "out", "request", inner, Outer(*packed, 5, 8472, 1, 64))
    finding = Finding("source", "10.1.1.1", "10.9.9.9", "node-a:eth0", rule="ip nat post")
    made = RunResult("flannel", {"vni": 1}, cluster, timings={"probe": 0.1}, findings=[finding])
    made.flows.recorded.append(FlowResult(flow, Verdict.REWRITTEN, (hop,), (finding,), (finding,), "allowed"))
    made.mtu.append(MtuResult("default/a1", "default/b1", 4, 1450, "lost", "lost", "", (finding,)))
    return made


def written() -> Any:
    out = io.StringIO()
    json_report.write(result(), out)
    return json.loads(out.getvalue())


def keys(value: Any) -> set[str]:
    """All keys of a document but those that are names of the user's or of phases."""
    if isinstance(value, list):
        return set().union(*map(keys, value))
    if not isinstance(value, dict):
        return set()
    return set(value).union(*(keys(inner) for key, inner in value.items() if key not in ("options", "timings")))


def test_every_json_key_is_documented() -> None:
    told = set(re.findall(r"`([a-z_]+)(?:\[\])?`", JSON))
    assert sorted(keys(written()) - told) == []


def test_every_documented_field_of_a_run_is_written() -> None:
    section = JSON.partition("`emulab/run/1`\n")[2].partition("\n## ")[0]
    rows = "".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE))
    named = re.findall(r"`([a-z_]+)(?:\[\])?`", rows)
    assert named
    assert sorted(set(named) - keys(written())) == []


def test_the_schemas_are_documented() -> None:
    shown = set(re.findall(r"emulab/[a-z]+/\d", JSON))
    source = "".join(path.read_text() for path in (ROOT / "emulab").rglob("*.py"))
    assert shown == set(re.findall(r'"(emulab/[a-z]+/\d)"', source))
