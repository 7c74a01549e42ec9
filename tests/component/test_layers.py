"""Imports point downward, pure rooms stay pure, and two files know Mininet."""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAYERS = (
    ("errors",),
    ("selector", "quantity", "cni", "text"),
    ("objects", "selector_parser"),
    ("model",),
    ("topology", "state", "ipam", "policy", "endpoints"),
    ("dataplane", "topology_file", "nft_delta", "drift", "kube", "kubeproxy", "hostports", "oracle", "zone"),
    ("packet", "registry", "fabric", "diff", "scene", "breakage", "faults", "causes"),
    ("planning", "mending"),
    ("birth", "drawing", "result", "change", "etc_files", "trace", "diagnose", "services", "enforcement", "evidence", "access"),
    ("expectation", "comparison"),
    ("fulfilment",),
    ("kernel",),
    ("underlay", "probe", "attribution", "serving"),
    ("verification", "conformance", "settling"),
    ("report", "lab"),
    ("recording", "artifacts", "comparing"),
    ("control",),
    ("prompt", "checks", "web", "cniplugin"),
    ("cli",),
    ("pytest_plugin",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
PURE = ("model", "state", "dataplane", "packet", "fabric", "topology", "result", "ipam", "diff", "nft_delta", "change")
PURE += (
    "services",
    "selector",
    "selector_parser",
    "objects",
    "policy",
    "endpoints",
    "kube",
    "text",
    "kubeproxy",
    "oracle",
    "zone",
    "enforcement",
    "evidence",
    "access",
    "comparison",
    "expectation",
    "fulfilment",
)
PURE += ("drift", "mending", "etc_files", "trace", "scene", "breakage", "faults", "causes", "diagnose", "drawing")
PURE += ("cni", "birth", "hostports")
ACTING = {"cni/cache.py", "cni/files.py", "cni/runner.py", "cni/runtime.py"}  # what acts in a room that is pure otherwise
EFFECTS = {"os", "subprocess", "socket", "time", "random", "mininet", "scapy"}
FILES = sorted(p for folder in ("emulab", "plugins", "topologies") for p in (ROOT / folder).rglob("*.py"))


# A statement on lines of its own, as Ruff demands (E401, E701, E702); parsing all files would take as long as other tests.
IMPORT = re.compile(r"^[ \t]*(?:from ([\w.]+) )?import (\([^)]*\)|[^(\n]+)", re.MULTILINE)


def imports(text: str) -> Iterator[str]:
    for module, names in IMPORT.findall(text):
        for name in re.sub(r"#.*", "", names).strip("()").split(","):
            if imported := name.split(" as ")[0].strip():
                yield imported if not module else f"{module}.{imported}" if module in ("emulab", "emulab.cni") else module


def test_all_imports_are_seen() -> None:
    text = (
        "import os, socket as s  # why\nfrom emulab import model, state\nif True:\n    from scapy.all import (\n"
        "        IP,  # one\n        TCP as t,\n    )\n\tfrom emulab.cli import main\nfrom x import (y)\n"
    )
    assert list(imports(text)) == ["os", "socket", "emulab.model", "emulab.state", "scapy.all", "scapy.all", "emulab.cli", "x"]


def room(path: Path) -> str:
    return path.relative_to(ROOT / "emulab").parts[0].removesuffix(".py")


def wrong(path: Path) -> set[str]:
    """The rooms and packages that a file imports though it must not."""
    names = list(imports(path.read_text()))
    ours = {name.split(".")[1] for name in names if name.startswith("emulab.")} - {"__version__"}
    others = {name.split(".")[0] for name in names}
    if not path.is_relative_to(ROOT / "emulab"):
        allowed = {"model", "state", "dataplane", "errors", "ipam", "objects", "selector", "policy", "cni"}
        return (ours - allowed) | (others & EFFECTS)
    here = room(path)
    found = {name for name in ours if here not in ("__init__", "__main__") and LEVEL[name] > LEVEL[here]}
    if here in PURE and str(path.relative_to(ROOT / "emulab")) not in ACTING:
        found |= others & EFFECTS
        acting = {f"emulab.{one.removesuffix('.py').replace('/', '.')}" for one in ACTING}
        found |= acting & set(names) if here == "cni" else set()
    if here not in ("underlay", "prompt"):
        found |= others & {"mininet"}
    if here != "probe":
        found |= others & {"scapy"}
    return found | (others & {"emulab_plugins"})  # emulab names no plugin


def test_imports_point_downward() -> None:
    assert {str(path.relative_to(ROOT)): found for path in FILES if (found := wrong(path))} == {}


def test_unit_tests_are_about_values() -> None:
    """They are what is typed after each change, and take a second.  What writes files, reads manifests, runs threads and event
    loops or starts something is in tests/component, tests/properties, tests/cli, tests/netns or tests/labs.
    """
    others = {"asyncio", "hypothesis", "jinja2", "lxml", "mininet", "scapy", "starlette", "subprocess", "threading", "yaml"}
    others |= {"emulab.kube"}  # the room's own `read`
    unit = {path.name: path.read_text() for path in sorted((ROOT / "tests" / "unit").glob("*.py"))}
    named = {name: {whole for one in imports(text) for whole in (one, one.split(".")[0])} for name, text in unit.items()}
    assert {name: found for name, names in named.items() if (found := others & names)} == {}
    assert [name for name, text in unit.items() if "tmp_path" in text] == []


def test_every_package_is_packed() -> None:
    """`packages` is an explicit list; an editable install works without it, a wheel does not."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = {name for name in setup["options"]["packages"].split() if name.startswith("emulab.")}
    assert listed == {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "emulab").rglob("*/__init__.py")}
