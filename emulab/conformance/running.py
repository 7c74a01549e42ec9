"""Ask a plugin everything: which of the configuration's plugins it is, a host for it, one check after the other."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from emulab.cni import versions
from emulab.cni.config import NetworkList
from emulab.conformance import asking, attaching, many
from emulab.conformance.bench import Bench, Subject
from emulab.conformance.check import CHAINED, INTERFACE, IPAM, Check
from emulab.conformance.host import Host
from emulab.conformance.verdict import FAILED, NOT_APPLICABLE, PASSED, Blocked, Failed, NotApplicable, Report, Verdict
from emulab.errors import EmulabError, InputError, nearest

CHECKS: tuple[Check, ...] = (*asking.CHECKS, *attaching.CHECKS, *many.CHECKS, *asking.LAST)
ADDS = 50
HASTE = 2.0  # seconds for a call of a plugin whose first ADD came to no end of its own
_FOLDERS = (Path("/opt/cni/bin"), Path("/usr/lib/cni"), Path("/usr/libexec/cni"))  # where distributions put plugins
_NAMES = {INTERFACE: "an interface plugin", CHAINED: "a chained plugin", IPAM: "a plugin for address management"}


def subject(binary: Path, network: NetworkList) -> Subject:
    """Which part ``binary`` has in a network, by its name; `InputError` when it has none, or cannot be run."""
    if not binary.is_file() or not os.access(binary, os.X_OK):
        raise InputError(f"{binary}: an executable file expected")
    for number, plugin in enumerate(network.plugins):
        if plugin.type == binary.name:
            return Subject(binary, network, plugin, CHAINED if number else INTERFACE, network.plugins[:number])
    for plugin in network.plugins:
        ipam = plugin.raw.get("ipam")
        if isinstance(ipam, Mapping) and ipam.get("type") == binary.name:
            return Subject(binary, network, plugin, IPAM)
    raise InputError(f"network {network.name} has no plugin of type '{binary.name}'{nearest(binary.name, network.types())}")


def folders(binary: Path, more: Sequence[Path]) -> tuple[Path, ...]:
    """Where plugins are looked for: beside the binary, where the user says, where distributions have them."""
    found = (binary.parent, *more, *_FOLDERS)
    return tuple(dict.fromkeys(folder for folder in found if folder.is_dir()))


def chosen(names: Collection[str]) -> tuple[Check, ...]:
    """The checks of these names, all for none; `InputError` for others."""
    known = {check.name for check in CHECKS}
    for name in names:
        if name not in known:
            raise InputError(f"no check '{name}'{nearest(name, known)}")
    return tuple(check for check in CHECKS if not names or check.name in names)


def run(
    wanted: Subject,
    conf: str,
    folders: Sequence[Path],
    checks: Sequence[Check] = CHECKS,
    adds: int = ADDS,
    kept: Sequence[Path] = (),
) -> Report:
    """All checks, in the sandbox in which the caller is; folders that are ``kept`` stay in sight there.

    The first ADD and DEL come before: what a plugin makes once for a whole host is no container's.
    """
    bench = Bench(wanted, folders, Host((*folders, *kept), _masters(wanted)), adds)
    with bench.box() as box:
        alone = bench.call("ADD", box)
    bench.timeout = HASTE if alone.problem else bench.timeout
    if wanted.kind == INTERFACE and alone.exit_code:
        bench.own_helper, bench.kind = True, CHAINED
        with bench.box() as box:
            if bench.call("ADD", box).exit_code:
                bench.own_helper, bench.kind = False, INTERFACE
    asked = [_asked(bench, check) for check in checks]
    blamed = {verdict.name for verdict, _ in asked if verdict.state == FAILED}
    verdicts = [_blocked(verdict, by, blamed) if by else verdict for verdict, by in asked]
    network = wanted.network.name
    return Report(
        wanted.path.name, str(wanted.path), conf, network, _NAMES[bench.kind], bench.version, bench.speaks, tuple(verdicts)
    )


def _asked(bench: Bench, check: Check) -> tuple[Verdict, str]:
    """The verdict, and the check that stands before it, if one does."""
    started, by = time.monotonic(), ""
    try:
        if bench.kind not in check.kinds:
            raise NotApplicable(f"it is {_NAMES[bench.kind]}")
        if not versions.at_least(bench.version, check.since):
            highest = max(bench.speaks, key=versions.key) if bench.speaks else bench.version
            spoken = "the configuration is of version" if versions.at_least(highest, check.since) else "speaks up to"
            told = bench.version if versions.at_least(highest, check.since) else highest
            raise NotApplicable(f"{spoken} {told}")
        state, found = PASSED, check.work(bench)
    except Failed as failed:
        state, found = FAILED, str(failed)
    except NotApplicable as reason:
        state, found = NOT_APPLICABLE, str(reason)
    except Blocked as reason:
        state, found, by = NOT_APPLICABLE, str(reason), reason.by
    except EmulabError as error:  # the host is not what it was, or what comes before in the chain fails now
        state, found = FAILED, f"cannot be asked: {error}"
    return Verdict(check.name, check.section, check.demand, state, " ".join(found.split()), time.monotonic() - started), by


def _blocked(verdict: Verdict, by: str, blamed: Collection[str]) -> Verdict:
    """Not applicable if the plugin is blamed for it elsewhere."""
    if by in blamed:
        return replace(verdict, found=f"{verdict.found} (see {by})")
    return replace(verdict, state=FAILED)


def _masters(wanted: Subject) -> list[str]:
    """The interfaces of the host that the configuration expects to be there."""
    raws: list[Mapping[str, Any]] = [one.raw for one in (*wanted.helpers, wanted.plugin)]
    named = [raw.get(key) for raw in raws for key in ("master", "device")]
    return list(dict.fromkeys(name for name in named if isinstance(name, str) and name.isprintable() and 0 < len(name) < 16))
