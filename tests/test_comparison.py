"""Two evaluations side by side: what is called better, and what is not told apart."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtagger.errors import ConfigError
from llmtagger.evaluation import metrics
from llmtagger.evaluation.comparison import compare, holm, read_evaluation, two_sided, verdict
from llmtagger.evaluation.verdicts import UNCLEAR

Record = dict[str, Any]
Kept = Callable[[int], set[str]]

COUNT = 60


def _gold(at: int) -> set[str]:
    return {"a", "b"} if at % 2 else {"a"}


def _evaluation(
    folder: Path,
    kept: Kept,
    *,
    gold: Kept = _gold,
    ids: Sequence[int] = range(COUNT),
    groups: int = COUNT,
    **changed: Any,
) -> Path:
    samples = [
        {
            "id": f"p{at}",
            "title": f"Product {at}",
            "group": at % groups,
            "gold": sorted(gold(at)),
            "kept": {"system": sorted(kept(at)), "lookup": []},
        }
        for at in ids
    ]
    results = {
        "run": {"name": folder.name, "regime": "warm", "labelled": 100},
        "fingerprints": {"dataset": "d1"},
        "cost": {"seconds": 1.5},
    }
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results | changed), encoding="utf-8")
    lines = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
    (folder / "samples.jsonl").write_text(lines, encoding="utf-8")
    return folder


def test_an_evaluation_is_not_distinguishable_from_itself(tmp_path: Path) -> None:
    a, b = (_evaluation(tmp_path / name, lambda at: {"a"}) for name in "ab")
    found = compare(a, b)
    for name in ("micro_f1", "micro_precision", "micro_recall"):
        assert found[name]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
        assert found[name]["verdict"] == UNCLEAR
        assert found[name]["a"] == found[name]["b"]
    assert (found["products"], found["groups"]) == (COUNT, COUNT)
    assert found["per_tag"] == found["won"] == found["lost"] == found["warnings"] == []
    assert found["a"]["name"] == "a"
    assert found["b"]["run"]["regime"] == "warm"
    assert found["cost"] == {"a": {"seconds": 1.5}, "b": {"seconds": 1.5}}


def test_what_is_clearly_better_is_called_so(tmp_path: Path) -> None:
    """a keeps a wrong tag and misses b; b makes one mistake, at product 7."""
    a = _evaluation(tmp_path / "a", lambda at: {"a", "wrong"})
    b = _evaluation(tmp_path / "b", lambda at: set() if at == 7 else _gold(at))
    found = compare(a, b)
    each_gold = [_gold(at) for at in range(COUNT)]
    for name, figure in (("micro_f1", metrics.f1), ("micro_precision", metrics.precision)):
        by_hand = [
            float(figure(metrics.counts(kept, each_gold).sum(axis=0)))
            for kept in (
                [{"a", "wrong"}] * COUNT,
                [set[str]() if at == 7 else _gold(at) for at in range(COUNT)],
            )
        ]
        assert found[name]["a"]["value"] == pytest.approx(by_hand[0])
        assert found[name]["b"]["value"] == pytest.approx(by_hand[1])
        assert found[name]["difference"]["value"] == pytest.approx(by_hand[1] - by_hand[0])
        assert found[name]["verdict"] == "b is better"
    assert found["won"][0] == {
        "id": "p1",
        "title": "Product 1",
        "gold": ["a", "b"],
        "a": ["a", "wrong"],
        "b": ["a", "b"],
        "change": pytest.approx(1 - 1 / 2),
    }
    assert [(one["id"], one["change"]) for one in found["lost"]] == [("p7", pytest.approx(-0.5))]
    changes = [one["change"] for one in found["won"]]
    assert changes == sorted(changes, reverse=True)
    assert len(changes) == 30
    back = compare(b, a)
    assert back["micro_f1"]["verdict"] == "a is better"
    assert back["won"][0]["id"] == "p7"
    assert back["micro_f1"]["difference"]["value"] == pytest.approx(
        -found["micro_f1"]["difference"]["value"]
    )


def test_siblings_make_a_verdict_less_sure(tmp_path: Path) -> None:
    """Most gain and some lose: sixty products tell, in three groups they do not."""

    def better(at: int) -> set[str]:
        return {"wrong"} if at % 3 == 0 else {"a"}

    def worse(at: int) -> set[str]:
        return {"a"} if at % 3 == 0 else {"wrong"}

    verdicts = []
    for groups in (COUNT, 3):
        pair = [
            _evaluation(tmp_path / f"{name}{groups}", kept, gold=lambda at: {"a"}, groups=groups)
            for name, kept in (("a", worse), ("b", better))
        ]
        verdicts.append(compare(*pair)["micro_f1"]["verdict"])
    assert verdicts == ["b is better", UNCLEAR]


def test_other_gold_is_refused(tmp_path: Path) -> None:
    a = _evaluation(tmp_path / "a", _gold)
    b = _evaluation(tmp_path / "b", _gold, gold=lambda at: {"c"} if at == 9 else _gold(at))
    with pytest.raises(ConfigError, match="different gold") as caught:
        compare(a, b)
    assert "same version" in caught.value.hint


def test_no_shared_products_are_refused(tmp_path: Path) -> None:
    a = _evaluation(tmp_path / "a", _gold, ids=range(5))
    b = _evaluation(tmp_path / "b", _gold, ids=range(5, 9))
    with pytest.raises(ConfigError, match="no product in common") as caught:
        compare(a, b)
    assert "split" in caught.value.hint


def test_only_shared_products_count(tmp_path: Path) -> None:
    a = _evaluation(tmp_path / "a", _gold, ids=range(40))
    b = _evaluation(
        tmp_path / "b",
        lambda at: _gold(at) if 20 <= at < 40 else {"wrong"},
        ids=range(59, 19, -1),
        fingerprints={"dataset": "d2"},
        run={"name": "b", "regime": "cold", "labelled": 0},
    )
    found = compare(a, b)
    assert found["products"] == 20
    assert found["micro_f1"]["b"]["value"] == pytest.approx(1.0)
    assert len(found["warnings"]) == 3
    assert "20 products are in both runs, of 40 and 40" in found["warnings"][1]


@pytest.mark.parametrize("missing", ["results.json", "samples.jsonl", "both", "broken"])
def test_a_folder_without_an_evaluation_is_refused(tmp_path: Path, missing: str) -> None:
    folder = _evaluation(tmp_path / "a", _gold)
    if missing == "broken":
        (folder / "samples.jsonl").write_text('{"id": 1}\n{"id"', encoding="utf-8")
    else:
        for name in ("results.json", "samples.jsonl"):
            if missing in (name, "both"):
                (folder / name).unlink()
    with pytest.raises(ConfigError, match="holds no evaluation") as caught:
        read_evaluation(folder)
    assert "llmtagger eval run" in caught.value.hint


def test_strange_line_ends_do_not_split_a_sample(tmp_path: Path) -> None:
    folder = _evaluation(tmp_path / "a", lambda at: {"a\u2028b", "c\x85"}, ids=[1])
    assert read_evaluation(folder)[1][0]["kept"]["system"] == ["a\u2028b", "c\x85"]


def test_tags_are_told_apart_only_with_their_number_in_mind(tmp_path: Path) -> None:
    """`a` is always right in b and never in a. Twelve others change a little, each by chance."""
    random = np.random.default_rng(8)
    coins = random.random((2, COUNT, 12)) < 0.5
    names = [f"t{number}" for number in range(12)]

    def everything(at: int) -> set[str]:
        return {"a", "rare", *names} if at < 4 else {"a", *names}

    def kept(side: int) -> Kept:
        def of(at: int) -> set[str]:
            some = {n for n, coin in zip(names, coins[side, at], strict=True) if coin}
            return some | ({"a", "rare"} if side else set())

        return of

    a, b = (
        _evaluation(tmp_path / "ab"[side], kept(side), gold=everything, groups=20)
        for side in (0, 1)
    )
    rows = {row["tag"]: row for row in compare(a, b)["per_tag"]}
    assert "rare" in rows  # b keeps it for all, which is enough of them
    assert rows["rare"]["support"] == 4
    assert rows["a"]["verdict"] == "b is better"
    assert (rows["a"]["a"], rows["a"]["b"]) == (0.0, 1.0)
    ps = [row["p"] for row in rows.values()]
    assert ps == sorted(ps)
    assert [row["adjusted"] for row in rows.values()] == pytest.approx(_by_hand(ps))
    for row in rows.values():
        sure = row["adjusted"] < 0.05
        assert (row["verdict"] != UNCLEAR) == sure
    raw = [tag for tag in names if rows[tag]["p"] < 0.05]
    assert raw  # some would have been called by their own p-values
    assert all(rows[tag]["verdict"] == UNCLEAR for tag in raw)


def test_tags_with_few_products_or_no_change_are_left_out(tmp_path: Path) -> None:
    a = _evaluation(tmp_path / "a", lambda at: {"same", "few"} if at < 4 else {"same", "many"})
    b = _evaluation(tmp_path / "b", lambda at: {"same", "many"} if at < 9 else {"same"})
    assert {row["tag"] for row in compare(a, b)["per_tag"]} == {"many"}


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (0.01, 0.2, "b is better"),
        (-0.2, -0.01, "a is better"),
        (-0.1, 0.1, UNCLEAR),
        (0.0, 0.1, UNCLEAR),
        (-0.1, 0.0, UNCLEAR),
    ],
)
def test_what_an_interval_says(low: float, high: float, says: str) -> None:
    assert verdict(low, high) == says


@pytest.mark.parametrize(
    ("drawn", "p"),
    [
        pytest.param([1.0] * 99, 2 / 100, id="all-above"),
        pytest.param([-1.0] * 99, 2 / 100, id="all-below"),
        pytest.param([1.0] * 90 + [-1.0] * 9, 2 * 10 / 100, id="nine-below"),
        pytest.param([1.0] * 90 + [0.0] * 9, 2 * 10 / 100, id="ties-count-against"),
        pytest.param([1.0, -1.0] * 10, 1.0, id="even"),
        pytest.param([0.0] * 9, 1.0, id="no-change"),
    ],
)
def test_a_two_sided_p_value(drawn: list[float], p: float) -> None:
    assert two_sided(np.array(drawn)) == pytest.approx(p)
    assert two_sided(-np.array(drawn)) == pytest.approx(p)


def test_holm_by_hand() -> None:
    """.005·4, .01·3, .03·2, and .04·1, which may not be less than the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.001, 0.999))
def test_holm_rejects_step_by_step(values: list[float], level: float) -> None:
    """As Holm put it: from the smallest on, reject while p ≤ level / (number not yet rejected)."""
    adjusted = holm(values)
    assert adjusted == pytest.approx(_by_hand(values))
    left = sorted(values)
    rejected = 0
    while left and left[0] <= level / len(left):
        left.pop(0)
        rejected += 1
    safe = [abs(each - level) > 1e-9 for each in adjusted]
    if all(safe):
        assert sum(each <= level for each in adjusted) == rejected


def _by_hand(values: Sequence[float]) -> list[float]:
    """For each the largest of (number of values not smaller-ranked) · p, up to its own rank."""
    ranked = sorted(values)
    scaled = [min(1.0, (len(ranked) - rank) * p) for rank, p in enumerate(ranked)]
    return [max(scaled[: ranked.index(p) + ranked.count(p)], default=0.0) for p in values]
