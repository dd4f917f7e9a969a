"""Finds names of tags that are written almost right: one letter wrong, or one Chinese character.

A word that the catalogue or the vocabulary knows is what it says, however near it is to another:
`shirt` is no misspelt `skirt`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cached_property
from typing import Any

from llmtagger.datatypes import Product, Span
from llmtagger.normalise import FoldedText, is_han, loosen
from llmtagger.vocabulary import Vocabulary, surfaces

_SHORTEST, _LONGEST = 5, 24  # letters of a word that may be misspelt
_AROUND = 48  # characters beside a corrected word in which a name of several words is looked for
_KNOWN = 2  # products that use a word which is then known
_MOST = 40  # words, or Chinese characters in a row, of a field that are looked at
_WORD = re.compile(r"[^\W\d_]+")
_HAN = re.compile(r"[\u3400-\u9fff]{2,}")
# Characters that are easily taken for each other, a group a word.
_ALIKE = (
    "己已巳 末未 土士 日曰 人入八 大太犬 干千于 木本术 甲由申田 刀力 午牛 天夭 目自 白百 令今 免兔 鸟乌 折拆 侯候 "
    "戊戌戍 晴睛 拨拔 辨辩辫 枝技 贷货 幕慕墓暮 竞竟 准淮 冷泠 住往 栗粟 徒徙 科料 徽微 棉绵 锦绵 皮波披 袖柚 "
    "衫杉 被披 碗婉 杯怀 壶壸 茶荼 凉谅晾 清请情晴 护沪 罩置 裤库 裙群 鞋鞍 帽冒 洗冼 液夜 粉纷 蓝篮 灰炭 银根 钢纲 铁轶"
).split()


class Speller:
    """Knows a vocabulary's words, and the words of products that are right as they are."""

    def __init__(self, vocabulary: Vocabulary, known: Collection[str] = frozenset()) -> None:
        self._vocabulary = vocabulary
        self._known = frozenset(known)

    def find(self, product: Product) -> dict[int, Span]:
        """By position in the vocabulary, the tags whose names are misspelt, as they are written."""
        found: dict[int, Span] = {}
        for field, text in product.fields():
            folded = FoldedText(text)
            for start, end, tag in self._in_text(folded):
                found.setdefault(tag, Span(field, folded.written(start, end)))
        return found

    def _in_text(self, folded: FoldedText) -> Iterator[tuple[int, int, int]]:
        for word in list(_WORD.finditer(folded.text))[:_MOST]:
            right = self._correction(word.group())
            if right is not None:
                yield from self._named(folded, word.start(), word.end(), right)
        if self._han:
            yield from self._in_chinese(folded)

    def _correction(self, word: str) -> str | None:
        """The one word of the vocabulary that is one edit away from an unknown word."""
        if not _SHORTEST - 1 <= len(word) <= _LONGEST or not word.isascii():
            return None
        if word in self._words or word in self._known or _singular(word) in self._known:
            return None
        from rapidfuzz.distance import OSA

        near = {right for part in _shortened(word) for right in self._parts.get(part, ())}
        near = {right for right in near if OSA.distance(word, right, score_cutoff=1) <= 1}
        near = {right for right in near if _singular(right) != _singular(word)}
        return near.pop() if len(near) == 1 else None

    def _named(
        self, folded: FoldedText, start: int, end: int, right: str
    ) -> Iterator[tuple[int, int, int]]:
        """The tags named by a text in which a word is put right."""
        low = max(0, start - _AROUND)
        text = FoldedText(folded.text[low:start] + right + folded.text[end : end + _AROUND])
        at, more = start - low, len(right) - (end - start)
        for first, last, tags in self._vocabulary.hits(text):
            if first <= at and last >= at + len(right):
                yield from ((low + first, low + last - more, tag) for tag in tags)

    def _in_chinese(self, folded: FoldedText) -> Iterator[tuple[int, int, int]]:
        for run in list(_HAN.finditer(folded.text))[:_MOST]:
            said = run.group()
            for kind, automaton in self._han:
                for last, (name, tags) in automaton.iter("".join(map(kind, said))):
                    start = last + 1 - len(name)
                    written = said[start : last + 1]
                    if _differences(written, name) == 1 and not self._knows(written):
                        yield from (
                            (run.start() + start, run.start() + last + 1, tag) for tag in tags
                        )

    def _knows(self, written: str) -> bool:
        """Whether a stretch of Chinese is made of what the catalogue writes as well."""
        pairs = (written[at : at + 2] for at in range(len(written) - 1))
        return all(pair in self._known or pair in self._words for pair in pairs)

    @cached_property
    def _names(self) -> dict[str, tuple[int, ...]]:
        owners: defaultdict[str, set[int]] = defaultdict(set)
        for at, tag in enumerate(self._vocabulary):
            for surface in surfaces(tag):
                owners[loosen(surface)].add(at)
        return {name: tuple(tags) for name, tags in owners.items()}

    @cached_property
    def _words(self) -> frozenset[str]:
        return frozenset(word for name in self._names for word in known_words(name))

    @cached_property
    def _parts(self) -> dict[str, list[str]]:
        """Each long word of the vocabulary by itself and by what one deletion leaves of it."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for word in self._words:
            if word.isascii() and _SHORTEST <= len(word) <= _LONGEST:
                for part in _shortened(word):
                    found[part].append(word)
        return dict(found)

    @cached_property
    def _han(self) -> tuple[tuple[Callable[[str], str], Any], ...]:
        """For sounds and for looks: what a character becomes, and all names after that."""
        names = {n: t for n, t in self._names.items() if len(n) > 1 and all(map(is_han, n))}
        if not names:
            return ()
        return tuple((kind, _automaton(names, kind)) for kind in (_sounds(), _looks()))


def known_words(text: str) -> Iterator[str]:
    """Words, and pairs of Chinese characters, of a folded text."""
    for word in _WORD.findall(text):
        if any(map(is_han, word)):
            yield from (word[at : at + 2] for at in range(len(word) - 1))
        else:
            yield word


def common_words(products: Iterable[Product]) -> frozenset[str]:
    """The words that two products or more use."""
    counted: Counter[str] = Counter()
    for product in products:
        counted.update(set(known_words(FoldedText(product.text()).text)))
    return frozenset(word for word, count in counted.items() if count >= _KNOWN)


def _automaton(names: dict[str, tuple[int, ...]], kind: Callable[[str], str]) -> Any:
    import ahocorasick

    found: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        found["".join(map(kind, name))].append(name)
    automaton = ahocorasick.Automaton()
    for key, several in found.items():
        if len(several) == 1:  # of two that sound alike nobody knows which is meant
            automaton.add_word(key, (several[0], names[several[0]]))
    automaton.make_automaton()
    return automaton


def _sounds() -> Callable[[str], str]:
    """Each character as the first one that sounds the same, whatever its tone."""
    from functools import cache

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


def _differences(one: str, other: str) -> int:
    return sum(a != b for a, b in zip(one, other, strict=True))


def _shortened(word: str) -> Iterator[str]:
    """A word, and the word without each of its letters."""
    yield word
    for at in range(len(word)):
        yield word[:at] + word[at + 1 :]


def _singular(word: str) -> str:
    return word.removesuffix("s")
