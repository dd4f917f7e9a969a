"""A server that answers at once, so that what asks it is the limit: one process, no model.

    python benchmarks/instant_server.py PORT

It reads a request as far as it must, and says the first two tags that the grammar admits, with
token probabilities, as vLLM would. `instant()` runs it beside a benchmark.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

MODEL = "instant"
_START = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def answer(body: bytes) -> bytes:
    """What is said to a request."""
    if not body:
        return json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}).encode()
    # Most of a request is its messages, which come before: they need not be read.
    tail = body[body.rindex(b'"structured_outputs"') :]
    grammar = json.loads(b"{" + tail)["structured_outputs"]["json"]
    if "enum" in grammar:  # the question whether grammars are honoured
        said = json.dumps(grammar["enum"][0], ensure_ascii=False)
    elif grammar["type"] == "array":
        said = json.dumps(grammar["items"].get("enum", ["new"])[:2], ensure_ascii=False)
    else:
        said = "{}"
    pieces = [said[at : at + 4] for at in range(0, len(said), 4)]
    tokens = [
        {"token": piece, "logprob": -0.1, "bytes": list(piece.encode()), "top_logprobs": []}
        for piece in pieces
    ]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": said},
        "logprobs": {"content": tokens},
        "finish_reason": "stop",
    }
    usage = {"prompt_tokens": 0, "completion_tokens": len(pieces), "total_tokens": len(pieces)}
    return json.dumps(
        {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": MODEL,
            "choices": [choice],
            "usage": usage,
        },
        ensure_ascii=False,
    ).encode()


async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection until it is closed."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = await reader.readexactly(int(length[1])) if length else b""
            said = answer(body)
            writer.write(_START % len(said) + said)
            await writer.drain()
    writer.close()


async def serve(port: int) -> None:
    server = await asyncio.start_server(converse, "127.0.0.1", port, limit=1 << 20)
    async with server:
        await server.serve_forever()


@contextlib.contextmanager
def instant() -> Iterator[str]:
    """The address of such a server, which runs while the block does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen([sys.executable, __file__, str(port)]) as process:
        try:
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
