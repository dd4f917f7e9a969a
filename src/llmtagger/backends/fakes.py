"""Stand-ins with answers that a person can compute, for tests and dry runs."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from llmtagger.backends.vectors import unit
from llmtagger.datatypes import Completion, Constraint, Prompt, TokenLogprob
from llmtagger.protocols import Vectors

_WORDS = re.compile(r"[a-z0-9]+|[^\W_a-z0-9]")


class HashingEncoder:
    """Counts words by a checksum: two texts are as similar as the words they share.

    A Chinese character is a word. Without a collision, `encode(["red bag", "red hat"])` gives two
    vectors whose cosine is 1/2: one word of two in common.
    """

    name = "hashing"
    revision = "1"

    def __init__(self, dimension: int = 256) -> None:
        self.dimension = dimension

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors with a word count in each word's place."""
        counts: NDArray[np.float32] = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in _WORDS.findall(text.casefold()):
                counts[row, self.place(word)] += 1
        return unit(counts)

    def place(self, word: str) -> int:
        """The dimension that counts a word; 0 is left to texts without any."""
        return 1 + zlib.crc32(word.encode("utf-8", "replace")) % (self.dimension - 1)


def first_offered(prompt: Prompt, constraint: Constraint) -> str:
    """The first tag that the grammar admits, alone: `["wallet"]`; without one, nothing."""
    schema = constraint.schema
    if schema["type"] == "object":
        return "{}"
    return json.dumps(schema["items"].get("enum", [])[:1], ensure_ascii=False)


class FakeGenerator:
    """Answers with what a function makes of the prompt and the grammar, and remembers both.

    Every token is one UTF-8 byte, and all tokens have the same log-probability.
    """

    model = "fake"

    def __init__(
        self,
        answer: Callable[[Prompt, Constraint], str] = first_offered,
        *,
        concurrency: int = 4,
        logprob: float = -0.5,
    ) -> None:
        self._answer = answer
        self.concurrency = concurrency
        self._logprob = logprob
        self.asked: list[tuple[Prompt, Constraint]] = []

    def complete(self, prompt: Prompt, constraint: Constraint) -> Completion:
        """The function's answer, in no time; prompt tokens are the words of the prompt."""
        self.asked.append((prompt, constraint))
        text = self._answer(prompt, constraint)
        tokens = tuple(TokenLogprob(bytes([byte]), self._logprob) for byte in text.encode())
        return Completion(
            text,
            "stop",
            self.model,
            logprobs=tokens,
            prompt_tokens=sum(len(said.split()) for _, said in prompt.messages),
            completion_tokens=len(tokens),
        )
