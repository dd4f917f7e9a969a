"""JSON written back with new tags: in each object only the lists of tags change."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from llmtagger.catalog.additions import Additions
from llmtagger.catalog.files import Source, find_encoding
from llmtagger.catalog.jsonl import elements, is_array, members, whole_text
from llmtagger.catalog.products import SYNONYMS, Columns, fold
from llmtagger.catalog.reading import open_catalog
from llmtagger.catalog.rows import RECORD_LIMIT, CatalogOptions
from llmtagger.catalog.tagcells import new_tags, tag_cells
from llmtagger.catalog.writeback import (
    ADDED,
    copy,
    described,
    review_name,
    say_lost,
    write_exactly,
)

_SPACE = re.compile(r"\s*")
_COMMA = re.compile(r"\s*,\s*")


def write_json(
    source: Source, options: CatalogOptions, additions: Additions, output: BinaryIO
) -> None:
    """Write the lines, or the array, with the additions; without any, it is the same file.

    Keys keep their order, numbers and spaces their form. An object without a list of tags gets one
    at its end. An array is held in memory.
    """
    encoding = find_encoding(source, options.encoding)
    columns = Columns(options, SYNONYMS)
    review = additions.review_column
    review = None if review is None else review_name((), review, columns)
    array = Path(source.name).suffix.lower() == ".json" and is_array(source, encoding)
    catalog = open_catalog(source, options)
    names = described(catalog.found, options, additions, by_place=array)
    added = catalog.fields.get("tags", options.columns.get("tags", ADDED))
    editor = _Editor(columns, additions, encoding, added, review)

    def edited() -> Iterator[tuple[str, str]]:
        for place, text in (_parts if array else _lines)(source, encoding):
            name = names.get(place)
            yield text, text if name is None else editor.edited(text, name)

    if all(old == new for old, new in edited()):
        copy(source, output)
    else:
        write_exactly(source, encoding, edited(), output)


def _lines(source: Source, encoding: str) -> Iterator[tuple[int, str]]:
    """Every line with its number, as it is read; what follows of one that is too long has none."""
    with source.path.open(encoding=encoding, errors="llmtagger.escape", newline="") as handle:
        number, begins = 0, True
        while text := handle.readline(RECORD_LIMIT):
            number += begins
            yield (number if begins else -1), text if number > 1 else text.removeprefix("\ufeff")
            begins = len(text) < RECORD_LIMIT or text.endswith(("\n", "\r"))


def _parts(source: Source, encoding: str) -> Iterator[tuple[int, str]]:
    """The objects of an array, numbered from 0, and the text between them as -1."""
    text = whole_text(source, encoding)
    position = 0
    for place, (start, end, _) in enumerate(elements(text, source)):
        yield -1, text[position:start]
        yield place, text[start:end]
        position = end
    yield -1, text[position:]


class _Editor:
    """Puts tags into the text of an object."""

    def __init__(
        self, columns: Columns, additions: Additions, encoding: str, added: str, review: str | None
    ) -> None:
        self._columns = columns
        self._additions = additions
        self._encoding = encoding
        self._added = added
        self._review = review

    def edited(self, text: str, name: str) -> str:
        """The object's text with the additions for the product of that name."""
        places = members(text)
        key = self._columns.layout(tuple(places)).fields.get("tags")
        tags = self._additions.tags.get(name, ())
        if key is None and self._added in places:  # which is mapped to another field
            say_lost(name, tags)
            return text
        key = key or self._added
        own = _texts(_held(text, places, key))
        text = self._with(text, key, name, new_tags(tags, own))
        if self._review is not None:
            wanted = fold(self._review)
            column = next((each for each in places if fold(each) == wanted), self._review)
            held = _texts(_held(text, members(text), column))
            doubtful = new_tags(self._additions.review.get(name, ()), (*held, *own, *tags))
            text = self._with(text, column, name, doubtful)
        return text

    def _with(self, text: str, key: str, name: str, fresh: list[str]) -> str:
        """The object's text with more tags under a key."""
        if not fresh:
            return text
        places = members(text)
        if key not in places:
            return self._appended(text, places, key, fresh)
        value = _held(text, places, key)
        old = text[places[key][1]]
        if isinstance(value, str):
            cell, lost = tag_cells(None, [value], guarded=False).extended(value, fresh)
            say_lost(name, lost)
            new = old if cell == value else self._string(cell, text)
        elif value is None:
            new = self._list(fresh, text)
        elif isinstance(value, list):
            new = self._longer(old, fresh, text)
        else:
            say_lost(name, fresh)
            new = old
        return text[: places[key][1].start] + new + text[places[key][1].stop :]

    def _appended(
        self, text: str, places: dict[str, tuple[slice, slice]], key: str, fresh: list[str]
    ) -> str:
        """The object's text with one more member, spaced as the first ones are."""
        spans = list(places.values())
        (first, value), last = spans[0], max(place.stop for _, place in spans)
        comma = text[value.stop : spans[1][0].start] if len(spans) > 1 else ""
        comma = comma if _COMMA.fullmatch(comma) else ", "
        member = f"{self._string(key, text)}{text[first.stop : value.start]}"
        return f"{text[:last]}{comma}{member}{self._list(fresh, text)}{text[last:]}"

    def _longer(self, old: str, fresh: list[str], text: str) -> str:
        """The list with more texts, spaced as its first ones are."""
        end = len(old[:-1].rstrip())
        if end == 1:
            return self._list(fresh, text)
        _, first = json.JSONDecoder().raw_decode(old, _after(old, 1))
        match = _COMMA.match(old, first)
        inner = old[1 : _after(old, 1)]
        comma = match[0] if match else f",{inner}" if inner else self._comma(text)
        return old[:end] + "".join(comma + self._string(tag, text) for tag in fresh) + old[end:]

    def _list(self, tags: Iterable[str], text: str) -> str:
        return f"[{self._comma(text).join(self._string(tag, text) for tag in tags)}]"

    def _comma(self, text: str) -> str:
        """What stands between the texts of a list that had none: a space where a key has one."""
        places = list(members(text).values())
        return ", " if any(key.stop + 1 < value.start for key, value in places[:1]) else ","

    def _string(self, value: str, text: str) -> str:
        """A text as JSON, escaped where the object's others are or where the encoding needs it."""
        escaped = text.isascii() and "\\u" in text
        try:
            value.encode(self._encoding)
        except UnicodeEncodeError:
            escaped = True
        return json.dumps(value, ensure_ascii=escaped)


def _after(text: str, position: int) -> int:
    """Where the space at a position ends."""
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _held(text: str, places: dict[str, tuple[slice, slice]], key: str) -> Any:
    return json.loads(text[places[key][1]]) if key in places else None


def _texts(value: Any) -> list[str]:
    """The tags in a value: texts, and what is called tag in objects of our own outputs."""
    if isinstance(value, str):
        return tag_cells(None, [], guarded=False).split(value)
    items = value if isinstance(value, list) else []
    names = (item.get("tag") if isinstance(item, dict) else item for item in items)
    return [name.strip() for name in names if isinstance(name, str)]
