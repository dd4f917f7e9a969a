"""Training against a plain hand-written loop over the same batches, side by side in one run.

    python benchmarks/tune_speed.py -i INDEX [--steps 12] [--rounds 3]

The plain loop is what one would write: the same model, adapter, optimiser and batches, an attention
mask, labels of -100 where nothing is to be learnt, and the loss that the model computes itself.
Each round times as many steps of one and of the other, in turn; medians are printed, with the most
memory that the process held after either one's first round, the plain loop last.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmtagger.backends.models import resolve_model
from llmtagger.recipe import Recipe
from llmtagger.tuning import job as jobs
from llmtagger.tuning.training import Tokens, Trainer, batches


def plain(trainer: Trainer) -> Callable[[Sequence[Tokens]], float]:
    """One step, written as most people would."""
    model: Any = trainer._model

    def step(batch: Sequence[Tokens]) -> float:
        longest = max(len(each.ids) for each in batch)
        ids = torch.zeros((len(batch), longest), dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for row, each in enumerate(batch):
            length = len(each.ids)
            ids[row, :length] = torch.tensor(each.ids)
            mask[row, :length] = 1
            labels[row, length - each.answer : length] = ids[row, length - each.answer : length]
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        return float(loss.detach())

    return step


def timed(
    step: Callable[[Sequence[Tokens]], float],
    optimizer: torch.optim.Optimizer,
    chosen: list[list[Tokens]],
) -> float:
    """Tokens a second over some batches."""
    begun = time.perf_counter()
    for batch in chosen:
        step(batch)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - begun
    return sum(len(each.ids) for batch in chosen for each in batch) / seconds


def held() -> float:
    """The most memory this process has held, in MiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-i", "--index", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    recipe = Recipe()
    prepared = jobs.prepare(
        jobs.TuneJob(chosen.index, limit=chosen.steps * recipe.batch, recipe=recipe),
        lambda *heard: None,
    )
    folder = resolve_model("auto").folder
    assert folder is not None
    with tempfile.TemporaryDirectory() as temporary:
        trainer = Trainer(folder, Path(temporary), recipe)
        tokens = trainer.tokens(prepared.examples.train)
        places = batches([len(each.ids) for each in tokens], recipe.batch, np.random.default_rng(0))
        steps = [[tokens[at] for at in batch] for batch in places]
        optimizer = torch.optim.AdamW(trainer._learnt.values(), lr=recipe.rate)
        ways = {"llmtagger": trainer._backward, "plain loop": plain(trainer)}
        rates: dict[str, list[float]] = {name: [] for name in ways}
        before = held()
        sys.stdout.write(f"before: {before:,.0f} MiB\n")
        for number in range(chosen.rounds):
            for name, step in ways.items():
                rates[name].append(timed(step, optimizer, steps))
                sys.stdout.write(f"{name}: {rates[name][-1]:.0f} tokens/s")
                sys.stdout.write(f", {held():,.0f} MiB\n" if number == 0 else "\n")
    ours, theirs = (statistics.median(rates[name]) for name in ways)
    sys.stdout.write(f"medians: {ours:.0f} and {theirs:.0f} tokens/s, {ours / theirs:.2f} of it\n")


if __name__ == "__main__":
    main()
