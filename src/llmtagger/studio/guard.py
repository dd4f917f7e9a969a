"""Keeps other sites, other names and, beyond loopback, other people out of the studio."""

from __future__ import annotations

import hmac
import html
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote, urlencode, urlsplit

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Callable[[], Awaitable[Message]], Send], Awaitable[None]]

COOKIE = "llmtagger_studio"

Headers = list[tuple[bytes, bytes]]
_ALWAYS: Headers = [
    # No other site may show the studio in a frame and have its buttons clicked unseen.
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host by that name."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


class Guard:
    """Lets a request through where its host is ours, its page is ours, and its token is right.

    The host stops pages that resolve their own name to this machine (DNS rebinding), the origin
    stops other sites' pages from opening a websocket. `token` is asked for if it is not None. The
    address that the studio prints has it; the answer moves it into a cookie and leads to the same
    address without it, so that no history, log or later request holds it.
    """

    def __init__(self, app: App, *, hosts: frozenset[str], token: str | None) -> None:
        self._app, self._hosts, self._token = app, hosts, token

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Send
    ) -> None:
        """One request or websocket."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        query = scope.get("query_string", b"").decode("latin-1")
        send = self._protected(send)
        if not self._ours(headers):
            await _refuse(scope, send, "This address is not the studio's own.")
        elif self._token is None:
            await self._app(scope, receive, send)
        elif not _same(_given(query, headers), self._token):
            await _refuse(scope, send, "Open the address that the studio printed: it has a token.")
        elif scope["type"] == "http" and _has_token(query):
            await self._move_token(_without_token(scope["path"], query), send)
        else:
            await self._app(scope, receive, send)

    def _ours(self, headers: dict[bytes, str]) -> bool:
        try:
            host = urlsplit(f"//{headers.get(b'host', '')}").hostname or ""
            origin = urlsplit(headers[b"origin"]).netloc if b"origin" in headers else None
        except ValueError:  # a bracket without its other half
            return False
        # Only a name can be made to mean another machine; an address needs the token as well.
        known = is_loopback(host) or (self._token is not None and _is_address(host))
        if host not in self._hosts and not known:
            return False
        return origin is None or origin == headers.get(b"host")

    async def _move_token(self, address: str, send: Send) -> None:
        """Set the cookie, and go on to an address.

        By a page, not a redirect: a browser that came from another site's link would not send a
        strict cookie along with a redirect.
        """
        cookie = f"{COOKIE}={self._token}; Path=/; HttpOnly; SameSite=Strict"
        there = html.escape(address)
        page = (
            f'<!doctype html><meta http-equiv="refresh" content="0; url={there}">'
            f'<title>llmtagger studio</title><a href="{there}">Open the studio</a>'
        )
        headers = [(b"content-type", b"text/html; charset=utf-8")]
        headers += [(b"set-cookie", cookie.encode()), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": page.encode()})

    def _protected(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*self._cached(message.get("headers", [])), *_ALWAYS]
            await send(message)

        return sending

    def _cached(self, headers: Headers) -> Headers:
        """Behind a token, no cache that others share may keep anything."""
        if self._token is None:
            return headers
        return [
            (name, value.replace(b"public", b"private"))
            if name.lower() == b"cache-control"
            else (name, value)
            for name, value in headers
        ]


def _given(query: str, headers: dict[bytes, str]) -> str:
    """The token of a request: the address's, else the cookie's."""
    named = parse_qs(query, keep_blank_values=True).get("token")
    if named is not None:
        return str(named[0])
    try:
        cookie = SimpleCookie(headers.get(b"cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return str(cookie.value) if cookie else ""


def _has_token(query: str) -> bool:
    return "token" in parse_qs(query, keep_blank_values=True)


def _without_token(path: str, query: str) -> str:
    """The same address on this server; a path of two slashes would name another one."""
    rest = [pair for pair in parse_qsl(query, keep_blank_values=True) if pair[0] != "token"]
    return "/" + quote(path.lstrip("/")) + (f"?{urlencode(rest)}" if rest else "")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())  # texts would have to be ASCII


async def _refuse(scope: Message, send: Send, why: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": why})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": why.encode()})
