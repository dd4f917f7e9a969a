"""Prompt versions on the same products: what a cell says, and when one version is better."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from llmtagger.backends.fakes import FakeGenerator, HashingEncoder
from llmtagger.backends.index_folder import CatalogueIndex, open_index
from llmtagger.backends.index_writer import build
from llmtagger.calibration import AskRule, Calibration
from llmtagger.config import ScoringSettings, Settings
from llmtagger.datatypes import (
    Completion,
    Constraint,
    Evidence,
    Problem,
    Product,
    Prompt,
    Reason,
    Rejection,
    ScoredTag,
    ScoredTags,
    Tag,
    TaggedProduct,
)
from llmtagger.errors import ConfigError, PromptError
from llmtagger.evaluation.judging import Judge
from llmtagger.evaluation.learning import Labelled, calibrate
from llmtagger.evaluation.trials import (
    Bench,
    Cell,
    Outcome,
    Shown,
    cell_of,
    cell_of_record,
    cell_record,
    compare,
    judged,
)
from llmtagger.evaluation.verdicts import UNCLEAR
from llmtagger.output import Cut
from llmtagger.pipeline import build_tagger
from llmtagger.scorers import learned_scorer
from llmtagger.templates import Examples, Header, TemplateFile, find_template
from llmtagger.vocabulary import Vocabulary

SETTINGS = Settings()
V1 = find_template("tag.v1")
CUT = Cut(0.5, 0.2)


def scored(name: str, score: float, *, chosen: bool = False, new: bool = False) -> ScoredTag:
    return ScoredTag(Tag(name, name), score, Evidence(chosen=chosen, new=new))


def tagged(*items: ScoredTag, **given: Any) -> TaggedProduct:
    return TaggedProduct(Product("p", "a product"), ScoredTags(items), **given)


Row = tuple[str, Outcome, bool, bool]


def rows(cell: Cell) -> list[Row]:
    """Name, outcome, kept, chosen."""
    return [(tag.name, tag.outcome, tag.kept, tag.chosen) for tag in cell.tags]


@pytest.mark.parametrize(
    ("item", "gold", "expected"),
    [
        pytest.param(scored("mug", 0.5), ["mug"], ("right", True, False), id="right"),
        pytest.param(
            scored("mug", 0.9, chosen=True), ["mug"], ("right", True, True), id="right-and-chosen"
        ),
        pytest.param(scored("mug", 0.9), [], ("wrong", True, False), id="wrong"),
        pytest.param(
            scored("mug", 0.49, chosen=True), [], ("wrong", False, True), id="wrong-not-kept"
        ),
        pytest.param(
            scored("mug", 0.49, chosen=True), ["mug"], ("missed", False, True), id="chosen-not-kept"
        ),
        pytest.param(scored("mug", 0.49), ["mug"], ("missed", False, False), id="missed"),
        pytest.param(scored("mug", 0.9), None, ("unjudged", True, False), id="unjudged"),
        pytest.param(
            scored("mug", 0.1, chosen=True), None, ("unjudged", False, True), id="unjudged-chosen"
        ),
        pytest.param(
            scored("mug", 0.9, chosen=True, new=True), [], ("wrong", False, True), id="new"
        ),
        pytest.param(
            scored("mug", 0.9, chosen=True, new=True),
            ["mug"],
            ("missed", False, True),
            id="new-and-gold",
        ),
    ],
)
def test_what_becomes_of_a_tag(
    vocabulary: Vocabulary, item: ScoredTag, gold: list[str] | None, expected: tuple[Any, ...]
) -> None:
    cell = cell_of(tagged(item), "tag.v9", CUT, Judge(vocabulary), gold)
    assert rows(cell) == [("mug", *expected)]
    outcome, kept, chosen = expected
    assert cell.kept == ({"mug"} if kept else set())
    assert cell.said == ({"mug"} if chosen else set())
    assert cell.gold == ({"mug"} if outcome in ("right", "missed") else set())
    assert cell.judged is (gold is not None)


def test_what_is_neither_kept_nor_chosen_is_not_shown(vocabulary: Vocabulary) -> None:
    cell = cell_of(tagged(scored("mug", 0.49)), "tag.v9", CUT, Judge(vocabulary), [])
    assert (cell.tags, cell.judged, cell.version) == ((), True, "tag.v9")


def test_a_missed_tag_that_nothing_brought_up_has_no_score(vocabulary: Vocabulary) -> None:
    cell = cell_of(tagged(), "tag.v9", CUT, Judge(vocabulary), ["mug"])
    assert cell.tags == (Shown("mug", "missed"),)


def test_a_missed_tag_has_its_score_if_there_is_one(vocabulary: Vocabulary) -> None:
    judge = Judge(vocabulary)
    low = tagged(scored("mug", 0.1), scored("gift", 0.2))
    cell = cell_of(low, "tag.v9", CUT, judge, ["mug"])
    assert [(tag.name, tag.outcome, tag.score) for tag in cell.tags] == [("mug", "missed", 0.1)]
    again = judged(cell_of_record(cell_record(cell), cell.product), judge, ["mug", "gift"])
    assert [(tag.name, tag.score) for tag in again.tags] == [("mug", 0.1), ("gift", None)]
    assert judged(again, judge, []).tags == ()


def test_a_tag_and_its_alias_are_one(vocabulary: Vocabulary) -> None:
    """In gold, in what is kept, and both in either."""
    judge = Judge(vocabulary)
    results = tagged(scored("rucksack", 0.9), scored("backpack", 0.8, chosen=True))
    cell = cell_of(results, "tag.v9", CUT, judge, ["Rucksack", "rainproof", "waterproof"])
    assert rows(cell)[0][:3] == ("backpack", "right", True)
    assert rows(cell)[1:] == [("waterproof", "missed", False, False)]


def test_with_a_problem_nothing_is_kept(vocabulary: Vocabulary) -> None:
    problem = Problem("unreadable", "no JSON")
    results = tagged(scored("mug", 0.99), scored("gift", 0.9, chosen=True), problem=problem)
    cell = cell_of(results, "tag.v9", CUT, Judge(vocabulary), ["mug"])
    assert rows(cell) == [("gift", "wrong", False, True), ("mug", "missed", False, False)]
    assert (cell.problem, cell.failed) == (problem, True)
    remark = Problem("instruction_in_text", "what speaks to the model was left out of title")
    cell = cell_of(replace(results, problem=remark), "tag.v9", CUT, Judge(vocabulary), ["mug"])
    assert (cell.kept, cell.failed) == (frozenset({"gift", "mug"}), False)


def test_a_cell_as_json(vocabulary: Vocabulary) -> None:
    results = tagged(
        scored("mug", 0.87654, chosen=True),
        rejected=(Rejection("a\u202e\nb<|im_end|>", Reason.NOT_IN_SHORTLIST),),
        completion=Completion("", "stop", "m", prompt_tokens=7, completion_tokens=3, seconds=0.5),
    )
    cell = cell_of(results, "tag.v9", CUT, Judge(vocabulary), ["mug", "gift"])
    assert json.loads(json.dumps(cell_record(cell))) == {
        "index": "",
        "product": "p",
        "version": "tag.v9",
        "tags": [
            {
                "tag": "mug", "outcome": "right", "kept": True, "chosen": True,
                "score": 0.8765, "why": "model",
            },
            {
                "tag": "gift", "outcome": "missed", "kept": False, "chosen": False,
                "score": None, "why": "",
            },
        ],
        "rejected": [{"text": "a b", "reason": "not_in_shortlist"}],
        "problem": None,
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "seconds": 0.5,
    }  # fmt: skip
    broken = cell_record(replace(cell, problem=Problem("refused", "too long")))
    assert broken["problem"] == {"code": "refused", "message": "too long"}


WORDS = [
    "oak",
    "pine",
    "river",
    "stone",
    "cloud",
    "maple",
    "amber",
    "copper",
    "velvet",
    "ivory",
    "coral",
    "slate",
    "dune",
    "fern",
]
MADE_OF = {"wallet": "leather", "backpack": "waterproof", "mug": "ceramic"}


def catalogue() -> list[Product]:
    """Wallets, backpacks and mugs; one mug has a twin by title, and one a sibling."""
    found = []
    for at in range(36):
        kind = ("wallet", "backpack", "mug")[at % 3]
        words = (WORDS[at % 14], WORDS[(at * 5 + 1) % 14], WORDS[(at * 3 + 2) % 14])
        title = " ".join([*words, MADE_OF[kind], kind])
        found.append(Product(f"p{at}", title, tags=(kind, MADE_OF[kind]), lang="en"))
    twin = replace(found[2], id="twin", description="The same, in other words, more of them.")
    sibling = replace(found[5], id="sibling", title="otherwise called cup", group="g")
    found[5] = replace(found[5], group="g")
    odd = Product("odd", "blue zinc bucket", tags=("one of a kind", "bucket"), lang="en")
    return [*found, twin, sibling, odd]


PRODUCTS = catalogue()
BY_ID = {product.id: product for product in PRODUCTS}
TITLES = TemplateFile(
    "tag.v8",
    "{% block system %}Rules.{% endblock %}{% block user %}"
    "{% for each in examples %}{{ each.title }}\n{% endfor %}{% endblock %}",
)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> CatalogueIndex:
    folder = tmp_path_factory.mktemp("shop") / "index"
    build(PRODUCTS, folder, HashingEncoder())
    return open_index(folder)


@pytest.fixture(scope="module")
def learnt(index: CatalogueIndex) -> Calibration:
    """A calibration that also knows a model's answers to `tag.v1`, and asks nothing."""
    found = calibrate(index, V1, SETTINGS, None, ask=0).calibration
    return found.model_copy(
        update={
            "model": "fake",
            "prompt": V1.identity,
            "asked": found.unasked.model_copy(update={"bias": found.unasked.bias + 9}),
            "ask": AskRule(margin=0, added=(0, 0, 0), products=20, share=0, kept=0),
        }
    )


