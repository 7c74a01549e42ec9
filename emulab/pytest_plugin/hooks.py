"""What pytest loads wherever emulab is installed: options, the marker, fixtures.  The rest is imported for the first lab."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from emulab.pytest_plugin import vocabulary

if TYPE_CHECKING:
    from emulab.pytest_plugin.lab import Lab
    from emulab.pytest_plugin.members import Pod
    from emulab.pytest_plugin.packets import Capture
    from emulab.pytest_plugin.starting import Up
    from emulab.pytest_plugin.wanted import Wanted

_UP = pytest.StashKey[list["Up"]]()
_WANTED = pytest.StashKey[dict["Wanted", "Wanted"]]()
_KEPT = "emulab_kept"  # an attribute of reports: pytest-xdist brings it along
_WITH_PROPERTIES = ("xunit1", "legacy")  # families of JUnit XML whose schema knows properties of a test case


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("emulab", "packets between pods (emulab)")
    group.addoption("--emulab-keep", action="store_true", help="Leave the lab of a failed test up, and say how to enter it.")
    group.addoption(
        "--emulab-artifacts", metavar="DIR", help="Write a report of every lab, and packets of what failed, into folders there."
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_UP], config.stash[_WANTED] = [], {}
    config.addinivalue_line(
        "markers",
        "emulab(topology=, plugin=, manifests=, set=): the lab of these tests, as of `emulab up`; "
        "plugin may be a list, set is {option: value}.",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with the marker runs once per plugin, and its id says which."""
    marks = list(metafunc.definition.iter_markers("emulab"))
    names = metafunc.fixturenames
    if not marks or not {"lab", "lab_per_test", "pod", "capture"}.intersection(names):
        return
    fixture = "lab_per_test" if "lab_per_test" in names else "lab"
    if fixture not in names:
        names.append(fixture)
    known = metafunc.config.stash[_WANTED]
    # pytest shares a fixture among tests whose parameter is the same object.
    wanted = [known.setdefault(one, one) for one in _wanted(marks, metafunc.definition.path.parent)]
    scope: Literal["module", "function"] = "module" if fixture == "lab" else "function"
    metafunc.parametrize(fixture, wanted, indirect=True, ids=[one.plugin for one in wanted], scope=scope)


def _wanted(marks: list[pytest.Mark], folder: Path) -> list[Wanted]:
    from emulab.errors import InputError
    from emulab.pytest_plugin import wanted

    try:
        return wanted.read([(mark.args, mark.kwargs) for mark in marks], folder)
    except InputError as error:
        told = str(error)
    pytest.fail(told, pytrace=False)


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The lab that @pytest.mark.emulab(topology=, plugin=, manifests=, set=) asks for, one for all tests of a module that
    ask for the same; without the marker Flannel on three nodes.
    """
    yield from _lab(request, tmp_path_factory)


@pytest.fixture
def lab_per_test(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """As `lab`, but each test has one of its own."""
    yield from _lab(request, tmp_path_factory)


@pytest.fixture
def pod(request: pytest.FixtureRequest) -> Callable[[str], Pod]:
    """pod("default/a1"): a pod of the test's lab."""
    return _of(request).pod


@pytest.fixture
def capture(request: pytest.FixtureRequest) -> Callable[..., Capture]:
    """with capture("a1", "icmp") as packets: the packets of a pod or node of the test's lab, meanwhile."""
    return _of(request).capture


def _of(request: pytest.FixtureRequest) -> Lab:
    found: Lab = request.getfixturevalue("lab_per_test" if "lab_per_test" in request.fixturenames else "lab")
    return found


def _lab(request: pytest.FixtureRequest, temporary: pytest.TempPathFactory) -> Iterator[Lab]:
    from emulab.pytest_plugin import starting

    node, config = request.node, request.config
    wanted = getattr(request, "param", None) or _wanted(list(node.iter_markers("emulab")), node.path.parent)[0]
    up = starting.start(wanted, node.path, config, temporary)
    config.stash[_UP].append(up)
    try:
        yield up.lab
    finally:
        config.stash[_UP].remove(up)
        starting.finish(up, config)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, Any, Any]:
    return (yield from _said())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    return (yield from _said())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, Any, Any]:
    return (yield from _said())


def _said() -> Generator[None, Any, Any]:
    """An `expect` of which nothing was said fails the test."""
    since = vocabulary.mark()
    try:
        result = yield
    except BaseException:
        vocabulary.unspoken(since)
        raise
    if told := vocabulary.unspoken(since):
        pytest.fail("\n".join(told), pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """The report of a failed test says which files it left, and how its lab is entered if that is kept."""
    report: pytest.TestReport = yield
    ups = item.config.stash[_UP]
    arguments = getattr(item, "funcargs", {}).values() if ups else ()
    for up in ups:
        if any(one is up.lab for one in arguments):
            _tell(up, item, report)
    return report


def _tell(up: Up, item: pytest.Item, report: pytest.TestReport) -> None:
    files = [("emulab", str(file)) for file in up.evidence.take_new()]
    if not report.failed:
        return
    up.failed = True
    if item.config.getini("junit_family") in _WITH_PROPERTIES:
        item.user_properties += files
        report.user_properties += files  # a list of its own by now
    if item.config.getoption("emulab_keep"):
        enter, down = up.enter()
        told = f"lab '{up.held.name}' is kept\n  enter it:      {enter}\n  take it down:  {down}"
        report.sections.append(("emulab", told))
        setattr(report, _KEPT, f"lab '{up.held.name}' is kept: {enter}, {down}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The labs that are left up, also by workers of pytest-xdist."""
    reports = [one for kind in ("failed", "error") for one in terminalreporter.stats.get(kind, ())]
    for told in sorted({getattr(report, _KEPT, "") for report in reports} - {""}):
        terminalreporter.write_line(told)
