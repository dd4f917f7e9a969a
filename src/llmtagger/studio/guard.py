"""Keeps other sites, other names and, beyond loopback, other people out of the studio."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Callable[[], Awaitable[Message]], Send], Awaitable[None]]

COOKIE = "llmtagger_studio"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host by that name."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


class Guard:
    """Lets a request through where its host is ours, its page is ours, and its token is right.

    The host stops pages that resolve their own name to this machine (DNS rebinding), the origin
    stops other sites' pages from opening a websocket. `token` is asked for if it is not None; the
    address that the studio prints holds it, and a cookie does afterwards.
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
        given = self._given(scope, headers)
        if not self._ours(headers):
            await _refuse(scope, send, "This address is not the studio's own.")
        elif self._token is not None and not _same(given, self._token):
            await _refuse(scope, send, "Open the address that the studio printed: it has a token.")
        else:
            await self._app(scope, receive, self._with_cookie(send))

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

    def _given(self, scope: Message, headers: dict[bytes, str]) -> str:
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        if "token" in query:
            return str(query["token"][0])
        try:
            cookie = SimpleCookie(headers.get(b"cookie", "")).get(COOKIE)
        except CookieError:
            return ""
        return str(cookie.value) if cookie else ""

    def _with_cookie(self, send: Send) -> Send:
        if self._token is None:
            return send
        set_it = f"{COOKIE}={self._token}; Path=/; HttpOnly; SameSite=Strict".encode()

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"set-cookie", set_it)]
            await send(message)

        return sending


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
