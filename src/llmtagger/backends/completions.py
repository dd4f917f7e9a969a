"""Reads a chat completion in OpenAI's form, of which no part is taken on trust."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmtagger.datatypes import Completion, TokenLogprob


class NoCompletion(Exception):
    """The server said something, but not what an OpenAI-compatible server says."""


def read_completion(answer: Any, model: str, seconds: float) -> Completion:
    """The first choice. `NoCompletion` where there is no text; other parts may be missing."""
    try:
        choice = answer["choices"][0]
        text, reason = choice["message"]["content"], choice["finish_reason"]
        if not isinstance(text, str | None) or not isinstance(reason, str | None):
            raise TypeError
    except (LookupError, TypeError) as error:
        raise NoCompletion(f"not a chat completion: {str(answer)[:100]!r}") from error
    usage = _mapping(answer.get("usage"))
    return Completion(
        text=text or "",
        finish_reason=str(reason),
        model=model,
        logprobs=read_logprobs(_mapping(choice.get("logprobs")).get("content")),
        prompt_tokens=usage.get("prompt_tokens") or 0,
        completion_tokens=usage.get("completion_tokens") or 0,
        seconds=seconds,
    )


def read_logprobs(content: object) -> tuple[TokenLogprob, ...]:
    """The tokens with their log-probabilities; none where one of them cannot be read."""
    if not isinstance(content, list):
        return ()
    try:
        return tuple(TokenLogprob(_spelt(each), float(each["logprob"])) for each in content)
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError):
        return ()


def _spelt(token: Mapping[str, Any]) -> bytes:
    spelt = token.get("bytes")
    if spelt is None:
        return str(token["token"]).encode("utf-8", "replace")
    return bytes(list(spelt))  # a number would be a length, and all of its memory taken


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
