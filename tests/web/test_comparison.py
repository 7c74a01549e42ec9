"""The page of `emulab compare` in a real browser: narrow and wide, dark and light, for eyes and for screen readers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from accessibility import violations
from comparisons import comparison, measured, tunnelled
from playwright.sync_api import Page

from emulab.comparison.charts import charts
from emulab.report import comparison_html

TOLD = comparison(measured(), *[measured(ways=tunnelled(50, 70))] * 4, "this kernel has no vxlan", topology="a-" * 40)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_a_page_fits_reads_and_has_names(width: int, scheme: str, tmp_path: Path, visit: Callable[..., Page]) -> None:
    path = tmp_path / "choice.html"
    with path.open("w") as out:
        comparison_html.write(TOLD, out)
    page = visit(path, width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert [one.get_attribute("aria-label") for one in page.get_by_role("img").all()] == [chart.words for chart in charts(TOLD)]
    assert page.get_by_text("f was not measured: this kernel has no vxlan").is_visible()
    row = page.get_by_role("row", name="overhead, other node")
    assert [" ".join(text.split()) for text in row.get_by_role("cell").all_inner_texts()[:2]] == ["0 (best)", "50 / 70"]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the figures"


def test_an_accessibility_check_finds_nothing(tmp_path: Path, visit: Callable[..., Page]) -> None:
    path = tmp_path / "choice.html"
    with path.open("w") as out:
        comparison_html.write(TOLD, out)
    for scheme in ("light", "dark"):
        page = visit(path, scheme=scheme)
        assert violations(page) == []


def test_an_accessibility_check_would_find_something(tmp_path: Path, visit: Callable[..., Page]) -> None:
    path = tmp_path / "bad.html"
    body = '<main><h1>t</h1><button></button><p style="color:#ccc">pale</p></main>'
    path.write_text(f'<html lang="en"><title>t</title>{body}</html>')
    assert sorted(rule for rule, _ in violations(visit(path))) == ["button-name", "color-contrast"]
