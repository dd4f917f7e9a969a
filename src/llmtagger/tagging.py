"""One run of `llmtagger tag`: from an input file to an output file, resumable."""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from llmtagger import adapters
from llmtagger.adapters import Adapter
from llmtagger.asking import ModelSource, model_source
from llmtagger.calibration import read_calibration
from llmtagger.catalog import (
    CatalogOptions,
    RejectedRow,
    Source,
    check_format,
    open_source,
    read_catalog,
    write_records,
    write_rejects,
)
from llmtagger.catalog.preflight import Output, check_files
from llmtagger.config import Settings
from llmtagger.datatypes import Completion, Product, Prompt, TaggedProduct
from llmtagger.errors import CatalogError, RunError, TuningError
from llmtagger.output import Cut, output_record
from llmtagger.pipeline import Tagger, build_tagger
from llmtagger.runs import Journal
from llmtagger.scorers import AskMode, may_ask
from llmtagger.scorers import plan as scoring_plan
from llmtagger.templates import TemplateFile, find_template, live_template
from llmtagger.threads import one_core_each

if TYPE_CHECKING:
    from llmtagger.backends.index_folder import CatalogueIndex

_log = logging.getLogger(__name__)
NO_ADAPTER = "none"
STANDARD = "-"  # stdin as an input, stdout as an output


@dataclass(frozen=True, slots=True)
class TagJob:
    """What is to be tagged, with what, and where it goes."""

    input: str
    index: Path
    output: str
    model: str = "auto"
    endpoints: tuple[str, ...] = ()
    adapter: str | None = None
    prompt: str | None = None
    threshold: float | None = None
    min_precision: float | None = None
    llm: AskMode = "auto"
    limit: int | None = None
    fresh: bool = False
    settings: Settings = field(default_factory=Settings)
    options: CatalogOptions = field(default_factory=CatalogOptions)

    @property
    def journal(self) -> Path | None:
        """Where the journal is: beside the output; stdout has none."""
        return None if self.output == STANDARD else self._beside("journal")

    @property
    def rejects(self) -> Path:
        """Where rejected rows are written."""
        return Path("rejects.jsonl") if self.output == STANDARD else self._beside("rejects.jsonl")

    def _beside(self, suffix: str) -> Path:
        """Beside the file itself, so that two runs that write it under two names are seen."""
        real = Path(os.path.realpath(self.output))
        is_device = real.exists() and not real.is_file()
        return Path(f"{self.output if is_device else real}.{suffix}")

    def check(self) -> None:
        """Raise an error where an output would destroy the input or cannot be written.

        This comes before anything is read: a run may take hours to get to its output.
        """
        outputs = [Output(self.output, "the output"), Output(self.rejects, "the rejects file")]
        if self.journal is not None:
            outputs.append(Output(self.journal, "the journal"))
        check_files([self.input], outputs, hint="write to another file")
        if self.output != STANDARD:
            check_format(Path(self.output), self.input)


@dataclass(slots=True)
class RunSummary:
    """What a run did. Seconds are wall time of asking the model; tokens are summed answers'."""

    run: dict[str, str]
    cut: Cut
    warnings: tuple[str, ...] = ()
    decision: str = ""
    promised: bool = True
    products: int = 0
    asked: int = 0
    resumed: int = 0
    problems: int = 0
    rejected_rows: int = 0
    kept: int = 0
    review: int = 0
    new: int = 0
    seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cache_hit_rate: float | None = None
    output: str = ""
    rejects: str | None = None


class Reporter(Protocol):
    """Watches a run; the command line draws it."""

    def waiting(self, message: str, seconds: float) -> None:
        """The server is starting: what it is doing, and for how long."""

    def started(self, total: int, done: int) -> None:
        """The run begins, or goes on after `done` products."""

    def finished_one(self, tagged: TaggedProduct) -> None:
        """One more product has its result."""


