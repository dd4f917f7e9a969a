"""One tuning from an index to a verdict, with a model of two thin layers and answers made up."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from llmtagger import adapters
from llmtagger.adapters import Adapter, Tuned
from llmtagger.asking import Asked
from llmtagger.backends import hardware
from llmtagger.backends.fakes import FakeGenerator, HashingEncoder
from llmtagger.backends.index_folder import open_index
from llmtagger.backends.index_writer import add, build
from llmtagger.backends.models import resolve_model
from llmtagger.calibration import read_calibration
from llmtagger.catalog import read_catalog
from llmtagger.config import Settings
from llmtagger.datatypes import Constraint, Product, Prompt
from llmtagger.errors import TuningError
from llmtagger.hashing import sha256
from llmtagger.recipe import Recipe
from llmtagger.templates import find_template
from llmtagger.tuning import job as jobs
from llmtagger.tuning import training
from llmtagger.tuning.job import Prepared, TuneJob
from llmtagger.tuning.training import CHECKPOINT, Progress

SHOP = Path(__file__).parents[1] / "examples" / "catalogue.jsonl"
FIRST, ALL = 100, 130  # products of the index, and after more were added
RECIPE = Recipe(epochs=1, rate=0.01, batch=8, rank=2, alpha=4)
WORDS = ["user", "system", "assistant", ":", '["', '", "', '"]', "[]", "leather", "wallet", "防水"]


def some(start: int, end: int, folder: Path) -> list[Product]:
    lines = SHOP.read_text("utf-8").splitlines(keepends=True)[start:end]
    path = folder / f"{start}.jsonl"
    path.write_text("".join(lines), "utf-8")
    return list(read_catalog(path, rejected=lambda row: pytest.fail(row.reason)))


@pytest.fixture(scope="module", autouse=True)
def full_precision() -> Iterator[None]:
    """No CPU counts as fast with bfloat16, so that numbers agree on all of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hardware, "has_cuda", lambda: False)
        patch.setattr(hardware, "has_fast_bfloat16", lambda flags: False)
        yield


