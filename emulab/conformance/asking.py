"""Checks of how a plugin is spoken to: its table of versions, its environment, its stdin, its errors."""

from __future__ import annotations

from emulab.cni import answer, documents, versions
from emulab.cni.errors import CniError, Code, printable
from emulab.conformance.bench import Bench, known
from emulab.conformance.check import check
from emulab.conformance.verdict import Blocked, Failed, NotApplicable
from emulab.errors import InputError

_FUTURE = "99.0.0"


@check("version-table", "2, VERSION", "prints the versions that it supports, and exits with 0")
def version_table(bench: Bench) -> str:
    try:
        spoken = answer.supported(bench.call("VERSION", stdin=b'{"cniVersion": "1.0.0"}'), "")
    except CniError as error:
        raise Failed(str(error)) from None
    return f"speaks {', '.join(spoken)}"


@check("version-echo", "2, VERSION", "cniVersion of the answer is the one that was asked in")
def version_echo(bench: Bench) -> str:
    spoken = known(bench.speaks)
    if not spoken:
        raise Blocked("version-table", "it has no table of versions")
    for version in spoken:
        outcome = bench.call("VERSION", stdin=f'{{"cniVersion": "{version}"}}'.encode())
        try:
            told = documents.At(documents.parse(outcome.stdout)).text("cniVersion")
        except InputError as error:
            raise Failed(f"asked in {version}: {error}") from None
        if told != version:
            raise Failed(f"asked in {version}, it answers in {told or 'none'}")
    return f"asked in {', '.join(spoken)}"


@check("version-unsupported", "5, error code 1", "a configuration of a version that it does not speak is refused with code 1")
def version_unsupported(bench: Bench) -> str:
    strange = [_FUTURE, *(one for one in versions.ALL if bench.speaks and one not in bench.speaks)]
    with bench.box() as box:
        for version in strange:
            request = {**bench.request(box), "cniVersion": version}
            request.pop("prevResult", None)
            bench.refused(bench.call("ADD", box, request=request), [Code.INCOMPATIBLE_VERSION], f"version {version}")
    return f"{', '.join(strange)}: code 1"


@check("version-each", "2, ADD", "answers in the version of the configuration, in each that it supports")
def version_each(bench: Bench) -> str:
    # A chain, and so prevResult, is there from 0.3.0 on.
    spoken = [one for one in known(bench.speaks) if bench.kind != "chained" or versions.at_least(one, "0.3.0")]
    if not spoken:
        raise Blocked("version-table", "it has no table of versions")
    for version in spoken:
        with bench.box() as box:
            request = bench.request(box, version=version)
            outcome = bench.call("ADD", box, request=request)
            try:
                answer.result(outcome, "", version)
            except CniError as error:
                raise Failed(f"version {version}: {error}") from None
            bench.succeeds(bench.call("DEL", box, request=request), f"version {version}: DEL")
    return f"{', '.join(spoken)}: each answered in itself"


@check("env-command", "2, parameters; 5, error code 4", "a CNI_COMMAND that is missing or unknown is refused with code 4")
def env_command(bench: Bench) -> str:
    with bench.box() as box:
        for command, what in ((None, "no CNI_COMMAND"), ("FROBNICATE", "CNI_COMMAND=FROBNICATE")):
            bench.refused(bench.call(command, box), [Code.INVALID_ENVIRONMENT], what, "CNI_COMMAND")
    return "missing, unknown: code 4"


@check("env-missing", "2, parameters; 5, error code 4", "a required variable that is missing is refused with code 4, by name")
def env_missing(bench: Bench) -> str:
    required = {"ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"), "DEL": ("CNI_CONTAINERID", "CNI_IFNAME")}
    if versions.at_least(bench.version, "0.4.0"):
        required["CHECK"] = required["ADD"]
    with bench.box() as box:
        for command, variables in required.items():
            for variable in variables:
                outcome = bench.call(command, box, env={variable: None})
                bench.refused(outcome, [Code.INVALID_ENVIRONMENT], f"{command} without {variable}", variable)
    return f"{', '.join(required)}: code 4, with the variable's name"


