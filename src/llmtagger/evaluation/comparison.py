"""Two evaluations on the same products: is the difference real, and where is it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmtagger.errors import ConfigError
from llmtagger.evaluation import metrics
from llmtagger.evaluation.metrics import Bootstrap, Floats, Record
from llmtagger.evaluation.verdicts import UNCLEAR

_LEAST_SUPPORT = 5  # gold or kept products that a tag needs to be tested
_LISTED = 30
_DRAWS, _DRAWS_A_TAG = 2000, 100
_FIGURES = {
    "micro_f1": metrics.f1,
    "micro_precision": metrics.precision,
    "micro_recall": metrics.recall,
}


def read_evaluation(folder: Path) -> tuple[Record, list[Record]]:
    """The results and samples that `llmtagger eval run` wrote; `ConfigError` where it did not."""
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        lines = (folder / "samples.jsonl").read_text(encoding="utf-8").split("\n")
        samples = [json.loads(line) for line in lines if line]
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder} holds no evaluation: {error}",
            hint="write one with `llmtagger eval run RUN.toml -o DIR`",
        ) from error
    return results, samples


def compare(a: Path, b: Path, *, seed: int = 0) -> Record:
    """The paired comparison of two evaluations' systems, for `report.write_comparison`.

    Only products that both have count, drawn by group. Raises `ConfigError` where there are none,
    or where gold differs.
    """
    (results_a, samples_a), (results_b, samples_b) = read_evaluation(a), read_evaluation(b)
    pairs = _pairs(samples_a, samples_b)
    if any(set(one["gold"]) != set(other["gold"]) for one, other in pairs):
        raise ConfigError(
            "the two evaluations judge by different gold",
            hint="run both on the same version of the gold set",
        )
    return {
        "a": {"name": a.name, "run": results_a["run"]},
        "b": {"name": b.name, "run": results_b["run"]},
        **paired(pairs, seed=seed),
        "cost": {"a": results_a.get("cost"), "b": results_b.get("cost")},
        "warnings": _warnings(results_a, results_b, samples_a, samples_b, len(pairs)),
    }


def paired(pairs: Sequence[tuple[Record, Record]], *, seed: int = 0) -> Record:
    """What differs between two sides of the same products, with intervals drawn by group.

    Each side's record has `id`, `title`, `group`, `gold` (the same on both sides) and the tags
    kept under `kept`, `system`.
    """
    gold = [frozenset(one["gold"]) for one, _ in pairs]
    kept = [
        [frozenset(sample["kept"]["system"]) for sample in side]
        for side in zip(*pairs, strict=True)
    ]
    each = [metrics.counts(side, gold) for side in kept]
    groups = _groups(pairs)
    boot = Bootstrap(groups, seed=seed)
    return {
        "products": len(pairs),
        "groups": len(set(groups)),
        "changed": sum(one != other for one, other in zip(*kept, strict=True)),
        **{name: _figure(boot, each, figure) for name, figure in _FIGURES.items()},
        "per_tag": _per_tag(groups, seed, kept, gold),
        "won": _changed(pairs, each, gains=True),
        "lost": _changed(pairs, each, gains=False),
    }


def _pairs(a: Sequence[Record], b: Sequence[Record]) -> list[tuple[Record, Record]]:
    other = {sample["id"]: sample for sample in b}
    pairs = [(sample, other[sample["id"]]) for sample in a if sample["id"] in other]
    if not pairs:
        raise ConfigError(
            "the two evaluations have no product in common",
            hint="run both on the same set with the same split (seed, test, rows)",
        )
    return pairs


def _groups(pairs: Sequence[tuple[Record, Record]]) -> list[int]:
    """Group numbers of `a`; both sides split the same set, so siblings are together there."""
    return [int(sample["group"]) for sample, _ in pairs]


def _figure(boot: Bootstrap, each: Sequence[Floats], figure: Any) -> Record:
    difference = boot.difference(each[1], each[0], figure)
    return {
        "a": boot.interval(each[0], figure).record(),
        "b": boot.interval(each[1], figure).record(),
        "difference": difference.record(),
        "verdict": verdict(difference.low, difference.high),
    }


def verdict(low: float, high: float) -> str:
    """What an interval of b less a says."""
    if low > 0:
        return "b is better"
    return "a is better" if high < 0 else UNCLEAR


def _per_tag(
    groups: Sequence[int],
    seed: int,
    kept: Sequence[Sequence[frozenset[str]]],
    gold: Sequence[frozenset[str]],
) -> list[Record]:
    """Every tag with enough products, by how surely it changed; p-values adjusted by Holm.

    There are as many draws as the smallest p-value needs to survive its adjustment. Of too few
    groups no tag is tested.
    """
    if len(set(groups)) < metrics.LEAST_GROUPS:
        return []
    changed: dict[str, tuple[int, list[Floats]]] = {}
    for tag in sorted({item for side in (*kept, gold) for items in side for item in items}):
        each = [
            np.array(
                [
                    (tag in k and tag in g, tag in k, tag in g)
                    for k, g in zip(side, gold, strict=True)
                ],
                dtype=float,
            )
            for side in kept
        ]
        support = int(each[0][:, 2].sum())
        if max(support, each[0][:, 1].sum(), each[1][:, 1].sum()) < _LEAST_SUPPORT:
            continue
        if (each[0] == each[1]).all():
            continue
        changed[tag] = (support, each)
    boot = Bootstrap(groups, seed=seed, draws=max(_DRAWS, _DRAWS_A_TAG * len(changed)))
    rows = [_tag_row(tag, *found, boot) for tag, found in changed.items()]
    for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["adjusted"] = adjusted
        difference = row["difference"]["value"]
        better = "b is better" if difference > 0 else "a is better"
        row["verdict"] = better if adjusted < 0.05 and difference else UNCLEAR
    return sorted(rows, key=lambda row: (row["p"], -abs(row["difference"]["value"]), row["tag"]))


def _tag_row(tag: str, support: int, each: Sequence[Floats], boot: Bootstrap) -> Record:
    drawn = metrics.f1(boot.sums(each[1])) - metrics.f1(boot.sums(each[0]))
    return {
        "tag": tag,
        "support": support,
        "a": float(metrics.f1(each[0].sum(axis=0))),
        "b": float(metrics.f1(each[1].sum(axis=0))),
        "difference": boot.difference(each[1], each[0], metrics.f1).record(),
        "p": two_sided(drawn),
    }


def two_sided(drawn: Floats) -> float:
    """A bootstrap p-value: twice the share of draws on the rarer side of 0, ties with both."""
    count = len(drawn) + 1
    return float(min(1.0, 2 * min((drawn <= 0).sum() + 1, (drawn >= 0).sum() + 1) / count))


def holm(values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number, so that one false alarm in all has at most that chance.

    Holm's step-down method (1979).
    """
    order = sorted(range(len(values)), key=lambda at: values[at])
    adjusted = [0.0] * len(values)
    reached = 0.0
    for rank, at in enumerate(order):
        reached = max(reached, min(1.0, (len(values) - rank) * values[at]))
        adjusted[at] = reached
    return adjusted


