"""Reads a vLLM server's log: how far it has come, and why it has died."""

from __future__ import annotations

import re
from pathlib import Path

from llmtagger.errors import EngineError, EngineStartError, ModelMissing

_PHASES = (
    ("Starting vLLM server", "opening the server"),
    ("KV cache size", "preparing the cache"),
    ("Starting to load model", "loading the model"),
    ("Initializing a V1 LLM engine", "starting the engine"),
    ("non-default args", "reading the model's configuration"),
)
_ERROR = re.compile(r"\b(?:\w+Error|\w+Exception|Error|Killed)\b[:\s].*")
_PREFIX = re.compile(r"^(?:\x1b\[[\d;]*m|\([^)]*\)\s|(?:ERROR|CRITICAL) \d\S* \S+ \[[^\]]*\] ?)+")
_VAGUE = "Engine core initialization failed"  # the outer error; the cause stands above it
_CAUSES: tuple[tuple[re.Pattern[str], type[EngineError], str], ...] = (
    (
        re.compile(
            r"out of memory|MemoryError|Cannot allocate memory|Free memory on device"
            r"|Available memory on node|No available memory"
            r"|larger than the available KV cache|Killed"
        ),
        EngineStartError,
        "It ran out of memory: end other programs or choose a smaller model with --model.",
    ),
    (
        re.compile(r"[Aa]ddress already in use"),
        EngineStartError,
        "Choose another port with --port, or leave it out to get a free one.",
    ),
    (
        re.compile(
            r"not a valid model identifier|Repository Not Found|does not appear to have"
            r"|Can't load the configuration|Invalid repository ID|LocalEntryNotFound"
        ),
        ModelMissing,
        "Check --model: a folder in Hugging Face format, a Hugging Face id, or auto.",
    ),
)


def phase(log: Path) -> str:
    """How far the server has come, in a few words."""
    text = tail(log, 1 << 18)
    return next((words for mark, words in _PHASES if mark in text), "loading vLLM")


def tail(log: Path, size: int = 1 << 16) -> str:
    """The last `size` bytes of the log as text; empty where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - size))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def explain(log: Path, model: str) -> EngineError:
    """The error that says why the server of `model` has ended, as its log tells it."""
    text = tail(log, 1 << 18)
    reason = _telling_line(text)
    for pattern, kind, hint in _CAUSES:
        if pattern.search(text if kind is ModelMissing else reason):
            return kind(f"vLLM cannot serve {model}: {reason}", hint=f"{hint} Log: {log}")
    return EngineStartError(
        f"vLLM ended while starting {model}: {reason}", hint=f"The whole log: {log}"
    )


def _telling_line(text: str) -> str:
    lines = [_PREFIX.sub("", line.strip()) for line in text.splitlines()]
    found = [match.group() for line in lines if (match := _ERROR.search(line))]
    telling = [line for line in found if _VAGUE not in line] or found or [x for x in lines if x]
    return telling[-1][:500] if telling else "it wrote nothing"
