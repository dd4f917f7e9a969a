"""Gold that somebody approves becomes labels of the index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from llmtagger.goldbook import GoldBook
from llmtagger.marks import Entry

Progress = Callable[[str, int, int], None]


def approve(
    index: Path, chosen: Sequence[Entry], book: GoldBook, author: str, progress: Progress
) -> list[str]:
    """Put products with their gold into the index, and the book says so.

    Returns the ids of those that somebody has changed since the entries were read: they are in the
    index as they were then, and open in the book. A product that the index has keeps all but its
    tags, since a sheet may hold less of it.
    """
    from llmtagger.backends import index_writer
    from llmtagger.backends.index_folder import open_index

    opened = open_index(index)
    labelled = []
    for entry in chosen:
        row = opened.position(entry.product.id)
        product = entry.product if row is None else opened.product(row)
        gold = tuple(tag for tag, right in entry.verdicts(opened.vocabulary).items() if right)
        labelled.append(replace(product, tags=gold))
    index_writer.add(index, labelled, opened.encoder, progress=progress)
    ids = {entry.product.id: entry.revision for entry in chosen}
    return [id for id, seen in ids.items() if not book.approve(id, author, revision=seen)]
