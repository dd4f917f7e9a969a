"""Training examples: the prompts of `tag`, and the answers that would be right."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtagger.backends.fakes import HashingEncoder
from llmtagger.backends.index_folder import CatalogueIndex, open_index
from llmtagger.backends.index_writer import build
from llmtagger.catalog import read_catalog
from llmtagger.config import AnswerSettings, Settings
from llmtagger.datatypes import Candidate, Product, Shortlist, TagKind
from llmtagger.errors import CatalogError
from llmtagger.evaluation.learning import Labelled
from llmtagger.pipeline import build_tagger
from llmtagger.stages.parsing import answer_format
from llmtagger.templates import TemplateFile, find_template
from llmtagger.tuning.examples import (
    LEAST,
    Example,
    Examples,
    Known,
    carried,
    make_examples,
    mostly_answered,
    perturbed,
    right_answer,
)
from llmtagger.vocabulary import Vocabulary

SHOP = Path(__file__).parents[1] / "examples" / "catalogue.jsonl"
SETTINGS = Settings()
WALLET = Product(
    "w",
    "Brown leather wallet, zippered",
    attributes={"Material": "Full-grain leather"},
    description="Eight card slots and a brown lining.",
    tags=("zippered", "billfold", "Material=leather", "Color=Brown", "Color=Red", "unheard of"),
    lang="en",
)
HEADPHONES = Product(
    "h",
    "无线降噪耳机",
    description="黑色，主动降噪。",
    tags=("防水", "wallet", "Color=黑色", "降噪"),
    lang="zh-CN",
)


def offer(vocabulary: Vocabulary, *names: str, keys: tuple[str, ...] = ()) -> Shortlist:
    tags = [vocabulary.resolve(name) for name in names]
    return Shortlist((), tuple(Candidate(tag) for tag in tags if tag), len(tags), keys)


def answer(
    kind: TagKind, product: Product, shortlist: Shortlist, vocabulary: Vocabulary, most: int = 10
) -> Any:
    return json.loads(right_answer(kind, product, shortlist, vocabulary, most))


def test_closed_is_what_was_offered_and_is_right(vocabulary: Vocabulary) -> None:
    shown = offer(vocabulary, "mug", "wallet", "coin", "zippered", "leather wallet")
    closed = TagKind.CLOSED
    assert answer(closed, WALLET, shown, vocabulary) == ["wallet", "zippered"]
    assert answer(closed, WALLET, shown, vocabulary, most=1) == ["wallet"]
    assert answer(closed, WALLET, replace(shown, offered=3), vocabulary) == ["wallet"]
    assert answer(closed, WALLET, offer(vocabulary, "mug", "coin"), vocabulary) == []
    assert answer(closed, replace(WALLET, tags=None), shown, vocabulary) == []


def test_closed_speaks_the_language_of_the_product(vocabulary: Vocabulary) -> None:
    shown = offer(vocabulary, "降噪", "wallet", "mug", "waterproof")
    text = right_answer(TagKind.CLOSED, HEADPHONES, shown, vocabulary, 10)
    assert text == '["降噪","钱包","防水"]'
    english = replace(HEADPHONES, lang="en")
    assert answer(TagKind.CLOSED, english, shown, vocabulary) == ["降噪", "wallet", "waterproof"]


@pytest.mark.parametrize(
    ("tags", "keys", "found"),
    [
        (WALLET.tags, ("Material", "Color"), {"Color": ["Brown"], "Material": ["leather"]}),
        (WALLET.tags, ("Material",), {"Material": ["leather"]}),
        (("Color=Red", "zippered"), ("Color", "Material"), {}),
        (("Color=row", "Color=zip"), ("Color",), {}),
        (("Part=card slots", "Part=zippered"), ("Part",), {"Part": ["zippered", "card slots"]}),
        (("Part=card-slots",), ("Part",), {"Part": ["card-slots"]}),
        (None, ("Color",), {}),
    ],
    ids=["text order", "other key", "not there", "inside a word", "fields", "loose", "unlabelled"],
)
def test_span_is_what_stands_in_the_text(
    vocabulary: Vocabulary,
    tags: tuple[str, ...] | None,
    keys: tuple[str, ...],
    found: dict[str, list[str]],
) -> None:
    product = replace(WALLET, tags=tags)
    given = answer(TagKind.SPAN, product, Shortlist((), (), keys=keys), vocabulary)
    assert given == found
    assert list(given) == list(found)


def test_span_reads_chinese(vocabulary: Vocabulary) -> None:
    product = replace(HEADPHONES, tags=("颜色=黑色", "功能=降噪", "颜色=红色"))
    text = right_answer(
        TagKind.SPAN, product, Shortlist((), (), keys=("颜色", "功能")), vocabulary, 9
    )
    assert text == '{"功能":["降噪"],"颜色":["黑色"]}'


def test_free_is_what_the_catalogue_writes(vocabulary: Vocabulary) -> None:
    nothing = Shortlist((), ())
    free = TagKind.FREE
    odd = replace(WALLET, tags=("New\nTag", "钱包", "New Tag", "\u200b", "billfold"))
    assert answer(free, odd, nothing, vocabulary) == ["New Tag", "钱包", "billfold"]
    assert answer(free, odd, nothing, vocabulary, most=2) == ["New Tag", "钱包"]
    assert right_answer(free, odd, nothing, vocabulary, 2) == '["New Tag","钱包"]'
    assert answer(free, replace(WALLET, tags=None), nothing, vocabulary) == []


@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_perturbing_only_reorders_drops_right_ones_and_adds_wrong_ones(
    vocabulary: Vocabulary, data: st.DataObject, seed: int
) -> None:
    known = [tag for tag in vocabulary if not tag.retired]
    shown = data.draw(st.lists(st.sampled_from(known), unique_by=lambda tag: tag.id))
    gold = data.draw(st.lists(st.sampled_from(vocabulary.tags), max_size=8))
    offered = data.draw(st.integers(1, 48))
    shortlist = Shortlist((), tuple(Candidate(tag, vote=0.5) for tag in shown), offered)
    product = replace(WALLET, tags=tuple(tag.name for tag in gold))
    found = perturbed(product, shortlist, vocabulary, np.random.default_rng(seed))
    before, after = shortlist.offer, found.candidates
    right = carried(product, vocabulary)
    stood, stands = ({c.tag.id for c in each} for each in (before, after))
    added = [c.tag for c in after if c.tag.id not in stood]
    lost = stood - stands
    assert found.offer == after
    assert len(stands) == len(after) == len(before) - len(lost) + len(added)
    assert all(c in before for c in after if c.tag.id in stood)
    assert lost <= right
    assert len(added) <= 2
    assert all(tag in known and tag.id not in right for tag in added)
    assert replace(found, candidates=(), offered=0) == replace(shortlist, candidates=(), offered=0)


def test_perturbing_does_all_three(vocabulary: Vocabulary) -> None:
    """Shares over many draws: 15 % of the right ones go, one wrong one comes on average."""
    shown = offer(vocabulary, "wallet", "zippered", "mug", "coin", "travel", "gift")
    random = np.random.default_rng(0)
    found = [perturbed(WALLET, shown, vocabulary, random).offer for _ in range(600)]
    ids = [[candidate.tag.id for candidate in each] for each in found]
    kept = np.mean([("wallet" in each) + ("zippered" in each) for each in ids]) / 2
    assert kept == pytest.approx(0.85, abs=0.04)
    wrong = np.mean([len(set(each) - {c.tag.id for c in shown.offer}) for each in ids])
    assert 0.6 < wrong < 1.0  # of 40 tags, some are there already
    assert np.mean([each[0] == "mug" for each in ids]) == pytest.approx(1 / 6.5, abs=0.05)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of 100 products, among them variants of each other."""
    folder = tmp_path_factory.mktemp("shop")
    return build_index(folder, SHOP.read_text("utf-8").splitlines(keepends=True)[:100])