class Input:
    """The products of a job's input, `limit` at the most; read anew each time, never all held.

    Raises `CatalogError` where there are none, or where the file as a whole cannot be read.
    """

    def __init__(self, job: TagJob, source: Source) -> None:
        self._job = job
        self._source = source
        self.rejected: list[RejectedRow] = []
        self.count = sum(1 for _ in self._read(self.rejected.append))
        if not self.count and not self.rejected:
            raise CatalogError(f"{job.input} holds no products", hint="check the input")

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Product]:
        return self._read(lambda row: None)

    def _read(self, rejected: Callable[[RejectedRow], None]) -> Iterator[Product]:
        found = read_catalog(self._source, self._job.options, rejected=rejected)
        return islice(found, self._job.limit)


def read_products(job: TagJob) -> tuple[list[Product], list[RejectedRow]]:
    """The input's products, `limit` at the most, and the rows that are none."""
    with open_source(job.input) as source:
        products = Input(job, source)
        return list(products), products.rejected


def choose_adapter(job: TagJob) -> Adapter | None:
    """The adapter asked for, else the live one, which servers elsewhere are not expected to have.

    None where there is none, or no model is asked.
    """
    if job.adapter == NO_ADAPTER or job.llm == "never":
        return None
    name = job.adapter or (None if job.endpoints else adapters.promotions(job.index).live)
    return adapters.read_adapter(job.index, name) if name else None


def choose_template(job: TagJob, index: CatalogueIndex, adapter: Adapter | None) -> TemplateFile:
    """The prompt asked for, else the adapter's, else the live one for the index's tags."""
    kind = index.vocabulary.kind
    own = adapter.prompt if adapter else live_template(kind, job.settings.live)
    template = find_template(job.prompt or own)
    if adapter and template.kind is not kind:
        raise TuningError(
            f"the adapter {adapter.name} answers with {template.kind.value} tags, and those of "
            f"{job.index} are {kind.value}",
            hint="use another adapter, or none; llmtagger tune makes one for this index",
        )
    return template


def _choose_model(
    job: TagJob, index: CatalogueIndex, template: TemplateFile, adapter: Adapter | None
) -> tuple[ModelSource, tuple[str, ...]]:
    """Where the model is, with the adapter if there is one, and what to warn of."""
    from llmtagger.backends.models import resolve_model

    engine = job.settings.engine
    if adapter is None:
        source = model_source(job.model, job.endpoints, engine)
        return source, source.notes
    base = adapter.source if job.model == "auto" else job.model
    known = adapter.base_fingerprint if job.endpoints else resolve_model(base).fingerprint
    warnings = adapters.check_fits(adapter, known, template.identity, index.manifest.vocabulary)
    tuned = adapters.served(job.index, adapter)
    source = model_source(base, job.endpoints, engine, tuned)
    return source, (*warnings, *source.notes)


def run(job: TagJob, reporter: Reporter) -> RunSummary:
    """Tag what has no result yet, then write the whole output.

    The input is gone through several times and no more than what is being tagged is held.
    """
    job.check()
    with open_source(job.input) as source:
        return _run(job, Input(job, source), reporter)


