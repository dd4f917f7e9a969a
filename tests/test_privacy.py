"""Canaries in a key, an address and products: no file and no word of llmtagger's holds one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llmtagger.backends.fakes import HashingEncoder
from llmtagger.backends.index_writer import build
from llmtagger.datatypes import Product

KEY = "sk-canary-5f1d"
MAIL, PHONE = "canary.ann@example.com", "13712345678"
NEIGHBOUR = "canary.bob@example.com"
IN_PRODUCTS = (MAIL, PHONE, NEIGHBOUR)


class Server(ThreadingHTTPServer):
    """Answers as vLLM would, with the first choice of the grammar; or refuses, and says why."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[str] = []
        self.refuse = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._reply(200, {"object": "list", "data": [{"id": "tiny", "object": "model"}]})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append(json.dumps(json.loads(raw), ensure_ascii=False))
        if self.server.refuse:
            said = f"no: {dict(self.headers)} {raw.decode()}"
            self._reply(self.server.refuse, {"error": {"message": said}})
            return
        schema = json.loads(raw)["structured_outputs"]["json"]
        said = schema["enum"][0] if "enum" in schema else schema["items"]["enum"][:1]
        message = {"role": "assistant", "content": json.dumps(said, ensure_ascii=False)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        record = {"id": "1", "object": "chat.completion", "created": 1, "model": "tiny"}
        self._reply(200, record | {"choices": [choice]})

    def _reply(self, status: int, record: dict[str, Any]) -> None:
        raw = json.dumps(record).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "shop"
    products = [
        Product(
            f"w{number}",
            f"Leather wallet {number}, write to {NEIGHBOUR}",
            description=f"Or call {PHONE}.",
            tags=("wallet", "leather"),
            lang="en",
        )
        for number in range(4)
    ]
    build(products, folder, HashingEncoder())
    return folder


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path, index: Path) -> Run:
    """Runs llmtagger in a folder of its own, with the key, and all that it writes below it."""
    product = {"id": "n1", "title": f"Zip wallet {MAIL}", "description": f"Call {PHONE}. Leather."}
    (tmp_path / "new.jsonl").write_text(json.dumps(product) + "\n")
    (tmp_path / "llmtagger.toml").write_text("[prompt]\nredact = true\n")
    folders = {f"XDG_{name}_HOME": str(tmp_path / name) for name in ("CACHE", "STATE", "CONFIG")}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLMTAGGER_")}
    environment = kept | folders | {"TMPDIR": str(tmp_path), "LLMTAGGER_API_KEY": KEY}

    def start(*arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "llmtagger", *arguments, "-i", str(index)],
            cwd=tmp_path,
            env=environment | changed,
            capture_output=True,
            text=True,
            check=False,
        )

    return start


def written(folder: Path) -> Iterator[tuple[str, str]]:
    """Each file that a run has written, as text; the input is not among them."""
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in ("new.jsonl", "key"):
            yield path.name, path.read_bytes().decode("utf-8", "replace")


def own_words(output: str) -> str:
    """An output without the input's own fields, which come through as they came."""
    records = [json.loads(line) for line in output.splitlines()]
    return json.dumps([{**each, "title": "", "description": ""} for each in records])


def test_a_run_leaves_no_canary(run: Run, server: Server, tmp_path: Path) -> None:
    asked = ("--endpoint", server.url, "--llm", "always")
    done = run("tag", "new.jsonl", "-o", "out.jsonl", *asked)
    assert done.returncode == 0, done.stderr
    assert "Zip wallet █" in done.stderr
    assert any("Zip wallet █" in body for body in server.received)
    found = dict(written(tmp_path))
    assert {"out.jsonl", "out.jsonl.journal"} <= set(found)
    (record,) = map(json.loads, found["out.jsonl"].splitlines())
    assert record["title"] == f"Zip wallet {MAIL}"
    assert any(each["evidence"]["model"]["chosen"] for each in (*record["tags"], *record["review"]))
    found["out.jsonl"] = own_words(found["out.jsonl"])
    everywhere = [*found.values(), done.stdout, done.stderr, *server.received]
    for canary in (KEY, *IN_PRODUCTS):
        assert not any(canary in text for text in everywhere)


def test_without_masking_texts_go_to_the_server_and_the_output_alone(
    run: Run, server: Server, tmp_path: Path
) -> None:
    """Prompts are not logged, and what a run writes besides its output holds no product text."""
    (tmp_path / "llmtagger.toml").unlink()
    asked = ("--endpoint", server.url, "--llm", "always")
    done = run("tag", "new.jsonl", "-o", "out.jsonl", *asked, "--show", "0")
    assert done.returncode == 0, done.stderr
    assert any(MAIL in body and NEIGHBOUR in body for body in server.received)
    found = dict(written(tmp_path))
    found["out.jsonl"] = own_words(found["out.jsonl"])
    for canary in (KEY, *IN_PRODUCTS):
        assert not any(canary in text for text in (*found.values(), done.stdout, done.stderr))


def test_the_option_is_the_setting(run: Run, tmp_path: Path) -> None:
    (tmp_path / "llmtagger.toml").unlink()
    options = ("tag", "new.jsonl", "-o", "out.jsonl", "--dry-run", "--json", "--endpoint", "-")
    assert MAIL in run(*options).stdout
    masked = run(*options, "--redact").stdout
    assert "Zip wallet █" in masked
    assert not any(canary in masked for canary in IN_PRODUCTS)


def test_versions_are_tried_without_a_canary(run: Run, server: Server, tmp_path: Path) -> None:
    done = run(
        *("prompt", "try", "tag.v1", "tag.v2", "new.jsonl", "--endpoint", server.url),
        *("--report", "matrix.html", "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert len(server.received) >= 2
    found = dict(written(tmp_path))
    assert {"matrix.html", "answers.sqlite"} <= set(found)
    private = [text for name, text in found.items() if name != "matrix.html"]
    for canary in IN_PRODUCTS:
        assert not any(canary in text for text in (*private, done.stderr, *server.received))
    assert not any(KEY in text for text in (*found.values(), done.stdout, done.stderr))


@pytest.mark.parametrize(
    "words",
    [("tag", "--llm", "always", "-o", "out.jsonl"), ("prompt", "try", "tag.v1")],
    ids=["tag", "try"],
)
def test_an_address_with_a_secret_is_refused_without_quoting_it(
    words: tuple[str, ...], run: Run, server: Server, tmp_path: Path
) -> None:
    endpoint = server.url.replace("://", f"://ann:{KEY}@")
    done = run(*words, "new.jsonl", "--endpoint", endpoint)
    assert done.returncode == 1
    assert "LLMTAGGER_API_KEY" in done.stderr
    assert server.received == []
    texts = (done.stdout, done.stderr, *dict(written(tmp_path)).values())
    assert not any(KEY in text for text in texts)


def test_a_key_from_a_file_is_sent_and_not_quoted(run: Run, server: Server, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    (tmp_path / "key").chmod(0o600)
    server.refuse = 401  # which quotes what it was sent
    changed = {"LLMTAGGER_API_KEY": "", "LLMTAGGER_API_KEY_FILE": "key"}
    asked = ("--endpoint", server.url, "--llm", "always")
    done = run("tag", "new.jsonl", "-o", "out.jsonl", *asked, **changed)
    assert done.returncode == 1
    assert "Bearer …" in done.stderr
    texts = (done.stdout, done.stderr, *dict(written(tmp_path)).values())
    assert not any(KEY in text for text in texts)
