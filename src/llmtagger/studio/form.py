"""The rules of a template as plain fields, each with its place in the Jinja source.

Only the block `system` is read. What no field covers stays as it is, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from jinja2 import Environment, TemplateSyntaxError

from llmtagger.errors import PromptError

LANGUAGES = ("en", "zh")
_RULE = re.compile(r"(\d+)[.．、)）][ \t]*(?=\S)")
_READER = Environment(keep_trailing_newline=True, autoescape=True)  # reads; nothing is rendered
_SHOWN = 40  # characters of what has no field

Words = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Field:
    """One line of text. `lang` is empty where it is for every language; a rule has a `number`.

    `begin` is where its line begins, before the number and its dot.
    """

    lang: str
    number: int | None
    text: str
    begin: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Unmapped:
    """Why a template has no fields: what stands in a line that no field could hold."""

    line: int
    what: str


@dataclass(frozen=True)
class Form:
    """The fields of a source. Each change makes a new form, and leaves all other fields alone."""

    source: str
    fields: tuple[Field, ...]

    @property
    def languages(self) -> tuple[str, ...]:
        """Those that have fields of their own."""
        return tuple(each for each in LANGUAGES if any(f.lang == each for f in self.fields))

    def of(self, lang: str) -> list[int]:
        """The places of the fields that products of that language get."""
        return [at for at, field in enumerate(self.fields) if field.lang in ("", lang)]

    def with_text(self, at: int, text: str) -> Form:
        """The form with another text in one field; `PromptError` where that is no plain text."""
        field, texts = self.fields[at], self._texts()
        texts[at] = text.strip()
        return _checked(self.source[: field.start] + texts[at] + self.source[field.end :], texts)

    def with_rule(self, lang: str, text: str) -> Form:
        """The form with one more rule, after the last one of that language."""
        at = max(at for at in self.of(lang) if self.fields[at].number is not None)
        last, texts = self.fields[at], self._texts()
        texts.insert(at + 1, text.strip())
        added = f"\n{self._lead(last, 1)}{texts[at + 1]}"
        return _checked(self.source[: last.end] + added + self.source[last.end :], texts)

    def without(self, at: int) -> Form:
        """The form without a rule; those after it move up by one."""
        gone, texts = self.fields[at], self._texts()
        del texts[at]
        pieces = [self.source[: gone.begin]]
        reached = self.source.find("\n", gone.end) + 1 or len(self.source)
        for later in self.fields[at + 1 :]:
            if later.number is not None and later.lang == gone.lang:
                pieces += [self.source[reached : later.begin], self._lead(later, -1)]
                reached = later.start
        return _checked("".join((*pieces, self.source[reached:])), texts)

    def _texts(self) -> list[str]:
        return [field.text for field in self.fields]

    def _lead(self, rule: Field, step: int) -> str:
        """What stands before a rule's text, with its number moved by `step`."""
        lead = self.source[rule.begin : rule.start]
        return re.sub(r"\d+", str((rule.number or 0) + step), lead, count=1)


def read_form(source: str) -> Form | Unmapped:
    """The fields of a template's source, or what in it has none.

    >>> form = read_form("{% block system %}\\nRules:\\n1. Be brief.\\n{% endblock %}")
    >>> [(field.number, field.text) for field in form.fields]
    [(None, 'Rules:'), (1, 'Be brief.')]
    """
    try:
        found = tuple(
            field
            for lang, start, end in _stretches(_parts(source))
            for field in _fields(source, lang, start, end)
        )
    except TemplateSyntaxError as error:
        return Unmapped(error.lineno, str(error.message))
    except _NoField as error:
        return Unmapped(error.line, error.what)
    return Form(source, found) if found else Unmapped(1, "{% block system %}")


def _checked(source: str, texts: list[str]) -> Form:
    """The form of a changed source, which has just these texts."""
    form = read_form(source)
    if isinstance(form, Unmapped) or form._texts() != texts:
        raise PromptError(
            "A field holds one line of plain text.",
            hint="For Jinja, such as {{ or {%, use the Jinja tab.",
        )
    return form


class _NoField(Exception):
    """Something that no field could hold."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line, self.what = line, what[:_SHOWN]


@dataclass(frozen=True, slots=True)
class _Part:
    """A stretch of a source: text, or one tag of Jinja and the words in it."""

    kind: str
    words: Words
    start: int
    end: int
    line: int
    text: str


def _parts(source: str) -> Iterator[_Part]:
    """The whole source, part by part."""
    tokens = list(_READER.lex(source))
    if "".join(text for _, _, text in tokens) != source:  # as `{%-`, which eats white space
        raise _NoField(1, "-%}" if "-" in source else "\\r")
    at = 0
    begun: tuple[str, int, int] | None = None
    words: list[str] = []
    for line, kind, text in tokens:
        end = at + len(text)
        if begun is None and kind.endswith("_begin") and kind != "raw_begin":
            begun, words = (kind.removesuffix("_begin"), at, line), []
        elif begun is not None and kind.endswith("_end"):
            yield _Part(begun[0], tuple(words), begun[1], end, begun[2], source[begun[1] : end])
            begun = None
        elif begun is not None and kind != "whitespace":
            words.append(text)
        elif begun is None:
            yield _Part("text" if kind == "data" else "raw", (), at, end, line, text)
        at = end


def _stretches(parts: Iterator[_Part]) -> Iterator[tuple[str, int, int]]:
    """Language, start and end of each stretch of the block `system` that holds text only."""
    for part in parts:
        if part.words == ("block", "system"):
            break
    lang, otherwise, start, reached = "", "", -1, -1
    for part in parts:
        if part.kind == "text" or _is_name(part):
            start = part.start if start < 0 else start
            reached = part.end
            continue
        if start >= 0:
            yield lang, start, reached
        start = -1
        if part.words[:1] == ("endblock",):
            return
        if (switch := _switch(part.words)) and not lang:
            lang, otherwise = switch
        elif part.words == ("else",) and otherwise:
            lang, otherwise = otherwise, ""
        elif part.words == ("endif",) and lang:
            lang = otherwise = ""
        elif part.kind != "comment":
            raise _NoField(part.line, part.text)


def _is_name(part: _Part) -> bool:
    """Whether a part is like `{{ max_tags }}`, which a line of text may hold."""
    return part.kind == "variable" and len(part.words) == 1 and "\n" not in part.text


def _switch(words: Words) -> tuple[str, str] | None:
    """The language of `if lang == "zh"`, and the one that is left for `else`."""
    if words[:3] != ("if", "lang", "==") or len(words) != 4:
        return None
    lang = words[3].strip("\"'")
    return (lang, LANGUAGES[1 - LANGUAGES.index(lang)]) if lang in LANGUAGES else None


def _fields(source: str, lang: str, start: int, end: int) -> Iterator[Field]:
    """A field for each line of a stretch that has more than white space."""
    at = start
    for line in source[start:end].split("\n"):
        said = line.strip()
        if said:
            first = at + line.index(said)
            rule = _RULE.match(said)
            text = said[rule.end() :] if rule else said
            number = int(rule[1]) if rule else None
            yield Field(lang, number, text, at, first + len(said) - len(text), first + len(said))
        at += len(line) + 1
