"""Answers: what is asked for is read again, and everything else has a reason."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtagger.config import AnswerSettings
from llmtagger.datatypes import (
    Candidate,
    Completion,
    ParsedTags,
    Product,
    Proposal,
    Reason,
    Rejection,
    Shortlist,
    Span,
    Tag,
    TagKind,
    TokenLogprob,
    Verdict,
)
from llmtagger.normalise import normalise
from llmtagger.protocols import AnswerFormat
from llmtagger.stages.parsing import answer_format
from llmtagger.vocabulary import Vocabulary
from llmtagger.wording import offered_labels

PRODUCT = Product(
    "1",
    "Brown leather wallet",
    description="Wipe-clean  Full\nGrain leather, size S. 防水 coating.",
    attributes={"Fits": "cot\u200bton pouch"},
    lang="en",
)
MUG = Tag("mug", "m", aliases=("cup",))
WALLET = Tag("Leather Wallet", "w", aliases=("billfold",), labels={"zh": "皮夹"})
WATERPROOF = Tag("waterproof", "wp", labels={"zh": "防水"})
OLD = Tag("clearance", "c", retired=True)
BROWN = Tag("Color=Brown", "cb", aliases=("Color=Chestnut",), key="Color", kind=TagKind.SPAN)
TAN = Tag("Color=Tan", "ct", key="Color", kind=TagKind.SPAN, retired=True)
RED = Tag("Color=Red", "cr", key="Color", kind=TagKind.SPAN)
VOCABULARY = Vocabulary([MUG, WALLET, WATERPROOF, OLD, BROWN, TAN, RED])
SHORTLIST = Shortlist(
    (), tuple(Candidate(tag) for tag in (WALLET, WATERPROOF)), keys=("Color", "Material")
)
SETTINGS = AnswerSettings(max_tags=2)


def _format(kind: TagKind, vocabulary: Vocabulary = VOCABULARY, max_tags: int = 2) -> AnswerFormat:
    return answer_format(kind, vocabulary, AnswerSettings(max_tags=max_tags))


def _parse(kind: TagKind, text: str, finish: str = "stop", **rest: Any) -> ParsedTags:
    completion = Completion(text, finish, "fake", **rest)
    return _format(kind).parse(completion, PRODUCT, SHORTLIST)


def _kept(parsed: ParsedTags) -> list[str]:
    return [("+" if p.new else "") + p.tag.name for p in parsed.accepted]


def _refused(parsed: ParsedTags) -> dict[str, str]:
    return {rejection.text: rejection.reason.value for rejection in parsed.rejected}


@pytest.mark.parametrize(
    ("text", "kept", "refused", "verdict"),
    [
        pytest.param('["Leather Wallet"]', ["Leather Wallet"], {}, "clean", id="clean"),
        pytest.param("[]", [], {}, "clean", id="nothing-fits"),
        pytest.param(
            '["waterproof","Leather Wallet"]',
            ["waterproof", "Leather Wallet"],
            {},
            "clean",
            id="in-the-models-order",
        ),
        pytest.param(
            ' ["ＬＥＡＴＨＥＲ wallet "]\n', ["Leather Wallet"], {}, "clean", id="case-and-width"
        ),
        pytest.param('["billfold"]', ["Leather Wallet"], {}, "clean", id="alias-of-an-offered-tag"),
        pytest.param('Sure! Here: ["waterproof"]. Bye', ["waterproof"], {}, "repaired", id="prose"),
        pytest.param(
            '```json\n["waterproof"]\n```', ["waterproof"], {}, "repaired", id="code-fence"
        ),
        pytest.param(
            'Tags [as asked]: ["waterproof"]',
            ["waterproof"],
            {},
            "repaired",
            id="brackets-in-prose",
        ),
        pytest.param('{"tags": ["waterproof"]}', ["waterproof"], {}, "repaired", id="in-an-object"),
        pytest.param('["mug"]', [], {"mug": "not_in_shortlist"}, "clean", id="not-offered"),
        pytest.param('["cup"]', [], {"cup": "not_in_shortlist"}, "clean", id="alias-not-offered"),
        pytest.param('["hat"]', [], {"hat": "not_in_vocabulary"}, "clean", id="made-up"),
        pytest.param('["Clearance"]', [], {"Clearance": "retired"}, "clean", id="retired"),
        pytest.param(
            '["waterproof", "Waterproof"]',
            ["waterproof"],
            {"Waterproof": "duplicate"},
            "clean",
            id="duplicate",
        ),
        pytest.param(
            '[1, null, "", " ", {"a": 1}, ["waterproof"]]',
            [],
            {
                "1": "malformed",
                "null": "malformed",
                '""': "malformed",
                '" "': "malformed",
                '{"a": 1}': "malformed",
                '["waterproof"]': "malformed",
            },
            "clean",
            id="no-strings",
        ),
        pytest.param(
            '["\\ud83d", "half\\ud83d"]',
            [],
            {"?": "not_in_vocabulary", "half?": "not_in_vocabulary"},
            "clean",
            id="half-a-surrogate-pair",
        ),
    ],
)
def test_closed(text: str, kept: list[str], refused: dict[str, str], verdict: str) -> None:
    parsed = _parse(TagKind.CLOSED, text)
    assert (_kept(parsed), _refused(parsed), parsed.verdict) == (kept, refused, verdict)
    assert parsed.problem is None


@pytest.mark.parametrize(
    ("text", "kept", "refused", "verdict"),
    [
        pytest.param('{"Color": ["Brown"]}', ["Color=Brown"], {}, "clean", id="clean"),
        pytest.param("{}", [], {}, "clean", id="nothing-to-read"),
        pytest.param(
            '{"Material": ["FULL grain", "leather"], "Color": "brown"}',
            ["Material=Full Grain", "Material=leather", "Color=Brown"],
            {},
            "clean",
            id="as-written-in-the-text",
        ),
        pytest.param('{"color": ["brown"]}', ["Color=Brown"], {}, "clean", id="case-of-the-key"),
        pytest.param('{"Color": ["Chestnut"]}', ["Color=Brown"], {}, "clean", id="known-by-alias"),
        pytest.param('{"Color": ["red"]}', ["Color=Red"], {}, "clean", id="known-not-in-the-text"),
        pytest.param(
            '{"Material": ["cotton"]}', ["Material=cotton"], {}, "clean", id="hidden-in-the-text"
        ),
        pytest.param('{"Material": ["防水"]}', ["Material=防水"], {}, "clean", id="chinese"),
        pytest.param('{"Material": ["S"]}', ["Material=S"], {}, "clean", id="one-character"),
        pytest.param(
            '{"Color": ["Brown"], "Color": ["Red"]}',
            ["Color=Brown", "Color=Red"],
            {},
            "clean",
            id="key-said-twice",
        ),
        pytest.param('It is {"Color": ["Brown"]}', ["Color=Brown"], {}, "repaired", id="prose"),
        pytest.param('[{"Color": ["Brown"]}]', ["Color=Brown"], {}, "repaired", id="in-a-list"),
        pytest.param(
            '{"Color": ["blue"]}', [], {"Color=blue": "not_in_text"}, "clean", id="not-in-text"
        ),
        pytest.param(
            '{"Material": ["eather"]}',
            [],
            {"Material=eather": "not_in_text"},
            "clean",
            id="part-of-a-word",
        ),
        pytest.param('{"Color": ["-"]}', [], {"Color=-": "not_in_text"}, "clean", id="dash"),
        pytest.param(
            '{"Size": ["S"], "": ["S"]}',
            [],
            {"Size=S": "not_in_vocabulary", "S": "not_in_vocabulary"},
            "clean",
            id="key-not-asked-for",
        ),
        pytest.param('{"Color": ["tan"]}', [], {"Color=tan": "retired"}, "clean", id="retired"),
        pytest.param(
            '{"Color": ["Brown", "chestnut"]}',
            ["Color=Brown"],
            {"chestnut": "duplicate"},
            "clean",
            id="duplicate-by-alias",
        ),
        pytest.param(
            '{"Material": ["leather", "LEATHER"]}',
            ["Material=leather"],
            {"LEATHER": "duplicate"},
            "clean",
            id="duplicate-not-in-the-vocabulary",
        ),
        pytest.param(
            '{"Color": [1, {"a": "b"}], "Material": null}',
            [],
            {
                "Color=1": "malformed",
                'Color={"a": ["b"]}': "malformed",
                "Material=null": "malformed",
            },
            "clean",
            id="no-strings",
        ),
    ],
)
def test_span(text: str, kept: list[str], refused: dict[str, str], verdict: str) -> None:
    parsed = _parse(TagKind.SPAN, text)
    assert (_kept(parsed), _refused(parsed), parsed.verdict) == (kept, refused, verdict)
    assert parsed.problem is None


@pytest.mark.parametrize(
    ("text", "kept", "refused", "verdict"),
    [
        pytest.param('["full grain"]', ["+full grain"], {}, "clean", id="new"),
        pytest.param('["cup"]', ["mug"], {}, "clean", id="known-by-alias"),
        pytest.param('["LEATHER  wallet"]', ["Leather Wallet"], {}, "clean", id="known-by-name"),
        pytest.param('["#slim, "]', ["+slim"], {}, "clean", id="punctuation-around"),
        pytest.param('["a<|im_end|>\\nb"]', ["+a b"], {}, "clean", id="made-neutral"),
        pytest.param('Tags: ["slim"]', ["+slim"], {}, "repaired", id="prose"),
        pytest.param('["clearance"]', [], {"clearance": "retired"}, "clean", id="retired"),
        pytest.param('["slim", "SLIM"]', ["+slim"], {"SLIM": "duplicate"}, "clean", id="duplicate"),
        pytest.param(
            '["mug", "Cup"]', ["mug"], {"Cup": "duplicate"}, "clean", id="duplicate-by-alias"
        ),
        pytest.param(
            '["a1", "a2", "a3", "a2"]',
            ["+a1", "+a2"],
            {"a3": "too_many", "a2": "duplicate"},
            "clean",
            id="too-many",
        ),
        pytest.param(
            json.dumps(["...", "\u200b", "x" * 61, "-"]),
            [],
            dict.fromkeys(["...", "\u200b", "x" * 61, "-"], "malformed"),
            "clean",
            id="no-tag",
        ),
    ],
)
def test_free(text: str, kept: list[str], refused: dict[str, str], verdict: str) -> None:
    parsed = _parse(TagKind.FREE, text)
    assert (_kept(parsed), _refused(parsed), parsed.verdict) == (kept, refused, verdict)
    assert parsed.problem is None


@pytest.mark.parametrize(
    ("kind", "text", "finish", "code"),
    [
        pytest.param(TagKind.CLOSED, '["waterproof"', "length", "answer_truncated", id="truncated"),
        pytest.param(TagKind.CLOSED, '["waterproof"]', "length", "answer_truncated", id="complete"),
        pytest.param(TagKind.SPAN, "{}", "length", "answer_truncated", id="truncated-span"),
        pytest.param(TagKind.FREE, "[]", "length", "answer_truncated", id="truncated-free"),
        pytest.param(TagKind.CLOSED, "", "stop", "answer_unreadable", id="empty"),
        pytest.param(TagKind.CLOSED, "waterproof", "stop", "answer_unreadable", id="prose-alone"),
        pytest.param(TagKind.CLOSED, '["waterproof"', "stop", "answer_unreadable", id="cut-off"),
        pytest.param(TagKind.CLOSED, '"waterproof"', "stop", "answer_unreadable", id="string"),
        pytest.param(TagKind.CLOSED, "{}", "stop", "answer_unreadable", id="object-for-list"),
        pytest.param(TagKind.SPAN, '["Color"]', "stop", "answer_unreadable", id="list-for-object"),
        pytest.param(TagKind.FREE, "[" * 99_999, "stop", "answer_unreadable", id="deep"),
        pytest.param(TagKind.SPAN, '{"a":' * 99_999, "stop", "answer_unreadable", id="deep-span"),
        pytest.param(TagKind.FREE, "\ud800[", "stop", "answer_unreadable", id="surrogate"),
        pytest.param(
            TagKind.FREE, f"[{'9' * 9999}]", "stop", "answer_unreadable", id="huge-number"
        ),
    ],
)
def test_what_cannot_be_trusted_is_a_problem(
    kind: TagKind, text: str, finish: str, code: str
) -> None:
    parsed = _parse(kind, text, finish)
    assert parsed.problem is not None
    assert parsed.problem.code == code
    assert len(parsed.problem.message) < 1000
    assert (parsed.verdict, parsed.accepted) == (Verdict.UNREADABLE, ())


@pytest.mark.parametrize("depth", range(100, 1100, 50))
@pytest.mark.parametrize("kind", TagKind)
def test_a_deeply_nested_item_is_malformed(kind: TagKind, depth: int) -> None:
    nested = "[" * depth + "]" * depth
    text = f'{{"Color": [{nested}]}}' if kind is TagKind.SPAN else f'["waterproof", {nested}]'
    parsed = _parse(kind, text)
    assert parsed.problem or parsed.rejected[0].reason is Reason.MALFORMED


def test_a_known_tag_keeps_its_place_in_the_text() -> None:
    (proposal,) = _parse(TagKind.SPAN, '{"Color": ["BROWN"]}').accepted
    assert (proposal.tag, proposal.spans) == (BROWN, (Span("title", "Brown"),))
    (proposal,) = _parse(TagKind.SPAN, '{"Material": ["cotton"]}').accepted
    assert proposal.tag == Tag(
        "Material=cotton", "Material=cotton", key="Material", kind=TagKind.SPAN
    )
    assert proposal.spans == (Span("attributes.Fits", "cot\u200bton"),)
    assert not proposal.new
    (proposal,) = _parse(TagKind.FREE, '["leather"]').accepted
    assert proposal == Proposal(
        Tag("leather", "leather", kind=TagKind.FREE),
        (Span("title", "leather"), Span("description", "leather")),
        new=True,
    )


def test_ids_that_differ_only_in_case_are_two_tags() -> None:
    one, other = Tag("mug", "A1"), Tag("cup", "a1")
    shortlist = Shortlist((), (Candidate(one), Candidate(other)))
    parsed = _format(TagKind.CLOSED, Vocabulary([one, other])).parse(
        Completion('["mug", "cup"]', "stop", "fake"), PRODUCT, shortlist
    )
    assert _kept(parsed) == ["mug", "cup"]


def test_only_the_first_so_many_are_kept() -> None:
    tags = [Tag(f"t{n}", f"t{n}") for n in range(9)]
    shortlist = Shortlist((), tuple(map(Candidate, tags)))
    answer = Completion(json.dumps([tag.name for tag in tags]), "stop", "fake")
    parsed = _format(TagKind.CLOSED, Vocabulary(tags), 3).parse(answer, PRODUCT, shortlist)
    assert _kept(parsed) == ["t0", "t1", "t2"]
    assert _refused(parsed) == dict.fromkeys([f"t{n}" for n in range(3, 9)], "too_many")


def test_a_chinese_product_is_asked_in_chinese() -> None:
    product = Product("1", "防水皮夹", lang="zh-CN")
    closed = _format(TagKind.CLOSED)
    constraint = closed.constraint(product, SHORTLIST)
    assert constraint is not None
    assert constraint.schema["items"]["enum"] == ["皮夹", "防水"]
    parsed = closed.parse(Completion('["防水"]', "stop", "fake"), product, SHORTLIST)
    assert _kept(parsed) == ["waterproof"]


def test_only_what_is_offered_may_be_said() -> None:
    shortlist = Shortlist((), tuple(map(Candidate, (WALLET, WATERPROOF))), offered=1)
    closed = _format(TagKind.CLOSED)
    constraint = closed.constraint(PRODUCT, shortlist)
    assert constraint is not None
    assert constraint.schema == {
        "type": "array",
        "items": {"type": "string", "enum": ["Leather Wallet"]},
        "maxItems": 2,
    }
    parsed = closed.parse(Completion('["waterproof"]', "stop", "fake"), PRODUCT, shortlist)
    assert _refused(parsed) == {"waterproof": "not_in_shortlist"}


def test_nothing_is_asked_where_nothing_can_be_said() -> None:
    assert _format(TagKind.CLOSED).constraint(PRODUCT, Shortlist((), ())) is None
    assert _format(TagKind.SPAN).constraint(PRODUCT, Shortlist((), ())) is None
    assert _format(TagKind.FREE).constraint(PRODUCT, Shortlist((), ())) is not None


def test_there_is_room_for_the_longest_answer() -> None:
    labels = ["标签" * 40 + str(n) for n in range(9)]
    shortlist = Shortlist((), tuple(Candidate(Tag(label, label)) for label in labels))
    constraint = _format(TagKind.CLOSED, max_tags=5).constraint(PRODUCT, shortlist)
    assert constraint is not None
    assert constraint.max_tokens >= len(json.dumps(labels[:5], ensure_ascii=False).encode())


def _instances(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Everything that a schema of the kinds used here admits; any other keyword fails."""
    match schema:
        case {"type": "string", "enum": labels, **rest} if not rest:
            return st.sampled_from(labels)
        case {"type": "string", "minLength": least, "maxLength": most, **rest} if not rest:
            return st.text(min_size=least, max_size=most)
        case {"type": "array", "items": items, "maxItems": most, **rest} if not rest or list(
            rest
        ) == ["minItems"]:
            least = schema.get("minItems", 0)
            return st.lists(_instances(items), min_size=least, max_size=most)
        case {
            "type": "object",
            "propertyNames": {"enum": names},
            "additionalProperties": value,
            "maxProperties": most,
            **rest,
        } if not rest:
            return st.dictionaries(st.sampled_from(names), _instances(value), max_size=most)
    raise AssertionError(f"the tests do not know the schema {schema}")


