"""Trains an adapter: completion-only loss, batches of like length, checkpoints, early stopping.

examples ─ tokens ─ batches ─ steps ─▶ adapter_model.safetensors, losses
                        └─ every so often: held-out loss, checkpoint
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmtagger.errors import TuningError
from llmtagger.recipe import Recipe
from llmtagger.tuning.examples import Example

if TYPE_CHECKING:
    import torch

CHECKPOINT = "checkpoint"  # a folder, there while training is unfinished
_STATE, _TENSORS = "state.json", "tensors.safetensors"
_EVERY = 120.0  # s between checkpoints
_TRIED = 3  # steps for an estimate; the first makes ready what the others use
_LOOKS = 4  # at the held-out loss in each epoch
_WATCHED = 64  # examples that the held-out loss is taken over
_POOL = 32  # batches that are sorted by length together, so that padding is little
_NOTHING = -100  # what torch's cross entropy does not count


@dataclass(frozen=True, slots=True)
class Tokens:
    """An example as tokens; the last `answer` of them are to be learnt about `product`."""

    ids: tuple[int, ...]
    answer: int
    product: str


@dataclass(slots=True)
class Losses:
    """The mean loss a learnt token: by step while training, by step on what was held out."""

    train: list[tuple[int, float]] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training is: steps and tokens done, steps in all, seconds, the latest losses."""

    step: int
    steps: int
    tokens: int
    seconds: float
    loss: float
    held_out: float | None

    @property
    def remaining(self) -> float:
        """Seconds, at the rate so far."""
        return self.seconds / max(self.step, 1) * (self.steps - self.step)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a training will take, from steps that were really made."""

    examples: int
    left_out: int
    tokens: int
    learnt: int
    seconds: float
    memory: int


Report = Callable[[Progress], object]


class Trainer:
    """One model with a fresh or a continued adapter; `folder` is the adapter's own.

    >>> Trainer(resolve_model("auto").folder, Path("adapter"), Recipe()).train(examples, watch)
    """

    def __init__(
        self, base: Path, folder: Path, recipe: Recipe, *, parent: Path | None = None
    ) -> None:
        import torch
        from transformers import AutoTokenizer

        from llmtagger.backends import hardware

        self._torch = torch
        self._folder, self._recipe = folder, recipe
        self._start = _start(base, parent)
        self._device = "cuda" if hardware.has_cuda() else "cpu"
        self._half = self._device == "cuda" or hardware.has_fast_bfloat16(hardware.cpu_flags())
        torch.manual_seed(recipe.seed)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(base)
        self._model: Any = _with_adapter(_load(base, self._device, self._half), recipe, parent)
        self._learnt = {n: p for n, p in self._model.named_parameters() if p.requires_grad}

    def tokens(self, examples: Sequence[Example]) -> list[Tokens]:
        """The examples as the server's chat template writes them; too long ones are left out."""
        found = []
        for example in examples:
            messages = [{"role": role, "content": text} for role, text in example.messages]
            prompt = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False
            )
            asked = self._tokenizer(prompt, add_special_tokens=False)["input_ids"]
            answer = self._tokenizer(example.answer, add_special_tokens=False)["input_ids"]
            ids = (*asked, *answer, self._tokenizer.eos_token_id)
            if len(ids) <= self._recipe.longest:
                found.append(Tokens(ids, len(answer) + 1, example.product))
        return found

    def estimate(self, examples: Sequence[Example]) -> Estimate:
        """Makes a few steps on a batch of usual length, and counts by the fastest."""
        tokens = self.tokens(examples)
        if not tokens:
            raise TuningError(
                "no example is short enough to learn from",
                hint=f"raise `longest` (now {self._recipe.longest} tokens) or shorten the prompt",
            )
        usual = sorted(tokens, key=lambda each: len(each.ids))[len(tokens) // 2]
        batch = [usual] * min(self._recipe.batch, len(tokens))
        seconds = min(self._seconds(batch) for _ in range(_TRIED))
        self._model.zero_grad(set_to_none=True)
        total = sum(len(each.ids) for each in tokens) * self._recipe.epochs
        return Estimate(
            examples=len(tokens),
            left_out=len(examples) - len(tokens),
            tokens=total,
            learnt=sum(each.answer for each in tokens) * self._recipe.epochs,
            seconds=seconds * total / (len(batch) * len(usual.ids)),
            memory=self._memory(max(len(each.ids) for each in tokens)),
        )

    def train(
        self,
        examples: Sequence[Example],
        watch: Sequence[Example],
        report: Report = lambda progress: None,
    ) -> tuple[Losses, float]:
        """Train, or go on where a killed training of the same folder and examples stopped.

        Leaves the adapter of the lowest held-out loss in the folder; returns losses and seconds.
        """
        recipe = self._recipe
        tokens, held = self.tokens(examples), self.tokens(watch)[:_WATCHED]
        self._choose_checkpointing(tokens)
        each_epoch = math.ceil(len(tokens) / recipe.batch)
        run = _Run(each_epoch * recipe.epochs, fingerprint(tokens, recipe, self._start))
        optimizer = self._torch.optim.AdamW(
            self._learnt.values(), lr=recipe.rate, weight_decay=0.0, betas=(0.9, 0.99)
        )
        self._resume(run, optimizer)
        begun, saved = time.monotonic() - run.seconds, time.monotonic()
        look = max(1, each_epoch // _LOOKS)
        self._model.train()
        for batch in self._batches(tokens, run.step):
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate * schedule(run.step / run.steps, recipe.warmup)
            loss = self._backward(batch)
            if not math.isfinite(loss):
                raise TuningError(
                    f"the loss is {loss} at step {run.step + 1}: training has gone astray",
                    hint="check the base model; a bfloat16 device may need another one",
                )
            self._torch.nn.utils.clip_grad_norm_(self._learnt.values(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            run.step += 1
            run.tokens += sum(len(each.ids) for each in batch)
            run.seconds = time.monotonic() - begun
            run.losses.train.append((run.step, loss))
            if held and (run.step % look == 0 or run.step == run.steps):
                self._look(run, held)
            last = run.losses.held_out[-1][1] if run.losses.held_out else None
            report(Progress(run.step, run.steps, run.tokens, run.seconds, loss, last))
            if run.without_gain >= recipe.patience:
                break
            if time.monotonic() - saved > _EVERY:
                self._save(run, optimizer)
                saved = time.monotonic()
        if not held:
            self._write_adapter()
        _remove(self._folder / CHECKPOINT)
        return run.losses, run.seconds

    def _look(self, run: _Run, held: Sequence[Tokens]) -> None:
        """The held-out loss; the adapter is kept where it is the lowest so far."""
        loss = self._loss(held)
        lowest = min((value for _, value in run.losses.held_out), default=math.inf)
        run.losses.held_out.append((run.step, loss))
        run.without_gain = 0 if loss < lowest else run.without_gain + 1
        if loss < lowest:
            self._write_adapter()

    def _loss(self, held: Sequence[Tokens]) -> float:
        """Mean over the tokens to be learnt."""
        self._model.eval()
        total = 0.0
        with self._torch.no_grad():
            ordered = sorted(held, key=lambda each: len(each.ids))
            for start in range(0, len(ordered), self._recipe.batch):
                batch = ordered[start : start + self._recipe.batch]
                total += float(self._mean_loss(batch)) * sum(each.answer for each in batch)
        self._model.train()
        return total / sum(each.answer for each in held)

    def _seconds(self, batch: Sequence[Tokens]) -> float:
        """What one step takes."""
        begun = time.perf_counter()
        self._backward(batch)
        return time.perf_counter() - begun

    def _backward(self, batch: Sequence[Tokens]) -> float:
        loss = self._mean_loss(batch)
        loss.backward()
        return float(loss.detach())

    def _mean_loss(self, batch: Sequence[Tokens]) -> torch.Tensor:
        """The loss a learnt token. Logits are computed where an answer stands and nowhere else.

        Padding follows the text, where attention that looks back never sees it: no mask is needed,
        and without one attention takes memory in proportion to the length, not to its square.
        """
        longest = max(len(each.ids) for each in batch)
        ids = self._torch.zeros((len(batch), longest), dtype=self._torch.long)
        wanted = self._torch.full((len(batch), longest), _NOTHING)
        for row, each in enumerate(batch):
            length = len(each.ids)
            ids[row, :length] = self._torch.tensor(each.ids)
            wanted[row, length - each.answer - 1 : length - 1] = ids[
                row, length - each.answer : length
            ]
        base = self._model.get_base_model()
        with self._torch.autocast(self._device, dtype=self._torch.bfloat16, enabled=self._half):
            states = base.get_decoder()(
                input_ids=ids.to(self._device), use_cache=False
            ).last_hidden_state
            places = wanted.to(self._device) != _NOTHING
            logits = base.get_output_embeddings()(states[places])
        targets = wanted.to(self._device)[places]
        loss: torch.Tensor = self._torch.nn.functional.cross_entropy(logits.float(), targets)
        return loss

    def _batches(self, tokens: Sequence[Tokens], done: int) -> Iterator[list[Tokens]]:
        """The batches of all epochs from step `done` on: always the same for the same seed."""
        step = 0
        for epoch in range(self._recipe.epochs):
            random = np.random.default_rng((self._recipe.seed, epoch))
            for batch in batches([len(each.ids) for each in tokens], self._recipe.batch, random):
                if step >= done:
                    yield [tokens[at] for at in batch]
                step += 1

    def _memory(self, longest: int) -> int:
        """Bytes: weights, the adapter with its gradient and two moments, and one batch's states."""
        weights = sum(p.numel() * p.element_size() for p in self._model.parameters())
        learnt = sum(p.numel() for p in self._learnt.values())
        config = self._model.config
        width = 2 if self._half else 4
        # About 20 arrays of the hidden size and 4 of the inner size are kept in each layer.
        states = 20 * config.hidden_size + 4 * config.intermediate_size
        kept = self._recipe.batch * longest * config.num_hidden_layers * states * width
        return int(weights + 12 * learnt + kept)

    def _choose_checkpointing(self, tokens: Sequence[Tokens]) -> None:
        """Compute states twice instead of keeping them, where they would not fit."""
        from llmtagger.backends import hardware

        longest = max((len(each.ids) for each in tokens), default=0)
        if self._device == "cpu" and self._memory(longest) > 0.8 * hardware.available_memory():
            self._model.enable_input_require_grads()
            self._model.gradient_checkpointing_enable({"use_reentrant": False})

    def _write_adapter(self) -> None:
        """The adapter's two files, each replaced in one step."""
        part = self._folder / "part"
        self._model.save_pretrained(part)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (part / name).replace(self._folder / name)
        _remove(part)

    def _save(self, run: _Run, optimizer: torch.optim.Optimizer) -> None:
        from safetensors.torch import save_file

        tensors = {f"weight {name}": value.detach() for name, value in self._learnt.items()}
        for name, value in self._learnt.items():
            for moment, held in optimizer.state[value].items():
                tensors[f"{moment} {name}"] = held
        part = self._folder / "part"
        part.mkdir(exist_ok=True)
        save_file(tensors, part / _TENSORS)
        (part / _STATE).write_text(json.dumps(run.to_record()), encoding="utf-8")
        _remove(self._folder / CHECKPOINT)
        part.rename(self._folder / CHECKPOINT)

    def _resume(self, run: _Run, optimizer: torch.optim.Optimizer) -> None:
        from safetensors.torch import load_file

        folder = self._folder / CHECKPOINT
        try:
            record = json.loads((folder / _STATE).read_bytes())
        except (OSError, ValueError):
            return
        if record.get("fingerprint") != run.fingerprint:
            return
        run.read(record)
        tensors = load_file(folder / _TENSORS, device=self._device)
        with self._torch.no_grad():
            for name, value in self._learnt.items():
                value.copy_(tensors[f"weight {name}"])
                optimizer.state[value] = {
                    moment: tensors[f"{moment} {name}"]
                    for moment in ("step", "exp_avg", "exp_avg_sq")
                }


@dataclass(slots=True)
class _Run:
    """What a checkpoint must know besides tensors."""

    steps: int
    fingerprint: str
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    without_gain: int = 0
    losses: Losses = field(default_factory=Losses)

    def to_record(self) -> dict[str, Any]:
        return {
            "fingerprint": self.fingerprint,
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "without_gain": self.without_gain,
            "train": self.losses.train,
            "held_out": self.losses.held_out,
        }

    def read(self, record: Mapping[str, Any]) -> None:
        self.step, self.tokens = record["step"], record["tokens"]
        self.seconds, self.without_gain = record["seconds"], record["without_gain"]
        self.losses.train = [(step, loss) for step, loss in record["train"]]
        self.losses.held_out = [(step, loss) for step, loss in record["held_out"]]


def schedule(done: float, warmup: float) -> float:
    """The share of the highest rate at a share of the steps: up, then down along a cosine."""
    if done < warmup:
        return max(done / warmup, 0.05)
    return 0.05 + 0.95 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup))) / 2


def batches(lengths: Sequence[int], size: int, random: np.random.Generator) -> list[list[int]]:
    """Positions in random batches of like length: sorted within pools, pools and batches mixed."""
    order = random.permutation(len(lengths))
    found = []
    for start in range(0, len(order), size * _POOL):
        pool = sorted(order[start : start + size * _POOL].tolist(), key=lambda at: lengths[at])
        found += [pool[at : at + size] for at in range(0, len(pool), size)]
    return [found[at] for at in random.permutation(len(found)).tolist()]


def fingerprint(tokens: Sequence[Tokens], recipe: Recipe, start: str) -> str:
    """Tells a training from others, so that it goes on with its own checkpoint only."""
    import hashlib

    digest = hashlib.sha256(f"{recipe.model_dump_json()} {start}".encode())
    for each in tokens:
        digest.update(np.array([each.answer, *each.ids], dtype=np.int64).tobytes())
    return digest.hexdigest()[:16]


def _start(base: Path, parent: Path | None) -> str:
    """What is trained: the base model, and the adapter that is gone on from if there is one."""
    from llmtagger.adapters import WEIGHTS
    from llmtagger.backends.models import resolve_model
    from llmtagger.hashing import sha256

    found = resolve_model(str(base.resolve())).fingerprint
    return f"{found}+{sha256(parent / WEIGHTS)}" if parent else found


def _load(base: Path, device: str, half: bool) -> Any:
    """The base model, in bfloat16 where that is fast; what is learnt stays in float32."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    # It would write across our own.
    disable_progress_bar()
    dtype = torch.bfloat16 if half else torch.float32
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, use_safetensors=True)
    return model.to(device)


def _with_adapter(model: Any, recipe: Recipe, parent: Path | None) -> Any:
    from peft import LoraConfig, PeftModel, get_peft_model

    if parent is not None:
        return PeftModel.from_pretrained(model, str(parent), is_trainable=True)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
