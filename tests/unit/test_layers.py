"""Imports point downward, pure rooms stay pure, and two files know Mininet."""

from __future__ import annotations

import ast
import configparser
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = (
    ("errors",),
    ("selector", "cni"),
    ("objects", "selector_parser"),
    ("model",),
    ("topology", "state", "ipam", "policy", "endpoints"),
    ("dataplane", "topology_file", "nft_delta", "drift", "kube", "kubeproxy", "oracle", "zone"),
    ("packet", "registry", "fabric", "diff", "scene", "breakage", "faults", "causes"),
    ("planning", "mending"),
    ("result", "change", "etc_files", "trace", "diagnose", "services", "enforcement", "evidence", "access"),
    ("expectation",),
    ("fulfilment",),
    ("kernel",),
    ("underlay", "probe", "attribution", "serving"),
    ("verification",),
    ("report", "lab"),
    ("control",),
    ("prompt",),
    ("cli",),
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
    "kubeproxy",
    "oracle",
    "zone",
    "enforcement",
    "evidence",
    "access",
    "expectation",
    "fulfilment",
)
PURE += ("drift", "mending", "etc_files", "trace", "scene", "breakage", "faults", "causes", "diagnose")
PURE += ("cni",)
ACTING = {"cni/cache.py", "cni/files.py", "cni/runner.py", "cni/runtime.py"}  # what acts in a room that is pure otherwise
EFFECTS = {"os", "subprocess", "socket", "time", "random", "mininet", "scapy"}
FILES = sorted(p for folder in ("emulab", "plugins", "topologies") for p in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (
                f"{node.module}.{alias.name}" if node.module in ("emulab", "emulab.cni") else str(node.module)
                for alias in node.names
            )


def room(path: Path) -> str:
    return path.relative_to(ROOT / "emulab").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downward(path: Path) -> None:
    names = list(imports(path))
    ours = {name.split(".")[1] for name in names if name.startswith("emulab.")} - {"__version__"}
    others = {name.split(".")[0] for name in names}
    if path.is_relative_to(ROOT / "emulab"):
        here = room(path)
        if here not in ("__init__", "__main__"):
            assert {name for name in ours if LEVEL[name] > LEVEL[here]} == set()
        acting = {f"emulab.{one[:-3].replace('/', '.')}" for one in ACTING}
        if here in PURE and str(path.relative_to(ROOT / "emulab")) not in ACTING:
            assert others & EFFECTS == set()
            assert here != "cni" or not acting & set(names), "what acts is beside the pure part, not below it"
        assert "mininet" not in others or here in ("underlay", "prompt")
        assert "scapy" not in others or here == "probe"
        assert not any(name.startswith("emulab_plugins") for name in names), "emulab names no plugin"
    else:
        assert ours <= {"model", "state", "dataplane", "errors", "ipam", "objects", "selector", "policy"}
        assert others & EFFECTS == set()


def test_every_package_is_packed() -> None:
    """`packages` is an explicit list; an editable install works without it, a wheel does not."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = {name for name in setup["options"]["packages"].split() if name.startswith("emulab.")}
    assert listed == {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "emulab").rglob("*/__init__.py")}
