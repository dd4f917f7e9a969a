"""Asks for and reads the three kinds of answer; whatever was asked for, it reads again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llmtagger.config import AnswerSettings
from llmtagger.datatypes import (
    Completion,
    Constraint,
    ParsedTags,
    Problem,
    Product,
    Proposal,
    Reason,
    Rejection,
    Shortlist,
    Span,
    Tag,
    TagKind,
    Verdict,
)
from llmtagger.normalise import FoldedText, loosen, normalise
from llmtagger.protocols import AnswerFormat
from llmtagger.vocabulary import Vocabulary
from llmtagger.wording import neutralise

_LONGEST_TAG = 60  # characters of a free tag or a value
_VALUES = 3  # values of one key
_TOKENS_A_CHARACTER = 3  # at worst, for a byte-level tokenizer on Chinese
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"(\s*:)?')


@dataclass(frozen=True, slots=True)
class _Said:
    """A string of the answer, its key if it has one, and the mean logprob of its tokens."""

    text: str
    key: str | None
    logprob: float | None


def answer_format(kind: TagKind, vocabulary: Vocabulary, settings: AnswerSettings) -> AnswerFormat:
    """The format for a kind of tag."""
    if kind is TagKind.CLOSED:
        return ClosedFormat(vocabulary, settings)
    if kind is TagKind.SPAN:
        return SpanFormat(vocabulary, settings)
    return FreeFormat(vocabulary, settings)


class ClosedFormat:
    """A JSON list of tags out of those that were offered."""

    def __init__(self, vocabulary: Vocabulary, settings: AnswerSettings) -> None:
        self._vocabulary = vocabulary
        self._settings = settings

    def constraint(self, product: Product, shortlist: Shortlist) -> Constraint | None:
        labels = list(self._offered(product, shortlist))
        if not labels:
            return None
        longest = sorted((len(label) for label in labels), reverse=True)
        room = 8 + sum(
            length * _TOKENS_A_CHARACTER + 4 for length in longest[: self._settings.max_tags]
        )
        items = {"type": "string", "enum": labels}
        schema = {"type": "array", "items": items, "maxItems": self._settings.max_tags}
        return Constraint(schema, max(room, self._settings.max_tokens))

    def parse(self, completion: Completion, product: Product, shortlist: Shortlist) -> ParsedTags:
        offered = {normalise(n): tag for n, tag in self._offered(product, shortlist).items()}

        def read(said: _Said) -> Proposal | Rejection:
            tag = offered.get(normalise(said.text))
            if tag is not None:
                return Proposal(tag, logprob=said.logprob)
            known = self._vocabulary.resolve(said.text)
            if known is None:
                return Rejection(said.text, Reason.NOT_IN_VOCABULARY)
            return Rejection(said.text, _retired_or(known, Reason.NOT_IN_SHORTLIST))

        return _read(completion, list, read, self._settings.max_tags)

    @staticmethod
    def _offered(product: Product, shortlist: Shortlist) -> dict[str, Tag]:
        """The offered tags by the label that the prompt shows for them."""
        offered: dict[str, Tag] = {}
        for candidate in shortlist.offer:
            offered.setdefault(neutralise(candidate.tag.label(product.lang[:2])), candidate.tag)
        return offered


class SpanFormat:
    """A JSON object of `key: [values]`, each value literally in the product's text or known."""

    def __init__(self, vocabulary: Vocabulary, settings: AnswerSettings) -> None:
        self._vocabulary = vocabulary
        self._settings = settings

    def constraint(self, product: Product, shortlist: Shortlist) -> Constraint | None:
        if not shortlist.keys:
            return None
        value = {"type": "string", "minLength": 1, "maxLength": _LONGEST_TAG}
        values = {"type": "array", "items": value, "minItems": 1, "maxItems": _VALUES}
        schema = {
            "type": "object",
            "properties": {neutralise(key): values for key in shortlist.keys},
            "additionalProperties": False,
        }
        return Constraint(schema, self._settings.max_tokens)

    def parse(self, completion: Completion, product: Product, shortlist: Shortlist) -> ParsedTags:
        keys = {normalise(neutralise(key)): key for key in shortlist.keys}
        fields = [(name, FoldedText(text)) for name, text in product.fields()]

        def read(said: _Said) -> Proposal | Rejection:
            key = keys.get(normalise(said.key or ""))
            text = f"{said.key}={said.text}" if said.key else said.text
            if key is None:
                return Rejection(text, Reason.NOT_IN_VOCABULARY)
            known = self._vocabulary.resolve(f"{key}={said.text}")
            if known is not None and known.retired:
                return Rejection(text, Reason.RETIRED)
            spans = literal_spans(fields, said.text)
            if known is not None:
                return Proposal(known, spans, said.logprob)
            if not spans:
                return Rejection(text, Reason.NOT_IN_TEXT)
            name = f"{key}={spans[0].text}"
            return Proposal(Tag(name, name, key=key, kind=TagKind.SPAN), spans, said.logprob)

        return _read(completion, dict, read, self._settings.max_tags * _VALUES)


