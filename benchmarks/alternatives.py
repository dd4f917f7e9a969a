"""llmtagger against what a user would write or take instead, side by side in one run.

    python benchmarks/alternatives.py [SET...] [--products 100] [--rounds 3] [--endpoint URL]
                                      [--calibrate N] [--spacy-python PATH] [--spacy-processes N]

For each set of eval/runs the train side is indexed, and N products of the test side are tagged:

llmtagger           the whole of it, from retrieval to score, asking about every product; what is
                    kept at the calibrated threshold, and what the model alone chose
chain and grammar   LangChain: `prompt | ChatOpenAI | JsonOutputParser` with `.batch`, on the very
                    prompts and grammars of llmtagger, as many at once
chain               the same without the grammar, which is what most people write first
spacy-llm           spacy.TextCat.v3 with all tags as labels, in an interpreter of its own: one that
                    has spacy-llm 0.7.4. How it is brought to ask a server of ours is said in
                    with_spacy_llm.py; without `--spacy-python` this way is left out

All ask the same server at temperature 0. An answer may take as many tokens as llmtagger allows for
the product, with spacy-llm as many as the settings say. The clock runs from the products to the
tags, with one exception in the chains' favour: their prompts are ready, with the neighbours and the
shortlist that llmtagger found for them; how long that took is in the record. llmtagger's own
requests also ask for log-probabilities, and its grammar admits no blanks between the tags. What is
done once (clients, labels, imports) is not timed. Every pass has a mark of its own
at the start of the prompt, so that none is served from another's prefix cache; within a pass the
cache works as usual. The order rotates by round. Speeds are medians; tags are counted over all
rounds, and products are resampled with their groups.

A chain's answer that is no JSON list, and one of spacy-llm that names no label and does not say so,
is unreadable and counts as empty, as does a request that failed. Names are looked up in the
vocabulary by name, alias or label; those that it does not know count as nothing, for all ways.

The weight of the model's answers is the default one, unless `--calibrate N` asks about N products
of the train side first. LangChain's client is not among llmtagger's own requirements:
`pip install langchain-openai`. Sets whose answers are JSON objects (spans) are not compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from simulation import points
from tag_ceiling import marked
from tune import DATA, ROOT, RUNS, show, wait

from llmtagger.backends.api_key import api_key
from llmtagger.backends.folders import cache_dir
from llmtagger.backends.hardware import has_cuda
from llmtagger.backends.index_folder import CatalogueIndex, open_index
from llmtagger.backends.models import resolve_model
from llmtagger.backends.vllm_client import VllmGenerator
from llmtagger.backends.vllm_process import serving
from llmtagger.calibration import Calibration
from llmtagger.datatypes import Product, Tag, TaggedProduct, TagKind
from llmtagger.evaluation import baselines, metrics
from llmtagger.evaluation.harness import Evaluation, Kept, Outcome, read_config
from llmtagger.evaluation.judging import as_kept
from llmtagger.evaluation.learning import calibrate
from llmtagger.output import Cut
from llmtagger.pipeline import Tagger, build_tagger
from llmtagger.protocols import Generator
from llmtagger.scorers import cut_of, learned_scorer
from llmtagger.stages.parsing import answer_format
from llmtagger.stages.scoring import WeightedScorer
from llmtagger.threads import one_core_each

RESULTS = ROOT / "eval" / "results" / "alternatives"
SETS = ("flipkart_cat_en", "shopify_store_freetags_en")
OURS, ALONE, SPACY = "llmtagger", "llmtagger: the model's choice alone", "spacy-llm"
WARM = 8  # products that each way is warmed up with
_UNREADABLE = ("answer_truncated", "answer_unreadable")
_FAILED = ("request_refused", "request_failed")

Record = dict[str, Any]


@dataclass(frozen=True)
class Pass:
    """What one way made of the products: items kept, by row of the table, and the seconds it took.

    `ready` are the seconds spent on prompts before the clock ran.
    """

    kept: dict[str, Kept]
    seconds: float
    unreadable: int
    failed: int
    ready: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Spacy:
    """An interpreter that has spacy-llm, and how many processes are to ask."""

    python: Path
    processes: int


@dataclass(frozen=True)
class Bench:
    """One set, the server, and all that the ways have in common.

    `index` is the outcome's, opened again: the evaluation's own remembers the test texts' vectors.
    """

    outcome: Outcome
    index: CatalogueIndex
    calibration: Calibration | None
    generator: VllmGenerator
    endpoint: str
    crowded: bool  # the server computes on the cores of this machine
    spacy: Spacy | None

    @property
    def answers_weighed(self) -> bool:
        """Whether the calibration knows this model's answers."""
        return self.calibration is not None and self.calibration.asked is not None

    @property
    def cut(self) -> Cut:
        """Where `tag` would cut the scores."""
        return cut_of(self.outcome.config.settings.scoring, self.calibration)

    def tagger(self, mark: str, generator: Generator | None) -> Tagger:
        """A tagger whose prompts begin with a mark."""
        template = marked(self.outcome.template, mark)
        assert template != self.outcome.template, "the prompt has no block `system` to mark"
        return build_tagger(
            self.index,
            template,
            self.outcome.config.settings,
            generator,
            leave_out_siblings=True,
            scorer=learned_scorer(self.calibration) if self.calibration else WeightedScorer(),
        )

    def known(self, names: Iterable[object]) -> list[Tag]:
        """The vocabulary's tags among an answer's names."""
        vocabulary = self.index.vocabulary
        found = (vocabulary.resolve(name) for name in names if isinstance(name, str))
        return [tag for tag in found if tag is not None and not tag.retired]

    def items(self, product: Product, tags: Iterable[Tag]) -> frozenset[str]:
        """What is compared with gold."""
        found = (self.outcome.judge.item(product, tag.name) for tag in tags)
        return frozenset(item for item in found if item is not None)


