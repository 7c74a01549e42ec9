"""The report as one HTML page that needs nothing but itself: no network, no server, opened from a disk or a mail.

All that was measured is in the page as JSON and is drawn by its script, which puts every string where a string belongs: nothing
that a user wrote is ever HTML.  The page's Content-Security-Policy lets run the scripts and styles that it came with, by their
hashes, and load nothing.  `emulab serve` feeds the same page with live data by ``window.emulab`` (docs/report.md).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import resources

from emulab.drawing import Drawing
from emulab.report import drawing_svg
from emulab.report.document import Document

SCRIPTS = ("elements.js", "facts.js", "cluster.js", "walk.js", "matrix.js", "sections.js", "page.js")
_ESCAPED = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def render(document: Document, *, scripts: Sequence[str] = (), styles: Sequence[str] = (), connect: str = "'none'") -> str:
    """The page of a document (schema ``emulab/report/1``).

    ``scripts`` and ``styles`` are more source texts, of whoever extends the page; ``connect`` is where those may connect to, in
    the words of a Content-Security-Policy.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("emulab.report", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    script = "\n".join([f"'use strict';(() => {{\n{''.join(map(_source, SCRIPTS))}\n}})();"])
    every = [Markup(source) for source in (script, *scripts)]
    looks = [Markup(source) for source in (_source("page.css"), *styles)]
    policy = {
        "default-src": "'none'",
        "script-src": " ".join(map(_hash, every)),
        "style-src": " ".join(map(_hash, (*looks, drawing_svg.STYLE))),
        "img-src": "data: blob:",
        "connect-src": connect,
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    html = environment.get_template("page.html").render(
        title=document["title"],
        verdict=document["verdict"],
        findings=document["findings"],
        policy="; ".join(f"{name} {value}" for name, value in policy.items()),
        styles=looks,
        scripts=every,
        drawing=Markup(drawing(document)),
        data=Markup(json.dumps(document, separators=(",", ":")).translate(_ESCAPED)),
    )
    return html.encode("utf-8", "replace").decode()  # half a surrogate pair, which JSON can hold and no file


def drawing(document: Document) -> str:
    """The cluster as SVG, "" without a drawing."""
    return drawing_svg.render(Drawing.read(document["drawing"])) if document["drawing"] else ""


def _source(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
