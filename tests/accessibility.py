"""What axe-core (github.com/dequelabs/axe-core) finds in a page that keeps somebody from using it."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

# Violations only, and of each its HTML: all else that axe can tell costs a quarter of the time.
_OPTIONS = {"resultTypes": ["violations"], "selectors": False, "elementRef": False, "preload": False}


def violations(page: Page) -> list[tuple[str, str]]:
    """(rule, HTML of the first element that breaks it)."""
    return [(one["id"], one["nodes"][0]["html"]) for one in Axe().run(page, options=_OPTIONS).response["violations"]]
