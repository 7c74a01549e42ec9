"""bootstrap.sh on machines that are not this one: what they say of themselves and what they install is made up."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from shown import ROOT
from tables import each_row

PROGRAMS = {
    "dpkg-query": 'cat "$MACHINE/packages"',
    "apt-get": """echo "apt-get $*" >>"$MACHINE/log"
        for word in ${*#*--no-install-recommends}; do
            echo "installed $word, " >>"$MACHINE/packages"
            [[ $word != chromium-* ]] || cp "$MACHINE/bin/installed" "$MACHINE/bin/$word"
        done""",
    "setpriv": "true",
    "python3": """[[ $1 == -m ]] || exec /usr/bin/python3 "$@"
        mkdir -p "$3/bin"
        for name in python emulab emulab-cni pytest playwright; do cp "$MACHINE/bin/installed" "$3/bin/$name"; done""",
    "installed": """[[ $* == *" check" ]] || echo "${0##*/} $* ${PLAYWRIGHT_BROWSERS_PATH:-}" >>"$MACHINE/log"
        [[ ${0##*/} != playwright ]] || mkdir -p "$PLAYWRIGHT_BROWSERS_PATH/chromium-1" """,
}
# Nothing of this machine's is touched, and nothing is in /opt.
HIDDEN = """mount --bind "$MACHINE/os-release" "$(readlink -f /etc/os-release)"
mount -t tmpfs tmpfs /opt && mount -t tmpfs tmpfs /usr/local/bin
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine with this one's programs, but without a browser."""
    for folder in ("bin", "usr"):
        (tmp_path / folder).mkdir()
    for path in (path for folder in ("/usr/sbin", "/usr/bin") for path in Path(folder).iterdir()):
        if not path.name.startswith("chromium") and not (tmp_path / "usr" / path.name).is_symlink():
            (tmp_path / "usr" / path.name).symlink_to(path)
    for name, script in PROGRAMS.items():
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/bash\n{script}\n")
        program.chmod(0o755)
    return tmp_path


def bootstrapped(machine: Path, system: str, provides: str, *calls: str) -> list[str]:
    """What programs were called for what, by those calls of bootstrap.sh one after the other."""
    (machine / "os-release").write_text(f"ID={system}\n")
    (machine / "packages").write_text(provides)
    (machine / "log").write_text("")
    script = HIDDEN + "".join(f'echo "bootstrap {call}" >>"$MACHINE/log"\n{ROOT}/bootstrap.sh {call}\n' for call in calls)
    environment = {"PATH": f"{machine}/bin:{machine}/usr", "MACHINE": str(machine), "HOME": str(machine)}
    own = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    python = {"PYTHON": f"{machine}/bin/python3"}
    subprocess.run([*own, "bash", "-euc", script], env={**environment, **python}, capture_output=True, text=True, check=True)
    return (machine / "log").read_text().splitlines()


def installed(*names: str) -> str:
    return "".join(f"installed {name}, \n" for name in names)


RUN = ("python3", "python3-venv", "mininet", "iproute2", "nftables", "iputils-ping", "ethtool", "libpcap0.8")


@each_row(
    "system, packages, asked",
    [
        ("debian", installed(*RUN), ""),
        ("debian", installed(*RUN[:-1]), "libpcap0.8"),
        ("debian", installed(*RUN[:-1]) + "config-files libpcap0.8, \n", "libpcap0.8"),
        ("ubuntu", installed(*RUN[:-1]) + "installed libpcap0.8t64, libpcap0.8 (= 1.10.4-4.1ubuntu3), x\n", ""),
        ("ubuntu", "", " ".join(RUN)),
    ],
)
def test_what_is_missing_is_installed_once(machine: Path, system: str, packages: str, asked: str) -> None:
    found = bootstrapped(machine, system, packages, "run --plugin calico", "run --plugin calico")
    first, second = found[1 : found.index("bootstrap run --plugin calico", 1)], found[first_of_second(found) :]
    apt = [line for line in first if line.startswith("apt-get") and " install " in line]
    assert [line.split("--no-install-recommends ")[1] for line in apt] == ([asked] if asked else [])
    assert any(" pip " in line for line in first)
    assert second == ["emulab run --plugin calico "], "the second call installs nothing"


def first_of_second(found: list[str]) -> int:
    return found.index("bootstrap run --plugin calico", 1) + 1


@pytest.mark.parametrize(("system", "chromium", "browsers"), [("debian", True, ""), ("ubuntu", False, "/opt/emulab/browsers")])
def test_a_browser_for_the_tests(machine: Path, system: str, chromium: bool, browsers: str) -> None:
    """Debian has Chromium; Ubuntu has a snap of it, so that Playwright brings its own."""
    found = bootstrapped(machine, system, "", "test tests/web", "test tests/web")
    (apt,) = (line for line in found if line.startswith("apt-get") and " install " in line)
    assert (" chromium-headless-shell" in apt) == chromium
    assert [line for line in found if line.startswith("pytest")] == [f"pytest tests/web {browsers}"] * 2
    expected = [] if chromium else [f"playwright install --with-deps chromium {browsers}"]
    assert [line for line in found if line.startswith("playwright")] == expected
