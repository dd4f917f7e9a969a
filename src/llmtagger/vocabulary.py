"""The tags that a product may get: read from a file, or off a labelled catalogue."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import ahocorasick

from llmtagger.datatypes import Product, Span, Tag, TagKind
from llmtagger.errors import VocabularyError
from llmtagger.normalise import FoldedText, loosen, normalise

_FIELDS = {"id", "name", "aliases", "parent", "key", "kind", "labels", "status"}
_LITERAL_SHARE = 0.5  # a key whose values stand in the text at least this often is a span key
_COMMON = 64  # a surface shared by more tags than this says nothing (a bare number, "yes")


Hit = tuple[int, int, list[int]]  # start and end in a folded text, positions of tags


class Vocabulary:
    """An ordered set of tags, found by name, alias, label or literal mention.

    >>> shop = Vocabulary([Tag(name="waterproof", id="waterproof", aliases=("rainproof",))])
    >>> shop.resolve(" Rainproof ").name
    'waterproof'
    """

    def __init__(self, tags: Iterable[Tag], *, merged: Iterable[str] = ()) -> None:
        self.tags = tuple(tags)
        self.merged = tuple(merged)
        self._by_id = {tag.id: position for position, tag in enumerate(self.tags)}
        if len(self._by_id) < len(self.tags):
            twice = next(i for i, n in Counter(t.id for t in self.tags).items() if n > 1)
            raise VocabularyError(
                f"two tags have the id {twice!r}", hint="give every tag an id of its own"
            )
        self._by_surface = self._surfaces()
        self._by_loose = self._loose()
        self._check_parents()

    def _surfaces(self) -> dict[str, int]:
        """Names first, so that an alias never hides another tag's name."""
        found: dict[str, int] = {}
        for position, tag in enumerate(self.tags):
            key = normalise(tag.name)
            if key in found:
                other = self.tags[found[key]]
                raise VocabularyError(
                    f"the tags {other.name!r} and {tag.name!r} differ only in case or spacing",
                    hint="keep one and make the other its alias",
                )
            found[key] = position
        for position, tag in enumerate(self.tags):
            for surface in (*tag.aliases, *tag.labels.values()):
                key = normalise(surface)
                if not key:
                    continue
                if found.setdefault(key, position) != position:
                    raise VocabularyError(
                        f"{surface!r} means both {self.tags[found[key]].name!r} and {tag.name!r}",
                        hint="a name, alias or label may belong to one tag only",
                    )
        return found

    def _loose(self) -> dict[str, int]:
        loose: dict[str, int] = {}
        ambiguous = set()
        for surface, position in self._by_surface.items():
            key = loosen(surface)
            if loose.setdefault(key, position) != position:
                ambiguous.add(key)
        return {key: position for key, position in loose.items() if key not in ambiguous}

    def _check_parents(self) -> None:
        cleared: set[str] = set()
        for tag in self.tags:
            path: dict[str, None] = {}
            at: Tag | None = tag
            while at is not None and at.id not in cleared:
                if at.id in path:
                    raise VocabularyError(
                        f"the parents of {tag.name!r} form a circle: {' > '.join(path)}",
                        hint="a tag cannot be its own ancestor",
                    )
                path[at.id] = None
                if at.parent is not None and at.parent not in self._by_id:
                    raise VocabularyError(
                        f"{at.name!r} has the parent {at.parent!r}, which is no tag's id",
                        hint="add that tag, or leave the parent out",
                    )
                at = self.tags[self._by_id[at.parent]] if at.parent is not None else None
            cleared.update(path)

    def __len__(self) -> int:
        return len(self.tags)

    def __iter__(self) -> Iterator[Tag]:
        return iter(self.tags)

    def position(self, tag: Tag) -> int:
        """Where a tag of this vocabulary stands in `tags`; KeyError for another's."""
        return self._by_id[tag.id]

    def resolve(self, text: str) -> Tag | None:
        """The tag a text names by name, alias or label, whatever the case, width or hyphens."""
        position = self._by_surface.get(normalise(text))
        if position is None:
            position = self._by_loose.get(loosen(text))
        return None if position is None else self.tags[position]

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The keys of `key=value` tags, the most varied first."""
        counted = Counter(tag.key for tag in self.tags if tag.key and not tag.retired)
        return tuple(key for key, _ in counted.most_common())

    @cached_property
    def kind(self) -> TagKind:
        """The kind of most tags."""
        counted = Counter(tag.kind for tag in self.tags)
        return counted.most_common(1)[0][0] if counted else TagKind.CLOSED

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that the vocabulary says."""
        digest = hashlib.sha256()
        for tag in self.tags:
            digest.update(_line(tag).encode())
            digest.update(b"\n")
        return digest.hexdigest()[:16]

    @cached_property
    def _automaton(self) -> Any:
        """Every surface, for finding them all in one pass over a text."""
        owners: dict[str, set[int]] = defaultdict(set)
        for position, tag in enumerate(self.tags):
            for surface in surfaces(tag):
                key = loosen(surface)
                if len(key) >= (3 if key.isdigit() else 2):
                    owners[key].add(position)
        automaton = ahocorasick.Automaton()
        for key, positions in owners.items():
            if len(positions) <= _COMMON:
                automaton.add_word(key, (len(key), tuple(positions)))
        if len(automaton):
            automaton.make_automaton()
        return automaton

    def mentions(
        self, product: Product, *, without: Container[int] = frozenset()
    ) -> dict[int, tuple[Span, ...]]:
        """Positions of the tags that a product's text names literally, and where it does.

        Reviews count as text. A mention inside a longer one does not count: `coin` is not read off
        `coin pocket`. Tags at the positions `without` are taken as if they were not in the
        vocabulary.
        """
        found: dict[int, list[Span]] = defaultdict(list)
        for field, text in product.sources():
            folded = FoldedText(text)
            for start, end, positions in self.hits(folded, without):
                for position in positions:
                    if len(found[position]) < 3:
                        found[position].append(Span(field, folded.written(start, end)))
        return {position: tuple(spans) for position, spans in found.items()}

    def hits(self, folded: FoldedText, without: Container[int] = frozenset()) -> Iterator[Hit]:
        """Where a text names tags, in its order: no hit contains another."""
        if len(self._automaton):
            yield from _longest(self._automaton, folded, without)

    @classmethod
    def from_products(cls, products: Iterable[Product]) -> Vocabulary:
        """The tags that a labelled catalogue uses; spellings that differ in case become one.

        A `key=value` tag is a span tag when its key's values mostly stand in the text.
        """
        spellings: dict[str, Counter[str]] = defaultdict(Counter)
        literal: Counter[str] = Counter()
        total: Counter[str] = Counter()
        for product in products:
            tags = product.tags or ()
            text = FoldedText(product.text()) if any("=" in tag for tag in tags) else None
            for name in filter(normalise, tags):
                spellings[normalise(name)][name.strip()] += 1
                key, value = split_key(name)
                if key and text:
                    total[key] += 1
                    literal[key] += text.find(loosen(value)) is not None
        spans = {key for key, n in total.items() if literal[key] >= _LITERAL_SHARE * n}
        tags_, merged = [], []
        for counted in spellings.values():
            (name, _), *others = counted.most_common()
            aliases = tuple(other for other, _ in others)
            merged += [f"{other!r} is read as {name!r}" for other in aliases]
            tags_.append(_plain(name, aliases, spans))
        return cls(tags_, merged=merged)

    def write(self, path: Path) -> None:
        """Write JSONL that `read_vocabulary` reads back to an equal vocabulary."""
        path.write_text("".join(_line(tag) + "\n" for tag in self.tags), encoding="utf-8")


