"""Names lead to data planes and topologies; another distribution's are found like ours, and broken ones say where."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import ClassVar

import pytest
from tables import each_row

from emulab import registry
from emulab.dataplane import DataPlane
from emulab.errors import InputError, PluginError
from emulab.model import Topology

PLANE = """
    \"\"\"A plane for tests.

    More about it.
    \"\"\"
    from dataclasses import dataclass
    from typing import ClassVar
    from emulab.dataplane import DataPlane

    @dataclass(frozen=True)
    class Plane(DataPlane):
        name: ClassVar[str] = "acmenet"
        vni: int = 1
        def ipam(self, topology): ...
        def plan(self, cluster): ...
        def wire(self, cluster, source, destination, family): ...
"""
GOOD_YAML = "description: a node of acme\npod-cidrs: [10.1.0.0/16]\nnodes: {node-a: }\n"

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Another distribution on sys.path: ``install(group, {"acmenet.py": text})`` gives its package's folder."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(group: str, files: dict[str, str], package: str = "acme_emulab") -> Path:
        folder = tmp_path / package
        folder.mkdir()
        for name, text in {"__init__.py": "", **files}.items():
            (folder / name).write_text(dedent(text))
        metadata = tmp_path / f"{package}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[{group}]\nacme = {package}\n")
        registry._catalogue.cache_clear()
        return folder

    yield install
    registry._catalogue.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith("acme"):
            del sys.modules[name]


# -- data planes -------------------------------------------------------------------------------------------------------


@each_row("name", registry.plugins())
def test_every_plugin_is_called_like_its_module_and_says_what_it_is(name: str) -> None:
    plane = registry.plugin(name)
    assert plane.name == name
    assert registry.plugins()[name]
    assert isinstance(registry.options(plane, []), plane)


def test_another_distribution_adds_a_plugin(install: Install) -> None:
    install("emulab.plugins", {"acmenet.py": PLANE, "_hidden.py": "raise RuntimeError"})
    assert registry.plugins()["acmenet"] == "A plane for tests"
    assert "_hidden" not in registry.plugins()
    assert registry.options(registry.plugin("acmenet"), ["vni=7"]).options() == {"vni": 7}


def test_an_unknown_plugin_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no plugin 'flanel' \(did you mean 'flannel'\?\)"):
        registry.plugin("flanel")


def test_a_name_provided_twice_is_an_error_that_names_both(install: Install) -> None:
    install("emulab.plugins", {"flannel.py": PLANE})
    with pytest.raises(PluginError, match="'flannel' is provided twice") as caught:
        registry.plugins()
    assert "acme_emulab.flannel" in str(caught.value)
    assert "emulab_plugins.flannel" in str(caught.value)


@pytest.mark.parametrize(
    "text, line, message",
    [
        ("x = 1\nraise RuntimeError('no luck')\n", 2, "raised RuntimeError: no luck"),
        ("import no_such_module\n", 1, "ModuleNotFoundError"),
        ("import sys\nsys.exit(0)\n", 2, "raised SystemExit"),
        ("x = 1\ndef f(:\n", 2, "invalid syntax"),
        ("x = 1\n", None, "one DataPlane class with name"),
        (PLANE.replace('"acmenet"', '"other"'), None, 'one DataPlane class with name = "acmenet"'),
        (PLANE.replace("name: ClassVar", "title: ClassVar"), None, "one DataPlane class"),
        (PLANE + "\n    class Another(Plane): ...\n", None, "one DataPlane class"),
        (PLANE.replace("def plan(", "def plans("), None, "Plane lacks plan"),
        (PLANE.replace("@dataclass(frozen=True)", ""), None, "no dataclass"),
    ],
)
def test_a_broken_plugin_says_where(install: Install, text: str, line: int | None, message: str) -> None:
    folder = install("emulab.plugins", {"acmenet.py": text})
    with pytest.raises(PluginError) as caught:
        registry.plugin("acmenet")
    assert message in str(caught.value)
    assert (caught.value.file, caught.value.line) == (str(folder / "acmenet.py"), line)
    assert "\n" not in str(caught.value)


def test_a_broken_plugin_does_not_keep_others_from_working(install: Install) -> None:
    install("emulab.plugins", {"acmenet.py": "raise RuntimeError"})
    assert registry.plugin("flannel").name == "flannel"


def test_an_entry_point_that_is_no_package(install: Install, tmp_path: Path) -> None:
    install("emulab.plugins", {})
    (tmp_path / "acme_emulab-1.0.dist-info" / "entry_points.txt").write_text("[emulab.plugins]\nacme = acme_module\n")
    (tmp_path / "acme_module.py").write_text("")
    with pytest.raises(PluginError, match="acme_module is no package"):
        registry.plugins()


# -- options -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plane(DataPlane):
    """One field of every type that an option can have."""

    name: ClassVar[str] = "plane"
    vni: int = 1
    direct_routing: bool = False
    backend: str = "vxlan"
    mtu: int | None = None

    def __post_init__(self) -> None:
        if self.vni == 13:
            raise RuntimeError("bad luck")

    def ipam(self, topology: object) -> None: ...  # type: ignore[override]
    def plan(self, cluster: object) -> None: ...  # type: ignore[override]
    def wire(self, *_: object) -> None: ...  # type: ignore[override]


@each_row(
    "setting, expected",
    [
        ("vni=7", {"vni": 7}),
        ("vni=0x10", {"vni": 16}),
        ("direct_routing=true", {"direct_routing": True}),
        ("direct-routing=off", {"direct_routing": False}),
        ("backend=host-gw", {"backend": "host-gw"}),
        ("backend=a=b", {"backend": "a=b"}),
        ("mtu=1400", {"mtu": 1400}),
        ("mtu=auto", {"mtu": None}),
    ],
)
def test_options_are_typed(setting: str, expected: dict[str, object]) -> None:
    made = registry.options(Plane, [setting])
    assert made.options() == {"vni": 1, "direct_routing": False, "backend": "vxlan", "mtu": None, **expected}
    assert [type(made.options()[key]) for key in expected] == [type(value) for value in expected.values()]


@each_row(
    "settings, message",
    [
        (["vnni=7"], "no option 'vnni' (did you mean 'vni'?)"),
        (["vni"], "NAME=VALUE expected"),
        (["vni=seven"], "a whole number expected"),
        (["vni="], "a whole number expected"),
        (["mtu=1.5"], "a whole number expected"),
        (["direct_routing=perhaps"], "true or false expected"),
        (["vni=1", "vni=2"], "given twice"),
        (["name=other"], "no option 'name'"),
        (["vni=13"], "plugin 'plane' raised RuntimeError: bad luck"),
    ],
)
def test_options_that_are_refused(settings: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        registry.options(Plane, settings)
    assert message in str(caught.value)


# -- topologies --------------------------------------------------------------------------------------------------------


def test_another_distribution_adds_topologies(install: Install) -> None:
    install("emulab.topologies", {"acme.yaml": GOOD_YAML, "_draft.yaml": "nodes: ["})
    assert registry.topologies()["acme"] == "a node of acme"
    assert "_draft" not in registry.topologies()
    assert registry.topology("acme").name == "acme"


@each_row("spec", ["{folder}/mine.yaml", "{folder}/mine.yml", "{folder}/mine"])
def test_a_path_works_like_a_name(tmp_path: Path, spec: str) -> None:
    path = Path(spec.format(folder=tmp_path))
    path.write_text(GOOD_YAML)
    assert registry.topology(str(path)).nodes[0].name == "node-a"


def test_a_file_here_needs_no_slash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text(GOOD_YAML)
    monkeypatch.chdir(tmp_path)
    assert registry.topology("mine.yaml").name == "mine"


@each_row(
    "spec, message",
    [
        ("flatt", "no topology 'flatt' (did you mean 'flat'?)"),
        ("", "no topology ''"),
        ("none.yaml", "none.yaml: cannot read the topology: No such file or directory"),
        ("flat,3", "takes no numbers"),
        ("fleet,3,x", "'x' is no whole number, expected fleet,N,M"),
        ("fleet,", "'' is no whole number, expected fleet,N,M"),
        ("fleet,1,2,3", "too many positional arguments, expected fleet,N,M"),
        ("fleet,0,1", "0 nodes, 1 to 200 expected"),
        ("fleet,201,1", "201 nodes, 1 to 200 expected"),
        ("fleet,1,51", "51 pods per node, 1 to 50 expected"),
    ],
)
def test_topologies_that_are_refused(spec: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        registry.topology(spec)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "body, spec, error, message",
    [
        ("def topology(n): 1 / n", "acme,0", PluginError, "raised ZeroDivisionError"),
        ("def topology(n): ...", "acme", InputError, "missing a required argument: 'n', expected acme,N: N of them"),
        ("def topology(n): ...", "acme,1", PluginError, "expected a Topology, got NoneType"),
        ("def topology(*n): ...", "acme,1,2", PluginError, "expected a Topology"),
        ("def topology(): ...", "acme,1", InputError, "too many positional arguments"),
        ("", "acme", PluginError, "a function topology(…) expected"),
        (
            "from emulab.model import Topology\ndef topology(): return Topology('t', (), (), (), (), ())",
            "acme",
            InputError,
            "topology t: no nodes",
        ),
    ],
)
def test_python_topologies(install: Install, body: str, spec: str, error: type[Exception], message: str) -> None:
    install("emulab.topologies", {"acme.py": f'"""acme,N: N of them"""\n{body}\n'})
    with pytest.raises(error) as caught:
        registry.topology(spec)
    assert message in str(caught.value)


def test_a_file_and_a_module_of_one_name(install: Install) -> None:
    install("emulab.topologies", {"acme.yaml": GOOD_YAML, "acme.py": "def topology(): ..."})
    with pytest.raises(PluginError, match="'acme' is provided twice"):
        registry.topologies()


def test_fleet_takes_its_numbers() -> None:
    made = registry.topology("fleet,3,2")
    assert isinstance(made, Topology)
    assert (len(made.nodes), len(made.pods)) == (3, 6)