Way = Callable[[Bench, Sequence[Product], str], Pass]


def llmtagger(bench: Bench, products: Sequence[Product], mark: str) -> Pass:
    """Everything that `tag` does but for files."""
    tagger = bench.tagger(mark, bench.generator)
    begun = time.monotonic()
    with one_core_each(crowded=bench.crowded):
        results = tagger.tag_all(products)
    seconds = time.monotonic() - begun
    judge = bench.outcome.judge
    kept = as_kept(results, judge, bench.cut)
    alone = metrics.keep(baselines.from_signal(results, judge, "chosen"), 0.5)
    return Pass(
        {OURS: kept, ALONE: alone},
        seconds,
        unreadable=_with_problem(results, _UNREADABLE),
        failed=_with_problem(results, _FAILED),
    )


def _with_problem(results: Sequence[TaggedProduct], codes: Sequence[str]) -> int:
    return sum(each.problem is not None and each.problem.code in codes for each in results)


def chain(name: str, grammar: bool, bench: Bench, products: Sequence[Product], mark: str) -> Pass:
    """A LangChain chain on llmtagger's prompts, which are ready."""
    from langchain_core.exceptions import OutputParserException

    begun = time.monotonic()
    asked = questions(bench, products, mark, grammar)
    ready = time.monotonic() - begun
    steps = chain_of(bench)
    begun = time.monotonic()
    answers = steps.batch(
        list(asked.values()),
        config={"max_concurrency": bench.generator.concurrency},
        return_exceptions=True,
    )
    tags = [bench.known(answer) if isinstance(answer, list) else [] for answer in answers]
    seconds = time.monotonic() - begun
    found = dict(zip(asked, tags, strict=True))
    kept = [bench.items(product, found.get(row, ())) for row, product in enumerate(products)]
    errors = [each for each in answers if isinstance(each, Exception)]
    failed = [each for each in errors if not isinstance(each, OutputParserException)]
    for said in sorted({f"{type(each).__name__}: {each}"[:300] for each in failed}):
        sys.stderr.write(f"  {name}: {said}\n")
    lists = sum(isinstance(answer, list) for answer in answers)
    return Pass({name: kept}, seconds, len(answers) - lists - len(failed), len(failed), ready)


def questions(
    bench: Bench, products: Sequence[Product], mark: str, grammar: bool
) -> dict[int, Record]:
    """By the product's row what is asked: messages, and arguments of the chat model.

    Products to which no tag can be offered are not asked about, as by llmtagger.
    """
    from llmtagger.langchain import vllm_arguments

    outcome = bench.outcome
    answers = answer_format(
        outcome.template.kind, bench.index.vocabulary, outcome.config.settings.answer
    )
    found = {}
    for row, (product, shortlist, prompt) in enumerate(bench.tagger(mark, None).prepare(products)):
        constraint = answers.constraint(product, shortlist)
        if constraint is not None:
            arguments = vllm_arguments(constraint)
            if not grammar:
                del arguments["extra_body"]
            found[row] = {"messages": list(prompt.messages), "arguments": arguments}
    return found


