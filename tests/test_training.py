"""Training and merging, with a model of two thin layers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from llmtagger.backends import hardware, tuned_model
from llmtagger.backends.folders import cache_dir
from llmtagger.backends.models import Model, resolve_model
from llmtagger.cli.progress import sparkline
from llmtagger.errors import TuningError
from llmtagger.recipe import Recipe
from llmtagger.tuning import training
from llmtagger.tuning.examples import Example
from llmtagger.tuning.training import CHECKPOINT, Progress, Tokens, Trainer, batches, schedule

WORDS = ["mug", "bag", "hat", "red", "blue", "small", "user", "assistant", "[", "]", ",", ":"]
RECIPE = Recipe(epochs=3, rate=0.01, batch=4, rank=4, alpha=8, longest=64)
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.fixture(scope="module")
def base(make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny", WORDS)


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """No CPU counts as fast with bfloat16, so that numbers agree on all of them."""
    monkeypatch.setattr(hardware, "has_cuda", lambda: False)
    monkeypatch.setattr(hardware, "has_fast_bfloat16", lambda flags: False)


def example(number: int) -> Example:
    """Its answer is the colour and the thing that the question names."""
    colour, thing = ("red", "blue")[number % 2], ("mug", "bag", "hat")[number % 3]
    said = f"{'small ' * (number % 5)}{colour} {thing}"
    return Example(f"p{number}", "en", (("user", said),), f"[ {thing} , {colour} ]")


EXAMPLES = [example(number) for number in range(20)]
WATCH = [example(number) for number in range(20, 26)]


@pytest.fixture
def make(base: Path, tmp_path: Path) -> Callable[..., Trainer]:
    """`make(folder, **recipe)`: a trainer in a folder of that name."""

    def trainer(folder: str = "adapter", *, parent: Path | None = None, **changed: Any) -> Trainer:
        (tmp_path / folder).mkdir(exist_ok=True)
        recipe = RECIPE.model_copy(update=changed)
        return Trainer(base, tmp_path / folder, recipe, parent=parent)

    return trainer


def test_examples_are_tokens_as_the_server_writes_them(make: Callable[..., Trainer]) -> None:
    (found,) = make().tokens([Example("p", "en", (("user", "small bag"),), "[ bag ]")])
    known = ["<unk>", "<eos>", *WORDS]
    assert [known[id] for id in found.ids] == [
        *("user", ":", "small", "bag", "assistant", ":"),
        *("[", "bag", "]", "<eos>"),
    ]
    assert found.answer == 4


def test_too_long_examples_are_left_out(make: Callable[..., Trainer]) -> None:
    trainer = make(longest=70)
    lengths = [
        len(trainer.tokens([Example("p", "en", (("user", "mug " * n),), "[ ]")])) for n in (63, 64)
    ]
    assert lengths == [1, 0]  # 2 + 63 + 2 + 3 tokens
    long = Example("p", "en", (("user", "mug " * 64),), "[ ]")
    found = trainer.estimate([*EXAMPLES, long])
    assert (found.examples, found.left_out) == (20, 1)
    assert found.tokens == 3 * sum(len(each.ids) for each in trainer.tokens(EXAMPLES))
    assert found.learnt == 3 * 20 * 6
    assert found.seconds > 0
    assert found.memory > 0
    with pytest.raises(TuningError, match="no example is short enough") as refused:
        trainer.estimate([long])
    assert "70" in refused.value.hint


def by_hand(trainer: Trainer, batch: Sequence[Tokens]) -> float:
    """The mean over all answers' tokens of minus their log-probability, one example at a time."""
    losses: list[float] = []
    for each in batch:
        with torch.no_grad():
            logits = trainer._model(torch.tensor([each.ids])).logits[0]
        chances = torch.log_softmax(logits.double(), dim=-1)
        for place in range(len(each.ids) - each.answer, len(each.ids)):
            losses.append(-float(chances[place - 1, each.ids[place]]))
    return float(np.mean(losses))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_loss_is_that_of_the_answers(make: Callable[..., Trainer], count: int) -> None:
    """Whatever padding a batch has, and whatever the prompts would cost."""
    trainer = make()
    batch = trainer.tokens(
        [
            replace(each, answer="[ hat ]" if at % 2 else each.answer)
            for at, each in enumerate(EXAMPLES)
        ]
    )[:count]
    assert count == 1 or len({len(each.ids) for each in batch}) > 1
    loss = float(trainer._mean_loss(batch).detach())
    assert loss == pytest.approx(by_hand(trainer, batch), rel=1e-4)


