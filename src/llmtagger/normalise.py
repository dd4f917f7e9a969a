"""One notion of "the same text", shared by the vocabulary, the parser and literal matching."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from typing import Literal

INVISIBLE = re.compile(  # Unicode's Default_Ignorable_Code_Point: nobody sees these
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# Combining characters, and others that have no letter or digit; \uff9e and \uff9f become marks.
_MARKS = re.compile(r"(?:[^\w\x00-\x7f]|[\uff9e\uff9f]){31,}")
_ENDLESS = re.compile(r"&#[0-9]{100,};?")  # no character; int() refuses over 4,300 digits
_HYPHENS = str.maketrans(dict.fromkeys("-‐‑‒–—_/·・", " "))


def normalise(text: str) -> str:
    """Case, width, white space folded: `"  Ｌeather\\tWallet "` becomes `"leather wallet"`.

    Characters that nobody sees, such as soft hyphens, are left out.
    """
    return " ".join(_fold(text).split())


def loosen(text: str) -> str:
    """`normalise`, and hyphens read as spaces: `"T-Shirt"` becomes `"t shirt"`."""
    return " ".join(normalise(text).translate(_HYPHENS).split())


def singular(word: str) -> str:
    """An English word without a plural s: `slots` becomes `slot`, `glass` stays."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] not in "su" else word


def unicode_form(form: Literal["NFKC", "NFKD"], text: str) -> str:
    """`unicodedata.normalize` in linear time.

    It sorts the marks after a letter by insertion, so 32,000 of them in the wrong order take
    seconds. Long runs are sorted here first; the result is the same.
    """
    if len(text) > 30 and not text.isascii():
        text = _MARKS.sub(lambda run: _in_order(run[0]), text)
    return unicodedata.normalize(form, text)


def unescaped(text: str) -> str:
    """`html.unescape` for any text: numbers of any length are read, as U+FFFD.

    >>> unescaped("Salt &amp; pepper &#" + "9" * 5_000 + ";")
    'Salt & pepper �'
    """
    return html.unescape(_ENDLESS.sub("\ufffd", text))


def is_han(char: str) -> bool:
    """Whether a character is a Chinese one, which needs no space around a word."""
    return (
        "\u3400" <= char <= "\u9fff"
        or "\uf900" <= char <= "\ufaff"
        or "\U00020000" <= char <= "\U0003ffff"
    )


class FoldedText:
    """A text as `loosen` sees it, with the way back to the characters it was written in.

    >>> folded = FoldedText("Zippered  Coin-Pocket")
    >>> folded.text
    'zippered coin pocket'
    >>> folded.written(9, 20)
    'Coin-Pocket'
    """

    __slots__ = ("_ends", "_source", "_starts", "text")

    def __init__(self, source: str) -> None:
        chars: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        for start, end in _clusters(source):
            for piece in _fold(source[start:end]).translate(_HYPHENS):
                blank = piece.isspace()
                if blank and (not chars or chars[-1] == " "):
                    continue
                chars.append(" " if blank else piece)
                starts.append(start)
                ends.append(end)
        self.text = "".join(chars).rstrip(" ")
        self._source, self._starts, self._ends = source, starts, ends

    def written(self, start: int, end: int) -> str:
        """The original characters behind `text[start:end]`."""
        return self._source[self._starts[start] : self._ends[end - 1]]

    def is_word(self, start: int, end: int) -> bool:
        """Whether `text[start:end]` stands alone; Chinese needs no boundary."""
        return not (
            (start > 0 and _joined(self.text[start - 1], self.text[start]))
            or (end < len(self.text) and _joined(self.text[end - 1], self.text[end]))
        )

    def find(self, needle: str) -> tuple[int, int] | None:
        """The first place where the loosened `needle` stands as a word of its own."""
        start = self.text.find(needle) if needle else -1
        while start >= 0:
            if self.is_word(start, start + len(needle)):
                return start, start + len(needle)
            start = self.text.find(needle, start + 1)
        return None


def _fold(text: str) -> str:
    if text.isascii():
        return text.lower()
    return unicode_form("NFKC", unicode_form("NFKC", INVISIBLE.sub("", text)).casefold())


def _in_order(run: str) -> str:
    """The run decomposed, each stretch of marks in canonical order."""
    apart = "".join(unicodedata.normalize("NFKD", char) for char in run)
    stretches = groupby(apart, lambda char: unicodedata.combining(char) > 0)
    return "".join(
        "".join(sorted(marks, key=unicodedata.combining) if are_marks else marks)
        for are_marks, marks in stretches
    )


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    """Stretches that fold each by itself: a character with the marks that compose with it."""
    start = 0
    for position in range(1, len(text)):
        if text[position].isascii() or not _attaches(text, start, position):
            yield start, position
            start = position
    if text:
        yield start, len(text)


def _attaches(text: str, start: int, position: int) -> bool:
    char = text[position]
    if INVISIBLE.match(char) or unicodedata.combining(unicodedata.normalize("NFKC", char)[0]):
        return True
    if is_han(char) or char.islower() or char.isupper():
        return False  # these never compose with what is before them
    cluster = text[start:position]
    return (_composes if len(cluster) > 8 else _kept_composes)(cluster, char)


def _composes(cluster: str, char: str) -> bool:
    return _fold(cluster + char) != _fold(cluster) + _fold(char)


_kept_composes = lru_cache(4096)(_composes)  # mostly syllables of Hangul, and symbols


def _joined(left: str, right: str) -> bool:
    return left.isalnum() and right.isalnum() and not is_han(left) and not is_han(right)
