"""The report's page in a real browser: clicked through, by keyboard alone, in light and dark, printed, with hostile names."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import reported
from accessibility import violations
from playwright.sync_api import Page, expect

from emulab.report import page as pages

Visit = Callable[..., Page]
BROKEN = reported.broken()


@pytest.fixture
def opened(visit: Visit, tmp_path: Path) -> Callable[..., Page]:
    """``opened(document, …)``: its page."""

    def go(document: dict[str, Any], **how: Any) -> Page:
        path = tmp_path / "report.html"
        path.write_text(pages.render(document))
        return visit(path, **how)

    return go


def cell(page: Page, source: str, destination: str) -> Any:
    return page.get_by_role("gridcell").get_by_role("button", name=f"{source} to {destination}:")


def test_a_finding_leads_to_its_packet(opened: Callable[..., Page]) -> None:
    page = opened(BROKEN)
    finding = page.locator("#findings li").first
    expect(finding).to_contain_text("the request’s source was rewritten, 10.1.1.1 → 10.1.1.0, first seen at node-a:flannel.1")
    expect(finding).to_contain_text(reported.RULE)
    page.get_by_role("button", name="Walk a1 to c1, udp/IPv4").click()
    walk = page.locator("#walk")
    expect(walk.locator("h2")).to_have_text("a1 → c1")
    expect(walk.locator("[aria-current=step]")).to_contain_text("node-a:flannel.1")
    expect(walk.locator(".mark")).to_have_text(f"source 10.1.1.1 → 10.1.1.0by {reported.RULE}")
    expect(walk.locator("td.differs").first).to_have_text("10.1.1.1 10.1.1.0")
    expect(page.locator("#drawing .here")).to_have_attribute("data-place", "node-a:flannel.1")
    expect(page.locator('[data-from][aria-label^="a1 to c1:"]')).to_have_text("R")


def test_a_walk_there_and_back(opened: Callable[..., Page]) -> None:
    page = opened(reported.healthy())
    expect(page.locator("#findings")).to_contain_text("every packet that was seen is as it should be")
    cell(page, "a1", "c1").click()
    walk = page.locator("#walk")
    current = walk.locator("[aria-current=step]")
    expect(current).to_contain_text("a1:eth0")
    for _ in range(3):
        page.get_by_role("button", name="Next place").click()
    expect(current).to_contain_text("node-a:eth0")
    expect(walk.locator("table.headers")).to_contain_text("Outer (vxlan)")
    assert walk.locator("tr", has_text="Destination").first.locator("td").all_inner_texts() == ["192.168.50.3", "10.1.3.1"]
    expect(walk.locator(".facts").first).to_contain_text("1500 bytes")
    page.get_by_role("button", name="The way back").click()
    expect(current).to_contain_text("c1:eth0")
    page.get_by_role("button", name="Previous place").click()
    expect(walk.locator("td.differs del").filter(has_text="66:82:65:68:83:cf")).to_be_visible()
    cell(page, "a2", "b1").click()
    expect(walk).to_contain_text("emulab trace a2 b1")
    with page.expect_download() as download:
        cell(page, "a1", "c1").click()
        page.get_by_label("Download these packets").click()
    assert download.value.suggested_filename == "a1-to-c1-icmp4.pcapng"
    assert Path(download.value.path()).read_bytes()[:4] == bytes.fromhex("0a0d0d0a")


def test_where_it_was_lost_and_what_was_expected(opened: Callable[..., Page]) -> None:
    page = opened(BROKEN)
    cell(page, "b1", "c1").click()
    expect(page.locator("#walk .outcome")).to_contain_text("node-b: nft ip bad c: drop (rule)")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Last place").click()
    expect(page.locator("#drawing .lost")).to_have_attribute("data-place", "node-b:cni0")
    expect(page.locator("#expectations p").first).to_have_text("1 of 2 as expected")
    page.get_by_role("button", name="Walk the packet of: a1 reaches c1").click()
    expect(page.locator("#walk [aria-current=step]")).to_contain_text("node-a:flannel.1")
    page.get_by_text("worst of all").click()
    page.get_by_text("tcp/IPv4", exact=True).first.click()
    assert page.locator(".grid .cell.dropped").count() == 1
    page.locator("#plan summary", has_text="Node node-a").click()
    expect(page.get_by_label("Lines of node-a", exact=True)).to_contain_text("sysctl -qw net.ipv4.ip_forward=1")
    page.locator("#kinds summary").click()
    page.get_by_role("button", name="a1 → internet icmp/IPv4").click()
    expect(page.locator("#walk .policy, #walk h2")).to_have_text("a1 → internet")


def test_by_keyboard_alone(opened: Callable[..., Page]) -> None:
    page = opened(BROKEN)

    def focused(what: str) -> str:
        return str(page.evaluate(f"document.activeElement.{what}"))

    for _ in range(60):
        page.keyboard.press("Tab")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none" or focused("type") == "radio"
        if "cell" in focused("className"):
            break
    assert focused("ariaLabel").startswith("a1 to c1:")  # the pair of the first finding
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    assert focused("ariaLabel").startswith("b1 to b2:")
    page.keyboard.press("ArrowLeft")  # over b1 itself
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    assert focused("ariaLabel").startswith("b1 to c1:")
    page.keyboard.press("Enter")
    expect(page.locator("#walk h2")).to_have_text("b1 → c1")
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("Boolean(document.activeElement.closest('.stepper'))"):
            break
    page.keyboard.press("ArrowRight")
    expect(page.locator("#walk [aria-current=step]")).to_contain_text("node-b:cni0")
    page.keyboard.press("Home")
    expect(page.locator("#walk [aria-current=step]")).to_contain_text("b1:eth0")
    expect(page.locator("#said")).to_contain_text("1 of 2: leaves by b1:eth0")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_everybody_can_use_it(opened: Callable[..., Page], scheme: str, width: int) -> None:
    page = opened(BROKEN, scheme=scheme, width=width)
    for summary in page.locator("summary").all():
        summary.click()
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_and_light_as_the_system_has_it_or_by_choice(opened: Callable[..., Page]) -> None:
    page = opened(BROKEN, scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark, picture = page.evaluate(paper), page.screenshot()
    page.get_by_role("button", name="Light").click()
    assert page.evaluate(paper) != dark and page.screenshot() != picture
    page.reload()
    assert page.evaluate(paper) != dark
    page.emulate_media(color_scheme="light")
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate(paper) == dark


def test_on_paper(opened: Callable[..., Page]) -> None:
    page = opened(BROKEN, scheme="dark")
    page.emulate_media(media="print")
    for hidden in ("#theme", "#walk .stepper", "#findings button"):
        expect(page.locator(hidden).first).to_be_hidden()
    expect(
        page.locator("#walk .print-only").first if page.locator("#walk .print-only").count() else page.locator("#walk")
    ).to_be_visible()
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
    assert page.pdf()[:5] == b"%PDF-"


def test_a_thousand_pods_open_within_two_seconds(opened: Callable[..., Page]) -> None:
    took = []
    while not took or (min(took) >= 2000 and len(took) < 4):  # the machine may be busy with something else
        page = opened(reported.thousand())
        took.append(page.evaluate("emulab.rendered"))  # milliseconds since the navigation began
    assert 0 < min(took) < 2000, took
    expect(page.locator("#pairs .legend")).to_contain_text("998,980")
    expect(page.get_by_role("img", name="Heat map of 1,000 by 1,000 pods")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    expect(page.locator("#walk h2")).to_have_text("p1-1 → p50-20")  # what is wrong is shown at once
    expect(page.locator('.grid [aria-selected="true"] .cell')).to_have_text("✗")
    page.get_by_label("From").select_option(index=1)
    box = page.locator("canvas").bounding_box()
    assert box
    page.mouse.click(box["x"] + box["width"] - 2, box["y"] + 1)
    expect(page.locator("#walk h2")).to_have_text("p1-1 → p50-20")
    assert violations(page) == []


HOSTILE = "</script><script>hacked=1</script><img src=x onerror=hacked=1><!--&amp;'\"\u2028{{7*7}}"


def test_names_are_text(opened: Callable[..., Page]) -> None:
    """Every string of the document that is not a word of emulab's own holds a page of somebody's."""
    document = copy.deepcopy(BROKEN)
    names = {pod["name"]: f"default/{HOSTILE}{pod['name'][8:]}" for pod in document["pods"]}

    def spoil(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: spoil(one) if key != "letters" else one for key, one in value.items()}
        if isinstance(value, list):
            return [spoil(one) for one in value]
        return names.get(value, value) if isinstance(value, str) else value

    drawing = document.pop("drawing")
    document = spoil(document)
    for key in ("title", "plugin", "topology", "verdict"):
        document[key] = HOSTILE
    for finding in document["findings"]:
        finding.update(subject=HOSTILE, text=HOSTILE, rule=HOSTILE, label=HOSTILE, after=HOSTILE)
    document["plan"] = {HOSTILE: [HOSTILE]}
    document["environment"] = {HOSTILE: HOSTILE}
    document["left_out"] = [HOSTILE]
    document["drawing"] = {**drawing, "plugin": HOSTILE}
    document["stories"][1]["reason"] = HOSTILE
    page = opened(document)
    expect(page.locator("h1")).to_have_text(HOSTILE.replace("\u2028", " "))
    cell(page, HOSTILE.replace("\u2028", " ") + "b1", HOSTILE.replace("\u2028", " ") + "c1").first.click()
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("typeof hacked") == "undefined"
    assert page.locator("img").count() == 0
    assert page.evaluate("document.scripts.length") == 2


def test_another_document_without_a_reload(opened: Callable[..., Page]) -> None:
    page = opened(reported.healthy())
    cell(page, "a1", "c1").click()
    page.get_by_role("button", name="Next place").click()
    page.evaluate("() => { emulab.onCell = (cell) => { window.heard = [cell.from, cell.to]; }; }")
    page.evaluate("(document) => emulab.render(document)", BROKEN)
    expect(page.locator("#walk h2")).to_have_text("a1 → c1")
    expect(page.locator("#walk [aria-current=step]")).to_contain_text("node-a:cni0")
    expect(page.locator("#findings li").first).to_contain_text("rewritten")
    page.evaluate("(story) => emulab.walk(story)", reported.story(reported.LOST))
    expect(page.locator("#walk h2")).to_have_text("b1 → c1")
    assert page.evaluate("heard") == ["default/b1", "default/c1"]
    page.evaluate("() => { emulab.onDevice = (device) => { window.device = device; return true; }; }")
    page.locator('#drawing [data-place="node-a:cni0"]').click()
    assert page.evaluate("device.place") == "node-a:cni0"
    assert page.evaluate("device.node") == "node-a"


def test_a_packet_between_two_pods_clicked_in_the_drawing(opened: Callable[..., Page]) -> None:
    page = opened(BROKEN)
    page.locator('#drawing [data-pod="default/b1"]').first.click()
    page.locator('#drawing [data-pod="default/c1"]').first.click()
    expect(page.locator("#walk h2")).to_have_text("b1 → c1")