def build_index(folder: Path, lines: Sequence[str]) -> Path:
    (folder / "some.jsonl").write_text("".join(lines), "utf-8")
    products = read_catalog(folder / "some.jsonl", rejected=lambda row: pytest.fail(row.reason))
    build(products, folder / "index", HashingEncoder())
    return folder / "index"


@pytest.fixture(scope="module")
def index(shop: Path) -> CatalogueIndex:
    return open_index(shop, encoder=HashingEncoder())


@pytest.fixture(scope="module")
def template() -> TemplateFile:
    return find_template("tag.v1")


@pytest.fixture(scope="module")
def labelled(index: CatalogueIndex) -> Labelled:
    return Labelled.of(index, SETTINGS, lambda *_: None)


Make = Callable[..., Examples]


@pytest.fixture(scope="module")
def make(index: CatalogueIndex, template: TemplateFile) -> Make:
    def examples(**options: Any) -> Examples:
        return make_examples(index, template, SETTINGS, **options)

    return examples


@pytest.fixture(scope="module")
def made(make: Make) -> Examples:
    return make()


def ids(examples: Sequence[Example]) -> list[str]:
    return [example.product for example in examples]


def groups_of(labelled: Labelled, products: Sequence[str]) -> set[int]:
    wanted = set(products)
    pairs = zip(labelled.products, labelled.groups, strict=True)
    return {group for product, group in pairs if product.id in wanted}