def tried(
    bench: Bench,
    template: TemplateFile,
    products: Sequence[Product],
    generator: FakeGenerator | None = None,
) -> list[Cell]:
    found = {cell.product.id: cell for cell in bench.cells(template, products, generator)}
    return [found[product.id] for product in products]


def test_neither_a_product_nor_its_siblings_are_shown(index: CatalogueIndex) -> None:
    wide = TemplateFile("tag.v8", Header(examples=Examples(count=50)).text() + TITLES.source)
    siblings = {"p2": {"p2", "twin"}, "p5": {"p5", "sibling"}, "p7": {"p7"}}
    for id, left_out in siblings.items():
        generator = FakeGenerator()
        tried(Bench(index, SETTINGS), wide, [BY_ID[id]], generator)
        ((prompt, _),) = generator.asked
        titles = prompt.messages[1][1].splitlines()
        assert not {BY_ID[each].title for each in left_out} & set(titles)
        assert len(titles) == SETTINGS.retrieval.neighbours


def test_what_was_learnt_from_a_product_is_left_out(index: CatalogueIndex) -> None:
    """Its labels would come back through the linear expert: that of a product like no other."""
    bench = Bench(index, SETTINGS)
    stranger = replace(BY_ID["p0"], id="stranger", title="new leather wallet")
    own = [BY_ID["odd"], BY_ID["p0"], BY_ID["p5"], stranger]
    cells = tried(bench, V1, own)
    assert cells[0].kept == set()
    assert rows(cells[0]) == [
        ("one of a kind", "missed", False, False),
        ("bucket", "missed", False, False),
    ]
    left_out = Labelled.of(index, SETTINGS, lambda stage, done, total: None).experts
    for product, cell, experts in (
        *((p, c, left_out) for p, c in zip(own[:3], cells[:3], strict=True)),
        (stranger, cells[3], index.experts),
    ):
        tagger = build_tagger(index, V1, SETTINGS, None, leave_out_siblings=True, experts=experts)
        (expected,) = tagger.tag_all([product])
        scores = {item.tag.name: item.score for item in expected.scored.items}
        assert cell.kept == {n for n, s in scores.items() if s >= SETTINGS.scoring.threshold}
        assert {t.name: t.score for t in cell.tags if t.kept} == {n: scores[n] for n in cell.kept}


