"""Finds tags whose names are misspelt in a text.

In English one letter is wrong (added, missing, another, or swapped with its neighbour); in Chinese
one character is replaced by one that sounds or looks the same. A word that the catalogue or the
vocabulary uses is never taken for a misspelling: `shirt` is not a misspelt `skirt`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from llmtagger.datatypes import Product
from llmtagger.normalise import FoldedText, is_han, loosen, singular
from llmtagger.vocabulary import Hit, Vocabulary, surfaces

Counts = Callable[[str], int]  # how many products use a word or a pair of Chinese characters

_SHORTEST, _LONGEST = 5, 24  # letters of a vocabulary word that may be misspelt
_INTACT = 2  # letters at one end of a word of five or more that a single edit leaves as they are
_AROUND = 48  # characters on each side of a corrected word that may belong to the tag's name
_KNOWN = 2  # products that use a word make it a known one
_MOST = 40  # words, or runs of Chinese characters, of a text that are read
_WORD = re.compile(r"[^\W\d_]+")
_HAN = re.compile(r"[\u3400-\u9fff]{2,}")
# Groups of characters that are easily taken for each other.
_ALIKE = (
    *("己已巳", "末未", "土士", "日曰", "人入八", "大太犬", "干千于", "木本术", "甲由申田", "刀力"),
    *("午牛", "天夭", "目自", "白百", "令今", "免兔", "鸟乌", "折拆", "侯候", "戊戌戍"),
    *("晴睛", "拨拔", "辨辩辫", "枝技", "贷货", "幕慕墓暮", "竞竟", "准淮", "冷泠", "住往"),
    *("栗粟", "徒徙", "科料", "徽微", "棉绵锦", "皮波披", "袖柚", "衫杉", "被彼", "碗婉"),
    *("杯怀", "壶壸", "茶荼", "凉谅晾", "清请情", "护沪", "罩置", "裤库", "裙群", "鞋鞍"),
    *("帽冒", "洗冼", "液夜", "粉纷", "蓝篮", "灰炭", "银根", "钢纲", "铁轶"),
)


@dataclass(frozen=True)
class Speller:
    """Finds the misspelt names of a vocabulary's tags.

    `counts` tells which words are known. `own` words are taken as if one product each less used
    them.
    """

    words: Lexicon
    counts: Counts
    own: Counter[str]

    @classmethod
    def of(cls, vocabulary: Vocabulary, counts: Counts) -> Speller:
        """A speller for all products."""
        return cls(Lexicon(vocabulary), counts, Counter())

    def without(self, products: Iterable[Product]) -> Speller:
        """The same had those products not been counted."""
        own = Counter(word for product in products for word in set(_read(product.text())))
        return Speller(self.words, self.counts, own)

    def hits(self, folded: FoldedText, without: Collection[int] = frozenset()) -> Iterator[Hit]:
        """Where a text names tags by a misspelt name, in its order.

        Tags at the positions `without` are never found.
        """
        found: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
        for start, end, tags in (*self._in_words(folded), *self._in_chinese(folded)):
            found[start, end].update(tag for tag in tags if tag not in without)
        yield from ((start, end, sorted(tags)) for (start, end), tags in sorted(found.items()))

    def _in_words(self, folded: FoldedText) -> Iterator[Hit]:
        for word in list(_WORD.finditer(folded.text))[:_MOST]:
            written = word.group()
            if not self._known(written) and (right := self.words.correction(written)):
                yield from self.words.named(folded, word.start(), word.end(), right)

    def _known(self, word: str) -> bool:
        one = singular(word)
        return self._used(word) or (one != word and self._used(one))

    def _used(self, word: str) -> bool:
        return self.words.has(word) or self.counts(word) - self.own[word] >= _KNOWN

    def _in_chinese(self, folded: FoldedText) -> Iterator[Hit]:
        if not self.words.chinese:
            return
        for run in list(_HAN.finditer(folded.text))[:_MOST]:
            for start, end, tags in self.words.in_chinese(run.group()):
                if not all(map(self._known, _pairs(run.group()[start:end]))):
                    yield run.start() + start, run.start() + end, tags


class _Corrected(FoldedText):
    """A folded text that nobody wrote, so there is no way back."""

    __slots__ = ()

    def __init__(self, text: str) -> None:
        self.text = text


class Lexicon:
    """The words of a vocabulary's names, found by what they may be misspelt as."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def has(self, word: str) -> bool:
        """Whether a name has this word, or this pair of Chinese characters."""
        return word in self._words

    def correction(self, written: str) -> str | None:
        """The only word of the vocabulary that is one edit away, other than in number."""
        if not _SHORTEST - 1 <= len(written) <= _LONGEST or not written.isascii():
            return None
        near = set()
        for letters in range(len(written) - 1, len(written) + 2):
            for end in _ends(written):
                for right in self._by_end.get((letters, *end), ()):
                    if self._distance(written, right, score_cutoff=1) == 1:
                        near.add(right)
        near = {right for right in near if singular(right) != singular(written)}
        return near.pop() if len(near) == 1 else None

    def named(self, folded: FoldedText, start: int, end: int, right: str) -> Iterator[Hit]:
        """The tags that a text names with the word at `start:end` put right."""
        low = max(0, start - _AROUND)
        text = _Corrected(folded.text[low:start] + right + folded.text[end : end + _AROUND])
        at, more = start - low, len(right) - (end - start)
        for first, last, tags in self._vocabulary.hits(text):
            if first <= at and last >= at + len(right):
                yield low + first, low + last - more, tags

    def in_chinese(self, run: str) -> Iterator[Hit]:
        """Where Chinese characters sound or look like a name, but for one character."""
        for kind, automaton in self.chinese:
            for last, (name, tags) in automaton.iter("".join(map(kind, run))):
                start, end = last + 1 - len(name), last + 1
                if sum(map(str.__ne__, run[start:end], name)) == 1:
                    yield start, end, tags

    @cached_property
    def chinese(self) -> tuple[tuple[Callable[[str], str], Any], ...]:
        """For sounds and for looks: what a character becomes, and all names after that."""
        names = {n: t for n, t in self._names.items() if len(n) > 1 and all(map(is_han, n))}
        if not names:
            return ()
        return tuple((kind, _automaton(names, kind)) for kind in (_sounds(), _looks()))

    @cached_property
    def _distance(self) -> Callable[..., int]:
        from rapidfuzz.distance import OSA

        return OSA.distance

    @cached_property
    def _names(self) -> dict[str, list[int]]:
        owners: defaultdict[str, list[int]] = defaultdict(list)
        for at, tag in enumerate(self._vocabulary):
            for name in dict.fromkeys(map(loosen, surfaces(tag))):
                owners[name].append(at)
        return dict(owners)

    @cached_property
    def _words(self) -> frozenset[str]:
        return frozenset(word for name in self._names for word in _read(name))

    @cached_property
    def _by_end(self) -> dict[tuple[int, bool, str], list[str]]:
        found: defaultdict[tuple[int, bool, str], list[str]] = defaultdict(list)
        for word in {word for name in self._names for word in _WORD.findall(name)}:
            if word.isascii() and _SHORTEST <= len(word) <= _LONGEST:
                for end in _ends(word):
                    found[len(word), *end].append(word)
        return dict(found)