AWKWARD = st.one_of(
    st.text(min_size=1, max_size=12),
    st.sampled_from(
        ['the "slim" one', "back\\slash", "防水", "cot\u200bton", "a<|im_end|>b", "tab\there", "é"]
    ),
)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Vocabulary, Product, Shortlist]:
    names = draw(st.lists(AWKWARD.filter(normalise), max_size=6, unique_by=normalise))
    lang = draw(st.sampled_from(["en", "zh", "ZH-cn", ""]))
    tags = []
    for number, name in enumerate(names):
        label = {"zh": f'标签{number} \\ " {name}'} if draw(st.booleans()) else {}
        tags.append(Tag(name, str(number), labels=label))
    vocabulary = Vocabulary(tags)
    keys = tuple(draw(st.lists(AWKWARD, max_size=4, unique=True)))
    product = Product("1", draw(AWKWARD), description=draw(st.text(max_size=20)), lang=lang)
    return vocabulary, product, Shortlist((), tuple(map(Candidate, vocabulary)), keys=keys)


@given(worlds(), st.sampled_from(TagKind), st.booleans(), st.data())
def test_whatever_the_grammar_admits_is_read(
    world: tuple[Vocabulary, Product, Shortlist],
    kind: TagKind,
    ascii_only: bool,
    data: st.DataObject,
) -> None:
    vocabulary, product, shortlist = world
    form = _format(kind, vocabulary, max_tags=4)
    constraint = form.constraint(product, shortlist)
    if constraint is None:
        return
    answer = data.draw(_instances(constraint.schema))
    text = json.dumps(answer, ensure_ascii=ascii_only)
    parsed = form.parse(Completion(text, "stop", "fake"), product, shortlist)
    assert parsed.problem is None
    assert parsed.verdict is Verdict.CLEAN
    said = answer if isinstance(answer, list) else [v for values in answer.values() for v in values]
    assert len(parsed.accepted) + len(parsed.rejected) == len(said)
    if kind is TagKind.CLOSED:
        offered = offered_labels(product, shortlist)
        assert [p.tag for p in parsed.accepted] == list(
            {offered[label].id: offered[label] for label in answer}.values()
        )
        assert {r.reason for r in parsed.rejected} <= {Reason.DUPLICATE}
    json.dumps([r.text for r in parsed.rejected], ensure_ascii=False).encode()


