"""What one row of a file says of one product, and how that stands in a sheet's cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmtagger.catalog.products import SYNONYMS, Columns, build, join_tags, split_tags
from llmtagger.catalog.rows import CatalogOptions, Row, RowFault
from llmtagger.catalog.tables import guard, restore
from llmtagger.datatypes import Product
from llmtagger.marks import Entry, State, clean
from llmtagger.vocabulary import Vocabulary

COLUMNS = (
    *("id", "title", "description", "brand", "category"),
    *("tags", "wrong", "state", "author"),
)
_SAID = ("wrong", "state", "author")  # columns that are no field of a product


@dataclass(frozen=True, slots=True)
class Statement:
    """A product with its right and its wrong tags; `author` is empty where nobody is named."""

    product: Product
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    state: State
    author: str = ""


def statement_of(entry: Entry, vocabulary: Vocabulary) -> Statement:
    """What the book says of a product, with tags by their names in the vocabulary."""
    verdicts = entry.verdicts(vocabulary)
    return Statement(
        product=entry.product,
        right=tuple(clean(tag) for tag, right in verdicts.items() if right),
        wrong=tuple(clean(tag) for tag, right in verdicts.items() if not right),
        state=entry.state,
        author=entry.author,
    )


def to_cells(said: Statement) -> list[str]:
    """The cells of a row, one for each of `COLUMNS`, none of which acts as a formula."""
    product = said.product
    texts = (product.id, product.title, product.description, product.brand, product.category)
    cells = (
        *texts,
        *(join_tags(list(said.right)), join_tags(list(said.wrong))),
        *(said.state.value, said.author),
    )
    return [guard(clean(cell)) for cell in cells]


def from_row(row: Row, columns: Columns) -> Statement:
    """The statement in a sheet's row; `RowFault` says why there is none."""
    values = {name: restore(str(cell)) for name, cell in row.values.items()}
    layout = columns.layout(tuple(values))
    product = as_product(values, columns)
    return Statement(
        product=product,
        right=_split(values.get(layout.fields.get("tags", ""), "")),
        wrong=_split(values.get(_column("wrong", values), "")),
        state=as_state(values.get(_column("state", values), "")),
        author=values.get(_column("author", values), "").strip(),
    )


def as_product(values: Mapping[str, Any], columns: Columns) -> Product:
    """The product in a row, read as in a catalogue, without tags; `RowFault` if there is none."""
    layout = columns.layout(tuple(values))
    fields = {field: column for field, column in layout.fields.items() if field != "tags"}
    extra = tuple(pair for pair in layout.extra if pair[0].strip().casefold() not in _SAID)
    return build(values, replace(layout, fields=fields, extra=extra), cells=True)


def as_state(text: str) -> State:
    """The state that a file gives; an empty cell is an open product.

    Only `gold approve` approves: a file's approved product is a reviewed one.
    """
    try:
        state = State(text.strip().casefold() or State.OPEN)
    except ValueError:
        states = ", ".join(State)
        raise RowFault(f"the state {text.strip()[:50]!r} is none of {states}") from None
    return State.REVIEWED if state is State.APPROVED else state


def as_tags(texts: Sequence[object]) -> tuple[str, ...]:
    """The tags in a list; `RowFault` where it holds anything else."""
    if not all(isinstance(text, str) for text in texts):
        raise RowFault("the tags are not a list of texts")
    return tuple(dict.fromkeys(tag for text in texts if (tag := clean(str(text)).strip())))


def columns_of_catalogues() -> Columns:
    """How columns are recognised: as in a catalogue, by any of their names."""
    return Columns(CatalogOptions(), SYNONYMS)


def _split(cell: str) -> tuple[str, ...]:
    return as_tags(_listed(split_tags(cell)))


def _listed(found: object) -> Sequence[object]:
    """Of a JSON cell nobody has checked yet whether it is a list."""
    return found if isinstance(found, list) else ()


def _column(wanted: str, names: Mapping[str, str]) -> str:
    return next((name for name in names if name.strip().casefold() == wanted), wanted)
