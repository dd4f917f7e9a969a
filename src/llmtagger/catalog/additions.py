"""What tagging adds to a file that is written back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Additions:
    """The tags of each product by id: the kept ones and those for review.

    `review_column` names the column for the latter; they are left out when it is None. `records`
    counts the output records, those without a tag included.
    """

    tags: Mapping[str, tuple[str, ...]]
    review: Mapping[str, tuple[str, ...]]
    review_column: str | None = None
    records: int = 0


def collect(records: Iterable[Mapping[str, Any]], review_column: str | None) -> Additions:
    """The additions in output records; of their evidence nothing is held."""
    tags: dict[str, tuple[str, ...]] = {}
    review: dict[str, tuple[str, ...]] = {}
    count = 0
    for count, record in enumerate(records, start=1):  # noqa: B007  counted
        if kept := _names(record, "tags"):
            tags[record["id"]] = kept
        if review_column is not None and (doubtful := _names(record, "review")):
            review[record["id"]] = doubtful
    return Additions(tags, review, review_column, count)


def _names(record: Mapping[str, Any], field: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item["tag"] for item in record.get(field) or ()))