ANSWERS = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from(
            ['["', '"]', '{"', '"}', '", "', '": ["', "waterproof", "\\u", "\\", "\ud83d", "[", "}"]
        ),
        max_size=12,
    ).map("".join),
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=8,
    ).map(json.dumps),
)


@given(ANSWERS, st.sampled_from(TagKind), st.booleans())
def test_no_answer_is_too_strange(text: str, kind: TagKind, spelled: bool) -> None:
    data = text.encode(errors="surrogatepass")
    logprobs = tuple(TokenLogprob(bytes([byte]), -1.0) for byte in data) if spelled else ()
    parsed = _parse(kind, text, logprobs=logprobs)
    assert len(parsed.accepted) <= (6 if kind is TagKind.SPAN else 2)
    for rejection in parsed.rejected:
        rejection.text.encode()
    if parsed.problem:
        assert not parsed.accepted


def _tokens(*spelled: tuple[str | bytes, float]) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(text if isinstance(text, bytes) else text.encode(), logprob)
        for text, logprob in spelled
    )


@pytest.mark.parametrize(
    ("kind", "text", "tokens", "expected"),
    [
        pytest.param(
            TagKind.CLOSED,
            '["waterproof"]',
            _tokens(("[", -9), ('"water', -1), ("proof", -2), ('"', -3), ("]", -9)),
            {"waterproof": -2.0},
            id="a-word-in-pieces",
        ),
        pytest.param(
            TagKind.CLOSED,
            '["waterproof", "Leather Wallet"]',
            _tokens(
                ("[", -9),
                ('"waterproof"', -1),
                (", ", -9),
                ('"Leather Wallet"', -4),
                ("]", -9),
                ("<|im_end|>", -9),
            ),
            {"waterproof": -1.0, "Leather Wallet": -4.0},
            id="each-its-own-and-an-end-token",
        ),
        pytest.param(
            TagKind.CLOSED,
            '["防水"]',
            _tokens(
                ("[", -9),
                ('"', -1),
                ("防".encode()[:2], -2),
                ("防".encode()[2:], -3),
                ("水".encode(), -2),
                ('"', -2),
                ("]", -9),
            ),
            {"waterproof": -2.0},
            id="a-character-in-pieces",
        ),
        pytest.param(
            TagKind.FREE,
            '["\\u9632\\"x", "y"]',
            _tokens(('["', -1), ('\\u9632\\"x', -3), ('"', -2), (", ", -9), ('"y"', -5), ("]", -9)),
            {'防"x': -2.0, "y": -5.0},
            id="escapes",
        ),
        pytest.param(
            TagKind.SPAN,
            '{"Color": ["Brown"], "Material": ["Brown"]}',
            _tokens(
                ('{"Color": [', -9),
                ('"Brown"', -1),
                ('], "Material": [', -9),
                ('"Brown"', -2),
                ("]}", -9),
            ),
            {"Color=Brown": -1.0, "Material=Brown": -2.0},
            id="the-same-value-of-two-keys",
        ),
        pytest.param(
            TagKind.SPAN,
            '{"Color": ["Color"], "Material": ["Brown"]}',
            _tokens(
                ('{"Color"', -7),
                (': ["Color', -7),
                ('"], "Material": [', -9),
                ('"Brown"', -2),
                ("]}", -9),
            ),
            {"Material=Brown": -2.0},
            id="keys-do-not-count",
        ),
        pytest.param(TagKind.CLOSED, '["waterproof"]', (), {"waterproof": None}, id="no-logprobs"),
        pytest.param(
            TagKind.CLOSED,
            '["waterproof"]',
            _tokens(("other", -1)),
            {"waterproof": None},
            id="tokens-of-another-text",
        ),
    ],
)
def test_logprobs(
    kind: TagKind, text: str, tokens: tuple[TokenLogprob, ...], expected: dict[str, float | None]
) -> None:
    product, shortlist = PRODUCT, SHORTLIST
    if "防水" in text:
        product = Product("1", "x", lang="zh")
    completion = Completion(text, "stop", "fake", logprobs=tokens)
    parsed = _format(kind).parse(completion, product, shortlist)
    found = {p.tag.name: p.logprob for p in parsed.accepted}
    assert set(found) == set(expected)
    for name, logprob in expected.items():
        assert found[name] == (None if logprob is None else pytest.approx(logprob))


