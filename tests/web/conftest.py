"""A real browser without a screen, and pages that must be silent: no message on the console, no request to anywhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium-headless-shell")  # else Playwright's own, as bootstrap.sh has it
OPTIONS = (
    "--disable-gpu",
    "--disable-software-rasterizer",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    root = ("--no-sandbox",) if os.geteuid() == 0 else ()  # Chromium's own sandbox is not for root
    with sync_playwright() as playwright:
        if not CHROMIUM and not Path(playwright.chromium.executable_path).exists() and not os.environ.get("CI"):
            pytest.skip("no chromium here (apt-get install chromium-headless-shell, or playwright install chromium)")
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=[*OPTIONS, *root])
        yield started
        started.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """``visit(path, width=…, scheme=…)`` opens a file; at the end the page has complained of nothing and asked for nothing."""
    with ExitStack() as release:
        said: list[str] = []
        asked: list[str] = []

        def go(path: Path, *, width: int = 1280, height: int = 900, scheme: str = "light") -> Page:
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
            release.callback(context.close)
            context.set_default_timeout(10_000)
            page = context.new_page()
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
            page.on("request", lambda request: asked.append(request.url))
            page.goto(path.as_uri())
            return page

        yield go
        assert said == []
        assert [url for url in asked if not url.startswith(("file:", "blob:", "data:"))] == []