def _changed(
    pairs: Sequence[tuple[Record, Record]], each: Sequence[Floats], *, gains: bool
) -> list[Record]:
    change = metrics.product_f1(each[1]) - metrics.product_f1(each[0])
    order = np.argsort(-change if gains else change, kind="stable")
    found = []
    for at in order[:_LISTED].tolist():
        if (change[at] > 0) if gains else (change[at] < 0):
            one, other = pairs[at]
            found.append(
                {
                    "id": one["id"],
                    "title": one["title"],
                    "gold": one["gold"],
                    "a": one["kept"]["system"],
                    "b": other["kept"]["system"],
                    "change": float(change[at]),
                }
            )
    return found


def _warnings(
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    samples_a: Sequence[Record],
    samples_b: Sequence[Record],
    shared: int,
) -> list[str]:
    found = []
    if a["fingerprints"]["dataset"] != b["fingerprints"]["dataset"]:
        found.append("The two runs read different versions of the gold set.")
    if shared < max(len(samples_a), len(samples_b)):
        found.append(
            f"{shared} products are in both runs, of {len(samples_a)} and {len(samples_b)}; "
            "the others do not count."
        )
    if (a["run"]["regime"], a["run"]["labelled"]) != (b["run"]["regime"], b["run"]["labelled"]):
        found.append("The two runs learnt from different numbers of labelled products.")
    return found
