"""Who reaches the studio: asked as a server would ask it, without one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from llmtagger.studio.guard import COOKIE, Guard, Message, is_loopback

TOKEN = "s3cret-token"
HERE = "127.0.0.1:8090"


@dataclass
class Inner:
    """The application behind the guard: remembers what it was asked, and says 200."""

    asked: list[str] = field(default_factory=list)

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        self.asked.append(scope["type"])
        if scope["type"] == "http":
            headers = [(b"a", b"b"), (b"Cache-Control", b"public, max-age=60")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"inside"})
        elif scope["type"] == "websocket":
            await send({"type": "websocket.accept"})


def sent(
    headers: Mapping[str, str | bytes],
    *,
    kind: str = "http",
    query: bytes = b"",
    token: str | None = None,
    hosts: tuple[str, ...] = ("127.0.0.1",),
    path: str = "/",
) -> list[Message]:
    """What comes back; that it came from the inner application is checked here."""
    inner, messages = Inner(), list[Message]()

    async def receive() -> Message:
        raise AssertionError("nothing is read of what is refused")

    async def send(message: Message) -> None:
        messages.append(message)

    raw = [
        (name.encode(), value if isinstance(value, bytes) else value.encode())
        for name, value in headers.items()
    ]
    scope = {"type": kind, "headers": raw, "query_string": query, "path": path}
    asyncio.run(Guard(inner, hosts=frozenset(hosts), token=token)(scope, receive, send))
    passed = messages[-1].get("body") == b"inside" or messages[0]["type"] == "websocket.accept"
    assert inner.asked == ([kind] if passed else [])
    return messages


def passes(headers: Mapping[str, str | bytes], **how: Any) -> bool:
    """Whether it is let through; a refusal is a 403, or an end of the websocket.

    An address with the right token leads to itself without one.
    """
    first, *rest = sent(headers, **how)
    if first["type"] in ("websocket.close", "websocket.accept"):
        return bool(first["type"] == "websocket.accept")
    assert first["status"] in (200, 403)
    inside = rest[-1]["body"] == b"inside"
    moved = any(name == b"set-cookie" for name, _ in first["headers"])
    assert (inside or moved) == (first["status"] == 200)
    return bool(first["status"] == 200)


KINDS = pytest.mark.parametrize("kind", ["http", "websocket"])


@KINDS
@pytest.mark.parametrize(
    ("host", "right"),
    [
        (HERE, True),
        ("127.0.0.1", True),
        ("localhost:8090", True),
        ("LOCALHOST:8090", True),
        ("127.9.9.9:8090", True),
        ("[::1]:8090", True),
        ("rebound.example:8090", False),
        ("127.0.0.1.rebound.example:8090", False),
        ("localhost.rebound.example", False),
        ("rebound.example#@127.0.0.1", False),
        ("192.168.1.5:8090", False),
        ("0.0.0.0:8090", False),
        ("", False),
        ("[::1", False),
        ("[", False),
    ],
)
def test_hosts(kind: str, host: str, right: bool) -> None:
    assert passes({"host": host}, kind=kind) is right


@KINDS
def test_a_request_without_a_host_is_refused(kind: str) -> None:
    assert not passes({}, kind=kind)


@KINDS
@pytest.mark.parametrize(
    ("origin", "right"),
    [
        (f"http://{HERE}", True),
        ("http://evil.example", False),
        ("http://127.0.0.1:9999", False),
        ("http://localhost:8090", False),
        ("null", False),
        ("", False),
        (f"http://{HERE}@evil.example", False),
        (f"http://evil.example/{HERE}", False),
        ("http://[", False),
    ],
)
@pytest.mark.parametrize("token", [None, TOKEN], ids=["open", "token"])
def test_origins(kind: str, origin: str, right: bool, token: str | None) -> None:
    headers = {"host": HERE, "origin": origin, "cookie": f"{COOKIE}={TOKEN}"}
    assert passes(headers, kind=kind, token=token) is right


@KINDS
@pytest.mark.parametrize(
    ("query", "cookie", "right"),
    [
        (f"token={TOKEN}", None, True),
        (f"version=tag.v1&token={TOKEN}", None, True),
        ("", f"{COOKIE}={TOKEN}", True),
        ("", f'other=1; {COOKIE}="{TOKEN}"; more=2', True),
        ("", None, False),
        ("token=", None, False),
        ("token=wrong", None, False),
        (f"token={TOKEN}x", None, False),
        (f"token={TOKEN[:-1]}", None, False),
        ("token=wrong", f"{COOKIE}={TOKEN}", False),
        ("", f"{COOKIE}=wrong", False),
        ("", f"other={TOKEN}", False),
        ("", "=;;=\x00,", False),
        ("token=t%C3%B6ken", None, False),
        ("token=%ED%A0%80", None, False),
        ("token=\xff\xfe", None, False),
        ("", f"{COOKIE}=t\xf6ken", False),
        ("", f'{COOKIE}="\\366"', False),
    ],
)
def test_tokens(kind: str, query: str, cookie: str | None, right: bool) -> None:
    headers: dict[str, str | bytes] = {"host": HERE}
    if cookie is not None:
        headers["cookie"] = cookie.encode("latin-1")
    assert passes(headers, kind=kind, query=query.encode("latin-1"), token=TOKEN) is right


def test_with_a_token_only_the_hosts_that_are_served_pass() -> None:
    """A name that another page resolves to this machine is no way in, token or not."""
    cookie = f"{COOKIE}={TOKEN}"
    served = ("0.0.0.0", "shop")
    for host, right in (("shop:80", True), ("0.0.0.0:80", True), ("rebound.example", False)):
        assert passes({"host": host, "cookie": cookie}, hosts=served, token=TOKEN) is right


def test_an_address_of_the_machine_passes_with_the_token() -> None:
    """A server on all interfaces is reached by any of their addresses, or through a tunnel."""
    cookie = {"cookie": f"{COOKIE}={TOKEN}"}
    for host in ("192.168.1.5:8090", "[fe80::1]:8090", "127.0.0.1:8090", "localhost:8090"):
        assert passes({"host": host, **cookie}, hosts=("0.0.0.0",), token=TOKEN)
        assert not passes({"host": host}, hosts=("0.0.0.0",), token=TOKEN)


def header(start: Message, name: str) -> list[str]:
    return [value.decode() for key, value in start["headers"] if key.decode().lower() == name]


def test_the_token_becomes_a_cookie_and_leaves_the_address() -> None:
    """History, logs and `Referer` hold addresses, and caches hold answers."""
    query = f"version=tag.v1&token={TOKEN}&product=%3Cb%3E".encode()
    start, body = sent({"host": HERE}, query=query, token=TOKEN, path="/edit")
    assert b'url=/edit?version=tag.v1&amp;product=%3Cb%3E"' in body["body"]
    assert TOKEN not in body["body"].decode()
    (value,) = header(start, "set-cookie")
    said, *rest = value.split("; ")
    assert said == f"{COOKIE}={TOKEN}"
    assert {"HttpOnly", "SameSite=Strict"} <= set(rest)
    assert header(start, "cache-control") == ["no-store"]
    assert passes({"host": HERE, "cookie": said}, token=TOKEN)


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("/", "/"),
        ("//evil.example/x", "/evil.example/x"),
        ("/\\evil.example", "/%5Cevil.example"),
        ('/"><script>', "/%22%3E%3Cscript%3E"),
    ],
)
def test_the_token_leads_to_no_other_server(path: str, there: str) -> None:
    query = f"token={TOKEN}".encode()
    _, body = sent({"host": HERE}, query=query, token=TOKEN, path=path)
    assert f'url={there}"'.encode() in body["body"]


def test_what_is_sent_later_holds_no_token_and_no_shared_cache_may_keep_it() -> None:
    cookie = {"host": HERE, "cookie": f"{COOKIE}={TOKEN}"}
    start, _ = sent(cookie, token=TOKEN)
    assert header(start, "set-cookie") == []
    assert header(start, "cache-control") == ["private, max-age=60"]
    start, _ = sent({"host": HERE})
    assert header(start, "cache-control") == ["public, max-age=60"]


@pytest.mark.parametrize("headers", [{"host": HERE}, {"host": "evil.example"}, {}])
@pytest.mark.parametrize("token", [None, TOKEN], ids=["open", "token"])
def test_no_answer_may_be_framed_or_name_where_it_came_from(
    headers: dict[str, str], token: str | None
) -> None:
    for query in (b"", f"token={TOKEN}".encode()):
        start, _ = sent(headers, token=token, query=query)
        assert header(start, "content-security-policy") == ["frame-ancestors 'none'"]
        assert header(start, "x-frame-options") == ["DENY"]
        assert header(start, "referrer-policy") == ["no-referrer"]


def test_without_a_token_no_cookie_is_set() -> None:
    start, _ = sent({"host": HERE}, query=b"token=anything")
    assert header(start, "set-cookie") == []
    assert header(start, "a") == ["b"]


def test_the_refusal_says_why() -> None:
    start, body = sent({"host": HERE}, token=TOKEN)
    assert start["status"] == 403
    assert b"token" in body["body"]
    (close,) = sent({"host": "rebound.example"}, kind="websocket")
    assert close["code"] == 1008
    assert "not the studio's own" in close["reason"]


def test_the_start_of_the_application_is_no_request() -> None:
    inner = Inner()

    async def nothing(*message: object) -> Any:
        raise AssertionError("nothing is sent")

    guard = Guard(inner, hosts=frozenset(), token=TOKEN)
    asyncio.run(guard({"type": "lifespan"}, nothing, nothing))
    assert inner.asked == ["lifespan"]


@pytest.mark.parametrize(
    ("host", "right"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("192.168.0.1", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_loopback(host: str, right: bool) -> None:
    assert is_loopback(host) is right
