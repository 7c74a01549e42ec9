"""Who may ask.  Whatever does not come from the page that the printed address opens gets nothing: no content, no hint.

The address has a token.  Whoever opens it is given a cookie and sent on, so that the token is in no later request, and in no
`Referer`.  Cookies know no ports: a server of somebody else on another port of 127.0.0.1 is sent them, too.  So this one is
bound to a path that cannot be guessed, under which everything is.  That a page elsewhere cannot use the cookie is seen to by
`SameSite=Strict`, by the headers `Origin` and `Sec-Fetch-Site`, and, for a name that was made to lead to this address (DNS
rebinding), by `Host`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "emulab"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_ASKED_FOR = (None, "same-origin", "none")  # Sec-Fetch-Site: by no browser, by the page itself, by a person


class Guard:
    """Passes on to ``app`` what may come in, with the hidden path as its root.  ``host`` is the address that is listened at."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.token, self._cookie, self.path = (secrets.token_urlsafe(32) for _ in range(3))
        self._app, self._host = app, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        given = _headers(scope)
        if scope["type"] != "http" or given is None or not self._named(scope, given.get("host", "")) or not _own(given):
            await _nothing(403)(scope, receive, _covered(send))
        elif scope["path"] == "/" and scope["method"] == "GET" and self._has_token(scope):
            await self._let_in()(scope, receive, _covered(send))
        elif not _by_the_page(given) or not self._has_cookie(given) or not scope["path"].startswith(f"/{self.path}/"):
            await _nothing(403)(scope, receive, _covered(send))
        elif scope["method"] not in ("GET", "POST"):
            await _nothing(405)(scope, receive, _covered(send))
        else:
            inner = {**scope, "root_path": "", "path": scope["path"].removeprefix(f"/{self.path}")}
            await self._app(inner, receive, _covered(send))

    def _named(self, scope: Scope, host: str) -> bool:
        """Whether the browser believes to talk to this machine's own address, and to no name that leads there."""
        here = scope.get("server") or ("", 0)
        try:
            wanted = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        return wanted in {"127.0.0.1", "::1", "localhost", self._host, here[0]}

    def _has_token(self, scope: Scope) -> bool:
        try:
            tokens = parse_qs(scope["query_string"].decode("ascii"), max_num_fields=4).get("token", [])
        except ValueError:
            return False
        return len(tokens) == 1 and secrets.compare_digest(tokens[0].encode(), self.token.encode())

    def _has_cookie(self, given: Mapping[str, str]) -> bool:
        try:
            found = SimpleCookie(given.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return found is not None and secrets.compare_digest(found.value.encode(), self._cookie.encode())

    def _let_in(self) -> Response:
        """The cookie, and on to the page.

        Not by a redirection: that would count as coming from wherever the address was clicked, a terminal in a browser for
        one, and the cookie would not be sent along.
        """
        to = f"/{self.path}/"
        page = f'<!doctype html><html lang="en"><title>emulab</title><a href="{to}">emulab</a></html>\n'
        answer = Response(page, media_type="text/html", headers={"Refresh": f"0; url={to}"})
        answer.set_cookie(COOKIE, self._cookie, path=to, httponly=True, samesite="strict")
        return answer


def _headers(scope: Scope) -> dict[str, str] | None:
    """By lower-case name; None when one that decides is there twice."""
    found: dict[str, str] = {}
    for name, value in scope.get("headers", ()):
        key = name.decode("latin-1")
        if key in found and key in ("host", "origin", "cookie", "content-type", "sec-fetch-site"):
            return None
        found[key] = value.decode("latin-1")
    return found


def _own(given: Mapping[str, str]) -> bool:
    """Whether the request says that it comes from a page of ours, or says nothing of it."""
    origin = given.get("origin")
    return origin is None or origin.lower() == f"http://{given.get('host', '')}".lower()


def _by_the_page(given: Mapping[str, str]) -> bool:
    return given.get("sec-fetch-site") in _ASKED_FOR


def _nothing(status: int) -> Response:
    return Response(b"", status)


def _covered(send: Send) -> Send:
    """``send``, with the headers that each answer has."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", ()))
            names = {name.lower() for name, _ in given}
            given += [
                (name.lower().encode(), value.encode()) for name, value in HEADERS.items() if name.lower().encode() not in names
            ]
            message = {**message, "headers": given}
        await send(message)

    return sending
