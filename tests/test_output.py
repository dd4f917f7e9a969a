"""The output record, and the payload that a journal keeps of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtagger.datatypes import (
    Evidence,
    Problem,
    Product,
    Reason,
    Rejection,
    ScoredTag,
    ScoredTags,
    Span,
    Tag,
    TaggedProduct,
    TagKind,
)
from llmtagger.output import Cut, from_payload, output_record, product_record, to_payload

CUT = Cut(threshold=0.5, review=0.2)
RUN = {"id": "r1", "model": "fake", "prompt": "tag.v1", "index": "abc"}


def _item(name: str, score: float, **evidence: Any) -> ScoredTag:
    return ScoredTag(Tag(name, name, labels={"zh": f"{name}的"}), score, Evidence(**evidence))


def _tagged(*items: ScoredTag, lang: str = "en", **rest: Any) -> TaggedProduct:
    return TaggedProduct(Product("1", "Mug", lang=lang), ScoredTags(items), **rest)


def test_a_record_is_the_products_fields_and_all_that_was_said() -> None:
    product = Product(
        "1",
        "Mug",
        description="A mug.",
        attributes={"Color": "Red"},
        tags=("old",),
        lang="en",
        extra={"price": 3, "stock": None},
    )
    evidence = Evidence(
        neighbours=tuple((f"n{n}", 0.91234567 - n / 10) for n in range(7)),
        spans=(Span("title", "Mug"),),
        chosen=True,
        logprob=-0.123456,
        signals={"vote": 0.5, "prior": 0.0},
        contributions={"vote": 1.25, "chosen": 0.2, "confidence": 0.05},
    )
    tagged = TaggedProduct(
        product,
        ScoredTags((ScoredTag(Tag("mug", "m"), 0.123456 + 0.5, evidence), _item("gift", 0.3))),
        rejected=(Rejection("cup", Reason.NOT_IN_VOCABULARY),),
        truncated=("description",),
    )
    record = output_record(tagged, CUT, RUN)
    assert record == {
        "id": "1",
        "title": "Mug",
        "description": "A mug.",
        "attributes": {"Color": "Red"},
        "lang": "en",
        "price": 3,
        "stock": None,
        "tags": [
            {
                "tag": "mug",
                "score": 0.6235,
                "evidence": {
                    "neighbours": [
                        {"id": "n0", "similarity": 0.9123},
                        {"id": "n1", "similarity": 0.8123},
                        {"id": "n2", "similarity": 0.7123},
                        {"id": "n3", "similarity": 0.6123},
                        {"id": "n4", "similarity": 0.5123},
                    ],
                    "spans": [{"field": "title", "text": "Mug"}],
                    "model": {"chosen": True, "logprob": -0.1235, "effect": 0.25},
                    "signals": {"vote": 0.5},
                    "contributions": {"vote": 1.25, "chosen": 0.2, "confidence": 0.05},
                },
            }
        ],
        "review": [
            {
                "tag": "gift",
                "score": 0.3,
                "evidence": {
                    "neighbours": [],
                    "spans": [],
                    "model": {"chosen": False, "effect": 0},
                    "signals": {},
                    "contributions": {},
                },
                "reason": "below_threshold",
            }
        ],
        "rejected": [{"text": "cup", "reason": "not_in_vocabulary"}],
        "problem": None,
        "run": RUN | {"truncated": ["description"]},
    }
    assert json.loads(json.dumps(record)) == record


def _places(tagged: TaggedProduct, cut: Cut = CUT) -> dict[str, list[str]]:
    record = output_record(tagged, cut, RUN)
    return {
        "tags": [item["tag"] for item in record["tags"]],
        "review": [item["tag"] for item in record["review"]],
        "rejected": [item["text"] for item in record["rejected"]],
    }


@pytest.mark.parametrize(
    ("item", "place"),
    [
        pytest.param(_item("a", 0.5), "tags", id="at-the-threshold"),
        pytest.param(_item("a", 0.49), "review", id="under-the-threshold"),
        pytest.param(_item("a", 0.2), "review", id="at-the-floor"),
        pytest.param(_item("a", 0.19), None, id="neither-plausible-nor-chosen"),
        pytest.param(_item("a", 0.19, chosen=True), "rejected", id="chosen-but-not-plausible"),
        pytest.param(_item("a", 0.99, chosen=True, new=True), "review", id="new-is-never-kept"),
        pytest.param(_item("a", 0.1, chosen=True, new=True), "review", id="new-is-never-dropped"),
    ],
)
def test_every_tag_has_its_place(item: ScoredTag, place: str | None) -> None:
    found = _places(_tagged(item))
    assert found == {name: ["a"] if name == place else [] for name in found}


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.booleans()), max_size=8),
    st.floats(0, 1),
    st.floats(0, 1),
    st.booleans(),
)
def test_nothing_that_the_model_chose_is_dropped_silently(
    drawn: list[tuple[float, bool, bool]], threshold: float, review: float, failed: bool
) -> None:
    items = [
        _item(f"t{n}", score, chosen=chosen or new, new=new)
        for n, (score, chosen, new) in enumerate(drawn)
    ]
    problem = Problem("answer_truncated", "too long") if failed else None
    found = _places(_tagged(*items, problem=problem), Cut(threshold, review))
    placed = [name for names in found.values() for name in names]
    assert len(placed) == len(set(placed))
    assert {item.tag.name for item in items if item.evidence.chosen} <= set(placed)


def test_with_a_problem_nothing_is_kept() -> None:
    problem = Problem("answer_truncated", "the answer ran into its token limit")
    tagged = _tagged(_item("sure", 1.0), _item("dim", 0.1), problem=problem)
    record = output_record(tagged, CUT, RUN)
    assert record["tags"] == []
    assert [item["tag"] for item in record["review"]] == ["sure"]
    assert record["problem"] == {
        "code": "answer_truncated",
        "message": "the answer ran into its token limit",
    }


PROBLEM = Problem("answer_unreadable", "no list")
REMARK = Problem("instruction_in_text", "what speaks to the model was left out of title")


@pytest.mark.parametrize(
    ("answered", "problem", "cut", "threshold"),
    [
        pytest.param(False, None, Cut(0.5, 0.2), 0.5, id="one threshold"),
        pytest.param(True, None, Cut(0.5, 0.2), 0.5, id="one-threshold-for-answered-ones-too"),
        pytest.param(False, None, Cut(0.5, 0.2, 0.7), 0.5, id="not-answered"),
        pytest.param(True, None, Cut(0.5, 0.2, 0.7), 0.7, id="answered"),
        pytest.param(True, None, Cut(0.5, 0.2, 0.0), 0.0, id="answered-and-all-is-kept"),
        pytest.param(False, PROBLEM, Cut(0.0, 0.0, 0.0), 2.0, id="a-problem"),
        pytest.param(True, PROBLEM, Cut(0.0, 0.0, 0.0), 2.0, id="an-answer-with-a-problem"),
        pytest.param(True, REMARK, Cut(0.5, 0.2, 0.7), 0.7, id="a-remark-costs-nothing"),
    ],
)
def test_the_cut_of_a_product(
    answered: bool, problem: Problem | None, cut: Cut, threshold: float
) -> None:
    tagged = _tagged(_item("sure", 1.0), answered=answered, problem=problem)
    assert cut.of(tagged) == threshold
    assert bool(output_record(tagged, cut, RUN)["tags"]) is (threshold <= 1)


def test_a_remark_is_in_the_record_and_in_the_journal() -> None:
    tagged = _tagged(_item("sure", 1.0), problem=REMARK)
    assert not tagged.failed
    record = output_record(tagged, CUT, RUN)
    assert record["problem"] == {"code": REMARK.code, "message": REMARK.message}
    assert [item["tag"] for item in record["tags"]] == ["sure"]
    again = from_payload(tagged.product, json.loads(json.dumps(to_payload(tagged))))
    assert (again.problem, again.failed) == (REMARK, False)


def _review(tagged: TaggedProduct, cut: Cut) -> dict[str, str]:
    record = output_record(tagged, cut, RUN)
    return {item["tag"]: item["reason"] for item in record["review"]}


def test_what_is_for_review_says_why() -> None:
    items = [_item("a", 0.9), _item("b", 0.8), _item("c", 0.3), _item("d", 0.9, new=True)]
    cut = Cut(0.5, 0.2, max_tags=1)
    assert _review(_tagged(*items), cut) == {
        "b": "too_many",
        "c": "below_threshold",
        "d": "new",
    }
    assert _places(_tagged(*items), cut)["tags"] == ["a"]
    failed = _tagged(*items, problem=PROBLEM)
    assert _review(failed, cut) == dict.fromkeys("abc", "no_answer") | {"d": "new"}


@pytest.mark.parametrize("limit", [None, 1, 2, 3, 9])
def test_the_best_tags_are_kept_up_to_the_limit(limit: int | None) -> None:
    found = _places(
        _tagged(*(_item(n, 0.9 - ord(n) / 1e4) for n in "abc")), Cut(0.5, 0.2, None, limit)
    )
    assert found["tags"] == list("abc")[:limit]
    assert found["review"] == list("abc")[len(found["tags"]) :]


@pytest.mark.parametrize("name", ["Sale", "sale ", "ＳＡＬＥ", "Sale的", "on sale"])
def test_a_blocked_tag_is_in_no_place_but_counted(name: str) -> None:
    tag = Tag("sale", "s", aliases=("On Sale",), labels={"zh": "Sale的"})
    cut = Cut(0.5, 0.2, blocklist=(name,))
    for score in (0.9, 0.3):
        tagged = _tagged(ScoredTag(tag, score, Evidence()), _item("mug", 0.8))
        record = output_record(tagged, cut, RUN)
        assert [item["tag"] for item in record["tags"] + record["review"]] == ["mug"]
        assert record["rejected"] == [{"text": "sale", "reason": "blocked"}]
    hopeless = _tagged(ScoredTag(tag, 0.1, Evidence()))
    assert output_record(hopeless, cut, RUN)["rejected"] == []


def test_a_blocked_tag_takes_no_place_of_another() -> None:
    cut = Cut(0.5, 0.2, max_tags=1, blocklist=("a",))
    assert _places(_tagged(_item("a", 0.9), _item("b", 0.8)), cut)["tags"] == ["b"]


def _given(*tags: str) -> TaggedProduct:
    tagged = _tagged(*(_item(n, 0.9 - ord(n) / 1e4) for n in "abcd"))
    return replace(tagged, product=replace(tagged.product, tags=tags))


@pytest.mark.parametrize(
    ("given", "limit", "kept", "added"),
    [
        pytest.param((), 3, "abc", "abc", id="none"),
        pytest.param(("x",), 3, "ab", "ab", id="one-takes-a-place"),
        pytest.param(("x", "X ", "y"), 3, "a", "a", id="twice-the-same-counts-once"),
        pytest.param(("x", "y", "z"), 3, "", "", id="full"),
        pytest.param(("x", "y", "z", "w"), 3, "", "", id="more-than-the-limit"),
        pytest.param(("A",), 3, "abc", "bc", id="one-that-the-model-finds-too"),
        pytest.param(("x", "D"), 3, "ad", "a", id="found-again-below-the-limit"),
        pytest.param(("x", "D"), None, "abcd", "abc", id="no-limit"),
    ],
)
def test_tags_of_a_person_count_for_the_limit(
    given: tuple[str, ...], limit: int | None, kept: str, added: str
) -> None:
    tagged, cut = _given(*given), Cut(0.5, 0.2, max_tags=limit)
    assert _places(tagged, cut)["tags"] == list(kept)
    placed = cut.place(tagged)
    assert [item.tag.name for item in placed.added] == list(added)
    assert {item.tag.name for item, _ in placed.review} == set("abcd") - set(kept)
    assert all(why is Reason.TOO_MANY for _, why in placed.review)


def test_gold_is_no_tag_of_a_person() -> None:
    tagged, cut = _given("x", "y", "A"), Cut(0.5, 0.2, max_tags=2)
    placed = cut.place(tagged, as_new=True)
    assert [item.tag.name for item in placed.kept] == ["a", "b"]
    assert placed.added == placed.kept


SHOES = (("Shoes", 0.6), ("shoes > running", 0.9), ("Bed / Bath", 0.1), ("手机", 0.4))


@pytest.mark.parametrize(
    ("category", "threshold"),
    [
        ("Shoes", 0.6),
        ("shoes > Trail", 0.6),
        ("Shoes>Running>Trail", 0.9),
        ("Shoes/Running", 0.9),
        ("Shoes | Runningwear", 0.6),
        ("Sale, Shoes > Running", 0.9),
        ("Shoes, Bags", 0.6),
        ("Bed/Bath", 0.1),
        ("手机 > 配件", 0.4),
        ("Shoeshine", 0.5),
        ("Home > Shoes", 0.5),
        ("", 0.5),
        (" > ", 0.5),
    ],
)
def test_a_category_has_a_threshold_of_its_own(category: str, threshold: float) -> None:
    tagged = TaggedProduct(Product("1", "x", category=category), answered=True)
    assert Cut(0.5, 0.2, categories=SHOES).of(tagged) == threshold
    assert Cut(0.2, 0.2, 0.5, categories=SHOES).of(tagged) == threshold
    promised = Cut(0.5, 0.2, categories=SHOES, promised=True)
    assert promised.of(tagged) == max(threshold, 0.5)


def test_answered_products_are_cut_at_their_own_threshold() -> None:
    cut = Cut(0.5, 0.2, 0.7)
    for answered, place in ((False, "tags"), (True, "review")):
        found = _places(_tagged(_item("a", 0.6), answered=answered), cut)
        assert found == {name: ["a"] if name == place else [] for name in found}


@pytest.mark.parametrize(
    ("lang", "shown"), [("en", "mug"), ("", "mug"), ("zh-CN", "mug的"), ("ZH", "mug的")]
)
def test_tags_are_written_in_the_products_language(lang: str, shown: str) -> None:
    assert _places(_tagged(_item("mug", 0.9), lang=lang))["tags"] == [shown]


def test_fields_of_an_earlier_run_are_replaced() -> None:
    product = Product("1", "Mug", extra={"review": ["old"], "problem": {"code": "old"}})
    record = output_record(TaggedProduct(product), CUT, RUN)
    assert (record["review"], record["problem"]) == ([], None)


def test_a_product_record_leaves_out_what_is_empty() -> None:
    assert product_record(Product("1", "Mug", brand="", extra={"x": ""})) == {
        "id": "1",
        "title": "Mug",
        "x": "",
    }


TEXT = st.text(max_size=6)
NAMES = TEXT.map(str.strip).filter(str.isprintable).filter(bool)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SPANS = st.lists(st.builds(Span, TEXT, TEXT), max_size=2).map(tuple)
EVIDENCE = st.builds(
    Evidence,
    neighbours=st.lists(st.tuples(TEXT, FINITE), max_size=2).map(tuple),
    spans=SPANS,
    chosen=st.booleans(),
    logprob=st.none() | FINITE,
    new=st.booleans(),
    signals=st.dictionaries(TEXT, FINITE, max_size=2),
    contributions=st.dictionaries(TEXT, FINITE, max_size=2),
)
TAGS = st.builds(
    Tag,
    name=NAMES,
    id=NAMES,
    aliases=st.lists(TEXT, max_size=2).map(tuple),
    parent=st.none() | NAMES,
    key=st.none() | NAMES,
    kind=st.sampled_from(TagKind),
    labels=st.dictionaries(TEXT, TEXT, max_size=2),
    retired=st.booleans(),
)
SCORED = st.builds(
    ScoredTags,
    st.lists(st.builds(ScoredTag, TAGS, st.floats(0.02, 1), EVIDENCE), max_size=3).map(tuple),
)


@given(
    SCORED,
    st.lists(st.builds(Rejection, TEXT, st.sampled_from(Reason)), max_size=2).map(tuple),
    st.none() | st.builds(Problem, TEXT, TEXT),
    st.lists(TEXT, max_size=2).map(tuple),
    st.booleans(),
)
def test_a_payload_brings_the_result_back(
    scored: ScoredTags,
    rejected: tuple[Rejection, ...],
    problem: Problem | None,
    truncated: tuple[str, ...],
    answered: bool,
) -> None:
    product = Product("1", "Mug")
    tagged = TaggedProduct(product, scored, rejected, problem, truncated, answered=answered)
    assert from_payload(product, json.loads(json.dumps(to_payload(tagged)))) == tagged


def test_a_payload_leaves_out_the_hopeless_unless_the_model_chose_them() -> None:
    tagged = _tagged(_item("a", 0.5), _item("b", 0.01), _item("c", 0.01, chosen=True))
    kept = from_payload(tagged.product, to_payload(tagged)).scored.items
    assert [item.tag.name for item in kept] == ["a", "c"]