@pytest.fixture(scope="module")
def base(make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny", WORDS)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the first examples, without an adapter."""
    folder = tmp_path_factory.mktemp("shop")
    build(some(0, FIRST, folder), folder / "index", HashingEncoder())
    return folder / "index"


def nothing(*heard: object) -> None:
    """Hears of progress."""


@dataclass
class Source:
    """A model that is there at once, and answers each prompt from a table; without one, nothing."""

    answers: dict[tuple[tuple[str, str], ...], str]
    identity: str = "tiny@1+shop@1"

    def __post_init__(self) -> None:
        self.generator = FakeGenerator(self.answer)
        self.wanted: list[tuple[str, Tuned | None]] = []

    def answer(self, prompt: Prompt, constraint: Constraint) -> str:
        return self.answers.get(prompt.messages, "[]")

    def of(self, model: str, endpoints: object, engine: object, tuned: Tuned | None) -> Source:
        self.wanted.append((model, tuned))
        return self

    @contextmanager
    def open(self, waiting: object) -> Iterator[Asked]:
        yield Asked(self.generator, lambda: None)


@dataclass(frozen=True)
class Done:
    """What came of a tuning, and the model that it was judged with."""

    index: Path
    prepared: Prepared
    trained: Adapter
    judged: Adapter
    source: Source


def prepare(job: TuneJob) -> Prepared:
    return jobs.prepare(job, lambda *_: None)


def train(
    job: TuneJob, report: Callable[[Progress], None] = lambda at: None
) -> tuple[Prepared, Adapter]:
    prepared = prepare(job)
    return prepared, jobs.train(prepared, jobs.trainer(prepared), report)


def tune(job: TuneJob, cache: Path, *, knows: bool = True) -> Done:
    """The whole; the model that is judged `knows` all answers, or none."""
    prepared, adapter = train(job)
    right = {each.messages: each.answer for each in prepared.examples.watch}
    source = Source(right if knows else {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llmtagger.evaluation.answers.model_source", source.of)
        judged = jobs.judge(
            prepared.job.index, adapter, prepared.job.settings, cache, nothing, nothing
        )
    return Done(job.index, prepared, adapter, judged, source)


@pytest.fixture(scope="module")
def done(built: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A first adapter in a copy of the index; do not change it."""
    folder = tmp_path_factory.mktemp("done")
    index = Path(shutil.copytree(built, folder / "index", symlinks=True))
    return tune(TuneJob(index, str(base), recipe=RECIPE), folder)


@pytest.fixture
def index(built: Path, tmp_path: Path) -> Path:
    """A copy of the index without an adapter."""
    return Path(shutil.copytree(built, tmp_path / "index", symlinks=True))


@pytest.fixture
def tuned(done: Done, tmp_path: Path) -> Path:
    """A copy of the index with the adapter."""
    return Path(shutil.copytree(done.index, tmp_path / "tuned", symlinks=True))


def labelled(index: Path) -> set[str]:
    opened = open_index(index)
    rows = opened.labelled.nonzero()[0].tolist()
    return {opened.product(row).id for row in rows}


def test_the_record_says_how_an_adapter_was_made(done: Done, base: Path) -> None:
    adapter, examples = done.trained, done.prepared.examples
    folder = adapters.folder_of(done.index, adapter.name)
    opened = open_index(done.index)
    template = find_template("tag.v2")
    assert (adapter.source, adapter.base) == (str(base), "tiny")
    assert adapter.base_fingerprint == resolve_model(str(base)).fingerprint
    assert (adapter.prompt, adapter.template) == ("tag.v2", template.identity)
    assert (adapter.vocabulary, adapter.index) == (opened.manifest.vocabulary, opened.fingerprint)
    assert (adapter.settings, adapter.recipe) == (Settings().fingerprint, RECIPE)
    assert adapter.versions["torch"] == str(torch.__version__)
    assert {"transformers", "peft", "llmtagger"} <= adapter.versions.keys()
    assert (adapter.parent, adapter.verdict) == (None, None)
    assert adapter.weights == sha256(folder / adapters.WEIGHTS)
    assert json.loads((folder / adapters.CONFIG).read_bytes())["r"] == RECIPE.rank
    assert adapter.counts == examples.counts()
    assert adapter.counts["train"] == len(adapter.learnt)
    steps = -(-len(adapter.learnt) // RECIPE.batch)
    assert [step for step, _ in adapter.losses["train"]] == [*range(1, steps + 1)]
    assert adapter.losses["held_out"][-1][0] == steps
    assert adapter.seconds > 0
    assert not (done.index / "adapters" / ".unfinished").exists()


def test_what_is_held_out_is_never_learnt(done: Done) -> None:
    learnt, held_out = set(done.judged.learnt), set(done.judged.held_out)
    assert not learnt & held_out
    assert learnt | held_out == labelled(done.index)
    assert learnt == {example.product for example in done.prepared.examples.train}
    assert 10 < len(held_out) <= len(labelled(done.index)) / 3
    assert list(done.judged.learnt) == sorted(learnt)


def test_the_verdict_is_of_products_held_out(done: Done) -> None:
    verdict, asked = done.judged.verdict, done.source.generator.asked
    assert verdict is not None
    assert verdict.products == len(done.judged.held_out) == len(asked)
    assert {prompt.messages for prompt, _ in asked} == {
        each.messages for each in done.prepared.examples.watch
    }
    assert done.source.wanted == [
        (
            done.judged.source,
            Tuned(
                done.judged.name,
                adapters.folder_of(done.index, done.judged.name),
                done.judged.weights,
            ),
        )
    ]
    assert done.judged == done.trained.model_copy(update={"verdict": verdict})
    assert adapters.read_adapter(done.index, done.judged.name) == done.judged


def test_a_model_that_knows_the_answers_is_better(done: Done, tuned: Path) -> None:
    verdict = done.judged.verdict
    assert verdict is not None
    assert verdict.better
    value, low, high = verdict.added
    assert 0 < low <= value <= high
    adapters.promote(tuned, done.judged.name)
    assert adapters.live(tuned) == done.judged.name


def test_the_scorer_stands_beside_the_adapter(done: Done) -> None:
    """Not in the index, whose own holds without the adapter."""
    folder = adapters.folder_of(done.index, done.judged.name)
    calibration, verdict = read_calibration(folder), done.judged.verdict
    assert calibration is not None
    assert verdict is not None
    assert calibration.model == done.source.identity
    assert calibration.prompt == done.judged.template
    assert calibration.index == open_index(done.index).fingerprint
    assert calibration.products == len(labelled(done.index))
    assert calibration.ask is not None
    assert calibration.ask.added == verdict.added
    assert calibration.asked is not None
    assert calibration.asked.f1 == verdict.f1 > calibration.unasked.f1
    assert read_calibration(done.index) is None


def test_a_model_that_knows_nothing_is_no_better(index: Path, base: Path, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"batch": 64})
    done = tune(TuneJob(index, str(base), recipe=recipe, limit=8), tmp_path, knows=False)
    assert done.judged.verdict is not None
    assert not done.judged.verdict.better
    assert len(done.judged.learnt) == 8
    with pytest.raises(TuningError, match="not known to be better"):
        adapters.promote(index, done.judged.name)


class Killed(Exception):
    """Stands for a process that ends."""


def test_a_killed_tuning_goes_on_to_the_same_weights(
    done: Done, index: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_EVERY", -1.0)
    job = TuneJob(index, str(base), recipe=RECIPE)
    unfinished = index / "adapters" / ".unfinished"

    def kill(at: Progress) -> None:
        if at.step == 4:
            raise Killed

    with pytest.raises(Killed):
        train(job, kill)
    assert (unfinished / CHECKPOINT).is_dir()
    assert adapters.list_adapters(index) == []
    seen: list[int] = []
    _, adapter = train(job, lambda at: seen.append(at.step))
    assert seen[0] == 4  # the fourth step was not saved
    assert adapter.weights == done.trained.weights
    assert adapter.losses == done.trained.losses
    assert not unfinished.exists()
    folder = adapters.folder_of(index, adapter.name)
    expected = {adapters.RECORD, adapters.WEIGHTS, adapters.CONFIG}
    assert {path.name for path in folder.iterdir()} == expected


def test_going_on_keeps_what_was_held_out_and_replays(
    done: Done, tuned: Path, base: Path, tmp_path: Path
) -> None:
    before = labelled(tuned)
    add(tuned, some(FIRST, ALL, tmp_path))
    new = labelled(tuned) - before
    assert len(new) == ALL - FIRST
    job = TuneJob(tuned, recipe=RECIPE.model_copy(update={"rank": 2}), parent=done.judged.name)
    prepared = prepare(job)
    assert (prepared.source, prepared.recipe) == (str(base), RECIPE)  # the parent's form
    start = jobs.trainer(prepared)
    parent = adapters.folder_of(tuned, done.judged.name)
    weights: dict[str, Any] = load_file(parent / adapters.WEIGHTS)
    assert len(weights) == len(start._learnt)
    for name, value in start._learnt.items():
        assert torch.equal(value.detach(), weights[name.replace(".default", "")])
    child = jobs.train(prepared, start, lambda at: None)
    learnt, held_out = set(child.learnt), set(child.held_out)
    asked_of = {example.product for example in prepared.examples.train}
    assert child.parent == done.judged.name != child.name
    assert child.weights != done.judged.weights
    assert set(done.judged.learnt) <= learnt
    assert set(done.judged.held_out) <= held_out
    assert not learnt & held_out
    assert learnt | held_out == before | new
    fresh, replayed = asked_of & new, asked_of - new
    assert 0 < child.counts["replayed"] == len(replayed) <= len(fresh)
    assert replayed <= set(done.judged.learnt)
    assert [each.name for each in adapters.list_adapters(tuned)] == [done.judged.name, child.name]


def test_going_on_from_another_model_or_prompt_is_refused(
    done: Done, tuned: Path, base: Path, tmp_path: Path, make_model: Callable[..., Path]
) -> None:
    job = TuneJob(tuned, str(base), recipe=RECIPE, parent=done.judged.name)
    other = make_model(tmp_path / "other", WORDS, seed=1)
    with pytest.raises(TuningError, match="was made for tiny"):
        prepare(replace(job, base=str(other)))
    with pytest.raises(TuningError, match=r"tuned to the prompt tag\.v2"):
        prepare(replace(job, prompt="tag.v1"))
    with pytest.raises(TuningError, match="has no adapter 'gone'"):
        prepare(replace(job, parent="gone"))


def test_going_on_teaches_a_vocabulary_that_has_grown(
    done: Done, tuned: Path, base: Path, tmp_path: Path
) -> None:
    lines = [
        {"id": f"new{n}", "title": f"quartz clock no. {n}", "tags": [f"clock face {n}"]}
        for n in range(12)
    ]
    path = tmp_path / "clocks.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    add(tuned, read_catalog(path, rejected=lambda row: pytest.fail(row.reason)))
    assert open_index(tuned).manifest.vocabulary != done.judged.vocabulary
    prepared = prepare(TuneJob(tuned, str(base), recipe=RECIPE, parent=done.judged.name))
    assert any(example.product.startswith("new") for example in prepared.examples.train)


def test_one_tuning_at_a_time(index: Path, base: Path) -> None:
    prepared = prepare(TuneJob(index, str(base), recipe=RECIPE))
    trainer = jobs.trainer(prepared)
    folder = index / adapters.FOLDER
    with FileLock(folder / ".unfinished.lock"), pytest.raises(TuningError, match="another tuning"):
        jobs.train(prepared, trainer, nothing)
    assert jobs.train(prepared, trainer, nothing).verdict is None


def test_judged_again_an_adapter_keeps_its_verdict(
    done: Done, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = copy.deepcopy(done.source)  # what `done` was asked is looked at by another test
    monkeypatch.setattr("llmtagger.evaluation.answers.model_source", source.of)
    again = jobs.judge(tuned, done.trained, Settings(), tmp_path, nothing, nothing)
    assert again.verdict == done.judged.verdict
    gone = done.trained.model_copy(update={"held_out": ("gone",)})
    with pytest.raises(TuningError, match="any more"):
        jobs.judge(tuned, gone, Settings(), tmp_path, nothing, nothing)