def test_every_product_is_trained_on_or_held_out(made: Examples, labelled: Labelled) -> None:
    assert sorted([*ids(made.train), *made.held_out]) == sorted(p.id for p in labelled.products)
    assert tuple(ids(made.watch)) == made.held_out
    assert 20 <= len(made.held_out) < 40
    assert (made.replayed, made.kind) == (0, TagKind.CLOSED)
    counts = made.counts()
    answers = [json.loads(example.answer) for example in made.train]
    assert counts["train"] == len(made.train)
    assert counts["held out"] == len(made.held_out)
    assert counts["tags"] == sum(len(each) for each in answers) > len(answers)
    assert counts["empty answers"] == sum(each == [] for each in answers)
    assert counts["language en"] + counts["language zh"] == len(made.train)


@pytest.mark.parametrize(
    ("products", "silent", "left"), [(90, 10, 10), (90, 60, 10), (9, 5, 1), (8, 5, 0), (9, 0, 0)]
)
def test_one_answer_in_ten_may_say_nothing(products: int, silent: int, left: int) -> None:
    """A model that sees more of them learns to say nothing at all."""
    full = [Example(f"f{n}", "en", (), '["mug"]') for n in range(products)]
    empty = [Example(f"e{n}", "en", (), "[]") for n in range(silent)]
    kept = mostly_answered([*empty, *full])
    assert kept == [*empty[:left], *full]
    assert mostly_answered(kept) == kept


def test_no_sibling_of_a_held_out_product_is_trained_on(made: Examples, labelled: Labelled) -> None:
    assert not groups_of(labelled, ids(made.train)) & groups_of(labelled, made.held_out)
    assert len(set(labelled.groups)) < len(labelled.products)  # there are siblings


def test_held_out_prompts_are_those_of_tag(
    made: Examples, index: CatalogueIndex, template: TemplateFile, labelled: Labelled
) -> None:
    tagger = build_tagger(
        index, template, SETTINGS, None, leave_out_siblings=True, experts=labelled.experts
    )
    held = [product for product in labelled.products if product.id in made.held_out]
    for (product, shortlist, prompt), example in zip(tagger.prepare(held), made.watch, strict=True):
        assert example.product == product.id
        assert example.messages == prompt.messages
        assert example.answer == right_answer(
            TagKind.CLOSED, product, shortlist, index.vocabulary, SETTINGS.answer.max_tags
        )


def test_a_product_is_never_its_own_neighbour(made: Examples, labelled: Labelled) -> None:
    """Nor are its variants; others are."""
    alike: dict[int, set[str]] = defaultdict(set)
    for product, group in zip(labelled.products, labelled.groups, strict=True):
        alike[group].add(product.title)
    pairs = zip(labelled.products, labelled.groups, strict=True)
    titles = {product.id: alike[group] for product, group in pairs}
    shown = 0
    for example in (*made.train, *made.watch):
        neighbours = re.findall("^- (.*)$", example.messages[1][1], re.MULTILINE)
        assert not {*neighbours} & titles[example.product]
        assert all(any(each in group for group in alike.values()) for each in neighbours)
        shown += len(neighbours)
    assert shown > 2 * len(made.train)


def test_answers_can_be_given_from_their_prompts(made: Examples) -> None:
    for example in made.train:
        for label in json.loads(example.answer):
            assert label in example.messages[1][1]


