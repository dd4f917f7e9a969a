"""Vocabularies: read, contradicted, resolved, and found in a text."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtagger.datatypes import Product, Span, Tag, TagKind
from llmtagger.errors import VocabularyError
from llmtagger.normalise import normalise
from llmtagger.vocabulary import (
    Vocabulary,
    read_vocabulary,
    split_key,
    tag_from_record,
    tag_to_record,
)


def _write(folder: Path, content: str | bytes, name: str = "vocabulary.txt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _jsonl(*records: Any) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _mentions(vocabulary: Vocabulary, **fields: Any) -> dict[str, tuple[Span, ...]]:
    found = vocabulary.mentions(Product("1", **({"title": ""} | fields)))
    return {vocabulary.tags[position].name: spans for position, spans in found.items()}


def _named(*names: str) -> Vocabulary:
    return Vocabulary(Tag(name, name, key=split_key(name)[0]) for name in names)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("wallet\n皮夹\nColor=Red\n", id="plain"),
        pytest.param("\ufeffwallet\n皮夹\nColor=Red\n", id="bom"),
        pytest.param("wallet\r\n皮夹\r\nColor=Red\r\n", id="crlf"),
        pytest.param("\n  wallet \n\n\t皮夹\n\u200b\nColor=Red", id="blank-lines"),
    ],
)
def test_a_text_file_holds_a_tag_a_line(tmp_path: Path, content: str) -> None:
    vocabulary = read_vocabulary(_write(tmp_path, content))
    assert [(tag.name, tag.id, tag.key) for tag in vocabulary] == [
        ("wallet", "wallet", None),
        ("皮夹", "皮夹", None),
        ("Color=Red", "Color=Red", "Color"),
    ]


def test_a_text_file_merges_spellings_and_says_so(tmp_path: Path) -> None:
    vocabulary = read_vocabulary(
        _write(tmp_path, "Wallet\nmug\nwallet\nＷＡＬＬＥＴ\nmug\nwallet\n")
    )
    assert [(tag.name, tag.aliases) for tag in vocabulary] == [
        ("Wallet", ("wallet", "ＷＡＬＬＥＴ")),
        ("mug", ()),
    ]
    assert vocabulary.merged == (
        "'wallet' is read as 'Wallet'",
        "'ＷＡＬＬＥＴ' is read as 'Wallet'",
    )


def test_jsonl_holds_every_field(tmp_path: Path) -> None:
    content = _jsonl(
        {"name": "bag", "id": 7},
        {
            "id": "wp",
            "name": "waterproof",
            "aliases": ["rainproof"],
            "parent": "7",
            "key": "Feature",
            "kind": "span",
            "labels": {"zh": "防水"},
            "status": "retired",
        },
        {"name": "Color=Red"},
        {"name": "a=b", "key": None},
    )
    assert read_vocabulary(_write(tmp_path, "\ufeff" + content)).tags == (
        Tag("bag", "7"),
        Tag(
            "waterproof",
            "wp",
            ("rainproof",),
            "7",
            "Feature",
            TagKind.SPAN,
            {"zh": "防水"},
            retired=True,
        ),
        Tag("Color=Red", "Color=Red", key="Color"),
        Tag("a=b", "a=b"),
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param("", "is empty", id="empty"),
        pytest.param("\n \r\n", "is empty", id="blank"),
        pytest.param("wallet\nmüg\n".encode("latin-1"), "not UTF-8 (byte 8)", id="latin-1"),
        pytest.param("wallet\nmug\n".encode("utf-16"), "not UTF-8 (byte 0)", id="utf-16"),
        pytest.param("wallet\n".encode("utf-16-le"), "NUL bytes", id="utf-16-without-bom"),
        pytest.param("wal\0let\n", "NUL bytes", id="nul"),
        pytest.param('{"name": "a"}\n{"name": \n', ":2: ", id="broken-json"),
        pytest.param('{"name": "a"}\n["b"]\n', ":2: not an object", id="list"),
        pytest.param('{"name": "a"}\nb\n', ":2: ", id="text-amid-jsonl"),
        pytest.param(_jsonl({"id": "1"}), "needs a name", id="no-name"),
        pytest.param(_jsonl({"name": " \u200b"}), "needs a name", id="blank-name"),
        pytest.param(_jsonl({"name": 3}), "needs a name", id="number-as-name"),
        pytest.param(_jsonl({"name": "a", "colour": 1}), "unknown fields ['colour']", id="unknown"),
        pytest.param(_jsonl({"name": "a", "status": "old"}), "status 'old'", id="status"),
        pytest.param(_jsonl({"name": "a", "status": []}), "status []", id="status-list"),
        pytest.param(_jsonl({"name": "a", "kind": "open"}), "open", id="kind"),
        pytest.param(_jsonl({"name": "a", "kind": {}}), "{}", id="kind-object"),
        pytest.param(_jsonl({"name": "a", "aliases": "bcd"}), "a list", id="alias-string"),
        pytest.param(_jsonl({"name": "a", "aliases": 7}), "a list", id="alias-number"),
        pytest.param(_jsonl({"name": "a", "aliases": [1]}), "strings", id="alias-item"),
        pytest.param(_jsonl({"name": "a", "labels": ["b"]}), "an object", id="label-list"),
        pytest.param(_jsonl({"name": "a", "labels": {"zh": 1}}), "strings", id="label-item"),
        pytest.param(_jsonl({"name": "a", "parent": ["b"]}), "parent must be", id="parent-list"),
        pytest.param(_jsonl({"name": "a", "key": 1.5}), "key must be", id="key-number"),
        pytest.param(_jsonl({"name": "a", "id": True}), "id must be", id="id-boolean"),
        pytest.param('{"name": "\\ud83d"}\n', ":1: ", id="half-a-surrogate-pair"),
        pytest.param('{"name": "a", "labels": ' + "[" * 99_999 + "\n", ":1: ", id="deep"),
        pytest.param('{"name": "a", "id": ' + "9" * 99_999 + "}\n", ":1: ", id="huge-integer"),
        pytest.param(
            _jsonl({"name": "Mug"}, {"name": "mug"}), "differ only in case", id="case-twins"
        ),
        pytest.param(
            _jsonl({"name": "a", "id": "1"}, {"name": "b", "id": "1"}), "the id '1'", id="same-id"
        ),
        pytest.param(
            _jsonl({"name": "a", "aliases": ["c"]}, {"name": "b", "aliases": ["C"]}),
            "'C' means both 'a' and 'b'",
            id="alias-of-two",
        ),
        pytest.param(
            _jsonl({"name": "a", "labels": {"zh": "b"}}, {"name": "b"}),
            "means both",
            id="label-is-a-name",
        ),
        pytest.param(
            _jsonl({"name": "a", "parent": "b"}), "parent 'b', which is no", id="unknown-parent"
        ),
        pytest.param(_jsonl({"name": "a", "parent": "a"}), "circle: a", id="own-parent"),
        pytest.param(
            _jsonl(
                {"name": "a", "parent": "b"},
                {"name": "b", "parent": "c"},
                {"name": "c", "parent": "a"},
            ),
            "circle: a > b > c",
            id="circle",
        ),
    ],
)
def test_a_contradiction_is_refused(tmp_path: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(VocabularyError) as caught:
        read_vocabulary(_write(tmp_path, content))
    assert said in caught.value.message
    assert caught.value.hint


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match="No such file"):
        read_vocabulary(tmp_path / "absent.txt")


def test_seventy_thousand_tags_are_read_and_found(tmp_path: Path) -> None:
    path = _write(tmp_path, "".join(f"标签{n} series {n}\n" for n in range(70_000)))
    start = time.perf_counter()
    vocabulary = read_vocabulary(path)
    found = _mentions(vocabulary, title="新款标签69999 series 69999上市")
    assert time.perf_counter() - start < 20
    assert len(vocabulary) == 70_000
    assert list(found) == ["标签69999 series 69999"]


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_a_vocabulary_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.txt"
    path.write_bytes(content)
    try:
        vocabulary = read_vocabulary(path)
    except VocabularyError:
        return
    assert len(vocabulary) > 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    st.fixed_dictionaries(
        {"name": st.just("a") | JSON},
        optional=dict.fromkeys(
            ("id", "aliases", "parent", "key", "kind", "labels", "status"), JSON
        ),
    )
)
def test_any_record_is_a_tag_or_a_value_error(record: dict[str, Any]) -> None:
    try:
        tag = tag_from_record(record)
    except ValueError:
        return
    assert tag_from_record(tag_to_record(tag)) == tag


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).map(str.strip)


@st.composite
def vocabularies(draw: st.DrawFn) -> Vocabulary:
    words = draw(st.lists(NAMES.filter(normalise), unique_by=normalise, min_size=1, max_size=12))
    tags: list[Tag] = []
    while words:
        name, *_ = taken = [words.pop() for _ in range(min(len(words), draw(st.integers(1, 3))))]
        tags.append(
            Tag(
                name,
                id=draw(st.sampled_from([name, f"id {len(tags)} {name}"])),
                aliases=tuple(taken[1:2]),
                parent=draw(st.sampled_from([None, *(tag.id for tag in tags)])),
                key=draw(st.sampled_from([None, "Color", split_key(name)[0]])),
                kind=draw(st.sampled_from(TagKind)),
                labels=dict(zip(["zh"], taken[2:], strict=False)),
                retired=draw(st.booleans()),
            )
        )
    return Vocabulary(tags)


@given(vocabularies())
def test_written_and_read_again_it_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.jsonl"
    vocabulary.write(path)
    again = read_vocabulary(path)
    assert again.tags == vocabulary.tags
    assert again.fingerprint == vocabulary.fingerprint


@given(vocabularies())
def test_every_name_alias_and_label_leads_to_its_tag(vocabulary: Vocabulary) -> None:
    for tag in vocabulary:
        for surface in (tag.name, *tag.aliases, *tag.labels.values()):
            assert vocabulary.resolve(f" {surface}\t") == tag


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("WATERPROOF ", "waterproof"),
        ("rainproof", "waterproof"),
        ("Ｗａｔｅｒｐｒｏｏｆ", "waterproof"),
        ("防水", "waterproof"),
        ("T shirt", "t-shirt"),
        ("t–shirt", "t-shirt"),
        ("Tee", "t-shirt"),
        ("RFID blocking", "rfid protection"),
        ("color=BROWN", "Color=Brown"),
        ("clearance", "clearance"),
        ("water", None),
        ("", None),
    ],
)
def test_resolve(vocabulary: Vocabulary, text: str, name: str | None) -> None:
    found = vocabulary.resolve(text)
    assert (found and found.name) == name


def test_hyphens_do_not_decide_between_two_tags() -> None:
    vocabulary = _named("re-sign", "re sign", "t_shirt")
    assert vocabulary.resolve("re_sign") is None
    assert vocabulary.resolve("re-sign") == Tag("re-sign", "re-sign")
    assert vocabulary.resolve("T-Shirt") == Tag("t_shirt", "t_shirt")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Color=Red", ("Color", "Red")),
        (" Color = Red=ish ", ("Color", "Red=ish")),
        ("=Red", (None, "=Red")),
        ("Color=", (None, "Color=")),
        ("Color", (None, "Color")),
    ],
)
def test_split_key(text: str, parts: tuple[str | None, str]) -> None:
    assert split_key(text) == parts


@pytest.mark.parametrize(
    ("title", "found"),
    [
        pytest.param(
            "Wallet with COIN-Pocket",
            {"wallet": "Wallet", "coin pocket": "COIN-Pocket"},
            id="longest-and-as-written",
        ),
        pytest.param(
            "a coin, a coin pocket",
            {"coin": "coin", "coin pocket": "coin pocket"},
            id="the-short-one-elsewhere",
        ),
        pytest.param("coins and travels", {}, id="not-within-words"),
        pytest.param(
            "新款蓝牙耳机防水",
            {"无线耳机": "蓝牙耳机", "waterproof": "防水"},
            id="chinese-by-alias-and-label",
        ),
        pytest.param("高清液晶电视", {"液晶电视": "液晶电视"}, id="chinese-longest"),
        pytest.param(
            "brown Leather", {"Color=Brown": "brown", "Material=Leather": "Leather"}, id="values"
        ),
        pytest.param(
            "leather wallet", {"leather wallet": "leather wallet"}, id="a-value-inside-a-longer-tag"
        ),
        pytest.param("４Ｋ mug", {"4K": "４Ｋ", "mug": "mug"}, id="full-width"),
        pytest.param("", {}, id="no-text"),
    ],
)
def test_mentions(vocabulary: Vocabulary, title: str, found: dict[str, str]) -> None:
    expected = {name: (Span("title", text),) for name, text in found.items()}
    assert _mentions(vocabulary, title=title) == expected


def test_mentions_name_the_field_and_stop_at_three(vocabulary: Vocabulary) -> None:
    spans = _mentions(
        vocabulary, title="Mug", attributes={"Kind": "mug"}, description="mug MUG mug"
    )["mug"]
    assert spans == (
        Span("title", "Mug"),
        Span("attributes.Kind", "mug"),
        Span("description", "mug"),
    )


def test_mentions_without_some_tags() -> None:
    """A tag left out hides no shorter mention, nor one that shares its name."""
    vocabulary = Vocabulary(
        Tag(name, name, key=name.partition("=")[0] if "=" in name else None)
        for name in ("coin pocket", "coin", "Color=Red", "Flavour=Red")
    )
    product = Product("1", "red wallet, coin pocket")
    red = (Span("title", "red"),)
    assert vocabulary.mentions(product) == {0: (Span("title", "coin pocket"),), 2: red, 3: red}
    without = vocabulary.mentions(product, without={0, 2})
    assert without == {1: (Span("title", "coin"),), 3: red}


def test_short_and_common_surfaces_are_no_mention() -> None:
    sizes = [f"Key{n}=same" for n in range(65)]
    assert _mentions(_named("a", "12", "电", *sizes), title="a 12 电 same") == {}
    assert list(_mentions(_named("ab", "123", "电视"), title="ab 123 电视")) == [
        "ab",
        "123",
        "电视",
    ]


def test_an_empty_vocabulary_finds_nothing() -> None:
    empty = Vocabulary([])
    assert _mentions(empty, title="anything") == {}
    assert empty.resolve("anything") is None
    assert (empty.keys, empty.kind, len(empty)) == ((), TagKind.CLOSED, 0)


TEXT_WITH_TAGS = st.lists(
    st.sampled_from(["coin", "coin pocket", "Mug", "无线耳机", "4K", "\u200b", "x", " ", "-", "é"]),
    max_size=8,
).map("".join)


@given(TEXT_WITH_TAGS)
def test_a_mention_stands_in_its_field(vocabulary: Vocabulary, title: str) -> None:
    for name, spans in _mentions(vocabulary, title=title).items():
        for span in spans:
            assert span.text in title
            found = vocabulary.resolve(span.text)
            assert found is not None
            assert found.name == name


def test_keys_are_those_of_active_tags_the_most_varied_first(vocabulary: Vocabulary) -> None:
    assert vocabulary.keys == ("Color", "Material")
    retired = Tag("Size=S", "s", key="Size", retired=True)
    assert Vocabulary(
        [Tag("B=1", "1", key="B"), Tag("A=1", "2", key="A"), Tag("A=2", "3", key="A"), retired]
    ).keys == ("A", "B")


def test_from_products_merges_case_and_tells_spans_by_their_share_in_the_text() -> None:
    def product(title: str, *tags: str) -> Product:
        return Product("1", title, tags=tags)

    vocabulary = Vocabulary.from_products(
        [
            product("Red wool hat", "Hat", "Color=Red", "Season=Winter"),
            product("Blue hat", "hat", "Color=Blue", "Season=winter"),
            product("Hat", " hat ", "Color=Green", "Season=Summer", "", "\u200b"),
            Product("2", "not labelled"),
        ]
    )
    assert [(tag.name, tag.aliases, tag.key, tag.kind) for tag in vocabulary] == [
        ("hat", ("Hat",), None, TagKind.CLOSED),
        ("Color=Red", (), "Color", TagKind.SPAN),
        ("Season=Winter", ("Season=winter",), "Season", TagKind.CLOSED),
        ("Color=Blue", (), "Color", TagKind.SPAN),
        ("Color=Green", (), "Color", TagKind.SPAN),
        ("Season=Summer", (), "Season", TagKind.CLOSED),
    ]
    assert vocabulary.merged == (
        "'Hat' is read as 'hat'",
        "'Season=winter' is read as 'Season=Winter'",
    )


def test_five_thousand_tags_on_one_product() -> None:
    names = tuple(f"tag number {n}" for n in range(5000))
    assert len(Vocabulary.from_products([Product("1", "x", tags=names)])) == 5000


def test_the_fingerprint_follows_all_that_is_said() -> None:
    tags = [
        Tag("a", "1"),
        Tag("a", "2"),
        Tag("b", "1"),
        Tag("a", "1", aliases=("c",)),
        Tag("a", "1", labels={"zh": "c"}),
        Tag("a", "1", key="k"),
        Tag("a", "1", kind=TagKind.FREE),
        Tag("a", "1", retired=True),
    ]
    assert len({Vocabulary([tag]).fingerprint for tag in tags}) == len(tags)
    assert Vocabulary([tags[0]]).fingerprint == Vocabulary([Tag("a", "1")]).fingerprint


def test_position_is_that_of_its_own_tags(vocabulary: Vocabulary) -> None:
    assert [vocabulary.position(tag) for tag in vocabulary] == list(range(40))
    with pytest.raises(KeyError):
        vocabulary.position(Tag("other", "other"))