def _ends(word: str) -> tuple[tuple[bool, str], tuple[bool, str]]:
    """The first two letters and the last two; a single edit leaves one of them as it is."""
    return (False, word[:_INTACT]), (True, word[-_INTACT:])


def _read(text: str) -> Iterator[str]:
    """Words, as they are and without a plural s, and pairs of Chinese characters."""
    for word in _WORD.findall(text.casefold()):
        yield from _pairs(word) if any(map(is_han, word)) else {word, singular(word)}


def _pairs(written: str) -> Iterator[str]:
    return (written[at : at + 2] for at in range(len(written) - 1))


def _automaton(names: dict[str, list[int]], kind: Callable[[str], str]) -> Any:
    import ahocorasick

    found: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        found["".join(map(kind, name))].append(name)
    automaton = ahocorasick.Automaton()
    for key, several in found.items():
        if len(several) == 1:  # of two names that sound alike nobody knows which is meant
            automaton.add_word(key, (several[0], names[several[0]]))
    automaton.make_automaton()
    return automaton


def _sounds() -> Callable[[str], str]:
    """Each character as the first one seen that sounds the same, whatever its tone."""
    from pypinyin import lazy_pinyin

    first: dict[str, str] = {}

    @cache
    def sound(char: str) -> str:
        (said,) = lazy_pinyin(char)
        return first.setdefault(said, char)

    return sound


def _looks() -> Callable[[str], str]:
    """Each character as the first one of its group."""
    first = {char: group[0] for group in _ALIKE for char in reversed(group)}
    return lambda char: first.get(char, char)