def _run(job: TagJob, products: Input, reporter: Reporter) -> RunSummary:
    from llmtagger.backends.index_folder import open_index

    index = open_index(job.index)
    adapter = choose_adapter(job)
    template = choose_template(job, index, adapter)
    source: ModelSource | None = None  # where no model is asked, none needs to be there
    warnings: tuple[str, ...] = ()
    learnt = adapter and adapters.read_scorer(job.index, adapter.name)
    learnt = learnt or read_calibration(job.index)
    labelled = index.manifest.labelled
    if adapter or may_ask(job.llm, learnt, labelled):  # an adapter that does not fit is an error
        source, warnings = _choose_model(job, index, template, adapter)
    identity = {
        "model": source.identity if source else "none",
        "prompt": template.identity,
        "index": index.fingerprint,
    }
    settings = {"settings": job.settings.fingerprint}
    plan = scoring_plan(
        learnt,
        identity | settings,
        job.settings.scoring,
        mode=job.llm,
        labelled=labelled,
        threshold=job.threshold,
        min_precision=job.min_precision,
        measure=_measure(job, adapter),
    )
    _log.info(
        "index %s: %d products, %d labelled; prompt %s, adapter %s",
        *(job.index, len(index), labelled, template.name, adapter.name if adapter else "none"),
    )
    _log.info("%s", plan.decision or f"The model is asked: --llm {job.llm}.")
    _log.info("Tags are kept from a score of %.2f on.", plan.cut.threshold)
    identity |= plan.identity
    basis = identity | settings
    with Journal(job.journal, basis, fresh=job.fresh) as journal:
        summary = RunSummary(
            {"id": journal.run_id} | identity,
            plan.cut,
            warnings + plan.warnings,
            decision=plan.decision,
            promised=plan.promised,
            output=job.output,
        )
        summary.products = len(products)
        if journal:
            summary.resumed = sum(not journal.lacks(product) for product in products)
        reporter.started(summary.products, summary.resumed)
        if summary.resumed < summary.products:
            with ExitStack() as stack:
                asked = None
                if source and plan.asks:
                    asked = stack.enter_context(source.open(reporter.waiting))
                tagger = build_tagger(
                    index,
                    template,
                    job.settings,
                    asked.generator if asked else None,
                    scorer=plan.scorer,
                    worth_asking=plan.worth_asking,
                )
                crowded = asked is not None and asked.on_these_cores
                with one_core_each(crowded=crowded):
                    _tag(tagger, products, journal, reporter, summary)
                summary.cache_hit_rate = asked.cache_hit_rate() if asked else None
        _write(job, products, journal, summary)
    summary.rejected_rows = len(products.rejected)
    if write_rejects(products.rejected, job.rejects, like=job.input):
        summary.rejects = str(job.rejects)
    return summary


def _measure(job: TagJob, adapter: Adapter | None) -> str:
    """The command that finds out what the answers of a job's model are worth."""
    if adapter and adapter.name != adapters.GENERAL:
        return shlex.join(["llmtagger", "adapter", "judge", adapter.name, "-i", str(job.index)])
    said = ["llmtagger", "calibrate", "-i", str(job.index), "--model", job.model]
    for url in job.endpoints:
        said += ["--endpoint", url]
    return shlex.join(said)


def _tag(
    tagger: Tagger,
    products: Input,
    journal: Journal,
    reporter: Reporter,
    summary: RunSummary,
) -> None:
    begun = time.monotonic()
    for tagged in tagger.tag(products, journal.lacks):
        journal.record(tagged)
        summary.asked += tagged.completion is not None
        answer = tagged.completion or Completion("", "", "")
        summary.prompt_tokens += answer.prompt_tokens
        summary.completion_tokens += answer.completion_tokens
        reporter.finished_one(tagged)
    summary.seconds = time.monotonic() - begun
    _log.info("Tagged in %.1f s, %d products with the model.", summary.seconds, summary.asked)


def _write(job: TagJob, products: Input, journal: Journal, summary: RunSummary) -> None:
    def records() -> Iterator[dict[str, object]]:
        written = 0
        for tagged in journal.results(products):
            written += 1
            record = output_record(tagged, summary.cut, summary.run)
            summary.problems += tagged.problem is not None
            summary.kept += len(record["tags"])
            summary.review += len(record["review"])
            summary.new += sum(item.evidence.new for item in tagged.scored.items)
            yield record
        if written < summary.products:
            raise RunError(
                f"{job.input} was changed while it was being tagged",
                hint="the same command tags what is new and writes the output",
            )

    write_records(records(), job.output, source=job.input, options=job.options)


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a run would send: prompts, their tokens, and whether those were counted or estimated."""

    prompts: tuple[tuple[Product, Prompt], ...]
    tokens: tuple[int, ...]
    counted: bool


def dry_run(job: TagJob) -> DryRun:
    """Render every prompt without a server."""
    from llmtagger.backends.index_folder import open_index
    from llmtagger.backends.models import count_tokens, resolve_model
    from llmtagger.wording import estimate_tokens

    products, _ = read_products(job)
    index = open_index(job.index)
    tagger = build_tagger(
        index, choose_template(job, index, choose_adapter(job)), job.settings, None
    )
    prompts = tuple((product, prompt) for product, _, prompt in tagger.prepare(products))
    count = None if job.endpoints else count_tokens(resolve_model(job.model))
    tokens = tuple(
        sum((count or estimate_tokens)(text) for _, text in prompt.messages)
        for _, prompt in prompts
    )
    return DryRun(prompts, tokens, counted=count is not None)
