"""A run of `tag` with a learned scorer: its cut, whom it asks, and when it goes on or refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.example_index import EXAMPLES, build_examples

from llmtagger import tagging
from llmtagger.asking import Asked
from llmtagger.backends.fakes import FakeGenerator, HashingEncoder
from llmtagger.backends.index_folder import open_index
from llmtagger.backends.index_writer import build
from llmtagger.calibration import AskRule, Calibration, Fitted, Promise
from llmtagger.config import EngineSettings, Settings
from llmtagger.datatypes import TaggedProduct
from llmtagger.errors import ConfigError, RunError
from llmtagger.stages.scoring import WARM
from llmtagger.tagging import RunSummary, TagJob, run
from llmtagger.templates import find_template

NEW = 12
Record = dict[str, Any]


class Silent:
    """Watches a run and says nothing."""

    def waiting(self, message: str, seconds: float) -> None: ...

    def started(self, total: int, done: int) -> None: ...

    def understood(self, understood: object) -> None: ...

    def finished_one(self, tagged: TaggedProduct) -> None: ...


class Source:
    """A model that is there at once; `opened` counts how often it was called for."""

    def __init__(self, identity: str = "fake") -> None:
        self.identity = identity
        self.notes: tuple[str, ...] = ()
        self.opened = 0
        self.generator = FakeGenerator()

    @contextmanager
    def open(self, waiting: object) -> Iterator[Asked]:
        self.opened += 1
        yield Asked(self.generator, lambda: None)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Source:
    """Stands for whatever model a job names."""
    found = Source()
    monkeypatch.setattr(tagging, "model_source", lambda *_: found)
    return found


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model may be looked for, let alone asked."""

    def refuse(model: str, endpoints: Sequence[str], engine: EngineSettings) -> Source:
        raise AssertionError("a model was looked for")

    monkeypatch.setattr(tagging, "model_source", refuse)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of some of the examples, without a learned scorer."""
    return build_examples(tmp_path_factory.mktemp("built"))


@pytest.fixture
def index(built: Path, tmp_path: Path) -> Path:
    """A copy of that index, to put a scorer into."""
    return Path(shutil.copytree(built, tmp_path / "index", symlinks=True))


@pytest.fixture
def tag(index: Path, tmp_path: Path) -> Callable[..., RunSummary]:
    """Runs a job on the first new examples, into `out.jsonl`."""
    lines = (EXAMPLES / "new.jsonl").read_text("utf-8").splitlines(keepends=True)[:NEW]
    (tmp_path / "new.jsonl").write_text("".join(lines), "utf-8")

    def start(**options: Any) -> RunSummary:
        output = str(tmp_path / "out.jsonl")
        return run(TagJob(str(tmp_path / "new.jsonl"), index, output, **options), Silent())

    return start


@pytest.fixture
def written(tmp_path: Path) -> Callable[[], list[Record]]:
    def read() -> list[Record]:
        text = (tmp_path / "out.jsonl").read_text("utf-8")
        return [json.loads(line) for line in text.splitlines()]

    return read


def _fitted(threshold: float, *promises: Promise, bias: float = WARM.bias) -> Fitted:
    return Fitted(
        bias=bias,
        of=dict(WARM.of),
        bend=(1.0, 1.0, 0.0),
        threshold=threshold,
        f1=0.8,
        calibration_error=0.02,
        promises=list(promises),
    )


def _promise(score: float, lower: float) -> Promise:
    return Promise(score=score, kept=100, right=95, lower=lower)


def _calibrate(index: Path, /, **changed: Any) -> Calibration:
    """Put a scorer into the index that was fitted to it as it is, without a model."""
    opened = open_index(index)
    fields: Record = {
        "created": "2026-11-20T10:00:00+00:00",
        "index": opened.fingerprint,
        "vocabulary": opened.manifest.vocabulary,
        "settings": Settings().fingerprint,
        "products": 60,
        "unasked": _fitted(0.25, _promise(0.6, 0.9), _promise(0.4, 0.8)),
    }
    calibration = Calibration(**fields | changed)
    calibration.write(index)
    return calibration


def _with_model(index: Path, margin: float, threshold: float = 0.5) -> Calibration:
    template = find_template("tag.v1")
    return _calibrate(
        index,
        model="fake",
        prompt=f"{template.name}@{template.hash}",
        asked=_fitted(threshold, _promise(0.7, 0.9)),
        ask=AskRule(margin=margin, added=(0.02, 0.01, 0.03), products=50, share=0.4, kept=0.95),
    )


def _scores(records: Sequence[Record], place: str) -> list[float]:
    return [item["score"] for record in records for item in record[place]]


@pytest.mark.usefixtures("no_model")
def test_without_asking_no_model_needs_to_be_there(
    tag: Callable[..., RunSummary], written: Callable[[], list[Record]]
) -> None:
    summary = tag(llm="never", model="/no/such/model")
    assert (summary.products, summary.asked, summary.problems) == (NEW, 0, 0)
    assert (summary.prompt_tokens, summary.cache_hit_rate) == (0, None)
    assert summary.kept == len(_scores(written(), "tags")) > NEW
    assert min(_scores(written(), "tags")) >= summary.cut.threshold == 0.35
    for record in written():
        assert record["run"] == summary.run
        assert not any(item["evidence"]["model"]["chosen"] for item in record["tags"])
    assert {name: summary.run[name] for name in ("model", "llm", "scorer")} == {
        "model": "none",
        "llm": "never",
        "scorer": "default",
    }


@pytest.mark.usefixtures("no_model")
def test_the_scorer_of_the_index_is_used(
    index: Path, tag: Callable[..., RunSummary], written: Callable[[], list[Record]]
) -> None:
    before = tag(llm="never")
    shown = {(r["id"], i["tag"]): i["score"] for r in written() for i in r["tags"] + r["review"]}
    _calibrate(index, unasked=_fitted(0.25, bias=WARM.bias - 1))
    after = tag(llm="never", fresh=True)
    assert (before.cut.threshold, after.cut.threshold) == (0.35, 0.25)
    assert after.run["scorer"].startswith("fitted@")
    assert after.warnings == ()
    assert min(_scores(written(), "tags")) >= 0.25 > max(_scores(written(), "review"))
    for record in written():
        for item in record["tags"] + record["review"]:
            assert item["evidence"]["contributions"]["bias"] == WARM.bias - 1
            assert item["score"] < shown[record["id"], item["tag"]]  # by exactly that bias


@pytest.mark.usefixtures("no_model")
def test_settings_of_the_run_cut_where_it_says_so(
    index: Path, tag: Callable[..., RunSummary]
) -> None:
    _calibrate(index)
    kept = [
        tag(llm="never", threshold=threshold, min_precision=precision).kept
        for threshold, precision in ((None, None), (None, 0.8), (None, 0.9), (None, 0.95))
    ]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > kept[2] > kept[3] == 0
    cut = tag(llm="never", min_precision=0.8)
    assert cut.cut.threshold == 0.4
    assert cut.kept == tag(llm="never", threshold=0.4).kept == kept[1]


@pytest.mark.usefixtures("no_model")
def test_what_is_not_promised_is_for_review(
    index: Path, tag: Callable[..., RunSummary], written: Callable[[], list[Record]]
) -> None:
    _calibrate(index)
    everything = tag(llm="never")
    summary = tag(llm="never", min_precision=0.95)
    assert (summary.kept, summary.review) == (0, everything.kept + everything.review)
    assert all(record["tags"] == [] for record in written())


@pytest.mark.usefixtures("no_model")
def test_a_stale_scorer_warns_and_promises_nothing(
    index: Path, tag: Callable[..., RunSummary], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="not calibrated"):
        tag(llm="never", min_precision=0.9)
    _calibrate(index, index="of an earlier state")
    with pytest.raises(ConfigError, match="changed since calibration"):
        tag(llm="never", min_precision=0.9)
    assert not (tmp_path / "out.jsonl.journal").exists()
    (warning,) = tag(llm="never").warnings
    assert "index changed" in warning


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        pytest.param(
            {"llm": "never"}, {"llm": "always"}, "another llm, model", id="asks after all"
        ),
        pytest.param({"llm": "auto"}, {"llm": "never"}, "another llm$", id="another wish"),
    ],
)
def test_another_mode_is_another_run(
    tag: Callable[..., RunSummary], source: Source, first: Record, second: Record, says: str
) -> None:
    tag(**first)
    asked = len(source.generator.asked)
    with pytest.raises(RunError, match=says) as refused:
        tag(**second)
    assert "--fresh" in refused.value.hint
    assert len(source.generator.asked) == asked
    assert tag(**second, fresh=True).resumed == 0


@pytest.mark.usefixtures("no_model")
def test_another_scorer_is_another_run(index: Path, tag: Callable[..., RunSummary]) -> None:
    tag(llm="never")
    _calibrate(index)
    with pytest.raises(RunError, match=r"another scorer$"):
        tag(llm="never")
    tag(llm="never", fresh=True)
    assert tag(llm="never").resumed == NEW
    _calibrate(index, products=77)
    with pytest.raises(RunError, match=r"another scorer$"):
        tag(llm="never")


def test_a_finished_run_is_cut_anew_without_the_model(
    index: Path,
    tag: Callable[..., RunSummary],
    source: Source,
    written: Callable[[], list[Record]],
) -> None:
    _with_model(index, margin=1.0)
    first = tag()
    assert (first.asked, first.resumed, source.opened) == (NEW, 0, 1)
    assert first.cut.answered == 0.5
    assert min(_scores(written(), "tags")) >= 0.5
    for options, threshold in (({"threshold": 0.8}, 0.8), ({"min_precision": 0.9}, 0.7)):
        again = tag(**options)
        assert (again.resumed, again.asked, again.run["id"]) == (NEW, 0, first.run["id"])
        assert again.cut.answered == threshold
        assert 0 < again.kept < first.kept
        assert min(_scores(written(), "tags")) >= threshold
    assert source.opened == 1
    assert len(source.generator.asked) == NEW
    assert tag().kept == first.kept


def test_where_asking_adds_nothing_no_server_is_started(
    index: Path, tag: Callable[..., RunSummary], source: Source
) -> None:
    _with_model(index, margin=0.0)
    summary = tag()
    assert (summary.asked, source.opened, summary.warnings) == (0, 0, ())
    assert summary.run["model"] == "fake"
    assert tag(llm="always", fresh=True).asked == NEW == len(source.generator.asked)


def test_only_close_calls_are_asked_about(
    index: Path,
    tag: Callable[..., RunSummary],
    source: Source,
    written: Callable[[], list[Record]],
) -> None:
    calibration = _with_model(index, margin=0.0)
    tag(llm="never", threshold=0.0)  # every score without the model, as far as it is kept
    low, high = calibration.unasked.threshold - 0.02, calibration.unasked.threshold + 0.02
    close = {
        record["id"]
        for record in written()
        if any(low <= item["score"] <= high for item in record["tags"])
    }
    assert 0 < len(close) < NEW
    _with_model(index, margin=0.02)
    summary = tag(fresh=True)
    assert (summary.asked, source.opened) == (len(close), 1)
    assert len(source.generator.asked) == len(close)
    for record in written():
        cut = 0.5 if record["id"] in close else 0.25
        assert all(item["score"] >= cut for item in record["tags"])
        assert all(item["score"] < cut for item in record["review"])


def test_of_another_model_nothing_is_known_and_it_is_not_asked(
    index: Path, tag: Callable[..., RunSummary], source: Source
) -> None:
    _with_model(index, margin=0.1)
    source.identity = "other"
    summary = tag(min_precision=0.9)
    assert (summary.asked, source.opened, summary.promised) == (0, 0, True)
    assert summary.kept > 0
    summary = tag(min_precision=0.9, llm="always", fresh=True)
    assert (summary.asked, summary.kept, summary.promised) == (NEW, 0, False)
    measured, kept = summary.warnings
    assert "Calibration measured fake" in measured
    assert "--llm never" in kept


def test_after_a_calibration_without_a_model_none_is_looked_for(
    index: Path,
    tag: Callable[..., RunSummary],
    no_model: None,
) -> None:
    """The README's `calibrate` and then `tag`: no server, no download, an answer in seconds."""
    _calibrate(index)
    summary = tag(model="some/model", endpoints=("http://127.0.0.1:1",))
    assert (summary.asked, summary.run["model"]) == (0, "none")
    assert summary.decision == (
        "Not asking the model: calibration has not measured it. "
        f"Run `llmtagger calibrate -i {index} --model some/model --endpoint http://127.0.0.1:1` "
        "to find out, or use --llm always."
    )


def test_without_a_label_the_model_is_asked_about_everything(
    index: Path, tag: Callable[..., RunSummary], source: Source
) -> None:
    labelled = open_index(index)
    bare = [replace(labelled.product(row), tags=None) for row in range(len(labelled))]
    build(bare, index, HashingEncoder(), vocabulary=labelled.vocabulary)
    summary = tag()
    assert (summary.asked, source.opened) == (NEW, 1)
    assert "nothing in this index is labelled" in summary.decision
