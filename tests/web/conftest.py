"""Fixtures: Chromium as Debian packages it, and tabs in which nothing may go wrong."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

_QUIET = ("--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        assert not os.environ.get("CI"), "CI has Chromium (bootstrap.sh installs it)"
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    arguments = [*_QUIET, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


def _bad(message: ConsoleMessage) -> bool:
    """Whether it is a complaint; that a server refused what was asked, and said so (400), is none."""
    return message.type in ("error", "warning") and "responded with a status of 400" not in message.text


@pytest.fixture
def open_tab(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """``open_tab(scheme="dark")``: a tab; whatever its console complains about fails the test."""
    complaints: list[str] = []
    contexts = []

    def make(scheme: str = "light", width: int = 1400, height: int = 1000) -> Page:
        viewport = {"width": width, "height": height}
        context = chromium.new_context(color_scheme=scheme, viewport=viewport)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if _bad(message) else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield make
    for context in contexts:
        context.close()
    assert complaints == []
