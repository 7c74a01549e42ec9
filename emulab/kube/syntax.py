"""What the API server's validation takes for a name, a label, a port, a selector (apimachinery/pkg/util/validation)."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from emulab.errors import InputError, nearest
from emulab.kube.document import Document
from emulab.objects import IPAddress, IPNetwork
from emulab.selector import Has, In, Not, Selector, both
from emulab.text import Path

PROTOCOLS = ("TCP", "UDP", "SCTP")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_PORT_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]([-+]?[0-9]{1,2})|([kMGTPE]|[KMGTPE]i|m|u|n)?)")
_FACTORS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_FACTORS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}

LABEL_RULE = "at most 63 of a-z, 0-9 and '-', a letter or digit at both ends (RFC 1123)"
SUBDOMAIN_RULE = "at most 253 of a-z, 0-9, '-' and '.', a letter or digit at the ends of each part (RFC 1123)"


def is_label(text: str) -> bool:
    return len(text) <= 63 and bool(_LABEL.fullmatch(text))


def is_subdomain(text: str) -> bool:
    return len(text) <= 253 and bool(_SUBDOMAIN.fullmatch(text))


def label(found: Document, path: Path, text: str, what: str) -> None:
    """An RFC 1123 label."""
    if not is_label(text):
        found.fail(path, f"{text[:80]!r} is no {what}: expected {LABEL_RULE}")


def service_name(found: Document, path: Path, text: str) -> None:
    """An RFC 1035 label."""
    if not is_label(text) or not text[0].isalpha():
        rule = "at most 63 of a-z, 0-9 and '-', a letter first, a letter or digit at the end (RFC 1035)"
        found.fail(path, f"{text[:80]!r} is no name for a Service: expected {rule}")


def subdomain(found: Document, path: Path, text: str, what: str) -> None:
    """An RFC 1123 subdomain."""
    if not is_subdomain(text):
        found.fail(path, f"{text[:300]!r} is no {what}: expected {SUBDOMAIN_RULE}")


def is_key(text: str) -> bool:
    """Whether it is the key of a label: ``[prefix/]name``."""
    prefix, slash, name = text.rpartition("/")
    return (not slash or is_subdomain(prefix)) and len(name) <= 63 and bool(_QUALIFIED.fullmatch(name))


def key(found: Document, path: Path, text: str) -> None:
    """The key of a label or annotation."""
    if not is_key(text):
        rule = "a name of at most 63 letters, digits, '-', '_' and '.', perhaps after a DNS name and '/'"
        found.fail(path, f"{text[:80]!r} is no key of a label: expected {rule}")


def is_value(text: str) -> bool:
    """Whether a label can have this value."""
    return not text or (len(text) <= 63 and bool(_QUALIFIED.fullmatch(text)))


def value(found: Document, path: Path, text: Any) -> None:
    """The value of a label."""
    if not isinstance(text, str):
        found.fail(path, f"text expected, got {str(text).lower() if isinstance(text, bool) else text} (put it in quotes)")
    if not is_value(text):
        rule = "at most 63 letters, digits, '-', '_' and '.', a letter or digit at both ends"
        found.fail(path, f"{text[:80]!r} is no value of a label: expected {rule}")


def labels(found: Document, path: Path, given: dict[str, Any] | None) -> tuple[tuple[str, str], ...]:
    """Labels, sorted by key."""
    for name, text in (given or {}).items():
        key(found, (*path, name), name)
        value(found, (*path, name), text)
    return tuple(sorted((given or {}).items()))


def one_of(found: Document, path: Path, text: str, known: tuple[str, ...]) -> str:
    if text not in known:
        found.fail(path, f"'{text[:60]}': {' or '.join(known)} expected{nearest(text, known) if len(known) > 4 else ''}")
    return text


def protocol(found: Document, path: Path, text: str | None) -> str:
    """TCP unless it is said; in lower case."""
    return one_of(found, path, text or "TCP", PROTOCOLS).lower()


def number(found: Document, path: Path, given: int, low: int = 1, high: int = 65535) -> int:
    if not low <= given <= high:
        found.fail(path, f"{given} is out of range, {low} to {high} expected")
    return given


def port_name(found: Document, path: Path, text: str) -> str:
    """An IANA service name (RFC 6335)."""
    if len(text) > 15 or not _PORT_NAME.fullmatch(text) or not re.search("[a-z]", text):
        rule = "at most 15 of a-z, 0-9 and single '-', one letter at least (RFC 6335)"
        found.fail(path, f"{text[:60]!r} is no name for a port: expected {rule}")
    return text


def address(found: Document, path: Path, text: str) -> IPAddress:
    try:
        if "%" in text:
            raise ValueError
        return ipaddress.ip_address(text)
    except ValueError:
        found.fail(path, f"{text[:60]!r} is no IP address")


def network(found: Document, path: Path, text: str) -> IPNetwork:
    """A CIDR; host bits are masked, as every enforcer does."""
    try:
        if "/" not in text or "%" in text:
            raise ValueError
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        found.fail(path, f"{text[:60]!r} is no network: e.g. 10.9.8.0/24 expected")


def quantity(found: Document, path: Path, text: str) -> float:
    """A resource quantity: 10M, 1Gi, 1e6 (apimachinery/pkg/api/resource)."""
    if not _QUANTITY.fullmatch(text):
        found.fail(path, f"{text[:60]!r} is no quantity: e.g. 10M expected")
    return amount(text)


def amount(text: str) -> float:
    """The number that a quantity stands for."""
    match = _QUANTITY.fullmatch(text)
    assert match is not None, text
    return float(match[1]) * (10.0 ** int(match[2]) if match[2] else _FACTORS[match[3] or ""])


def selector(found: Document, path: Path, given: Any) -> Selector:
    """A LabelSelector as a selector; the empty one selects everything."""
    parts: list[Selector] = [In(k, (v,)) for k, v in labels(found, (*path, "matchLabels"), given.matchLabels)]
    for index, one in enumerate(given.matchExpressions or ()):
        at = (*path, "matchExpressions", index)
        key(found, (*at, "key"), one.key)
        one_of(found, (*at, "operator"), one.operator, ("In", "NotIn", "Exists", "DoesNotExist"))
        values = tuple(one.values or ())
        if one.operator in ("In", "NotIn"):
            if not values:
                found.fail((*at, "values"), f"{one.operator} needs at least one value")
            for place, text in enumerate(values):
                value(found, (*at, "values", place), text)
        elif values:
            found.fail((*at, "values"), f"{one.operator} takes no values")
        part: Selector = In(one.key, tuple(sorted(set(values)))) if values else Has(one.key)
        parts.append(part if one.operator in ("In", "Exists") else Not(part))
    return both(parts)


_TERM = re.compile(
    r"\s*(?:(!)\s*([^\s!=,()]+)|([^\s!=,()]+)\s*(?:(==?|!=)\s*([^\s!=,()]*)|(?<=\s)(in|notin)\s*\(([^()]*)\))?)\s*(,|$)"
)


def typed_selector(text: str) -> Selector:
    """A selector as `kubectl -l` takes it: ``app=web,tier!=db,!old,env in (a, b)``.  Raises `InputError`."""
    parts: list[Selector] = []
    position = 0
    while position < len(text):
        match = _TERM.match(text, position)
        if not match or not is_key(match[2] or match[3]):
            raise InputError(f"selector {text}: e.g. app=web,tier!=db expected")
        absent, name, operator, word, several = match[2], match[3], match[4], match[6], match[7]
        if absent or not (operator or word):
            part: Selector = Not(Has(absent)) if absent else Has(name)
        else:
            part = In(name, tuple(one.strip() for one in several.split(","))) if word else In(name, (match[5],))
            part = Not(part) if operator == "!=" or word == "notin" else part
        parts.append(part)
        position = match.end()
    return both(parts)
