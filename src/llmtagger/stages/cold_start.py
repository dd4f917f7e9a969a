"""Where scores are cut while nothing is labelled: by what they say of the catalogue itself."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from llmtagger.datatypes import ScoredTags

# The F1 of a cut is highest where the cut is half of it (Lipton, Elkan and Naryanaswamy 2014,
# "Optimal thresholding of classifiers to maximize F1 measure"), and without labels F1 comes to
# about .3, whatever scores that are too sure of themselves say.
HIGHEST = 0.15
_MENTIONS = 0.05  # the share of mentioned tags that may score below the cut


def cold_threshold(scored: Iterable[ScoredTags]) -> float:
    """The threshold for a catalogue, from the default scores of some of its products.

    It is where F1 would be highest if the scores were right: many sure candidates raise it, many
    doubtful ones lower it. Nearly all tags that a text names stay above it, as in looking names up.
    `HIGHEST` where there are no products.
    """
    items = [item for each in scored for item in each.items]
    named = [item.score for item in items if item.evidence.signals.get("literal", 0.0) >= 1]
    cuts = [HIGHEST]
    if items:
        cuts.append(_expected_best(np.array([item.score for item in items])))
    if named:
        cuts.append(float(np.quantile(named, _MENTIONS)))
    return min(cuts)


def _expected_best(chances: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """The cut of the highest expected micro-F1 for chances (n,) of being right."""
    falling = np.sort(chances)[::-1]
    right = np.cumsum(falling)
    f1 = 2 * right / (np.arange(1, len(falling) + 1) + right[-1])
    return float(falling[f1.argmax()])
