"""An adapter's page and the events of a training."""

from __future__ import annotations

import builtins
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtagger.adapters import Adapter, Verdict
from llmtagger.errors import TuningError
from llmtagger.recipe import Recipe
from llmtagger.tuning.events import EventLog
from llmtagger.tuning.page import smoothed, write_tuning
from llmtagger.tuning.training import Progress

ADAPTER = Adapter(
    name="2026-11-21.1",
    created="2026-11-21T10:00:00+00:00",
    source="auto",
    base="<b>Small</b>",
    base_fingerprint="f1",
    prompt="tag.v2",
    template="tag.v2@1",
    vocabulary="v1",
    index="i1",
    settings="s1",
    recipe=Recipe(),
    versions={"torch": "2.13.0"},
    counts={"train": 1200, "held out": 300},
    learnt=("a",),
    held_out=("b",),
    weights="w1",
    seconds=601.0,
    losses={"train": [(1, 2.0), (2, 1.0)], "held_out": [(2, 1.5)]},
    verdict=Verdict(products=300, f1=0.8, added=(0.05, 0.02, 0.08)),
)


def test_the_page_shows_verdict_counts_and_recipe(tmp_path: Path) -> None:
    page = write_tuning(ADAPTER, tmp_path).read_text("utf-8")
    for said in ("Better", "+5.0 [+2.0, +8.0]", "tag.v2@1", "0.001", "10 min"):
        assert said in page
    assert re.search(r"1.200</td>", page)
    assert "<b>Small" not in page
    assert page.count("<polyline") == 2
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_an_adapter_that_was_not_judged_has_a_page_too(tmp_path: Path) -> None:
    bare = ADAPTER.model_copy(update={"verdict": None, "losses": {"train": [], "held_out": []}})
    assert "Not judged yet" in write_tuning(bare, tmp_path).read_text("utf-8")


@given(st.lists(st.floats(0, 9), max_size=500))
def test_smoothing_keeps_the_mean_where_parts_are_equal(values: list[float]) -> None:
    points = smoothed(list(enumerate(values, 1)))
    assert len(points) <= 120
    assert [step for step, _ in points] == sorted(step for step, _ in points)
    assert all(min(values) - 1e-9 <= value <= max(values) + 1e-9 for _, value in points)
    assert bool(points) == bool(values)


def test_events_hold_each_loss_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, float, int]] = []
    with EventLog(tmp_path) as log:
        monkeypatch.setattr(log._writer, "add_scalar", lambda *each: written.append(each))
        for step, held in ((1, None), (2, 1.5), (3, 1.5), (4, 1.2)):
            log.report(Progress(step, 4, 100 * step, 2.0 * step, 2.0 / step, held))
    assert [each for each in written if each[0] == "loss/held_out"] == [
        ("loss/held_out", 1.5, 2),
        ("loss/held_out", 1.2, 4),
    ]
    assert [each[1:] for each in written if each[0] == "tokens_per_second"][-1] == (50.0, 4)
    assert [each[2] for each in written if each[0] == "loss/train"] == [1, 2, 3, 4]


def test_an_event_file_is_written(tmp_path: Path) -> None:
    with EventLog(tmp_path) as log:
        log.report(Progress(1, 1, 10, 1.0, 0.5, None))
    (found,) = tmp_path.glob("events.out.tfevents.*")
    assert b"loss/train" in found.read_bytes()


def test_without_the_package_the_hint_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name == "tensorboardX":
            raise ImportError(name)
        return usual(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(TuningError) as refused:
        EventLog(tmp_path)
    assert "llmtagger[tensorboard]" in refused.value.hint
