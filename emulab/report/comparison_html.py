"""A comparison as one HTML page that needs nothing but itself, not even a script: charts are SVG, their words are beside them."""

from __future__ import annotations

import base64
import hashlib
from itertools import groupby
from typing import TextIO

from emulab.comparison import Comparison
from emulab.comparison.advice import advice
from emulab.comparison.charts import charts
from emulab.comparison.rows import lines
from emulab.report.comparison_text import confessions, head, missing, remarks


def write(comparison: Comparison, out: TextIO) -> None:
    from importlib import resources

    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("emulab.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folder = resources.files("emulab.report.page")
    style = "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "comparison.css"))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = environment.get_template("comparison.html").render(
        title=f"{', '.join(column.name for column in comparison.columns)} on {comparison.topology}",
        head=head(comparison),
        comparison=comparison,
        advice=advice(comparison),
        charts=charts(comparison),
        groups=[(group, list(members)) for group, members in groupby(lines(comparison), lambda line: line.group)],
        remarks=remarks(comparison),
        missing=missing(comparison),
        confessions=confessions(comparison),
        style=Markup(style),
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
    )
    out.write(page)
