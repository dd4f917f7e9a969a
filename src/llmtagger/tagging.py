"""One run of `llmtagger tag`: from an input file to an output file, resumable.

TagJob ─▶ run      writes the output, or the input with its new tags
       ─▶ preview  says what would change, and writes nothing
       ─▶ dry_run  renders the prompts and estimates what the whole file costs
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any, Protocol

from llmtagger import adapters
from llmtagger.adapters import Adapter
from llmtagger.asking import ModelSource, model_source
from llmtagger.calibration import read_calibration
from llmtagger.catalog import (
    CatalogOptions,
    RejectedRow,
    Source,
    Tally,
    Understood,
    check_format,
    is_written_back,
    open_source,
    read_catalog,
    write_records,
    write_rejects,
    writes_back,
)
from llmtagger.catalog.backup import kept_backup
from llmtagger.catalog.preflight import Output, check_files
from llmtagger.catalog.reading import Opened
from llmtagger.catalog.writing import RECORDS, replacing
from llmtagger.config import ScoringSettings, Settings
from llmtagger.datatypes import (
    Completion,
    Problem,
    Product,
    Prompt,
    Reason,
    ScoredTag,
    TaggedProduct,
)
from llmtagger.errors import CatalogError, ConfigError, RunError, TuningError
from llmtagger.locking import sole
from llmtagger.output import Cut, given_record, output_record
from llmtagger.pipeline import Tagger, build_tagger, threshold_without_labels
from llmtagger.protocols import Generator
from llmtagger.runs import Journal
from llmtagger.scorers import AskMode, Plan, may_ask
from llmtagger.scorers import plan as scoring_plan
from llmtagger.templates import TemplateFile, find_template, live_template
from llmtagger.threads import one_core_each

if TYPE_CHECKING:
    from llmtagger.backends.index_folder import CatalogueIndex

_log = logging.getLogger(__name__)
NO_ADAPTER = "none"
_MILLION = 1_000_000
STANDARD = "-"  # stdin as an input, stdout as an output


@dataclass(frozen=True, slots=True)
class TagJob:
    """What is to be tagged, with what, and where it goes.

    `details` is a JSONL file for the full records, where the output holds tags only. With
    `only_untagged`, products that have tags pass through as they are. With `in_place`, `output` is
    the input, of which a backup is kept.
    """

    input: str
    index: Path
    output: str
    model: str = "auto"
    endpoints: tuple[str, ...] = ()
    adapter: str | None = None
    prompt: str | None = None
    threshold: float | None = None
    min_precision: float | None = None
    max_tags: int | None = None
    llm: AskMode = "auto"
    limit: int | None = None
    only_untagged: bool = False
    fresh: bool = False
    details: Path | None = None
    review_column: str | None = None
    plain: bool = False
    in_place: bool = False
    settings: Settings = field(default_factory=Settings)
    options: CatalogOptions = field(default_factory=CatalogOptions)

    @property
    def scoring(self) -> ScoringSettings:
        """What is kept, by the settings; an option goes before them."""
        found = self.settings.scoring
        return found.model_copy(update={"max_tags": self.max_tags}) if self.max_tags else found

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
        outputs = [Output(self.rejects, "the rejects file")]
        if not self.in_place:
            outputs.append(Output(self.output, "the output"))
        if self.journal is not None:
            outputs.append(Output(self.journal, "the journal"))
        if self.details is not None:
            outputs.append(Output(self.details, "the details file", RECORDS))
        check_files(
            [self.input],
            outputs,
            hint="name another file, or use --in-place, which keeps a backup of the input",
        )
        if self.in_place:
            self._check_in_place()
        elif self.output != STANDARD:
            check_format(Path(self.output), self.input, plain=self.plain)

    def _check_in_place(self) -> None:
        if not Path(self.input).is_file() or self.input == STANDARD:
            raise ConfigError(
                f"{self.input} cannot be changed in place: it is not a file",
                hint="name an output with -o",
            )
        if not writes_back(self.input):
            raise ConfigError(
                f"{self.input} cannot be changed in place: tags cannot be put back into its format",
                hint="name an output with -o",
            )

    def passes(self, product: Product) -> bool:
        """Whether a product goes to the output as it is."""
        return self.only_untagged and bool(product.tags)


@dataclass(slots=True)
class RunSummary:
    """What a run did.

    `seconds` is the wall time of tagging; tokens are summed over the answers. `passed` products
    went through as they were, `untagged` ones have neither a tag of their own nor a kept one.
    `tags`, `reasons` (why tags are for review) and `rejected_reasons` are counts, the
    most frequent first. `cost` is set where the settings name a price.
    """

    run: dict[str, str]
    cut: Cut
    price: float | None = None
    warnings: tuple[str, ...] = ()
    decision: str = ""
    promised: bool = True
    products: int = 0
    passed: int = 0
    asked: int = 0
    resumed: int = 0
    problems: int = 0
    rejected_rows: int = 0
    kept: int = 0
    review: int = 0
    new: int = 0
    blocked: int = 0
    untagged: int = 0
    tags: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    rejected_reasons: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cache_hit_rate: float | None = None
    cost: float | None = None
    output: str = ""
    backup: str | None = None
    rejects: str | None = None


class Reporter(Protocol):
    """Watches a run; the command line draws it."""

    def understood(self, understood: Understood) -> None:
        """The input was read: its format and its columns."""

    def waiting(self, message: str, seconds: float) -> None:
        """The server is starting: what it is doing, and for how long."""

    def started(self, total: int, done: int) -> None:
        """The run begins, or goes on after `done` products."""

    def finished_one(self, tagged: TaggedProduct) -> None:
        """One more product has its result."""


class Input:
    """The products of a job's input, `limit` at the most; read again each time, never all held.

    Raises `CatalogError` where there are none, or where the file as a whole cannot be read.
    """

    def __init__(self, job: TagJob, source: Source) -> None:
        self._job = job
        self._source = source
        self.rejected: list[RejectedRow] = []
        self.count = self.passed = 0
        tally = Tally()
        for product in self._read(self.rejected.append, tally.opened):
            tally.add(product)
            self.count += 1
            self.passed += job.passes(product)
        self.understood = tally.understood()
        if not self.count and not self.rejected:
            raise CatalogError(f"{job.input} holds no products", hint="check the input")

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Product]:
        return self._read(lambda row: None, lambda opened: None)

    def _read(
        self, rejected: Callable[[RejectedRow], None], opened: Callable[[Opened], None]
    ) -> Iterator[Product]:
        found = read_catalog(self._source, self._job.options, rejected=rejected, opened=opened)
        column = self._job.review_column
        return islice(found if column is None else _without(found, column), self._job.limit)

    def to_tag(self) -> Iterator[Product]:
        """The products that do not pass through as they are."""
        return (product for product in self if not self._job.passes(product))


def _without(products: Iterable[Product], column: str) -> Iterator[Product]:
    """Products without what an earlier run wrote into a column, which says nothing of them."""
    for product in products:
        rest = {name: value for name, value in product.extra.items() if name != column}
        yield replace(product, extra=rest)


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
    with _tagged(job, reporter, job.journal) as (products, journal, summary):
        _write(job, products, journal, summary)
        if write_rejects(products.rejected, job.rejects, like=job.input):
            summary.rejects = str(job.rejects)
    return summary


@dataclass(frozen=True, slots=True)
class Change:
    """What a run would do to one product: tags to add, and tags for review with the reason."""

    product: Product
    added: tuple[ScoredTag, ...]
    review: tuple[tuple[ScoredTag, Reason], ...]
    problem: Problem | None = None


def preview(job: TagJob, reporter: Reporter, show: Callable[[Change], None]) -> RunSummary:
    """Tag as `run` does, and `show` what would change, product by product; writes no file.

    What the journal of an earlier run holds is used and left as it is.
    """
    with TemporaryDirectory() as folder, ExitStack() as stack:
        journal = None if job.fresh else _copied(job.journal, Path(folder))
        products, results, summary = stack.enter_context(_tagged(job, reporter, journal))
        for outcome in _outcomes(job, products, results):
            _count(summary, outcome)
            if isinstance(outcome, TaggedProduct):
                show(_change(outcome, summary.cut))
    return summary


def _copied(journal: Path | None, folder: Path) -> Path | None:
    if journal is None or not journal.is_file():
        return None
    busy = RunError(f"another process is working on {journal}", hint="wait for it to end")
    with sole(journal, busy):
        for suffix in ("", "-wal"):
            if (part := Path(f"{journal}{suffix}")).exists():
                shutil.copyfile(part, folder / part.name)
    return folder / journal.name


def _change(tagged: TaggedProduct, cut: Cut) -> Change:
    placed = cut.place(tagged)
    return Change(tagged.product, placed.added, placed.review, tagged.problem)


@dataclass(frozen=True, slots=True)
class _Setup:
    """What a job is done with: where the model is (None: none is asked), and how it scores."""

    index: CatalogueIndex
    template: TemplateFile
    source: ModelSource | None
    plan: Plan
    identity: Mapping[str, str]
    warnings: tuple[str, ...]

    def tagger(self, settings: Settings, generator: Generator | None) -> Tagger:
        return build_tagger(
            self.index,
            self.template,
            settings,
            generator,
            scorer=self.plan.scorer,
            worth_asking=self.plan.worth_asking,
        )


def _set_up(job: TagJob, *, offline: bool = False) -> _Setup:
    """Choose the parts of a run; `offline`, servers elsewhere are not asked what they serve."""
    from llmtagger.backends.index_folder import open_index

    index = open_index(job.index)
    adapter = choose_adapter(job)
    template = choose_template(job, index, adapter)
    source: ModelSource | None = None  # where no model is asked, none needs to be there
    warnings: tuple[str, ...] = ()
    learnt = adapter and adapters.read_scorer(job.index, adapter.name)
    learnt = learnt or read_calibration(job.index)
    labelled = index.manifest.labelled
    # An adapter that does not fit is an error, whether or not it is asked.
    needed = adapter or may_ask(job.llm, learnt, labelled)
    if needed and not (offline and job.endpoints):
        source, warnings = _choose_model(job, index, template, adapter)
    identity = {
        "model": source.identity if source else "none",
        "prompt": template.identity,
        "index": index.fingerprint,
    }
    plan = scoring_plan(
        learnt,
        identity | {"settings": job.settings.fingerprint},
        job.scoring,
        mode=job.llm,
        labelled=labelled,
        threshold=job.threshold,
        min_precision=job.min_precision,
        cold=None if learnt else threshold_without_labels(index, job.settings),
        measure=_measure(job, adapter),
    )
    _log.info(
        "index %s: %d products, %d labelled; prompt %s, adapter %s",
        *(job.index, len(index), labelled, template.name, adapter.name if adapter else "none"),
    )
    _log.info("%s", plan.decision or f"The model is asked: --llm {job.llm}.")
    _log.info("Tags are kept from a score of %.2f on.", plan.cut.threshold)
    warnings += plan.warnings + _unknown_blocked(job.settings.scoring.blocklist, index)
    return _Setup(index, template, source, plan, identity | plan.identity, warnings)


def _unknown_blocked(blocklist: Sequence[str], index: CatalogueIndex) -> tuple[str, ...]:
    unknown = [name for name in blocklist if index.vocabulary.resolve(name) is None]
    said = f"The blocklist names tags that the vocabulary does not have: {', '.join(unknown)}."
    return (said,) if unknown else ()


@contextmanager
def _tagged(
    job: TagJob, reporter: Reporter, journal_path: Path | None
) -> Iterator[tuple[Input, Journal, RunSummary]]:
    """The products of a job, a journal with a result for each to be tagged, and what was done."""
    with open_source(job.input) as opened:
        products = Input(job, opened)
        if products.understood:
            reporter.understood(products.understood)
        setup = _set_up(job)
        basis = {**setup.identity, "settings": job.settings.fingerprint}
        with Journal(journal_path, basis, fresh=job.fresh) as journal:
            summary = RunSummary(
                {"id": journal.run_id, **setup.identity},
                setup.plan.cut,
                job.settings.engine.price_per_million_tokens,
                setup.warnings,
                decision=setup.plan.decision,
                promised=setup.plan.promised,
                output=job.output,
            )
            summary.products, summary.passed = len(products), products.passed
            summary.rejected_rows = len(products.rejected)
            summary.rejected_reasons = dict(
                Counter(row.reason.partition(":")[0] for row in products.rejected).most_common()
            )
            if journal:
                summary.resumed = sum(not journal.lacks(each) for each in products.to_tag())
            total = summary.products - summary.passed
            reporter.started(total, summary.resumed)
            if summary.resumed < total:
                _ask(job, setup, products, journal, reporter, summary)
            yield products, journal, summary


def _ask(
    job: TagJob,
    setup: _Setup,
    products: Input,
    journal: Journal,
    reporter: Reporter,
    summary: RunSummary,
) -> None:
    with ExitStack() as stack:
        asked = None
        if setup.source and setup.plan.asks:
            asked = stack.enter_context(setup.source.open(reporter.waiting))
        tagger = setup.tagger(job.settings, asked.generator if asked else None)
        crowded = asked is not None and asked.on_these_cores
        with one_core_each(crowded=crowded):
            _tag(tagger, products, journal, reporter, summary)
        summary.cache_hit_rate = asked.cache_hit_rate() if asked else None


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
    for tagged in tagger.tag(products.to_tag(), journal.lacks):
        journal.record(tagged)
        summary.asked += tagged.completion is not None
        answer = tagged.completion or Completion("", "", "")
        summary.prompt_tokens += answer.prompt_tokens
        summary.completion_tokens += answer.completion_tokens
        reporter.finished_one(tagged)
    summary.seconds = time.monotonic() - begun
    _log.info("Tagged in %.1f s, %d products with the model.", summary.seconds, summary.asked)
    if summary.price is not None:
        tokens = summary.prompt_tokens + summary.completion_tokens
        summary.cost = tokens * summary.price / _MILLION


def _outcomes(job: TagJob, products: Input, journal: Journal) -> Iterator[TaggedProduct | Product]:
    """The result of each product in the order of the input, or the product itself if it passes."""
    changed = RunError(
        f"{job.input} was changed while it was being tagged",
        hint="the same command tags what is new and writes the output",
    )
    count = 0
    for count, product in enumerate(products, start=1):  # noqa: B007  counted
        outcome = product if job.passes(product) else next(journal.results([product]), None)
        if outcome is None:
            raise changed
        yield outcome
    if count < len(products):
        raise changed


def _count(summary: RunSummary, outcome: TaggedProduct | Product) -> None:
    if isinstance(outcome, Product):
        return
    placed = summary.cut.place(outcome)
    summary.problems += outcome.problem is not None
    summary.kept += len(placed.kept)
    summary.review += len(placed.review)
    summary.blocked += len(placed.blocked)
    summary.new += sum(item.evidence.new for item in outcome.scored.items)
    summary.untagged += not placed.kept and not outcome.product.tags
    for item in placed.kept:
        summary.tags[item.tag.name] = summary.tags.get(item.tag.name, 0) + 1
    for _, reason in placed.review:
        summary.reasons[reason.value] = summary.reasons.get(reason.value, 0) + 1


def _write(job: TagJob, products: Input, journal: Journal, summary: RunSummary) -> None:
    back = job.in_place or is_written_back(job.output, job.input, plain=job.plain)
    backup: Path | None = None

    def records() -> Iterator[dict[str, object]]:
        for outcome in _outcomes(job, products, journal):
            _count(summary, outcome)
            if isinstance(outcome, Product):  # in a file that is written back, its tags are there
                yield given_record(outcome, summary.run, () if back else outcome.tags or ())
            else:
                yield output_record(outcome, summary.cut, summary.run)

    with ExitStack() as stack:
        made: Iterable[Mapping[str, Any]] = records()
        if job.details is not None:
            handle = stack.enter_context(replacing(job.details, like=job.input))
            made = _also_written(made, handle)
        if job.in_place:
            backup = stack.enter_context(kept_backup(Path(job.input)))
        write_records(
            made,
            os.path.realpath(job.input) if job.in_place else job.output,
            source=job.input,
            options=job.options,
            review_column=job.review_column,
            plain=job.plain or job.in_place,
        )
    if backup is not None and backup.exists():
        summary.backup = str(backup)
    for counts in (summary.tags, summary.reasons):
        ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
        counts.clear()
        counts.update(ordered)


def _also_written(
    records: Iterable[Mapping[str, Any]], handle: IO[bytes]
) -> Iterator[Mapping[str, Any]]:
    for record in records:
        handle.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        yield record


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a run would send: prompts with their tokens, and an estimate for the whole file.

    `counted` tells tokens that the model's tokenizer counted from estimated ones. `asked` is the
    share of products that the model would be asked about, `answer` the most tokens of an answer.
    """

    prompts: tuple[tuple[Product, Prompt], ...]
    tokens: tuple[int, ...]
    counted: bool
    products: int
    asked: float
    answer: int
    price: float | None = None

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts for the whole file."""
        mean = sum(self.tokens) / max(1, len(self.tokens))
        return round(mean * self.products * self.asked)

    @property
    def answer_tokens(self) -> int:
        """The most tokens that all answers may take."""
        return round(self.answer * self.products * self.asked)

    @property
    def costs(self) -> tuple[float, float] | None:
        """What the prompts alone cost, and what they cost with the longest answers."""
        if self.price is None:
            return None
        price = self.price / _MILLION
        return self.prompt_tokens * price, (self.prompt_tokens + self.answer_tokens) * price


def dry_run(job: TagJob) -> DryRun:
    """Render the prompts of the first `limit` products without a server, and estimate the rest."""
    from llmtagger.backends.models import count_tokens, resolve_model
    from llmtagger.wording import estimate_tokens

    with open_source(job.input) as source:
        whole = Input(replace(job, limit=None), source)
        sample = list(Input(job, source).to_tag())
    setup = _set_up(job, offline=True)
    tagger = setup.tagger(job.settings, None)
    prepared = [(product, prompt) for product, _, prompt in tagger.prepare(sample)]
    count = count_tokens(resolve_model(job.model)) if setup.source else None
    tokens = tuple(
        sum((count or estimate_tokens)(text) for _, text in prompt.messages)
        for _, prompt in prepared
    )
    return DryRun(
        tuple(prepared),
        tokens,
        counted=count is not None,
        products=len(whole) - whole.passed,
        asked=_share_asked(setup, tagger, sample),
        answer=job.settings.answer.max_tokens,
        price=job.settings.engine.price_per_million_tokens,
    )


def _share_asked(setup: _Setup, tagger: Tagger, sample: Sequence[Product]) -> float:
    """The share of products that the model would be asked about, going by the first ones."""
    if not sample or not setup.plan.asks:
        return 0.0
    worth = [setup.plan.worth_asking(each.scored) for each in tagger.tag_all(sample)]
    return sum(worth) / len(worth)