@given(st.lists(st.floats(-20, 0), min_size=14, max_size=14))
def test_logprobs_are_means_over_bytes_too(drawn: list[float]) -> None:
    text = '["waterproof"]'
    tokens = tuple(
        TokenLogprob(bytes([byte]), logprob)
        for byte, logprob in zip(text.encode(), drawn, strict=True)
    )
    (proposal,) = _parse(TagKind.CLOSED, text, logprobs=tokens).accepted
    assert proposal.logprob == pytest.approx(math.fsum(drawn[1:-1]) / 12)


@pytest.mark.parametrize("kind", TagKind)
def test_tags_without_an_end_are_read_in_linear_time(kind: TagKind) -> None:
    """The first thousand are read, the others counted; with a log-probability for each byte."""
    many = ",".join(f'"t{at}"' for at in range(30_000)) + ',"' + "a" * 100_000 + '"'
    text = f'{{"Color": [{many}]}}' if kind is TagKind.SPAN else f"[{many}]"
    tokens = tuple(TokenLogprob(bytes([byte]), -0.5) for byte in text.encode())
    completion = Completion(text, "stop", "m", tokens)
    begun = time.process_time()
    parsed = _format(kind).parse(completion, PRODUCT, SHORTLIST)
    assert time.process_time() - begun < 5
    assert len(parsed.accepted) + len(parsed.rejected) == 1001
    assert parsed.rejected[-1] == Rejection("… and 29001 more", Reason.TOO_MANY)