def test_training_lowers_the_loss_and_leaves_an_adapter(
    make: Callable[..., Trainer], tmp_path: Path
) -> None:
    seen: list[Progress] = []
    trainer = make()
    before = by_hand(trainer, trainer.tokens(WATCH))
    losses, seconds = trainer.train(EXAMPLES, WATCH, seen.append)
    assert [at.step for at in seen] == [*range(1, 16)] == [step for step, _ in losses.train]
    assert {at.steps for at in seen} == {15}
    total = 3 * sum(len(each.ids) for each in trainer.tokens(EXAMPLES))
    assert (seen[-1].tokens, seen[-1].remaining) == (total, 0)
    assert seconds == seen[-1].seconds
    assert losses.train[-1][1] < losses.train[0][1] / 2
    assert min(loss for _, loss in losses.held_out) < before / 2
    assert losses.held_out[-1][0] == 15
    assert losses.held_out[-1][1] == pytest.approx(
        by_hand(trainer, trainer.tokens(WATCH)), rel=1e-4
    )
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [CONFIG, WEIGHTS]
    assert json.loads((tmp_path / "adapter" / CONFIG).read_bytes())["r"] == 4


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / WEIGHTS)
    return found


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


class Killed(Exception):
    """Stands for a process that ends."""


def killed_at(step: int) -> Callable[[Progress], None]:
    def report(at: Progress) -> None:
        if at.step == step:
            raise Killed

    return report