def surfaces(tag: Tag) -> Iterator[str]:
    """All the ways a text may mention a tag; of `key=value` the value alone."""
    for surface in (tag.name, *tag.aliases, *tag.labels.values()):
        yield split_key(surface)[1] if tag.key else surface


def split_key(name: str) -> tuple[str | None, str]:
    """`"Color=Red"` as ("Color", "Red"); a name without a key as (None, name)."""
    key, equals, value = name.partition("=")
    if equals and key.strip() and value.strip():
        return key.strip(), value.strip()
    return None, name


def read_vocabulary(path: Path) -> Vocabulary:
    """Read a text file (one tag a line) or JSONL (one object a line, fields as in `Tag`)."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise VocabularyError(
            f"cannot read the vocabulary {path}: {error.strerror}", hint="check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise VocabularyError(
            f"the vocabulary {path} is not UTF-8 (byte {error.start})", hint="save it as UTF-8"
        ) from error
    if "\0" in text:
        raise VocabularyError(
            f"the vocabulary {path} holds NUL bytes", hint="save it as UTF-8, not as UTF-16"
        )
    lines = [(n, line.strip()) for n, line in enumerate(text.split("\n"), 1) if normalise(line)]
    if not lines:
        raise VocabularyError(f"the vocabulary {path} is empty", hint="write one tag a line")
    if lines[0][1].startswith("{"):
        return Vocabulary([_tag(path, n, line) for n, line in lines])
    return _from_lines(line for _, line in lines)


def _from_lines(lines: Iterable[str]) -> Vocabulary:
    names: dict[str, str] = {}
    aliases: dict[str, list[str]] = defaultdict(list)
    merged = []
    for line in lines:
        key = normalise(line)
        if key not in names:
            names[key] = line
        elif line != names[key] and line not in aliases[key]:
            aliases[key].append(line)
            merged.append(f"{line!r} is read as {names[key]!r}")
    return Vocabulary(
        (_plain(name, tuple(aliases[key]), set()) for key, name in names.items()), merged=merged
    )


def _plain(name: str, aliases: tuple[str, ...], span_keys: set[str]) -> Tag:
    key, _ = split_key(name)
    kind = TagKind.SPAN if key in span_keys else TagKind.CLOSED
    return Tag(name=name, id=name, aliases=aliases, key=key, kind=kind)


def _tag(path: Path, line: int, text: str) -> Tag:
    try:
        return tag_from_record(json.loads(text))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise VocabularyError(
            f"{path}:{line}: {error}",
            hint="each line is an object with at least a name; see the docs on vocabularies",
        ) from error


def tag_from_record(record: Mapping[str, Any]) -> Tag:
    """A tag from one JSON object; ValueError says what is wrong with it."""
    if not isinstance(record, dict):
        raise ValueError("not an object")
    if unknown := set(record) - _FIELDS:
        raise ValueError(f"unknown fields {sorted(unknown)}; known are {sorted(_FIELDS)}")
    name, status = record.get("name"), record.get("status", "active")
    if not isinstance(name, str) or not normalise(name):
        raise ValueError("a tag needs a name")
    if status not in ("active", "retired"):
        raise ValueError(f"status {status!r} is neither active nor retired")
    aliases, labels = record.get("aliases") or [], record.get("labels") or {}
    if not isinstance(aliases, list) or not isinstance(labels, dict):
        raise ValueError("aliases must be a list, labels an object")
    if not all(isinstance(text, str) for text in (*aliases, *labels.values())):
        raise ValueError("aliases and labels must be strings")
    named = name.strip()
    key = _text(record, "key") if "key" in record else split_key(named)[0]
    tag = Tag(
        name=named,
        id=_text(record, "id") or named,
        aliases=tuple(aliases),
        parent=_text(record, "parent"),
        key=key,
        kind=TagKind(record.get("kind", "closed")),
        labels=dict(labels),
        retired=status == "retired",
    )
    _line(tag).encode()  # ValueError for half a surrogate pair, which no file could hold
    return tag


def _text(record: Mapping[str, Any], name: str) -> str | None:
    """A string or a number of a record as a string; None where there is nothing."""
    value = record.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{name} must be a string")
    return str(value)


def tag_to_record(tag: Tag) -> dict[str, Any]:
    """The JSON object that `tag_from_record` reads back to an equal tag."""
    return {
        "id": tag.id,
        "name": tag.name,
        "aliases": list(tag.aliases),
        "parent": tag.parent,
        "key": tag.key,
        "kind": tag.kind.value,
        "labels": dict(tag.labels),
        "status": "retired" if tag.retired else "active",
    }


def _line(tag: Tag) -> str:
    return json.dumps(tag_to_record(tag), ensure_ascii=False)


def _longest(automaton: Any, folded: FoldedText, without: Container[int]) -> Iterator[Hit]:
    """Word-bounded hits that no longer hit contains."""
    hits = []
    for last, (length, positions) in automaton.iter(folded.text):
        start, end = last + 1 - length, last + 1
        known = [position for position in positions if position not in without]
        if known and folded.is_word(start, end):
            hits.append((start, end, known))
    hits.sort(key=lambda hit: (hit[0], -hit[1]))
    reach = 0
    for start, end, positions in hits:
        if end > reach:
            reach = end
            yield start, end, positions