def chain_of(bench: Bench) -> Any:
    """The chain. Each product has a grammar of its own, which is bound when it is asked about."""
    from langchain_core.output_parsers import JsonOutputParser
    from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
    from langchain_core.runnables import RunnableLambda
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("messages")])
    model = ChatOpenAI(
        model=bench.generator.model,
        base_url=bench.endpoint,
        api_key=SecretStr(api_key() or "none"),
        temperature=0,
        seed=0,
        timeout=bench.outcome.config.settings.engine.timeout,
    )
    return RunnableLambda(
        lambda asked: prompt | model.bind(**asked["arguments"]) | JsonOutputParser()
    )


def spacy_llm(bench: Bench, products: Sequence[Product], mark: str) -> Pass:
    """spacy-llm's own prompt and parser, with all tags as labels."""
    assert bench.spacy is not None
    settings = bench.outcome.config.settings
    tags = bench.index.vocabulary.tags
    asked = {
        "endpoint": f"{bench.endpoint}/chat/completions",
        "key": api_key() or "none",
        "model": bench.generator.model,
        "labels": [tag.name for tag in tags if not tag.retired],
        "texts": [product.text() for product in products],
        "mark": mark,
        "max_tokens": settings.answer.max_tokens,
        "timeout": settings.engine.timeout,
        "processes": bench.spacy.processes,
    }
    script = Path(__file__).with_name("with_spacy_llm.py")
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder) / "asked.json", Path(folder) / "said.json"
        question.touch(0o600)
        question.write_text(json.dumps(asked), "utf-8")
        environment = {name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}
        command = [str(bench.spacy.python), str(script), str(question), str(answer)]
        subprocess.run(command, env=environment, check=True)
        found = json.loads(answer.read_text("utf-8"))
    said = found["said"]
    kept = [
        bench.items(product, bench.known(each["labels"] if each else ()))
        for product, each in zip(products, said, strict=True)
    ]
    return Pass(
        {SPACY: kept},
        found["seconds"],
        unreadable=sum(each is not None and not each["readable"] for each in said),
        failed=said.count(None),
        versions=found["versions"],
    )


def compare(name: str, bench: Bench, count: int, rounds: int) -> Record:
    """All ways on the first `count` products of the test side, which are in random order."""
    products = bench.outcome.test.products[:count]
    ways: dict[str, Way] = {
        OURS: llmtagger,
        "chain and grammar": partial(chain, "chain and grammar", True),
        "chain": partial(chain, "chain", False),
    }
    if bench.spacy is not None:
        ways[SPACY] = spacy_llm
    salt = secrets.token_hex(4)
    for way, run in ways.items():
        run(bench, products[:WARM], f"{salt} warm-up {way}")
    passes: dict[str, list[Pass]] = {way: [] for way in ways}
    names = list(ways)
    for number in range(rounds):
        first = number % len(names)
        for way in names[first:] + names[:first]:
            passes[way].append(ways[way](bench, products, f"{salt} {number} {way}"))
            sys.stderr.write(f"  round {number}, {way}: {passes[way][-1].seconds:.1f} s\n")
    return record(name, bench, passes)


def record(name: str, bench: Bench, passes: dict[str, list[Pass]]) -> Record:
    outcome = bench.outcome
    count = len(passes[OURS][0].kept[OURS])
    gold = outcome.gold[:count]
    counts = {
        row: sum(metrics.counts(each.kept[row], gold) for each in several)  # of all rounds
        for several in passes.values()
        for row in several[0].kept
    }
    boot = metrics.Bootstrap(outcome.test.groups[:count], seed=outcome.config.seed)
    rows = {}
    for several in passes.values():
        speeds = [count / each.seconds for each in several]
        for row in several[0].kept:
            less = boot.difference(counts[row], counts[OURS], metrics.f1)
            rows[row] = {
                "products_per_second": statistics.median(speeds),
                "speeds": speeds,
                "prompts_ready_after": statistics.median(each.ready for each in several),
                "f1": boot.interval(counts[row], metrics.f1).record(),
                "less_llmtagger": less.record(),
                "unreadable": sum(each.unreadable for each in several),
                "failed": sum(each.failed for each in several),
            }
    return {
        "set": name,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores",
        "model": bench.generator.model,
        "prompt": outcome.template.identity,
        "calibrated_with_model": bench.answers_weighed,
        "concurrency": bench.generator.concurrency,
        "spacy_processes": bench.spacy and bench.spacy.processes,
        "versions": {each: version(each) for each in ("langchain-core", "langchain-openai")}
        | passes.get(SPACY, passes[OURS])[0].versions,
        "products": count,
        "rounds": len(passes[OURS]),
        "ways": rows,
    }


def commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def table(records: Sequence[Record]) -> str:
    """All sets of this run, and what it was run with."""
    lines = [
        "| set | way | products/s | F1 | less llmtagger, points | unreadable answers |",
        "|---|---|---|---|---|---|",
    ]
    for each in records:
        asked = each["products"] * each["rounds"]
        for way, found in each["ways"].items():
            f1 = found["f1"]
            failed = f", {found['failed']} failed" if found["failed"] else ""
            cells = (
                each["set"],
                way,
                "as above" if way == ALONE else f"{found['products_per_second']:.2f}",
                f"{f1['value']:.3f} [{f1['low']:.3f}, {f1['high']:.3f}]",
                "" if way == OURS else points(found["less_llmtagger"]),
                f"{found['unreadable']} of {asked}{failed}",
            )
            lines.append(f"| {' | '.join(cells)} |")
        if each["spacy_processes"] is None:
            lines.append(f"| {each['set']} | {SPACY} | left out: no --spacy-python | | | |")
    for each in records:
        versions = ", ".join(f"{name} {number}" for name, number in each["versions"].items())
        processes = each["spacy_processes"]
        lines += [
            "",
            f"{each['set']}: {each['date']}, {each['machine']}, commit {each['commit']}, "
            f"{each['model']}, {each['products']} products × {each['rounds']} rounds, "
            f"{each['concurrency']} requests at once"
            + (f" (spacy-llm {processes})" if processes else "")
            + f"; the chains' prompts were ready after {ready(each):.1f} s; {versions}.",
        ]
    return "\n".join(lines)


def ready(each: Record) -> float:
    """The seconds that retrieving and rendering took for the chains, who are not charged for it."""
    return float(each["ways"]["chain"]["prompts_ready_after"])


def evaluated(name: str) -> Outcome:
    """A set's train side indexed and calibrated, without a model."""
    source = RUNS / f"{name}.toml"
    config = read_config(source).model_copy(update={"llm": "never", "ask_test": 0, "ask_train": 0})
    folder = RESULTS / name
    folder.mkdir(parents=True, exist_ok=True)
    card, cache = source.parent / config.dataset, cache_dir() / "evaluation"
    outcome = Evaluation(config, card, DATA, folder, cache, None, show).run()
    if outcome.template.kind is TagKind.SPAN:
        sys.exit(f"{name}: its answers are JSON objects, which are not compared")
    return outcome


def calibrated(outcome: Outcome, generator: Generator, ask: int) -> Calibration | None:
    """The set's calibration, with the weight of answers about `ask` products of the train side."""
    if not ask:
        return outcome.calibration
    learnt = calibrate(
        outcome.index,
        outcome.template,
        outcome.config.settings,
        generator,
        ask=ask,
        judge=outcome.judge,
        seed=outcome.config.seed,
        progress=show,
    )
    return learnt.calibration


@contextmanager
def served(endpoint: str | None) -> Iterator[str]:
    """The address of the server's interface, up to `/v1`."""
    if endpoint:
        yield endpoint.rstrip("/").removesuffix("/v1") + "/v1"
        return
    with serving(resolve_model("auto"), progress=wait) as server:
        yield f"{server.url}/v1"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("sets", nargs="*", default=SETS)
    parser.add_argument("--products", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--endpoint", help="a server that runs already")
    parser.add_argument("--calibrate", type=int, default=0, metavar="N")
    parser.add_argument("--spacy-python", type=Path, help="an interpreter that has spacy-llm")
    parser.add_argument("--spacy-processes", type=int, default=1)
    chosen = parser.parse_args()
    if find_spec("langchain_openai") is None:
        sys.exit("the chains need LangChain's client: pip install langchain-openai")
    spacy = Spacy(chosen.spacy_python, chosen.spacy_processes) if chosen.spacy_python else None
    outcomes = {name: evaluated(name) for name in chosen.sets}
    records = []
    with served(chosen.endpoint) as endpoint:
        for name, outcome in outcomes.items():
            sys.stderr.write(f"=== {name}\n")
            engine = outcome.config.settings.engine
            generator = VllmGenerator(
                [endpoint], concurrency=engine.concurrency, timeout=engine.timeout
            )
            generator.probe()
            calibration = calibrated(outcome, generator, chosen.calibrate)
            index = open_index(RESULTS / name / "index")
            crowded = not (chosen.endpoint or has_cuda())
            bench = Bench(outcome, index, calibration, generator, endpoint, crowded, spacy)
            found = compare(name, bench, chosen.products, chosen.rounds)
            generator.close()
            (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
            records.append(found)
    sys.stdout.write(table(records) + "\n")


if __name__ == "__main__":
    main()
