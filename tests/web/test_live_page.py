"""`emulab serve` in a real browser before a real lab: an ordinary user's, so that nothing in it needs root."""

from __future__ import annotations

import json
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from accessibility import violations
from playwright.sync_api import Browser, Page, expect
from terminal import Running, Terminal

Tab = Callable[..., Page]


@pytest.fixture(scope="module")
def terminal() -> Iterator[Terminal]:
    with tempfile.TemporaryDirectory(prefix="emulab-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        made = Terminal("user", Path(folder, "user"))
        assert made.emulab("up", "fleet,2,2", "--name", "pair").code == 0
        yield made
        made.emulab("down", "--all")


@pytest.fixture(scope="module")
def served(terminal: Terminal) -> Iterator[tuple[Running, str]]:
    running = terminal.start("serve")
    found = re.search(r"http://\S+", running.out.readline().decode())
    assert found, running.err.read()
    yield running, found[0]
    if not running.out.closed:
        running.stop()


@pytest.fixture
def open_tab(browser: Browser) -> Iterator[Tab]:
    """``open_tab("dark")``: a tab; whatever its console complains about fails the test."""
    with ExitStack() as release:
        said: list[str] = []

        def make(scheme: str = "light") -> Page:
            context = browser.new_context(color_scheme=scheme, viewport={"width": 1400, "height": 1000})  # type: ignore[arg-type]
            release.callback(context.close)
            page = context.new_page()
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            return page

        yield make
        refused = "responded with a status of 400"  # what the lab said no to; the page shows it
        assert [text for text in said if refused not in text] == []


def lab(terminal: Terminal, *words: str) -> Any:
    return json.loads(terminal.emulab(*words, "--format", "json").out)


def opened(page: Page, url: str) -> Page:
    page.goto(url)
    expect(page.locator("#live tbody tr")).to_have_count(2, timeout=30_000)
    return page


def measured(page: Page) -> None:
    """Press the button and wait for the result."""
    before = page.locator(".log li", has_text="measured").count()
    page.get_by_role("button", name="Measure again").click()
    expect(page.locator(".log li", has_text="measured")).to_have_count(before + 1, timeout=30_000)
    expect(page.locator(".standing")).to_have_text("Nothing has changed since it was measured.")


def test_the_printed_address_is_taken_out_of_sight(served: tuple[Running, str], open_tab: Tab) -> None:
    _, url = served
    page = opened(open_tab(), url)
    assert "token" not in page.url and page.evaluate("document.cookie") == ""
    page.reload()
    expect(page.locator("#live tbody tr")).to_have_count(2)
    page.go_back()
    expect(page.locator("#live")).to_have_count(0)


def test_two_pods_are_clicked_and_a_packet_goes(terminal: Terminal, served: tuple[Running, str], open_tab: Tab) -> None:
    page = opened(open_tab(), served[1])
    one, other = (page.locator(f'[data-pod="{pod["name"]}"]').first for pod in lab(terminal, "inspect")["pods"][1:3])
    one.click()
    other.click()
    title = page.locator("#walk-title")
    names = [pod["name"].removeprefix("default/") for pod in lab(terminal, "inspect")["pods"]]
    expect(title).to_have_text(f"{names[1]} → {names[2]}")
    expect(page.locator("#walk .hops")).to_contain_text("flannel.1")
    expect(page.locator("#walk .outcome")).to_contain_text("delivered")
    expect(page.locator("#walk .choices [aria-pressed=true]")).to_have_text("icmp/IPv4, just now")

    page.get_by_label("From", exact=True).focus()  # and the same by keyboard alone
    page.get_by_label("From", exact=True).select_option(f"default/{names[0]}")
    page.get_by_label("To", exact=True).select_option(f"default/{names[3]}")
    page.get_by_label("Protocol", exact=True).select_option("tcp")
    page.get_by_label("Port", exact=True).fill("8080")
    page.keyboard.press("Enter")
    expect(title).to_have_text(f"{names[0]} → {names[3]}")
    expect(page.locator("#walk .choices [aria-pressed=true]")).to_contain_text("tcp/IPv4 8080")
    page.get_by_label("Port", exact=True).fill("70000")
    page.get_by_label("Port", exact=True).evaluate("field => field.form.noValidate = true")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("port 70000: 1 to 65535 expected")


def test_a_fault_is_seen_in_matrix_and_findings_and_goes_again(served: tuple[Running, str], open_tab: Tab) -> None:
    page, dark = opened(open_tab(), served[1]), opened(open_tab("dark"), served[1])
    expect(page.locator("#findings")).to_have_class(re.compile("none"))
    page.get_by_label("Fault", exact=True).select_option("masquerade-pods")
    place = page.get_by_label("At", exact=True).input_value()
    page.get_by_role("button", name="Inject").click()
    for one in (page, dark):
        expect(one.locator(".injected")).to_have_text(f"masquerade-pods at {place}")
        expect(one.locator(".log")).to_contain_text("fault injected")
        expect(one.locator(".standing")).to_have_text("The lab has changed since it was measured.")
    measured(page)
    for one in (page, dark):
        expect(one.locator("#findings li").first).to_contain_text("source was rewritten")
        expect(one.locator("#pairs .cell.rewritten")).not_to_have_count(0)
        expect(one.locator("#counts")).to_contain_text("rewritten")
    assert violations(dark) == []
    dark.get_by_role("button", name="Clear faults").click()
    expect(page.locator(".log")).to_contain_text("faults cleared")
    measured(page)
    expect(dark.locator("#findings")).to_have_class(re.compile("none"))
    expect(dark.locator("#pairs .cell.rewritten")).to_have_count(0)


def test_links_and_nodes_are_switches(terminal: Terminal, served: tuple[Running, str], open_tab: Tab) -> None:
    page = opened(open_tab(), served[1])
    node = lab(terminal, "inspect")["nodes"][1]["name"]
    link, power = page.get_by_role("switch", name=f"Link of {node}"), page.get_by_role("switch", name=f"Node {node}")
    expect(page.locator("#drawing .uplink.down")).to_have_count(0)
    link.click()
    expect(page.locator(".log")).to_contain_text("link down")
    expect(link).to_have_attribute("aria-checked", "false")
    expect(page.locator("#drawing .uplink.down")).to_have_count(1)
    link.press("Space")
    expect(page.locator("#drawing .uplink.down")).to_have_count(0)
    assert terminal.emulab("node", "stop", node).code == 0  # by somebody else
    expect(page.locator(".log")).to_contain_text("node stopped")
    expect(power).to_have_attribute("aria-checked", "false")
    power.click()
    expect(page.locator(".log")).to_contain_text("node started")
    assert all(one["status"] == "Running" for one in lab(terminal, "inspect")["nodes"])


ATTACK = """
async (target) => {
  const ask = async (path, options) => {
    try {
      const got = await fetch(target + path, { credentials: 'include', ...options });
      return [got.type, got.status, await got.text()];
    } catch (error) { return ['failed', 0, '']; }
  };
  const body = JSON.stringify({ name: 'masquerade-pods' });
  const json = { 'Content-Type': 'application/json' };
  const found = [await ask('state', {}), await ask('state', { mode: 'no-cors' }),
    await ask('faults/inject', { method: 'POST', body, headers: json }),
    await ask('faults/inject', { method: 'POST', mode: 'no-cors', body, headers: { 'Content-Type': 'text/plain' } })];
  found.push(await new Promise((done) => {
    const events = new EventSource(target + 'events', { withCredentials: true });
    events.onmessage = (message) => done(['event', 0, message.data]);
    events.onerror = () => { events.close(); done(['failed', 0, '']); };
  }));
  const frame = document.createElement('iframe');
  const loaded = new Promise((done) => { frame.onload = done; });
  frame.src = target;
  document.body.append(frame);
  await loaded;
  try { found.push(['frame', 0, frame.contentDocument.body.innerText]); } catch { found.push(['failed', 0, '']); }
  return found;
}
"""


class _Elsewhere(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.cookies.append(self.headers.get("Cookie", ""))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>elsewhere</title><body>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def elsewhere() -> Iterator[Any]:
    """Somebody else's server on another port of the same host, which keeps the cookies that it is sent."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere)
    server.cookies = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_page_elsewhere_gets_nothing_even_if_it_knows_the_path(
    terminal: Terminal, served: tuple[Running, str], open_tab: Tab, elsewhere: Any
) -> None:
    page = opened(open_tab(), served[1])
    context = page.context
    attacker = context.new_page()  # the same browser, with the cookie; its console complains, rightly
    attacker.goto(f"http://127.0.0.1:{elsewhere.server_address[1]}/")
    found = attacker.evaluate(ATTACK, page.url)
    assert [text for _, _, text in found] == [""] * 6
    assert not any("emulab" in cookie for cookie in elsewhere.cookies)
    assert lab(terminal, "fault", "list")["injected"] == []


def test_when_the_lab_goes_the_page_says_so_and_stays_readable(
    terminal: Terminal, served: tuple[Running, str], open_tab: Tab
) -> None:
    running, url = served
    page = opened(open_tab(), url)
    assert terminal.emulab("down", "pair").code == 0
    expect(page.get_by_role("alert")).to_have_text("The lab 'pair' is gone. What is shown is what was measured last.")
    expect(page.get_by_role("button", name="Measure again")).to_be_disabled()
    expect(page.get_by_role("switch").first).to_be_disabled()
    expect(page.locator("#pairs .cell.delivered").first).to_be_visible()
    assert violations(page) == []
    done = running.wait()
    assert (done.code, done.out) == (0, "lab 'pair' is down\n")