def test_the_model_is_weighed_alike_whatever_the_prompt(
    index: CatalogueIndex, learnt: Calibration
) -> None:
    """Of a calibration, what was fitted to the answers to one prompt is left out."""
    own = PRODUCTS[:6]
    bench, model = Bench(index, SETTINGS, learnt), FakeGenerator()
    one, other = tried(bench, V1, own, model), tried(bench, TITLES, own, model)
    assert all(cell.said for cell in one)  # asked, though the calibration says to ask nothing
    assert [cell.tags for cell in one] == [cell.tags for cell in other]
    plain = learnt.model_copy(update={"asked": None, "ask": None})
    assert [c.tags for c in tried(replace(bench, calibration=plain), V1, own, model)] == [
        c.tags for c in one
    ]
    assert learned_scorer(learnt) != learned_scorer(plain)


def test_where_a_bench_cuts(index: CatalogueIndex, learnt: Calibration) -> None:
    """At the calibration's threshold, else at that of the settings."""
    own = PRODUCTS[:6]
    for threshold in (0.0, 1.0):
        settings = Settings(scoring=ScoringSettings(threshold=threshold))
        kept = [cell.kept for cell in tried(Bench(index, settings), V1, own)]
        assert all(kept) if threshold == 0 else not any(kept)
        fitted = learnt.unasked.model_copy(update={"threshold": 1 - threshold})
        bench = Bench(index, settings, learnt.model_copy(update={"unasked": fitted}))
        kept = [cell.kept for cell in tried(bench, V1, own)]
        assert all(kept) if threshold == 1 else not any(kept)


