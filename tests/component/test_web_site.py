"""What the page of `emulab serve` can ask for, and how the lab's events come to it; the lab is none."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from asking_web import Visitor
from tables import each_row

from emulab.control.client import Refused
from emulab.errors import MachineError
from emulab.web import asking, events, site
from emulab.web.events import Events
from emulab.web.site import LONGEST


def test_the_state_is_the_lab_at_a_glance() -> None:
    state = Visitor().look("state").json
    assert state["schema"] == "emulab/serve/1" and state["lab"]["name"] == "fake"
    assert Visitor().look("faults").json == {"faults": [], "injected": []}
    assert (state["measurements"], state["measuring"], state["changed"]) == (0, None, False)


@each_row(
    "path, given, asked",
    [
        ("faults/inject", {"name": "missing-route", "at": "node-a"}, ("fault_inject", {"name": "missing-route", "at": "node-a"})),
        ("faults/inject", {"name": "missing-route", "at": None}, ("fault_inject", {"name": "missing-route"})),
        ("faults/clear", {}, ("fault_clear", {})),
        ("link", {"node": "node-a", "up": False}, ("link_set", {"node": "node-a", "up": False})),
        ("node/stop", {"node": "node-a"}, ("node_stop", {"name": "node-a"})),
        ("node/start", {"node": "node-a"}, ("node_start", {"name": "node-a"})),
    ],
)
def test_a_change_is_one_operation_of_the_lab(path: str, given: dict[str, Any], asked: tuple[str, dict[str, Any]]) -> None:
    visitor = Visitor()
    answer = visitor.post(path, given)
    assert answer.status == 200 and answer.json == visitor.lab.results[asked[0]]
    assert visitor.lab.asked == [asked]


def test_a_trace_comes_with_its_packets() -> None:
    visitor = Visitor()
    wanted = {"from": "a1", "to": "c1", "protocol": "tcp", "port": 80, "family": 4}
    story = visitor.post("trace", wanted).json
    assert story == {"schema": "emulab/trace/1", "packets": base64.b64encode(b"pcapng").decode()}
    asked = {"source": "a1", "destination": "c1", "protocol": "tcp", "port": 80, "family": 4, "report": "json", "pcap": True}
    assert visitor.lab.asked == [("trace", asked)]


@each_row(
    "body, status, said",
    [
        (b"", 400, "a JSON object expected"),
        (b"{", 400, "a JSON object expected"),
        (b"[1]", 400, "a JSON object expected"),
        (b"\xff\xfe", 400, "a JSON object expected"),
        (b"[" * 10000, 400, "a JSON object expected"),
        (b'{"nod": "a"}', 400, "no argument 'nod' (did you mean 'node'?)"),
        (b'{"dry_run": true}', 400, "no argument 'dry_run' (known: node, up)"),
    ],
)
def test_what_is_no_request_is_refused_in_a_line(body: bytes, status: int, said: str) -> None:
    visitor = Visitor()
    answer = visitor.post("link", body)
    assert (answer.status, answer.json) == (status, {"error": said})
    assert visitor.lab.asked == []


@each_row("size, status", [(LONGEST - 20, 200), (LONGEST + 1, 413), (50 * LONGEST, 413)])
def test_a_body_is_short(size: int, status: int) -> None:
    assert Visitor().post("link", b'{"node": "' + b"a" * (size - 12) + b'"}').status == status


@each_row(
    "error, status",
    [(Refused("no node 'x'", 2), 400), (Refused("kernel", 3), 503), (MachineError("lab 'fake' went away"), 503)],
)
def test_the_labs_own_words_come_through(error: Exception, status: int) -> None:
    visitor = Visitor()
    visitor.lab.results.update({"link_set": error, "inspect": error})
    answer = visitor.post("link", {"node": "x"})
    assert (answer.status, answer.json) == (status, {"error": str(error)})
    assert visitor.look("state").status == status


def told(visitor: Visitor) -> list[dict[str, Any]]:
    return [event for _, event in visitor.site.events.kept]


async def until(true: Any) -> None:
    for _ in range(2000):
        if true():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not come")


def test_a_lab_is_measured_at_once_and_its_events_are_passed_on() -> None:
    visitor, said = Visitor(), []

    async def story() -> None:
        await visitor.site.start(lambda: said.append("ready"), lambda: said.append("gone"))
        assert said == ["ready"]
        await until(lambda: visitor.site.document)
        assert visitor.site.standing() == {"measurements": 1, "measuring": None, "changed": False}
        for event in ("alive", "link down", "verdict changed"):
            visitor.lab.tell({"event": event})
        await until(lambda: len(told(visitor)) == 5)
        assert visitor.site.standing()["changed"]
        visitor.lab.over.set()
        await until(lambda: len(said) == 2)

    asyncio.run(story())
    names = [event["event"] for event in told(visitor)]
    assert names == ["measuring", "measuring", "measured", "link down", "verdict changed", "lab gone"]
    assert told(visitor)[1:3] == [{"event": "measuring", "done": 1, "total": 2}, {**told(visitor)[2], "flows": 2}]
    assert visitor.look("report").json["schema"] == "emulab/report/1"


def test_a_measurement_that_fails_is_told_and_another_may_begin() -> None:
    visitor = Visitor()
    assert visitor.look("report").status == 204
    visitor.lab.results["record"] = Refused("too busy", 3)

    async def story() -> None:
        await visitor.site.start(lambda: None, lambda: None)
        await until(lambda: told(visitor)[-1:] and told(visitor)[-1]["event"] == "measurement failed")
        assert visitor.site.standing()["measuring"] is None
        visitor.lab.over.set()

    asyncio.run(story())
    assert told(visitor)[1]["error"] == "too busy"
    assert b"Lab fake: too busy" in visitor.look("").body


@pytest.mark.parametrize(("pods", "how"), [(40, {}), (41, {"protocols": ["udp"], "taps": "ends"})])
def test_many_pods_are_measured_at_their_ends(pods: int, how: dict[str, Any]) -> None:
    visitor = Visitor()
    visitor.lab.results["names"] = {"pods": ["p"] * pods}

    async def story() -> None:
        await visitor.site.start(lambda: None, lambda: None)
        await until(lambda: visitor.site.document)

    asyncio.run(story())
    assert visitor.lab.asked[-1] == ("record", {"seconds": 1.0, **how})


def test_a_first_measurement_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "_AGAIN", 0.001)
    visitor = Visitor()
    good, visitor.lab.results["record"] = visitor.lab.results["record"], Refused("too busy", 3)

    async def story() -> None:
        await visitor.site.start(lambda: None, lambda: None)
        await until(lambda: [event["event"] for event in told(visitor)].count("measurement failed") > 2)
        visitor.lab.results["record"] = good
        await until(lambda: visitor.site.document)

    asyncio.run(story())


def test_the_page_is_the_report_with_a_layer_more() -> None:
    visitor = Visitor(name="<i>")
    wait = visitor.look("")
    assert wait.headers["refresh"] == "1" and b"Lab &lt;i&gt;: measuring" in wait.body and b"<script" not in wait.body
    visitor.site.document = visitor.lab.results["record"]
    page = visitor.look("")
    assert b'<h1 id="title">&lt;/script&gt;</h1>' in page.body
    policy = page.body.partition(b'http-equiv="Content-Security-Policy" content="')[2].partition(b'"')[0]
    assert b"default-src &#39;none&#39;" in policy and b"unsafe" not in policy and b"connect-src &#39;self&#39;" in policy
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]


def test_what_can_be_asked_is_documented() -> None:
    told_of = (Path(__file__).parents[2] / "docs" / "serve.md").read_text()
    visitor = Visitor()
    rows = {line.split("`")[1]: line for line in told_of.splitlines() if line.startswith(("| `GET ", "| `POST "))}
    assert set(rows) == {f"{'POST' if 'POST' in one.methods else 'GET'} {one.path}" for one in visitor.site.app.routes}
    for path, (_, names) in {**site.CHANGES, "/trace": ("trace", site.TRACE)}.items():
        assert [name for name in names if f"`{name}`" not in rows[f"POST {path}"]] == []


def test_a_lab_that_went_away_meanwhile_is_an_error() -> None:
    visitor = Visitor()

    def gone(*_: object, **__: object) -> None:
        raise MachineError("lab 'fake' does not answer")

    visitor.lab.ask = gone  # type: ignore[method-assign]
    with pytest.raises(MachineError, match="went away"):
        asyncio.run(visitor.site.start(lambda: None, lambda: None))


def test_a_mistake_of_ours_is_no_page() -> None:
    visitor = Visitor()
    visitor.lab.results["link_set"] = ZeroDivisionError("secret")
    with pytest.raises(ZeroDivisionError):  # for the server's log; what is sent is the next line
        visitor.post("link", {})
    assert visitor.sent[0]["status"] == 500 and b"secret" not in b"".join(m.get("body", b"") for m in visitor.sent)


def records(found: list[bytes]) -> list[tuple[int, dict[str, Any]]]:
    lines = [piece.decode().split("\n") for piece in found if piece.startswith(b"id:")]
    return [(int(number[4:]), json.loads(data[6:])) for number, data, _, _ in lines]


async def collect(source: Events, seen: int) -> list[bytes]:
    return [piece async for piece in source.stream(seen)]


@each_row("seen, numbers", [(0, [1, 2, 3]), (2, [3]), (3, []), (99, [1, 2, 3])])
def test_a_stream_goes_on_where_the_page_left(seen: int, numbers: list[int]) -> None:
    source = Events()
    for number in (1, 2, 3):
        source.tell({"event": str(number)})
    source.close()
    assert [number for number, _ in records(asyncio.run(collect(source, seen)))] == numbers
    assert source.streams == 0


def test_who_was_away_too_long_is_told_so() -> None:
    source = Events()
    for number in range(events.KEPT + 10):
        source.tell({"event": "x", "n": number})
    source.close()
    found = records(asyncio.run(collect(source, 3)))
    assert found[0] == (10, {"event": "missed", "number": 7})
    assert [number for number, _ in found] == list(range(10, events.KEPT + 11))


def test_streams_hear_at_once_and_a_slow_one_holds_nobody_up() -> None:
    async def story() -> tuple[list[tuple[int, dict[str, Any]]], list[tuple[int, dict[str, Any]]]]:
        source = Events()
        slow = source.stream(0)
        await slow.__anext__()
        quick = asyncio.ensure_future(collect(source, 0))
        for number in range(3 * events.KEPT):
            source.tell({"event": "x", "n": number})
            if number % 100 == 0:
                await asyncio.sleep(0)
        source.close()
        behind = [piece async for piece in slow]
        return records(await quick), records(behind)

    quick, slow = asyncio.run(story())
    assert [event["n"] for _, event in quick] == list(range(3 * events.KEPT))
    assert slow[0][1]["event"] == "missed" and len(slow) == events.KEPT + 1


def test_a_silent_stream_shows_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_PULSE", 0.001)

    async def story() -> list[bytes]:
        stream = Events().stream(0)
        found = [await stream.__anext__() for _ in range(3)]
        await stream.aclose()  # type: ignore[attr-defined]
        return found

    assert asyncio.run(story()) == [b"retry: 1000\n\n", b":\n\n", b":\n\n"]


def test_streams_are_limited() -> None:
    visitor = Visitor()
    visitor.site.events.streams = events.STREAMS
    assert visitor.look("events").status == 503
    visitor.site.events.close()
    visitor.site.events.streams = 0
    answer = visitor.look("events", ("last-event-id", "x"))
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/event-stream")


def test_questions_wait_for_each_other_but_not_endlessly(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr(asking, "AT_ONCE", 2)
    visitor, held, most, now = Visitor(), threading.Event(), [0], [0]

    def work(_: object) -> int:
        now[0] += 1
        most[0] = max(most[0], now[0])
        held.wait()
        now[0] -= 1
        return 1

    async def story() -> None:
        ask = asking.Asking(visitor.lab)
        questions = [asyncio.ensure_future(ask(work)) for _ in range(40)]
        await until(lambda: now[0] == 2 and sum(question.done() for question in questions) == 8)
        held.set()
        answers = await asyncio.gather(*questions, return_exceptions=True)
        assert answers.count(1) == 32 and all(isinstance(one, (int, MachineError)) for one in answers)

    asyncio.run(story())
    assert most == [2]
