"""Asks for and reads the three kinds of answer; whatever was asked for, it reads again."""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import accumulate, islice
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
from llmtagger.wording import neutralise, offered_labels

LONGEST_TAG = 60  # characters of a free tag or a value
MOST_VALUES = 3  # values of one key
MOST_SAID = 1000  # strings of an answer that are read; honest ones hold a few dozen
LONGEST_SAID = 2000  # characters of a string that is read; names of tags are far shorter
_SHOWN = 200  # characters of what is rejected
_OPENINGS = 8  # brackets in the words around an answer that are tried
_TOKENS_A_CHARACTER = 3  # at worst, for a byte-level tokenizer on Chinese
# A string without an end is matched up to the end of the text: so no character is read twice.
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+(?:"(?P<key>\s*:)?)?', re.DOTALL)


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
        labels = list(offered_labels(product, shortlist))
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
        labels = offered_labels(product, shortlist)
        folded = {normalise(label): tag for label, tag in labels.items()}
        offered = {tag.id for tag in labels.values()}

        def read(said: _Said) -> Proposal | Rejection:
            tag = labels.get(said.text) or folded.get(normalise(said.text))
            known = tag or self._vocabulary.resolve(said.text)
            if known is None:
                return Rejection(said.text, Reason.NOT_IN_VOCABULARY)
            if known.retired:
                return Rejection(said.text, Reason.RETIRED)
            if known.id not in offered:
                return Rejection(said.text, Reason.NOT_IN_SHORTLIST)
            return Proposal(known, logprob=said.logprob)

        return _read(completion, list, read, self._settings.max_tags)


class SpanFormat:
    """A JSON object of `key: [values]`, each value literally in the product's text or known."""

    def __init__(self, vocabulary: Vocabulary, settings: AnswerSettings) -> None:
        self._vocabulary = vocabulary
        self._settings = settings

    def constraint(self, product: Product, shortlist: Shortlist) -> Constraint | None:
        if not shortlist.keys:
            return None
        value = {"type": "string", "minLength": 1, "maxLength": LONGEST_TAG}
        values = {"type": "array", "items": value, "minItems": 1, "maxItems": MOST_VALUES}
        # Named as `properties`, keys would have to come in the schema's order, not in the text's.
        names = list(dict.fromkeys(shown for key in shortlist.keys if (shown := neutralise(key))))
        schema = {
            "type": "object",
            "propertyNames": {"enum": names},
            "additionalProperties": values,
            "maxProperties": len(names),
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
            value = neutralise(spans[0].text)
            if not value or len(value) > LONGEST_TAG:
                return Rejection(text, Reason.MALFORMED)
            name = f"{key}={value}"
            return Proposal(Tag(name, name, key=key, kind=TagKind.SPAN), spans, said.logprob)

        return _read(completion, dict, read, self._settings.max_tags * MOST_VALUES)


class FreeFormat:
    """A JSON list of the model's own tags; known ones by name or alias, the rest marked new."""

    def __init__(self, vocabulary: Vocabulary, settings: AnswerSettings) -> None:
        self._vocabulary = vocabulary
        self._settings = settings

    def constraint(self, product: Product, shortlist: Shortlist) -> Constraint:
        items = {"type": "string", "minLength": 1, "maxLength": LONGEST_TAG}
        schema = {"type": "array", "items": items, "maxItems": self._settings.max_tags}
        return Constraint(schema, self._settings.max_tokens)

    def parse(self, completion: Completion, product: Product, shortlist: Shortlist) -> ParsedTags:
        fields = [(name, FoldedText(text)) for name, text in product.fields()]

        def read(said: _Said) -> Proposal | Rejection:
            name = neutralise(said.text).strip(" .,;:，。；、#\"'")
            if not loosen(name) or len(name) > LONGEST_TAG:
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
    confidence = _Confidence(completion)
    strings = _strings(answer)
    for key, item in islice(strings, MOST_SAID):
        said = _said(key, item, confidence)
        if isinstance(said, Rejection):
            rejected.append(said)
            continue
        outcome = read(said)
        if isinstance(outcome, Rejection):
            rejected.append(replace(outcome, text=outcome.text[:_SHOWN]))
        elif (identity := normalise(outcome.tag.name)) in accepted:
            rejected.append(Rejection(said.text[:_SHOWN], Reason.DUPLICATE))
        elif len(accepted) == most:
            rejected.append(Rejection(said.text[:_SHOWN], Reason.TOO_MANY))
        else:
            accepted[identity] = outcome
    if more := sum(1 for _ in strings):
        rejected.append(Rejection(f"… and {more} more", Reason.TOO_MANY))
    return ParsedTags(tuple(accepted.values()), tuple(rejected), verdict, answered=True)


def _unreadable(code: str, message: str, completion: Completion) -> ParsedTags:
    said = completion.text[:_SHOWN]
    return ParsedTags(
        verdict=Verdict.UNREADABLE, problem=Problem(code, f"{message}; it begins {said!r}")
    )


def _load(text: str, shape: type) -> tuple[Any, Verdict]:
    """The JSON value in a text: all of it, or the first of that shape with words around it."""
    decoder = json.JSONDecoder(object_pairs_hook=_merged if shape is dict else None)
    try:
        answer = decoder.decode(text)
        if isinstance(answer, shape):
            return answer, Verdict.CLEAN
    except (ValueError, RecursionError):
        pass
    opening = "[" if shape is list else "{"
    start = -1
    for _ in range(_OPENINGS):
        start = text.find(opening, start + 1)
        if start < 0:
            break
        try:
            return decoder.raw_decode(text, start)[0], Verdict.REPAIRED
        except (ValueError, RecursionError):
            continue
    return None, Verdict.UNREADABLE


def _merged(pairs: list[tuple[str, Any]]) -> dict[str, list[Any]]:
    """An object as lists, so that a key said twice loses nothing."""
    merged: dict[str, list[Any]] = {}
    for key, value in pairs:
        merged.setdefault(key, []).extend(value if isinstance(value, list) else [value])
    return merged


def _strings(answer: list[Any] | Mapping[str, Any]) -> Iterator[tuple[str | None, object]]:
    """What should be strings, each with its key if it has one."""
    if isinstance(answer, list):
        for item in answer:
            yield None, item
        return
    for key, values in answer.items():
        for item in values if isinstance(values, list) else [values]:
            yield key, item


def _said(key: str | None, item: object, confidence: _Confidence) -> _Said | Rejection:
    if isinstance(item, str) and item.strip() and max(len(item), len(key or "")) <= LONGEST_SAID:
        return _Said(_writable(item), _writable(key) if key else key, confidence.of(item))
    text = _written(item)
    return Rejection(_writable(f"{key[:_SHOWN]}={text}" if key else text), Reason.MALFORMED)


def _written(item: object) -> str:
    try:
        return json.dumps(item, ensure_ascii=False)[:_SHOWN]
    except RecursionError:
        return f"a deeply nested {type(item).__name__}"


def _writable(text: str) -> str:
    """The text with `?` for half a surrogate pair, which JSON may say but no file can hold."""
    return text.encode(errors="replace").decode()


class _Confidence:
    """The mean log-probability of the tokens that spell a string of the answer.

    Strings are found as they are asked for, in order, so that the work is linear in the answer.
    """

    def __init__(self, completion: Completion) -> None:
        self._logprobs = [each.logprob for each in completion.logprobs]
        self._ends = list(accumulate(len(each.token) for each in completion.logprobs))
        text = completion.text
        spelt = b"".join(each.token for each in completion.logprobs)
        usable = bool(spelt) and spelt.startswith(_bytes(text))
        self._places = _places(text) if usable else {}

    def of(self, said: str) -> float | None:
        places = self._places.get(said)
        if not places:
            return None
        start, end = places.popleft()
        inside = self._logprobs[bisect_right(self._ends, start) : bisect_left(self._ends, end) + 1]
        return min(0.0, sum(inside) / len(inside)) if inside else None


def _places(text: str) -> dict[str, deque[tuple[int, int]]]:
    """Where each of the first strings of a text stands, keys left out: bytes, from and to."""
    places: dict[str, deque[tuple[int, int]]] = {}
    at = end = 0  # the same place, in characters and in bytes
    for match in islice(_STRING.finditer(text), 2 * MOST_SAID):
        start = end + len(_bytes(text[at : match.start()]))
        at, end = match.end(), start + len(_bytes(match.group()))
        if match["key"]:
            continue
        with suppress(ValueError):
            place = (start, end)
            places.setdefault(json.loads(match.group()), deque()).append(place)
    return places


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