def test_a_bench_keeps_what_a_run_keeps(index: CatalogueIndex) -> None:
    """Up to `max_tags`, nothing of the blocklist, by the category's threshold; gold is no limit."""
    own = PRODUCTS[:6]
    plain = tried(Bench(index, Settings(scoring=ScoringSettings(threshold=0.0))), V1, own)
    best = [max((t for t in c.tags if t.kept), key=lambda t: t.score or 0).name for c in plain]
    assert all(len(cell.kept) > 1 for cell in plain)

    def kept(**scoring: Any) -> list[frozenset[str]]:
        settings = Settings(scoring=ScoringSettings(threshold=0.0, **scoring))
        return [cell.kept for cell in tried(Bench(index, settings), V1, own)]

    assert kept(max_tags=1) == [{name} for name in best]
    blocked = best[0]
    assert kept(blocklist=[blocked]) == [cell.kept - {blocked} for cell in plain]
    shoes = [replace(product, category="Shoes") for product in own]
    settings = Settings(scoring=ScoringSettings(threshold=0.0, categories={"shoes": 1.0}))
    assert not any(cell.kept for cell in tried(Bench(index, settings), V1, shoes))


def test_what_people_judged_since_counts(index: CatalogueIndex) -> None:
    judge = Judge(index.vocabulary)
    own = [BY_ID["p0"], Product("new", "leather wallet", lang="en")]
    plain = tried(Bench(index, SETTINGS), V1, own)
    assert [cell.judged for cell in plain] == [True, False]
    assert plain[0].gold == {"wallet", "leather"}
    since = [judged(each, judge, gold) for each, gold in zip(plain, (("mug",), ()), strict=True)]
    assert [(cell.judged, cell.gold) for cell in since] == [
        (True, frozenset({"mug"})),
        (True, frozenset()),
    ]
    assert [judged(each, judge, None).judged for each in since] == [False, False]
    again = judged(since[0], judge, BY_ID["p0"].tags)
    assert again == plain[0]


