"""Who gets in at `emulab serve`, and who gets nothing: each attack is one that a browser or a neighbour could try."""

from __future__ import annotations

import pytest
from asking_web import HOST, Answer, Visitor
from tables import each_row

EVIL = "http://evil.example"


@pytest.fixture(scope="module")
def visitor() -> Visitor:
    return Visitor()


def nothing(answer: Answer) -> bool:
    return answer.status == 403 and answer.body == b"" and "set-cookie" not in answer.headers


def test_the_printed_address_gives_a_cookie_for_this_page_only(visitor: Visitor) -> None:
    entrance = visitor.entrance
    assert entrance.status == 200 and entrance.headers["refresh"] == f"0; url={visitor.path}"
    assert {word.strip().partition("=")[0] for word in entrance.headers["set-cookie"].split(";")} == {
        *("emulab", "HttpOnly", "Path", "SameSite")
    }
    assert "samesite=strict" in entrance.headers["set-cookie"].lower()
    assert visitor.guard.token not in entrance.body.decode() + str(entrance.headers)
    assert len(visitor.path) > 40  # no other server at this host is sent the cookie, whatever its port
    assert visitor.look("state").status == 200


@each_row("query", ["", "?", "?token", "?token=", "?token=wrong", "?token={0}x", "?token={0}&token={0}", "?TOKEN={0}"])
def test_a_wrong_token_gets_nothing(visitor: Visitor, query: str) -> None:
    assert nothing(visitor.get("/" + query.format(visitor.guard.token)))
    assert nothing(visitor.get("/?token=ü" + "&a=" * 9))


def test_the_token_opens_the_door_and_nothing_else(visitor: Visitor) -> None:
    token = visitor.guard.token
    assert nothing(visitor.get(f"/state?token={token}"))
    assert nothing(visitor.get(f"{visitor.path}state?token={token}"))
    assert nothing(visitor.ask("POST", f"/?token={token}", [("host", HOST)]))


@each_row("cookie", ["", "emulab=", "emulab=wrong", "emulab", "other={0}", "emulab={1}", "\x00", "emulab=é"])
def test_a_wrong_cookie_gets_nothing(visitor: Visitor, cookie: str) -> None:
    given = cookie.format(visitor.cookie.partition("=")[2], visitor.guard.token)
    assert nothing(visitor.get(visitor.path + "state", ("cookie", given)))


def test_the_cookie_opens_only_what_is_under_the_path(visitor: Visitor) -> None:
    for path in ("/", "/state", "/guess/state", visitor.path.rstrip("/"), visitor.path.rstrip("/") + "x/state"):
        assert nothing(visitor.get(path, ("cookie", visitor.cookie)))


@each_row(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "127.0.0.2:8080",
        "localhost.evil.example",
        "",
        "[",
        "0:8080",
    ],
)
def test_a_name_that_was_made_to_lead_here_gets_nothing(visitor: Visitor, host: str) -> None:
    """DNS rebinding: the browser believes to talk to evil.example, whose address has just become ours."""
    cookie = ("cookie", visitor.cookie)
    assert nothing(visitor.ask("GET", visitor.path + "state", [("host", host), cookie]))
    assert nothing(visitor.ask("GET", f"/?token={visitor.guard.token}", [("host", host)]))
    assert nothing(visitor.post("measure", {}, ("host", host), ("origin", f"http://{host}")))


@each_row("hosts", [[], [HOST, "evil.example"], ["evil.example", HOST]])
def test_no_host_and_two_hosts_get_nothing(visitor: Visitor, hosts: list[str]) -> None:
    headers = [("host", host) for host in hosts]
    assert nothing(visitor.ask("GET", visitor.path + "state", [*headers, ("cookie", visitor.cookie)]))


@each_row("host", ["127.0.0.1", "localhost:8080", "LOCALHOST:9999", "[::1]:8080"])
def test_names_of_this_machine_get_in(visitor: Visitor, host: str) -> None:
    """Any port: an ssh tunnel has another one at its end."""
    assert visitor.ask("GET", visitor.path + "state", [("host", host), ("cookie", visitor.cookie)]).status == 200