@pytest.mark.parametrize("rest", ['"' + '\\"' * 50_000, '"a\\' * 50_000, '"' + " " * 100_000])
def test_words_around_an_answer_are_read_in_linear_time(rest: str) -> None:
    text = '["leather wallet"] ' + rest
    tokens = tuple(TokenLogprob(bytes([byte]), -0.5) for byte in text.encode())
    begun = time.process_time()
    parsed = _format(TagKind.CLOSED).parse(
        Completion(text, "stop", "m", tokens), PRODUCT, SHORTLIST
    )
    assert time.process_time() - begun < 5
    assert [(each.tag.id, each.logprob) for each in parsed.accepted] == [("w", -0.5)]


def test_a_very_long_string_is_cut_in_the_record() -> None:
    said = "x" * 1_000_000
    for text in (json.dumps([said]), json.dumps([said[:1500], said])):
        parsed = _format(TagKind.CLOSED).parse(Completion(text, "stop", "m"), PRODUCT, SHORTLIST)
        assert {each.reason for each in parsed.rejected} <= {
            Reason.MALFORMED,
            Reason.NOT_IN_VOCABULARY,
        }
        assert all(len(each.text) == 200 for each in parsed.rejected)


def test_a_probability_that_was_rounded_above_one_is_one() -> None:
    tokens = tuple(TokenLogprob(bytes([byte]), 1e-6) for byte in b'["leather wallet"]')
    completion = Completion('["leather wallet"]', "stop", "m", tokens)
    (found,) = _format(TagKind.CLOSED).parse(completion, PRODUCT, SHORTLIST).accepted
    assert found.logprob == 0.0