def test_the_seed_decides(make: Make) -> None:
    first, again, other = (make(limit=9, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert other.held_out != first.held_out
    assert other.train != first.train


def test_a_limit_bounds_what_is_trained_on(make: Make, made: Examples) -> None:
    few = make(limit=7)
    assert ids(few.train) == ids(made.train)[:7]
    assert few.held_out == made.held_out


def test_progress_is_told(make: Make, made: Examples) -> None:
    heard: list[tuple[str, int, int]] = []
    make(limit=3, progress=lambda *at: heard.append(at))
    assert [at[1:] for at in heard if at[0] == "writing prompts"] == [(1, 3), (2, 3), (3, 3)]


def continued(made: Examples, new: int) -> Known:
    """All but `new` of what was trained on is known."""
    return Known(frozenset(ids(made.train)[new:]), frozenset(made.held_out))


def test_going_on_learns_what_is_new_and_replays_as_much(
    make: Make, made: Examples, labelled: Labelled
) -> None:
    known = continued(made, 30)
    more = make(known=known)
    learnt = ids(more.train)
    new = [id for id in learnt if id not in known.learnt]
    assert known.held_out <= set(more.held_out)
    assert 0 < len(new) < 30  # some of the new ones are held out as well
    assert 0 < more.replayed == len(learnt) - len(new) <= len(new)
    assert not set(more.held_out) & (known.learnt | set(learnt))
    assert not groups_of(labelled, more.held_out) & groups_of(labelled, learnt)
    assert not groups_of(labelled, more.held_out) & groups_of(labelled, [*known.learnt])
    assert set(learnt) | set(more.held_out) | known.learnt == {p.id for p in labelled.products}


def test_variants_of_known_products_are_not_held_out(make: Make, labelled: Labelled) -> None:
    """Of each family one is known; the model would be judged on what it has as good as seen."""
    sizes = Counter(labelled.groups)
    seen: set[int] = set()
    learnt: set[str] = set()
    variants: set[str] = set()
    for product, group in zip(labelled.products, labelled.groups, strict=True):
        if sizes[group] > 1:
            (variants if group in seen else learnt).add(product.id)
            seen.add(group)
    assert len(variants) > 5
    more = make(known=Known(frozenset(learnt), frozenset()))
    assert not groups_of(labelled, more.held_out) & groups_of(labelled, [*learnt])
    assert variants <= {*ids(more.train)}
    assert 10 < len(more.held_out) < 20  # a fifth of the others


def test_few_new_products_are_all_learnt(make: Make, made: Examples) -> None:
    known = continued(made, 2)
    more = make(known=known)
    assert {*ids(more.train)} - known.learnt == {*ids(made.train)[:2]}
    assert more.held_out == made.held_out
    assert more.replayed == 2


def test_nothing_new_is_an_error(make: Make, made: Examples) -> None:
    with pytest.raises(CatalogError, match="no product is new") as refused:
        make(known=continued(made, 0))
    assert "index add" in refused.value.hint


def test_too_few_labelled_products_are_an_error(tmp_path: Path, template: TemplateFile) -> None:
    lines = SHOP.read_text("utf-8").splitlines(keepends=True)[: LEAST - 1]
    few = open_index(build_index(tmp_path, lines), encoder=HashingEncoder())
    with pytest.raises(CatalogError, match=f"{LEAST - 1} labelled products are too few") as refused:
        make_examples(few, template, SETTINGS)
    assert str(LEAST) in refused.value.hint


def test_spans_are_offered_as_they_are(tmp_path: Path) -> None:
    """A span prompt offers no tags, so there is nothing to perturb: prompts do not vary."""
    lines = []
    for line in SHOP.read_text("utf-8").splitlines()[:45]:
        record = json.loads(line)
        record["tags"] = [f"brand={record.get('brand') or 'none'}"]
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    index = open_index(build_index(tmp_path, lines), encoder=HashingEncoder())
    assert index.vocabulary.kind is TagKind.SPAN
    first, second = (
        make_examples(index, find_template("span.v1"), SETTINGS, seed=s) for s in (0, 1)
    )
    prompts = {e.product: e for e in (*first.train, *first.watch)}
    assert all(prompts[e.product] == e for e in (*second.train, *second.watch))
    assert first.counts()["tags"] > 25
    brand = re.compile(r'\{"brand":\["[^"]+"\]\}|\{\}')
    assert all(brand.fullmatch(e.answer) for e in first.train)


MANY = Product(
    "m",
    "Red, blue, green, black and white mug",
    tags=(*(f"Color={c}" for c in ("red", "blue", "green", "black", "white")), "Kind=mug"),
)
LONG = replace(WALLET, tags=("x" * 300, "钱包", 'the "slim" one'))


@pytest.mark.parametrize(
    ("kind", "product", "offered", "least"),
    [
        (TagKind.CLOSED, HEADPHONES, ("降噪", "wallet", "mug", "waterproof"), 3),
        (TagKind.CLOSED, WALLET, ("mug",), 0),
        (TagKind.SPAN, MANY, (), 4),
        (TagKind.SPAN, WALLET, (), 1),
        (TagKind.FREE, LONG, (), 1),
    ],
)
def test_the_grammar_admits_what_is_learnt(
    vocabulary: Vocabulary, kind: TagKind, product: Product, offered: tuple[str, ...], least: int
) -> None:
    """Compiled as the server does it: what it refuses can be learnt and never be said."""
    xgrammar = pytest.importorskip("xgrammar")
    from xgrammar.testing import _is_grammar_accept_string

    shortlist = offer(vocabulary, *offered, keys=("Kind", "Color"))
    text = right_answer(kind, product, shortlist, vocabulary, 10)
    constraint = answer_format(kind, vocabulary, AnswerSettings()).constraint(product, shortlist)
    assert constraint is not None
    grammar = xgrammar.Grammar.from_json_schema(
        json.dumps(constraint.schema), any_whitespace=False, separators=(",", ":")
    )
    assert _is_grammar_accept_string(grammar, text)
    said = json.loads(text)
    assert (sum(map(len, said.values())) if isinstance(said, dict) else len(said)) == least