class FreeFormat:
    """A JSON list of the model's own tags; known ones by name or alias, the rest marked new."""

    def __init__(self, vocabulary: Vocabulary, settings: AnswerSettings) -> None:
        self._vocabulary = vocabulary
        self._settings = settings

    def constraint(self, product: Product, shortlist: Shortlist) -> Constraint:
        items = {"type": "string", "minLength": 1, "maxLength": _LONGEST_TAG}
        schema = {"type": "array", "items": items, "maxItems": self._settings.max_tags}
        return Constraint(schema, self._settings.max_tokens)

    def parse(self, completion: Completion, product: Product, shortlist: Shortlist) -> ParsedTags:
        fields = [(name, FoldedText(text)) for name, text in product.fields()]

        def read(said: _Said) -> Proposal | Rejection:
            name = neutralise(said.text).strip(" .,;:，。；、#\"'")
            if not loosen(name) or len(name) > _LONGEST_TAG:
                return Rejection(said.text, Reason.MALFORMED)
            known = self._vocabulary.resolve(name)
            if known is not None and known.retired:
                return Rejection(said.text, Reason.RETIRED)
            spans = literal_spans(fields, name)
            if known is not None:
                return Proposal(known, spans, said.logprob)
            return Proposal(Tag(name, name, kind=TagKind.FREE), spans, said.logprob, new=True)

        return _read(completion, list, read, self._settings.max_tags)


def literal_spans(fields: list[tuple[str, FoldedText]], text: str) -> tuple[Span, ...]:
    """Where a text stands word for word: the first place in each field."""
    needle = loosen(text)
    return tuple(
        Span(name, folded.written(*place))
        for name, folded in fields
        if (place := folded.find(needle)) is not None
    )


def _retired_or(tag: Tag, reason: Reason) -> Reason:
    return Reason.RETIRED if tag.retired else reason


def _read(completion: Completion, shape: type, read: Any, most: int) -> ParsedTags:
    """Read each string of the answer with `read`, in order, once, and `most` at the most."""
    if completion.finish_reason == "length":
        return _unreadable("answer_truncated", "the answer ran into its token limit", completion)
    answer, verdict = _load(completion.text, shape)
    if answer is None:
        wanted = "list" if shape is list else "object"
        return _unreadable("answer_unreadable", f"the answer is no JSON {wanted}", completion)
    accepted: dict[str, Proposal] = {}
    rejected: list[Rejection] = []
    for said in _said(answer, completion):
        if isinstance(said, Rejection):
            rejected.append(said)
            continue
        outcome = read(said)
        if isinstance(outcome, Rejection):
            rejected.append(outcome)
        elif (identity := normalise(outcome.tag.id)) in accepted:
            rejected.append(Rejection(said.text, Reason.DUPLICATE))
        elif len(accepted) == most:
            rejected.append(Rejection(said.text, Reason.TOO_MANY))
        else:
            accepted[identity] = outcome
    return ParsedTags(tuple(accepted.values()), tuple(rejected), verdict)


def _unreadable(code: str, message: str, completion: Completion) -> ParsedTags:
    said = completion.text[:200]
    return ParsedTags(
        verdict=Verdict.UNREADABLE, problem=Problem(code, f"{message}; it begins {said!r}")
    )


def _load(text: str, shape: type) -> tuple[Any, Verdict]:
    """The JSON value in a text: all of it, or the first of that shape with words around it."""
    try:
        answer = json.loads(text)
        if isinstance(answer, shape):
            return answer, Verdict.CLEAN
    except (ValueError, RecursionError):
        pass
    opening = "[" if shape is list else "{"
    start = text.find(opening)
    if start >= 0:
        try:
            answer, _ = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError):
            return None, Verdict.UNREADABLE
        return answer, Verdict.REPAIRED
    return None, Verdict.UNREADABLE


def _said(
    answer: list[Any] | Mapping[str, Any], completion: Completion
) -> Iterator[_Said | Rejection]:
    confidence = _Confidence(completion)
    if isinstance(answer, list):
        for item in answer:
            yield from _strings(item, None, confidence)
        return
    for key, values in answer.items():
        for item in values if isinstance(values, list) else [values]:
            yield from _strings(item, key, confidence)


def _strings(item: object, key: str | None, confidence: _Confidence) -> Iterator[_Said | Rejection]:
    if isinstance(item, str) and item.strip():
        yield _Said(item, key, confidence.of(item))
    else:
        text = json.dumps(item, ensure_ascii=False)[:200]
        yield Rejection(f"{key}={text}" if key else text, Reason.MALFORMED)


class _Confidence:
    """The mean log-probability of the tokens that spell a string of the answer."""

    def __init__(self, completion: Completion) -> None:
        self._tokens = completion.logprobs
        text = completion.text
        usable = b"".join(t.token for t in self._tokens).startswith(text.encode())
        self._places: dict[str, list[tuple[int, int]]] = {}
        if not self._tokens or not usable:
            return
        for match in _STRING.finditer(text):
            if match.group(1):
                continue  # a key
            try:
                said = json.loads(match.group(0))
            except ValueError:
                continue
            start = len(text[: match.start()].encode())
            place = (start, start + len(match.group(0).encode()))
            self._places.setdefault(said, []).append(place)

    def of(self, said: str) -> float | None:
        places = self._places.get(said)
        if not places:
            return None
        start, end = places.pop(0)
        at, inside = 0, []
        for token in self._tokens:
            if at < end and at + len(token.token) > start:
                inside.append(token.logprob)
            at += len(token.token)
        return sum(inside) / len(inside) if inside else None
