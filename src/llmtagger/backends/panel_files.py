"""The fitted experts in an index folder: arrays and one JSON file, no code."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, PositiveInt

from llmtagger.backends.arrays import open_array
from llmtagger.errors import IndexDamaged
from llmtagger.experts.extraction import Extractor
from llmtagger.experts.linear import LinearExpert
from llmtagger.experts.mentions import MentionRates
from llmtagger.experts.panel import Panel
from llmtagger.experts.places import PLACES
from llmtagger.experts.sketch import BUCKETS, DIMENSION, Sketch
from llmtagger.vocabulary import Vocabulary


class _Known(BaseModel):
    """What extractor.json holds: the keys, and how many products have a value of each."""

    model_config = ConfigDict(strict=True, extra="forbid")

    keys: tuple[str, ...]
    values: dict[str, dict[str, PositiveInt]]


def save_panel(panel: Panel, folder: Path) -> None:
    """Write what was learnt; nothing where nothing was."""
    if panel.sketch is None or panel.linear is None or panel.mentions is None:
        return
    np.save(folder / "words_idf.npy", panel.sketch.idf)
    np.save(folder / "linear.npy", panel.linear.weights)
    np.save(folder / "linear_tags.npy", panel.linear.tags)
    np.save(folder / "linear_shares.npy", panel.linear.shares)
    np.save(folder / "mentions.npy", panel.mentions.counts)
    np.save(folder / "places.npy", panel.mentions.places)
    if panel.extractor is not None:
        np.save(folder / "extractor.npy", panel.extractor.weights)
        known = {"keys": panel.extractor.keys, "values": panel.extractor.gazetteer}
        text = json.dumps(known, ensure_ascii=False)
        (folder / "extractor.json").write_text(text, encoding="utf-8", errors="replace")


def open_panel(folder: Path, vocabulary: Vocabulary, dimension: int) -> Panel:
    """Read what `save_panel` wrote; `IndexDamaged` where the parts do not fit each other."""
    if not (folder / "linear.npy").exists():
        return Panel(vocabulary)
    tags = np.array(open_array(folder / "linear_tags.npy", np.int64, (None,)))
    if len(tags) and not (tags.min() >= 0 and tags.max() < len(vocabulary)):
        raise _damaged(folder / "linear_tags.npy")
    counts = _counts(folder / "mentions.npy", len(vocabulary))
    places = _counts(folder / "places.npy", len(PLACES))
    return Panel(
        vocabulary,
        Sketch(np.array(open_array(folder / "words_idf.npy", np.float32, (BUCKETS,)))),
        LinearExpert(
            tags,
            open_array(folder / "linear.npy", np.float32, (len(tags), dimension + DIMENSION)),
            np.array(open_array(folder / "linear_shares.npy", np.float32, (len(tags),))),
        ),
        MentionRates.of(vocabulary, counts, places),
        _extractor(folder) if (folder / "extractor.npy").exists() else None,
    )


def _counts(path: Path, rows: int) -> NDArray[np.int64]:
    """Mentions, and those of them that are right."""
    counts = np.array(open_array(path, np.int64, (rows, 2)))
    if (counts < 0).any() or (counts[:, 1] > counts[:, 0]).any():
        raise _damaged(path)
    return counts


def _extractor(folder: Path) -> Extractor:
    path = folder / "extractor.json"
    try:
        known = _Known.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(path) from error
    weights = open_array(folder / "extractor.npy", np.float32, (None, 1 + 2 * len(known.keys)))
    if not len(weights):
        raise _damaged(folder / "extractor.npy")
    gazetteer = {value: Counter(counts) for value, counts in known.values.items()}
    return Extractor(known.keys, weights, gazetteer)


def _damaged(path: Path) -> IndexDamaged:
    return IndexDamaged(
        f"{path} is damaged", hint="build the index again with `llmtagger index build`"
    )