def test_a_prompt_that_pins_nobody_is_refused(index: CatalogueIndex) -> None:
    template = TemplateFile("tag.v8", Header(examples=Examples(pinned=("x",))).text() + V1.body)
    with pytest.raises(PromptError, match="'x'"):
        tried(Bench(index, SETTINGS), template, PRODUCTS[:1], FakeGenerator())


def cell(
    at: int, version: str, outcomes: dict[str, Outcome], *, judged: bool = True, **cost: Any
) -> Cell:
    """`outcomes` of tags; right and wrong ones are kept, and the model said them."""
    title = " ".join(np.random.default_rng(at).permutation(WORDS)[:5])
    tags = tuple(
        Shown(name, outcome, outcome != "missed", outcome != "missed")
        for name, outcome in outcomes.items()
    )
    return Cell(Product(f"p{at}", title), version, tags, judged=judged, **cost)


def cells(version: str, right: Sequence[bool], **cost: Any) -> list[Cell]:
    """One tag a product, kept where right, else another one in its place."""
    some: dict[bool, dict[str, Outcome]] = {
        True: {"mug": "right"},
        False: {"mug": "missed", "cup": "wrong"},
    }
    return [cell(at, version, some[each], **cost) for at, each in enumerate(right)]


FIGURES = ("micro_f1", "micro_precision", "micro_recall")


def test_the_same_cells_make_no_difference() -> None:
    right = [at % 3 > 0 for at in range(30)]
    found = compare(cells("tag.v1", right), cells("tag.v3", right))
    assert (found["a"], found["b"]) == ("tag.v1", "tag.v3")
    for side in ("system", "model"):
        assert found[side]["products"] == 30
        for figure in FIGURES:
            assert found[side][figure]["a"]["value"] == pytest.approx(2 / 3)
            assert set(found[side][figure]["difference"].values()) == {0.0}
            assert found[side][figure]["verdict"] == UNCLEAR
        assert found[side]["won"] == found[side]["lost"] == []


def test_a_clear_difference_is_told() -> None:
    few, many = [at % 3 == 0 for at in range(30)], [True] * 30
    found = compare(cells("tag.v1", few), cells("tag.v3", many))
    back = compare(cells("tag.v3", many), cells("tag.v1", few))
    for side in ("system", "model"):
        for figure in FIGURES:
            assert found[side][figure]["a"]["value"] == pytest.approx(1 / 3)
            assert found[side][figure]["b"]["value"] == 1
            assert found[side][figure]["verdict"] == "b is better"
            assert back[side][figure]["verdict"] == "a is better"
        assert {row["id"] for row in found[side]["won"]} == {f"p{at}" for at in range(30) if at % 3}


def test_what_is_kept_and_what_the_model_said_are_told_apart() -> None:
    """The model of b is right and its system keeps nothing of it."""

    def side(version: str, tag: Shown) -> list[Cell]:
        return [replace(cell(at, version, {}), tags=(tag,)) for at in range(20)]

    kept = side("a", Shown("mug", "right", kept=True, chosen=False))
    said = side("b", Shown("mug", "missed", kept=False, chosen=True))
    found = compare(kept, said)
    assert found["system"]["micro_f1"]["verdict"] == "a is better"
    assert found["model"]["micro_f1"]["verdict"] == "b is better"


def test_an_answer_that_failed_is_not_a_model_that_chose_nothing() -> None:
    silent = [cell(at, "a", {}) for at in range(6)]
    failed = [replace(each, problem=Problem("timeout", "no answer")) for each in silent]
    assert compare(silent, silent)["silent"] == compare(silent, silent)["answers"] == 12
    assert compare(silent, failed)["silent"] == 6


