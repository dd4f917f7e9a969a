"""How a file writes the tags of a product into one cell, and how more are added to them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llmtagger.catalog.products import SEPARATORS, join_tags, split_tags
from llmtagger.catalog.profiles import Profile
from llmtagger.catalog.rows import RowFault
from llmtagger.catalog.shops import split_cell
from llmtagger.catalog.tables import guard, restore
from llmtagger.catalog.text import mend

_SPACES = " \t\r\n\u3000"
_JOINER = "|"  # of tables in no known format, where no cell shows another


@dataclass(frozen=True, slots=True)
class TagCells:
    """The tags of one file: split as its format does, joined as its cells do."""

    profile: Profile | None
    joiner: str
    guarded: bool = True

    def split(self, cell: str) -> list[str]:
        """The tags in a cell, in order."""
        if self.profile is not None:
            return split_cell(cell, self.profile)
        try:
            return [str(tag).strip() for tag in split_tags(self._restored(cell)) or ()]
        except RowFault:  # no list of tags: a column for review may hold anything
            return [cell]

    def extended(
        self, cell: str, tags: Iterable[str], besides: Iterable[str] = ()
    ) -> tuple[str, list[str]]:
        """The cell with those tags that neither it nor `besides` has, and the ones it cannot hold.

        What stands in it stays as it is. Capitals make no other tag.
        """
        own = self.split(cell)
        fresh = new_tags(tags, (*own, *besides))
        if (whole := self._joined(cell, own, fresh)) is not None:
            return whole, []
        lost = []
        for tag in fresh:
            more = self._joined(cell, own, [tag])
            if more is None:
                lost.append(tag)
            else:
                cell, own = more, [*own, tag]
        return cell, lost

    def _joined(self, cell: str, own: Sequence[str], fresh: Sequence[str]) -> str | None:
        """The cell with the tags after its own; None where it would not be read so."""
        if not fresh:
            return cell
        for text in self._attempts(cell, own, fresh):
            if self.split(text) == [*own, *fresh]:
                return text
        return None

    def _attempts(self, cell: str, own: Sequence[str], fresh: Sequence[str]) -> Iterable[str]:
        if self.profile is None and self._restored(cell).lstrip().startswith("["):
            yield json.dumps([*own, *fresh], ensure_ascii=False)
            return
        escape = self.profile.escape if self.profile else ""
        texts = [tag.replace(",", f"{escape},") for tag in fresh] if escape else fresh
        joiner = _joiner(cell, self.profile) or self.joiner
        if own:
            kept = cell.rstrip(_separators(self.profile) + _SPACES)
            yield joiner.join([kept, *texts])
        elif self.profile is not None:
            yield joiner.join(texts)
        else:
            for text in (joiner.join(texts), join_tags(list(fresh))):
                yield guard(text) if self.guarded else text

    def _restored(self, cell: str) -> str:
        return restore(cell) if self.guarded else cell


def new_tags(tags: Iterable[str], known: Iterable[str]) -> list[str]:
    """Those of the tags that are not known yet, each once. Capitals make no other tag."""
    seen = {mend(tag).casefold() for tag in known}
    fresh = []
    for tag in tags:
        if (text := tag.strip()) and text.casefold() not in seen:
            seen.add(text.casefold())
            fresh.append(text)
    return fresh


def tag_cells(profile: Profile | None, cells: Iterable[str], *, guarded: bool = True) -> TagCells:
    """How these cells, the first ones of a file, write their tags.

    `guarded` are cells of files in which no text may become a formula.
    """
    found = Counter(joiner for cell in cells if (joiner := _joiner(cell, profile)))
    usual = profile.joiner if profile else _JOINER
    joiner = max(found, key=lambda each: found[each]) if found else usual
    return TagCells(profile, joiner, guarded)


def _separators(profile: Profile | None) -> str:
    return profile.separators if profile else SEPARATORS


def _joiner(cell: str, profile: Profile | None) -> str | None:
    """What stands between the tags of a cell, spaces included; None for fewer than two tags."""
    text = cell.strip()
    separators = _separators(profile)
    if profile is None:
        if text.startswith("["):
            return None
        separators = next((each for each in separators if each in text), "")
    if not separators:
        return None
    escape = f"(?<!{re.escape(profile.escape)})" if profile and profile.escape else ""
    between = re.findall(f"(?<=\\S) ?{escape}[{re.escape(separators)}] ?(?=\\S)", text)
    return max(Counter(between).items(), key=lambda each: each[1])[0] if between else None