def test_with_another_address_that_address_is_the_only_other_host() -> None:
    other = Visitor("0.0.0.0")
    for host, status in (("192.0.2.7:80", 200), ("192.0.2.8:80", 403), ("evil.example", 403), ("0.0.0.0", 200)):
        asked = [("host", host), ("cookie", other.cookie)]
        assert other.ask("GET", other.path + "state", asked, arrived=("192.0.2.7", 80)).status == status, host


@each_row("origin", [EVIL, "null", "http://127.0.0.1:9999", "http://localhost:8080", "https://" + HOST, ""])
def test_another_origin_gets_nothing(visitor: Visitor, origin: str) -> None:
    before = list(visitor.lab.asked)
    for path in ("measure", "trace", "faults/inject", "faults/clear", "link", "node/stop", "node/start"):
        assert nothing(visitor.post(path, {}, ("origin", origin)))
    assert nothing(visitor.look("state", ("origin", origin)))
    assert visitor.lab.asked == before


@each_row("site", ["cross-site", "same-site", "SAME-ORIGIN", ""])
def test_what_a_page_elsewhere_makes_the_browser_load_gets_nothing(visitor: Visitor, site: str) -> None:
    """`same-site` is another port of this host: cookies and SameSite make no difference there, this header does."""
    assert nothing(visitor.look("state", ("sec-fetch-site", site)))
    assert nothing(visitor.post("faults/clear", {}, ("sec-fetch-site", site)))
    assert nothing(visitor.post("faults/clear", {}, ("sec-fetch-site", site), without="origin"))


def test_the_printed_address_may_be_clicked_anywhere_and_the_page_goes_on_by_itself(visitor: Visitor) -> None:
    assert visitor.get(f"/?token={visitor.guard.token}", ("sec-fetch-site", "cross-site")).status == 200
    for site in ("same-origin", "none"):
        assert visitor.look("state", ("sec-fetch-site", site)).status == 200


@each_row("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None])
def test_what_a_form_can_send_changes_nothing(visitor: Visitor, kind: str | None) -> None:
    """These types a browser sends to anybody without asking first; JSON it does not."""
    before = list(visitor.lab.asked)
    body = b'{"name": "missing-route"}'
    answer = (
        visitor.post("faults/inject", body, ("content-type", kind))
        if kind
        else visitor.post("faults/inject", body, without="content-type")
    )
    assert (answer.status, answer.body) == (415, b"")
    assert visitor.lab.asked == before


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_to_get_changes_nothing(visitor: Visitor, method: str) -> None:
    before = list(visitor.lab.asked)
    for path in ("measure", "trace", "faults/inject", "faults/clear", "link", "node/stop", "node/start"):
        answer = visitor.ask(method, visitor.path + path, [("host", HOST), ("cookie", visitor.cookie)])
        assert (answer.status, answer.body) == (405, b"")
    assert visitor.lab.asked == before


@each_row("method", ["OPTIONS", "PUT", "DELETE", "TRACE", "PATCH", "get", "BREW"])
def test_other_methods_get_nothing(visitor: Visitor, method: str) -> None:
    answer = visitor.ask(method, visitor.path + "link", [("host", HOST), ("cookie", visitor.cookie)])
    assert (answer.status, answer.body) == (405, b"")


def test_a_browser_that_asks_for_permission_is_given_none(visitor: Visitor) -> None:
    asking = [("host", HOST), ("origin", EVIL), ("access-control-request-method", "POST")]
    assert nothing(visitor.ask("OPTIONS", visitor.path + "link", asking))


def test_no_web_socket(visitor: Visitor) -> None:
    assert nothing(visitor.ask("GET", visitor.path + "events", [("host", HOST), ("cookie", visitor.cookie)], kind="websocket"))


def test_every_answer_has_the_headers_that_keep_it_here(visitor: Visitor) -> None:
    answers = [visitor.entrance, visitor.get("/"), visitor.look("state"), visitor.look("no-such"), visitor.post("link", {"x": 1})]
    answers += [visitor.look("link"), visitor.post("link", b"x" * 20000), visitor.post("link", without="content-type")]
    assert [answer.status for answer in answers] == [200, 403, 200, 404, 400, 405, 413, 415]
    for answer in answers:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert not any(name.startswith("access-control") for name in answer.headers)


def test_tokens_are_long_and_never_the_same() -> None:
    one, other = Visitor().guard, Visitor().guard
    assert len({one.token, other.token, one.path, other.path}) == 4
    assert min(map(len, (one.token, one.path))) >= 43  # 256 bits
