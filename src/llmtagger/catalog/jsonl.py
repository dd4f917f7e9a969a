"""JSON: one object a line, or one array of objects."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from llmtagger.catalog.files import ESCAPED, Source, first_character, lines
from llmtagger.catalog.rows import MOST_COLUMNS, RECORD_LIMIT, Row, RowFault, Rows, reject
from llmtagger.errors import CatalogError

_DEEPEST = 64  # levels of nesting; deeper ones cannot be written again everywhere
TOO_LONG = f"the record is longer than {RECORD_LIMIT // 1_000_000} million characters"
NUL = "the row holds a NUL byte"


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None


# NaN and Infinity, which some writers put into JSON, count as null
_DECODER = json.JSONDecoder(parse_constant=lambda _: None, parse_float=_finite)


def read_lines(source: Source, encoding: str) -> Rows:
    """One row for each line that is not blank."""
    for line in lines(source, encoding):
        text = line.text.strip()
        if not text:
            continue
        try:
            if not line.whole:
                raise RowFault(TOO_LONG)
            check_text(text, encoding)
            yield Row(line.number, _object(text), text)
        except RowFault as fault:
            yield reject(line.number, str(fault), text)


def check_text(text: str, encoding: str) -> None:
    """A row's text must have decoded and may not hold NUL."""
    if "\0" in text:
        raise RowFault(NUL)
    if not text.isascii() and ESCAPED.search(text):
        raise RowFault(f"the row does not decode as {encoding}")


def _object(text: str) -> dict[str, Any]:
    try:
        value = _DECODER.decode(text)
    except RecursionError as error:
        raise RowFault("the JSON is nested too deeply") from error
    except ValueError as error:
        raise RowFault(f"not valid JSON: {error}") from error
    return _sound(value, text)


def _sound(value: Any, text: str) -> dict[str, Any]:
    """The object, if it is one and can be written again as text."""
    if not isinstance(value, dict):
        raise RowFault("the row is not a JSON object")
    if len(value) > MOST_COLUMNS:
        raise RowFault(f"the record has {len(value):,} keys, and {MOST_COLUMNS:,} are the most")
    check_values(value, text)
    return value


def check_values(value: Any, text: str) -> None:
    """Values, whose JSON is `text`, may not be nested more deeply than can be written again."""
    if text.count("[") + text.count("{") <= _DEEPEST:
        return
    if any(depth > _DEEPEST for depth, _ in _walk(value)):
        raise RowFault("the JSON is nested too deeply")


def _walk(value: Any) -> Iterator[tuple[int, Any]]:
    """Every value within, with its depth."""
    waiting = [(0, value)]
    while waiting:
        depth, each = waiting.pop()
        yield depth, each
        if isinstance(each, dict):
            waiting.extend((depth + 1, item) for item in each.values())
        elif isinstance(each, list):
            waiting.extend((depth + 1, item) for item in each)


def is_array(source: Source, encoding: str) -> bool:
    """Whether a .json file holds one array, not an object a line."""
    return first_character(source, encoding) == "["


def whole_text(source: Source, encoding: str) -> str:
    """All of a file, without its byte order mark."""
    return source.path.read_bytes().decode(encoding, "llmtagger.escape").removeprefix("\ufeff")


def read_array(source: Source, encoding: str) -> Rows:
    """One row for each object of an array. The whole file is held in memory.

    Where the syntax breaks there is no telling where the next object starts: `CatalogError`.
    """
    text = whole_text(source, encoding)
    line, counted = 1, 0
    for start, end, value in elements(text, source):
        line += text.count("\n", counted, start)
        counted = start
        raw = text[start:end]
        try:
            if len(raw) > RECORD_LIMIT:
                raise RowFault(TOO_LONG)
            check_text(raw, encoding)
            yield Row(line, _sound(value, raw), raw)
        except RowFault as fault:
            yield reject(line, str(fault), raw)


def elements(text: str, source: Source) -> Iterator[tuple[int, int, Any]]:
    """Where each element of the array starts and ends, and what it is."""
    position = _skip(text, text.index("[") + 1)
    while not text.startswith("]", position):
        try:
            value, end = _DECODER.raw_decode(text, position)
            yield position, end, value
            position = _skip(text, end)
            if text.startswith(",", position):
                position = _skip(text, position + 1)
            elif not text.startswith("]", position):
                raise ValueError(f"no comma after the object that ends at character {end}")
        except (ValueError, RecursionError) as error:
            raise CatalogError(
                f"{source.name} is not a JSON array: {error}",
                hint="write one object a line instead (.jsonl): then one fault costs one row",
            ) from error


def members(text: str) -> dict[str, tuple[slice, slice]]:
    """Where the key and the value of each member of an object stand; of twins, the last counts."""
    found: dict[str, tuple[slice, slice]] = {}
    position = _skip(text, text.index("{") + 1)
    while not text.startswith("}", position):
        key, end = _DECODER.raw_decode(text, position)
        start = _skip(text, _skip(text, end) + 1)
        _, stop = _DECODER.raw_decode(text, start)
        found[key] = slice(position, end), slice(start, stop)
        position = _skip(text, stop)
        if text.startswith(",", position):
            position = _skip(text, position + 1)
    return found


def _skip(text: str, position: int) -> int:
    while text[position : position + 1].isspace():
        position += 1
    return position