def test_only_products_judged_on_both_sides_count() -> None:
    a = [cell(0, "a", {"mug": "right"}), cell(1, "a", {"mug": "right"}), cell(2, "a", {})]
    b = [cell(1, "b", {"mug": "right"}), cell(0, "b", {"mug": "missed"})]
    found = compare(a, b)
    assert found["system"]["products"] == 2
    assert [row["id"] for row in found["system"]["lost"]] == ["p0"]
    unjudged = cell(0, "x", {"mug": "unjudged"}, judged=False)
    assert compare([unjudged, *a[1:]], b)["system"]["products"] == 1
    assert compare(a, [b[0], unjudged])["system"]["products"] == 1


def test_products_that_look_alike_are_one_group() -> None:
    twins = [
        replace(each, product=Product(each.product.id, "a red mug"))
        for each in cells("a", [True] * 6)
    ]
    found = compare(twins, twins)["system"]
    assert (found["products"], found["groups"]) == (6, 1)
    assert compare(cells("a", [True] * 6), cells("b", [True] * 6))["system"]["groups"] == 6


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([], []),
        ([cell(0, "a", {"mug": "right"})], [cell(1, "b", {"mug": "right"})]),
        ([cell(0, "a", {"mug": "unjudged"}, judged=False)],) * 2,
    ],
    ids=["nothing", "others", "unjudged"],
)
def test_without_gold_nothing_is_compared(a: list[Cell], b: list[Cell]) -> None:
    with pytest.raises(ConfigError, match="no labelled product") as caught:
        compare(a, b)
    assert caught.value.hint


def test_costs_are_the_mean_of_what_was_asked() -> None:
    cost = {"prompt_tokens": 100, "completion_tokens": 10, "seconds": 0.5}
    a = cells("a", [True] * 4, **cost)
    b = cells("b", [True] * 2, prompt_tokens=50, completion_tokens=4, seconds=1.0)
    b += [replace(each, prompt_tokens=150) for each in cells("b", [True] * 3, **cost)[2:]]
    b += cells("b", [True] * 4)[3:]  # not asked
    found = compare(a, b)["cost"]
    assert found["a"] == cost
    assert found["b"] == {
        "prompt_tokens": pytest.approx(250 / 3),
        "completion_tokens": 6,
        "seconds": pytest.approx(2.5 / 3),
    }
    assert set(compare(b[3:], b[3:])["cost"]["a"].values()) == {0}


def answers(wanted: str) -> FakeGenerator:
    """Says that tag wherever it is on offer."""

    def say(prompt: Prompt, constraint: Constraint) -> str:
        offered = constraint.schema["items"]["enum"]
        return json.dumps([wanted] if wanted in offered else [])

    return FakeGenerator(say)


def test_cells_of_a_bench_can_be_compared(index: CatalogueIndex) -> None:
    """A model that always says what mugs are made of, beside one that says nothing."""
    mugs = [product for product in PRODUCTS if "mug" in (product.tags or ())]
    right = tried(Bench(index, SETTINGS), V1, mugs, answers("ceramic"))
    silent = tried(Bench(index, SETTINGS), TITLES, mugs, answers("no such tag"))
    found = compare(silent, right)["model"]["micro_recall"]
    assert (found["a"]["value"], found["b"]["value"]) == (0.0, 0.5)
    assert found["verdict"] == "b is better"


def test_a_cell_comes_back_from_its_record(index: CatalogueIndex) -> None:
    own = [BY_ID["p0"], Product("new", "leather wallet", lang="en")]
    for each in tried(Bench(index, SETTINGS), V1, own, FakeGenerator()):
        record = json.loads(json.dumps(cell_record(each)))
        back = judged(cell_of_record(record, each.product), Judge(index.vocabulary), ("wallet",))
        now = judged(each, Judge(index.vocabulary), ("wallet",))
        assert [(t.name, t.outcome, t.kept, t.chosen, t.why) for t in back.tags] == [
            (t.name, t.outcome, t.kept, t.chosen, t.why) for t in now.tags
        ]
        assert (back.problem, back.rejected, back.version) == (
            now.problem, now.rejected, now.version
        )  # fmt: skip
