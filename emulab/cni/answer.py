"""What the answer of a plugin means: its result, or the error that it told, or what is wrong with the answer itself."""

from __future__ import annotations

from typing import NoReturn

from emulab.cni import documents
from emulab.cni.errors import CniError, Code, printable
from emulab.cni.invocation import Outcome
from emulab.cni.result import Result
from emulab.cni.versions import ALL, OLDEST, key
from emulab.errors import InputError


def result(outcome: Outcome, plugin: str, version: str) -> Result:
    """What ADD answered, in the ``version`` that it was asked in.  Raises `CniError`."""
    succeeded(outcome, plugin, "ADD")
    if not outcome.stdout.strip():
        _fail(outcome, plugin, "ADD", "exited with 0, but printed no result")
    try:
        answer = Result.read(documents.parse(outcome.stdout), version)
    except InputError as error:
        _fail(outcome, plugin, "ADD", f"exited with 0, but what it printed is no result: {error}; {_quoted(outcome.stdout)}")
    if answer.version != version:
        _fail(outcome, plugin, "ADD", f"was asked in version {version}, and answered in version {answer.version}")
    return answer


def succeeded(outcome: Outcome, plugin: str, command: str) -> None:
    """Raises `CniError` unless the plugin says that all went well."""
    if outcome.problem:
        _fail(outcome, plugin, command, outcome.problem)
    error = _error(outcome, plugin, command)
    if outcome.exit_code == 0:
        if error is None:
            return
        _fail(outcome, plugin, command, f"exited with 0, but printed an error: {error.msg} (code {error.code})")
    if error is not None:
        raise error
    if outcome.exit_code < 0:
        _fail(outcome, plugin, command, f"was killed by signal {-outcome.exit_code}")
    said = f"printed no error, but {_quoted(outcome.stdout)}" if outcome.stdout.strip() else "printed no error"
    _fail(outcome, plugin, command, f"exited with {outcome.exit_code}, and {said}")


def supported(outcome: Outcome, plugin: str) -> tuple[str, ...]:
    """The versions of the protocol that a plugin says it speaks, in its order, also those that nobody here knows.

    Plugins from before VERSION say that they do not know it: they speak 0.1.0.  Raises `CniError`.
    """
    error = _error(outcome, plugin, "VERSION")
    if error is not None and "unknown CNI_COMMAND" in error.msg and outcome.exit_code != 0:
        return (OLDEST,)
    succeeded(outcome, plugin, "VERSION")
    try:
        found = documents.At(documents.parse(outcome.stdout)).texts("supportedVersions")
        for one in found:
            key(one)
    except InputError as problem:
        _fail(
            outcome, plugin, "VERSION", f"exited with 0, but not with a table of versions: {problem}; {_quoted(outcome.stdout)}"
        )
    if not found:
        _fail(outcome, plugin, "VERSION", f"names no version (supportedVersions), {ALL[0]} to {ALL[-1]} are known")
    return found


def _error(outcome: Outcome, plugin: str, command: str) -> CniError | None:
    """On stdout, where the reference library prints it; one sentence of section 5 can be read as if it were stderr."""
    try:
        document = documents.parse(outcome.stdout)
    except InputError:
        return None
    return CniError.read(document, plugin=plugin, command=command, stderr=_decoded(outcome.stderr))


def _fail(outcome: Outcome, plugin: str, command: str, problem: str) -> NoReturn:
    raise CniError(Code.INTERNAL, problem, plugin=plugin, command=command, stderr=_decoded(outcome.stderr))


def _quoted(data: bytes) -> str:
    return f"it printed: {printable(_decoded(data), 200)}"


def _decoded(data: bytes) -> str:
    return data.decode(errors="backslashreplace")
