"""A manifest's text to documents: each an object of a known kind, typed, with no field that its kind does not have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from emulab.errors import nearest
from emulab.kube import models, syntax
from emulab.kube.document import Document, Kind, refuse
from emulab.kube.kinds import KINDS
from emulab.kube.lightkube_package import postpone_client
from emulab.kube.models import said
from emulab.text import Path, Raw, documents, shown

_MOST_NAME = 253


def read(text: str, file: str, ignore_unknown: bool = False, namespace: str = "") -> list[Document]:
    """The objects of a YAML or JSON text; ``file`` is what it is called in errors.

    With a ``namespace`` they are in that one, and none may be in another.

    Raises `InputError` for the first mistake, with file, line, document and path.  With ``ignore_unknown`` unknown kinds and
    fields are left out instead; the documents' ``warnings`` say so.
    """
    found: list[Document] = []
    skipped: list[str] = []
    for raw in documents(text, file):
        for value, trail in _items(raw):
            one = _document(raw, value, trail, ignore_unknown, namespace, skipped)
            if one is not None:
                found.append(one)
    if found:
        found[0].warnings[:0] = skipped
    return found


def inline(raw: Raw, path: Path) -> Document:
    """The object that stands at ``path`` in a file of another kind.  Raises `InputError` as `read` does."""
    value = raw.value
    for step in path:
        value = value[step]
    made = _document(raw, value, path, False, "", [])
    assert made is not None
    return made


def _items(raw: Raw) -> Iterator[tuple[Any, Path]]:
    """The document, or the items of a List."""
    value = raw.value
    if isinstance(value, dict) and str(value.get("kind")).endswith("List") and "items" in value:
        items = value["items"]
        if items is None:
            return
        if not isinstance(items, list):
            refuse(raw, (), str(value["kind"]), ("items",), "a list expected")
        for index, one in enumerate(items):
            yield one, ("items", index)
        return
    yield value, ()


def _document(raw: Raw, value: Any, trail: Path, ignore_unknown: bool, namespace: str, skipped: list[str]) -> Document | None:
    if not isinstance(value, dict):
        refuse(raw, trail, "", (), f"an object with apiVersion and kind expected, got {said(value)}")
    for field in ("apiVersion", "kind"):
        if not isinstance(value.get(field), str) or not value[field]:
            refuse(raw, trail, "", (field,), f"text expected, got {said(value[field])}" if field in value else "required")
    api, name = value["apiVersion"], value["kind"]
    kind = KINDS.get((api, name))
    if kind is None:
        if ignore_unknown:
            skipped.append(f"{raw.file}:{raw.line(trail)}: document {raw.number}: {api} {name} is left out: an unknown kind")
            return None
        refuse(raw, trail, "", ("kind",), f"no kind '{name}' in version '{api}'{_near(api, name)}")
    return _typed(raw, value, trail, kind, ignore_unknown, namespace)


def _near(api: str, name: str) -> str:
    versions = [known for known, kind in KINDS if kind == name]
    if versions:
        return f" (known: {', '.join(versions)})"
    return nearest(name, {kind for _, kind in KINDS})


def _typed(raw: Raw, value: dict[str, Any], trail: Path, kind: Kind, ignore_unknown: bool, namespace: str) -> Document:
    metadata = value.get("metadata")
    given = metadata if isinstance(metadata, dict) else {}
    parts = [str(given.get("namespace") or namespace or "default")] if kind.namespaced else []
    parts += [str(given["name"])[:_MOST_NAME]] if given.get("name") else []
    what = f"{kind.name} {'/'.join(parts) if given.get('name') else ''}".strip()
    postpone_client()
    model = kind.model()
    value = _asked(value)
    warnings = []
    for mistake in models.unknown(value, model):
        if not ignore_unknown:
            refuse(raw, trail, what, *mistake)
        warnings.append(
            f"{raw.file}:{raw.line((*trail, *mistake.path))}: {what}: {shown(mistake.path)} is left out: an unknown field"
        )
    try:
        typed = models.typed(value, model)
    except models.MistakeError as error:
        refuse(raw, trail, what, *error.mistake)
    if typed.metadata is None or not typed.metadata.name:
        refuse(raw, trail, what, ("metadata", "name"), "required")
    made = Document(kind, typed, value, raw, trail, warnings, namespace or "default")
    _check_metadata(made)
    if namespace and kind.namespaced and made.namespace != namespace:
        made.fail(("metadata", "namespace"), f"'{made.namespace}' is not '{namespace}', which was asked for")
    return made


def _asked(value: dict[str, Any]) -> dict[str, Any]:
    """Without the status, which is the server's; of a node's the addresses are asked for."""
    status = value.get("status")
    kept = {key: inner for key, inner in value.items() if key != "status"}
    if isinstance(status, dict) and "addresses" in status and value.get("kind") == "Node":
        kept["status"] = {"addresses": status["addresses"]}
    return kept


def _check_metadata(found: Document) -> None:
    metadata = found.model.metadata
    syntax.subdomain(found, ("metadata", "name"), metadata.name, f"name for a {found.kind.name}")
    if found.kind.namespaced:
        if metadata.namespace:
            syntax.label(found, ("metadata", "namespace"), metadata.namespace, "name for a namespace")
    elif metadata.namespace:
        found.fail(("metadata", "namespace"), f"a {found.kind.name} is in no namespace")
    syntax.labels(found, ("metadata", "labels"), metadata.labels)
    for name, text in (metadata.annotations or {}).items():
        syntax.key(found, ("metadata", "annotations", name), name.lower())
        if not isinstance(text, str):
            found.fail(("metadata", "annotations", name), f"text expected, got {said(text)} (put it in quotes)")