@check("env-invalid", "2, parameters; 5, error code 4", "an id or interface name that cannot be one is refused with code 4")
def env_invalid(bench: Bench) -> str:
    wrong = (
        *(("CNI_CONTAINERID", value) for value in ("../escape", "-first", "a b")),
        *(("CNI_IFNAME", value) for value in ("a/b", "..", "a:b", "sixteen-is-1-more")),
    )
    with bench.box() as box:
        for variable, value in wrong:
            bench.refused(bench.call("ADD", box, env={variable: value}), [Code.INVALID_ENVIRONMENT], f"{variable}={value!r}")
    return f"{len(wrong)} of them: code 4"


@check("stdin-undecodable", "5, error code 6", "a configuration that is no JSON is refused with code 6")
def stdin_undecodable(bench: Bench) -> str:
    with bench.box() as box:
        for data in (b"", b"hello", b'{"cniVersion": ', b"\xff\xfe"):
            outcome = bench.call("ADD", box, stdin=data)
            bench.refused(outcome, [Code.DECODING_FAILURE], f"{printable(ascii(data)[2:-1]) or 'nothing'} on stdin")
    return "nothing, text, half of it, bytes: code 6"


@check(
    "config-invalid",
    "1; 5, error codes 2 and 7",
    "a configuration without a name, or with one that is none, is refused with code 7 or 2",
)
def config_invalid(bench: Bench) -> str:
    with bench.box() as box:
        for change in ({"name": None}, {"name": "../escape"}):
            request = {key: value for key, value in {**bench.request(box), **change}.items() if value is not None}
            what = f"name {change['name']}" if change["name"] else "no name"
            bench.refused(bench.call("ADD", box, request=request), [Code.INVALID_CONFIG, Code.UNSUPPORTED_FIELD], what)
    return "no name, ../escape: code 7 or 2"


@check("unknown-fields", "1; 5, error code 2", "a field that it does not know is ignored, or refused with code 2 and its name")
def unknown_fields(bench: Bench) -> str:
    with bench.box() as box:
        bench.add(box)
    with bench.box() as box:
        request = {**bench.request(box), "x-unknown-field": {"deep": [1]}}
        outcome = bench.call("ADD", box, request=request)
        if outcome.exit_code:
            return f"refused: {bench.refused(outcome, [Code.UNSUPPORTED_FIELD], 'an unknown field', 'x-unknown-field')}"
        bench.succeeds(outcome, "ADD with an unknown field")
        bench.succeeds(bench.call("DEL", box, request=request), "DEL with an unknown field")
    return "ignored"


@check("error-form", "5, error", "every error is JSON on stdout: cniVersion, a code, a message")
def error_form(bench: Bench) -> str:
    failures = [one for one in bench.log if one.exit_code and one.exit_code > 0 and not one.problem]
    if not failures:
        raise NotApplicable("it never exited with an error")
    for one in failures:
        printed = printable(" ".join(one.stdout.split()), 100)
        what = f"{one.command or 'a call'}, exit {one.exit_code}"
        try:
            document = documents.At(documents.parse(one.stdout))
            said = document.text("cniVersion")
            versions.key(said or versions.OLDEST)
        except InputError as error:
            raise Failed(f"{what}: {error}: {printed}") from None
        if not said:
            raise Failed(f"{what}: no cniVersion: {printed}")
        if CniError.read(document.value) is None or not document.text("msg"):
            raise Failed(f"{what}: no code other than 0, or no msg: {printed}")
    return f"{len(failures)} errors"


CHECKS = (
    *(version_table, version_echo, version_unsupported, version_each),
    *(env_command, env_missing, env_invalid, stdin_undecodable, config_invalid, unknown_fields),
)
LAST = (error_form,)