@pytest.mark.parametrize("watch", [WATCH, []], ids=["watched", "unwatched"])
def test_a_killed_training_goes_on_to_the_same_adapter(
    make: Callable[..., Trainer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    watch: list[Example],
) -> None:
    whole, _ = make("whole").train(EXAMPLES, watch)
    monkeypatch.setattr(training, "_EVERY", -1.0)
    for step in (4, 9):
        with pytest.raises(Killed):
            make("parts").train(EXAMPLES, watch, killed_at(step))
        assert (tmp_path / "parts" / CHECKPOINT).is_dir()
    seen: list[int] = []
    parts, _ = make("parts").train(EXAMPLES, watch, lambda at: seen.append(at.step))
    assert seen == [*range(9, 16)]  # the ninth step was not saved
    assert parts == whole
    assert same(tmp_path / "parts", tmp_path / "whole")
    assert not (tmp_path / "parts" / CHECKPOINT).exists()


@pytest.mark.parametrize("other", ["examples", "recipe", "base", "parent"])
def test_a_checkpoint_of_another_training_is_ignored(
    make_model: Callable[..., Path],
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    other: str,
) -> None:
    monkeypatch.setattr(training, "_EVERY", -1.0)
    (tmp_path / "one").mkdir()
    with pytest.raises(Killed):
        Trainer(base, tmp_path / "one", RECIPE).train(EXAMPLES, WATCH, killed_at(5))
    examples = EXAMPLES[1:] if other == "examples" else EXAMPLES
    recipe = RECIPE.model_copy(update={"rate": 0.02}) if other == "recipe" else RECIPE
    model = base
    if other == "base":
        model = make_model(tmp_path / "second", WORDS, seed=1)
    parent = tmp_path / "parent" if other == "parent" else None
    if parent:
        parent.mkdir()
        Trainer(base, parent, RECIPE).train(EXAMPLES[:8], [])
    seen: list[int] = []
    again = Trainer(model, tmp_path / "one", recipe, parent=parent)
    again.train(examples, WATCH, lambda at: seen.append(at.step))
    assert seen[0] == 1
    (tmp_path / "two").mkdir()
    Trainer(model, tmp_path / "two", recipe, parent=parent).train(examples, WATCH)
    assert same(tmp_path / "one", tmp_path / "two")


def test_a_damaged_checkpoint_is_ignored(make: Callable[..., Trainer], tmp_path: Path) -> None:
    folder = tmp_path / "adapter" / CHECKPOINT
    folder.mkdir(parents=True)
    (folder / "state.json").write_text("{", "utf-8")
    losses, _ = make(epochs=1).train(EXAMPLES, WATCH)
    assert len(losses.train) == 5


def test_training_stops_where_nothing_is_gained(
    make: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter is that of the lowest loss, not the last one."""
    held = iter([3.0, 2.0, 2.5, 2.0, 1.0])
    monkeypatch.setattr(Trainer, "_loss", lambda self, held_out: next(held))
    kept: list[int] = []
    write = Trainer._write_adapter

    def writing(self: Trainer) -> None:
        write(self)
        kept.append(os.stat(tmp_path / "adapter" / WEIGHTS).st_ino)

    monkeypatch.setattr(Trainer, "_write_adapter", writing)
    losses, _ = make(patience=2).train(EXAMPLES, WATCH)
    assert losses.held_out == [(1, 3.0), (2, 2.0), (3, 2.5), (4, 2.0)]
    assert [step for step, _ in losses.train] == [1, 2, 3, 4]
    assert len(kept) == 2
    assert os.stat(tmp_path / "adapter" / WEIGHTS).st_ino == kept[-1]
    assert not (tmp_path / "adapter" / CHECKPOINT).exists()


def test_a_parent_is_gone_on_from(make: Callable[..., Trainer], tmp_path: Path) -> None:
    first, _ = make("first").train(EXAMPLES, WATCH)
    child = make("child", parent=tmp_path / "first")
    losses, _ = child.train(EXAMPLES, WATCH)
    assert losses.train[0][1] < first.train[0][1] / 2
    assert not same(tmp_path / "first", tmp_path / "child")


@given(
    lengths=st.lists(st.integers(1, 50), max_size=300),
    size=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_every_example_is_in_one_batch(lengths: list[int], size: int, seed: int) -> None:
    found = batches(lengths, size, np.random.default_rng(seed))
    assert sorted(at for batch in found for at in batch) == [*range(len(lengths))]
    assert all(1 <= len(batch) <= size for batch in found)
    assert len(found) == -(-len(lengths) // size)
    assert found == batches(lengths, size, np.random.default_rng(seed))


def test_batches_are_of_like_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 1000, 256).tolist()
    found = batches(lengths, 8, np.random.default_rng(1))
    spread = [
        max(lengths[at] for at in batch) - min(lengths[at] for at in batch) for batch in found
    ]
    assert np.mean(spread) < 50
    assert found != sorted(found, key=lambda batch: lengths[batch[0]])


@given(warmup=st.floats(0, 1), done=st.floats(0, 1, exclude_max=True))
def test_the_rate_stays_in_its_bounds(warmup: float, done: float) -> None:
    assert 0.05 <= schedule(done, warmup) <= 1


def test_the_rate_rises_and_falls() -> None:
    assert schedule(0.0, 0.1) == 0.05
    assert schedule(0.05, 0.1) == pytest.approx(0.5)
    assert schedule(0.1, 0.1) == schedule(0.0, 0.0) == 1
    assert schedule(0.55, 0.1) == pytest.approx(0.525)
    assert schedule(1.0, 0.1) == pytest.approx(0.05)
    rates = [schedule(done / 50, 0.1) for done in range(5, 50)]
    assert all(a > b for a, b in pairwise(rates))


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        ([], ""),
        ([0.0, 0.0], "▁▁"),
        ([2.0], "█"),
        ([8.0, 4.0, 1.0, 0.1], "█▄▁▁"),
        ([8.0, 8.0, 4.0, 4.0, 0.0, 2.0, 6.0, 6.0], "█▄▁▆"),
    ],
    ids=["none", "zero", "one", "falling", "means"],
)
def test_a_sparkline_shows_means(values: list[float], bars: str) -> None:
    assert sparkline(values, width=4) == bars


def test_a_merged_model_answers_as_the_adapter_does(
    make: Callable[..., Trainer], base: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trainer = make()
    trainer.train(EXAMPLES, [])
    tuned_model.merge(base, tmp_path / "adapter", tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    (each, *_) = trainer.tokens(EXAMPLES)
    with torch.no_grad():
        theirs, ours, before = (
            model(torch.tensor([each.ids])).logits for model in (trainer._model, merged, plain)
        )
    # bfloat16 has 8 bits
    assert float((theirs - ours).abs().max()) < 0.03 * float(theirs.abs().max())
    assert float((theirs - before).abs().max()) > 0.5
    assert json.loads((tmp_path / "merged" / "config.json").read_bytes())["dtype"] == "bfloat16"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer.chat_template == trainer._tokenizer.chat_template
    assert resolve_model(str(tmp_path / "merged")).folder == tmp_path / "merged"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that are merged into; nothing is merged."""
    folders: list[Path] = []

    def make_folder(base: Model, adapter: Path, folder: Path) -> None:
        folders.append(folder)
        folder.mkdir()

    monkeypatch.setattr(tuned_model, "_make", make_folder)
    return folders


MODEL = Model("small", "/models/small", Path("/models/small"), "hub:a/small@1")


def test_what_is_merged_is_kept(made: list[Path]) -> None:
    found = [tuned_model.with_adapter(MODEL, "shop", Path("adapter"), "ab" * 32) for _ in range(2)]
    assert found[0] == found[1]
    assert made == [found[0].folder]
    assert found[0].folder is not None
    assert found[0].folder.parent == cache_dir() / "models" / "tuned"
    assert (found[0].name, found[0].source, found[0].adapter) == ("shop", str(made[0]), None)
    assert found[0].fingerprint == "hub:a/small@1+abababababababab"
    tuned_model.with_adapter(MODEL, "shop", Path("adapter"), "cd" * 32)
    tuned_model.with_adapter(replace(MODEL, fingerprint="hub:a/small@2"), "shop", Path(), "ab" * 32)
    assert len(set(made)) == len(made) == 3


def test_the_four_models_used_last_are_kept(made: list[Path]) -> None:
    def use(number: int) -> None:
        found = tuned_model.with_adapter(MODEL, "shop", Path("adapter"), str(number) * 64)
        assert found.folder is not None
        then = time.time() - 1000 + len(used)
        used.append(number)
        os.utime(found.folder, (then, then))

    used: list[int] = []
    for number in (1, 2, 3, 4, 1, 5):
        use(number)
    kept = {int(path.name[-1]) for path in made[0].parent.iterdir() if path.is_dir()}
    assert kept == {1, 3, 4, 5}


def test_on_cuda_nothing_is_merged(made: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuned_model, "has_cuda", lambda: True)
    found = tuned_model.with_adapter(MODEL, "shop", Path("adapter"), "ab" * 32)
    assert (found.name, found.source, found.adapter) == ("shop", MODEL.source, Path("adapter"))
    assert made == []


def test_a_model_elsewhere_cannot_be_merged() -> None:
    away = Model("away", "away", None, "served:away")
    with pytest.raises(TuningError, match="served elsewhere") as refused:
        tuned_model.with_adapter(away, "shop", Path("adapter"), "ab" * 32)
    assert "--adapter" in refused.value.hint


def test_a_merge_that_fails_says_why(base: Path, tmp_path: Path) -> None:
    """In a process of its own, which leaves nothing behind."""
    with pytest.raises(TuningError, match="could not be merged with tiny"):
        tuned_model.with_adapter(resolve_model(str(base)), "shop", tmp_path / "no", "ab" * 32)
    assert [p for p in (cache_dir() / "models" / "tuned").iterdir() if p.is_dir()] == []
