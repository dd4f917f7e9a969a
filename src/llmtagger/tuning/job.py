"""One tuning: examples, training, the record, and the verdict on products held out."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from llmtagger import adapters
from llmtagger.adapters import Adapter, Verdict
from llmtagger.asking import Waiting
from llmtagger.config import Settings
from llmtagger.errors import TuningError
from llmtagger.evaluation.answers import kept_answers
from llmtagger.evaluation.learning import calibrate
from llmtagger.hashing import sha256
from llmtagger.locking import sole
from llmtagger.recipe import Recipe
from llmtagger.templates import TemplateFile, find_template, tuning_template
from llmtagger.tuning.examples import Examples, Known, make_examples
from llmtagger.tuning.page import write_tuning
from llmtagger.tuning.training import Report, Trainer

if TYPE_CHECKING:
    from llmtagger.backends.index_folder import CatalogueIndex
    from llmtagger.backends.models import Model

_UNFINISHED = ".unfinished"  # the folder of a training that goes on, or was killed
_PACKAGES = ("torch", "transformers", "peft", "llmtagger")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class TuneJob:
    """What is to be tuned, and on what. `parent` names an adapter to go on from."""

    index: Path
    base: str = "auto"
    prompt: str | None = None
    limit: int | None = None
    parent: str | None = None
    recipe: Recipe = field(default_factory=Recipe)
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job with everything opened: the examples made, the base model found.

    `source` and `prompt` are what base and prompt are asked for by, `recipe` how it is tuned: those
    of the parent, where there is one and the job does not say otherwise.
    """

    job: TuneJob
    opened: CatalogueIndex
    source: str
    base: Model
    prompt: str
    template: TemplateFile
    recipe: Recipe
    examples: Examples


def prepare(job: TuneJob, progress: Progress) -> Prepared:
    """Open the index, find the model, write the prompts. Raises where one of them is missing."""
    from llmtagger.backends.index_folder import open_index
    from llmtagger.backends.models import resolve_model
    from llmtagger.evaluation.remembering import known_index

    progress("opening the index", 0, 0)
    opened = known_index(open_index(job.index))
    parent = adapters.read_adapter(job.index, job.parent) if job.parent else None
    source = parent.source if parent and job.base == "auto" else job.base
    prompt = job.prompt or (parent.prompt if parent else tuning_template(opened.vocabulary.kind))
    template, base = find_template(prompt), resolve_model(source)
    if base.folder is None:
        raise TuningError(
            f"{base.name} is served elsewhere and cannot be tuned here",
            hint="name a folder or a Hugging Face id with --base",
        )
    known, recipe = Known(), job.recipe
    if parent is not None:
        adapters.check_fits(parent, base.fingerprint, template.identity, parent.vocabulary)
        known = Known(frozenset(parent.learnt), frozenset(parent.held_out))
        form = {"rank": parent.recipe.rank, "alpha": parent.recipe.alpha}
        recipe = recipe.model_copy(update=form)
    examples = make_examples(
        opened,
        template,
        job.settings,
        limit=job.limit,
        known=known,
        seed=job.recipe.seed,
        progress=progress,
    )
    return Prepared(job, opened, source, base, prompt, template, recipe, examples)


def trainer(prepared: Prepared) -> Trainer:
    """The trainer, in a folder where a killed training left its checkpoint, if one did."""
    job, base = prepared.job, prepared.base
    assert base.folder is not None
    folder = job.index / adapters.FOLDER / _UNFINISHED
    parent = adapters.folder_of(job.index, job.parent) if job.parent else None
    return Trainer(base.folder, folder, prepared.recipe, parent=parent)


def train(prepared: Prepared, trainer: Trainer, report: Report) -> Adapter:
    """Train and write the adapter with its record; it has no verdict yet."""
    unfinished = prepared.job.index / adapters.FOLDER / _UNFINISHED
    unfinished.mkdir(parents=True, exist_ok=True)
    busy = TuningError(
        f"another tuning writes {unfinished}", hint="wait until it has ended, then try again"
    )
    with sole(Path(f"{unfinished}.lock"), busy):
        return _train(prepared, trainer, unfinished, report)


def _train(prepared: Prepared, trainer: Trainer, unfinished: Path, report: Report) -> Adapter:
    job, examples = prepared.job, prepared.examples
    losses, seconds = trainer.train(examples.train, examples.watch, report)
    known = set(adapters.read_adapter(job.index, job.parent).learnt) if job.parent else set()
    name = adapters.new_name(job.index)
    adapter = Adapter(
        name=name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        source=prepared.source,
        base=prepared.base.name,
        base_fingerprint=prepared.base.fingerprint,
        prompt=prepared.prompt,
        template=prepared.template.identity,
        vocabulary=prepared.opened.manifest.vocabulary,
        index=prepared.opened.fingerprint,
        settings=job.settings.fingerprint,
        recipe=prepared.recipe,
        versions={package: importlib.metadata.version(package) for package in _PACKAGES},
        counts=examples.counts(),
        learnt=tuple(sorted(known | {each.product for each in trainer.tokens(examples.train)})),
        held_out=examples.held_out,
        weights=sha256(unfinished / adapters.WEIGHTS),
        config=sha256(unfinished / adapters.CONFIG),
        seconds=seconds,
        losses={"train": losses.train, "held_out": losses.held_out},
        parent=job.parent,
    )
    folder = adapters.folder_of(job.index, name)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    adapters.write_adapter(job.index, adapter)
    return adapter


def judge(
    index: Path,
    adapter: Adapter,
    settings: Settings,
    cache: Path,
    progress: Progress,
    waiting: Waiting,
) -> Adapter:
    """The verdict: the pipeline without and with the adapter, on products held out.

    The weight of its answers is fitted by cross-validation on these same products, which it was not
    trained on; the calibration is kept beside the adapter and used where it is.
    """
    from llmtagger.backends.index_folder import open_index
    from llmtagger.evaluation.remembering import known_index

    opened = known_index(open_index(index))
    held_out = frozenset(adapter.held_out)
    tuned = adapters.served(index, adapter)
    with kept_answers(adapter.source, (), settings.engine, cache, waiting, tuned) as answers:
        learnt = calibrate(
            opened,
            find_template(adapter.prompt),
            settings,
            answers,
            ask=len(held_out),
            ask_only=held_out,
            seed=adapter.recipe.seed,
            progress=progress,
        )
    rule, asked = learnt.calibration.ask, learnt.calibration.asked
    if rule is None or asked is None:
        raise TuningError(
            f"no product that {adapter.name} was held from is in {index} any more",
            hint="tune again: llmtagger tune",
        )
    verdict = Verdict(products=rule.products, f1=asked.f1, added=rule.added)
    judged = adapter.model_copy(update={"verdict": verdict})
    adapters.write_adapter(index, judged)
    folder = adapters.folder_of(index, adapter.name)
    learnt.calibration.write(folder)
    write_tuning(judged, folder)
    return judged
