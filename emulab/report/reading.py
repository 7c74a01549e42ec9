"""A document (schema ``emulab/report/1``) read from JSON that may be anybody's: what the page relies on is checked."""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any, Literal

import msgspec

from emulab.drawing import Drawing
from emulab.errors import InputError
from emulab.report.document import SCHEMA, Document

_MOST = 1 << 30  # bytes


class _Named(msgspec.Struct):
    name: str


class _Pod(msgspec.Struct):
    name: str
    node: str
    addresses: list[str]


class _Layer(msgspec.Struct):
    family: Literal[4, 6]
    protocol: str
    rows: list[str]


class _Headers(msgspec.Struct):
    source: str
    destination: str
    sport: int
    dport: int
    ttl: int


class _Inner(_Headers):
    protocol: str
    length: int
    note: str = ""


class _Outer(_Headers):
    kind: str
    vni: int


class _Hop(msgspec.Struct):
    place: str
    direction: Literal["in", "out"]
    leg: Literal["request", "reply"]
    inner: _Inner
    outer: _Outer | None


class _Seen(_Hop):
    time: float


class _Told(_Hop):
    time_us: float
    macs: list[str]
    outer_macs: list[str] | None
    mtu: int
    changed: list[str]
    why: list[str]


class _Finding(msgspec.Struct):
    field: str
    before: str
    after: str
    place: str
    leg: str
    rule: str | None


class _Ends(msgspec.Struct):
    source: str = msgspec.field(name="from")
    destination: str = msgspec.field(name="to")
    family: int
    protocol: str


class _About(_Ends):
    dport: int | None


class _Group(_Finding):
    label: str
    subject: str
    text: str
    number: int
    flow: _About | None


class _Flow(_Ends):
    kind: str
    sport: int
    dport: int
    verdict: str
    hops: list[_Seen]
    findings: list[_Finding]
    translations: list[_Finding]
    policy: str = ""


class _Trace(_Ends):
    sport: int
    dport: int
    verdict: str
    reason: str | None
    reason_code: str | None
    evidence: list[str]
    last_place: str | None
    answered_by: str | None
    mtu: int | None
    round_trip_us: float | None
    hops: list[_Told]


class _Story(_Trace):
    size: int | None = None
    packets: str = ""


class _Failure(msgspec.Struct):
    source: str = msgspec.field(name="from")
    destination: str = msgspec.field(name="to")
    family: int
    protocol: str
    field: str
    expected: Any
    found: Any
    place: str | None
    rule: str | None


class _Outcome(msgspec.Struct):
    title: str
    passed: bool
    flows: int
    seconds: float
    failures: list[_Failure]
    story: _Trace | None
    text: str
    packets: str


class _Kind(msgspec.Struct):
    kind: str
    flows: int
    findings: int
    translated: int
    states: dict[str, int]


class _Mtu(_Ends, kw_only=True):
    protocol: str = "icmp"
    mtu: int
    full: str
    over: str
    reported_by: str | None
    findings: list[_Finding]


class _Document(msgspec.Struct):
    title: str
    plugin: str
    options: dict[str, Any]
    topology: str
    taps: str
    ok: bool
    verdict: str
    nodes: list[_Named]
    pods: list[_Pod]
    letters: dict[str, str]
    pairs: list[_Layer]
    findings: list[_Group]
    flows: list[_Flow]
    stories: list[_Story]
    left_out: list[str]
    expectations: list[_Outcome]
    kinds: list[_Kind]
    mtu: list[_Mtu]
    summary: dict[str, int]
    timings: dict[str, float]
    plan: dict[str, list[str]]
    environment: dict[str, str]


def read(data: bytes, name: str) -> Document:
    """The document in ``data``, which comes from the file ``name``.  Raises `InputError`, in one line, for anything else."""
    if len(data) > _MOST:
        raise InputError(f"more than {_MOST >> 20} MiB: this is no report", name)
    try:
        document = json.loads(data, parse_float=_finite, parse_constant=_finite)
    except json.JSONDecodeError as error:
        raise InputError(f"no JSON: {error.msg}", name, error.lineno) from None
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InputError(f"no JSON: {error}", name) from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        found = f"the schema is {schema!r}" if schema else "no document of emulab"
        raise InputError(f"{found}: {SCHEMA} expected, the result.json that --artifacts writes", name)
    try:
        known = msgspec.convert(document, _Document)
        drawing = document.get("drawing")
        if drawing is not None:
            Drawing.read(drawing)
        _check(known)
    except msgspec.ValidationError as error:
        raise InputError(f"no whole {SCHEMA}: {error}", name) from None
    except InputError as error:
        raise InputError(f"no whole {SCHEMA}: {error}", name) from None
    return {**document, "drawing": drawing}


def _finite(number: str) -> float:
    """Browsers' JSON knows no other numbers."""
    if not math.isfinite(value := float(number)):
        raise ValueError(f"{number} is no number")
    return value


def _check(document: _Document) -> None:
    """What types cannot say."""
    pods = len(document.pods)
    for layer in document.pairs:
        where = f"pairs, {layer.protocol}/IPv{layer.family}"
        if len(layer.rows) != pods or any(len(row) != pods for row in layer.rows):
            raise InputError(f"{where}: {pods} rows of {pods} letters expected, one for each pod")
        if unknown := set().union(*layer.rows) - set(document.letters):
            raise InputError(f"{where}: {min(unknown)!r} is none of its letters")
    for index, packets in enumerate(
        [*(one.packets for one in document.stories), *(one.packets for one in document.expectations)]
    ):
        try:
            base64.b64decode(packets, validate=True)
        except binascii.Error:
            where = f"stories[{index}]" if index < len(document.stories) else f"expectations[{index - len(document.stories)}]"
            raise InputError(f"{where}.packets: base64 expected") from None
