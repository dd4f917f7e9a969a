"""One notion of "the same text", shared by the vocabulary, the parser and literal matching."""

from __future__ import annotations

import unicodedata

_HYPHENS = str.maketrans(dict.fromkeys("-‐‑‒–—_/·・", " "))


def normalise(text: str) -> str:
    """Case, width and white space folded: `"  Ｌeather\\tWallet "` becomes `"leather wallet"`."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def loosen(text: str) -> str:
    """`normalise`, and hyphens read as spaces: `"T-Shirt"` becomes `"t shirt"`."""
    return " ".join(normalise(text).translate(_HYPHENS).split())


def is_han(char: str) -> bool:
    """Whether a character is a Chinese one, which needs no space around a word."""
    return "\u3400" <= char <= "\u9fff" or "\uf900" <= char <= "\ufaff" or char >= "\U00020000"


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
        for position, char in enumerate(source):
            folded = char if char.isascii() else unicodedata.normalize("NFKC", char)
            for piece in folded.casefold().translate(_HYPHENS):
                blank = piece.isspace()
                if blank and (not chars or chars[-1] == " "):
                    continue
                chars.append(" " if blank else piece)
                starts.append(position)
                ends.append(position + 1)
        self.text = "".join(chars)
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


def _joined(left: str, right: str) -> bool:
    return left.isalnum() and right.isalnum() and not is_han(left) and not is_han(right)
