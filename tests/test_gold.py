"""Gold sets: what a card may say, and what comes out of the data it names."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from llmtagger.datatypes import TagKind
from llmtagger.errors import CatalogError, ConfigError
from llmtagger.evaluation.gold import GoldSet, load_gold, read_card

DATASETS = Path(__file__).parents[1] / "eval" / "datasets"
CARDS = sorted(path for path in DATASETS.iterdir() if path.is_dir())
SECTIONS = ("Source", "Licence", "Text fields", "Tags", "Counts", "Split", "Known flaws")
ENTRY = 'title = "T"\nlicence = "none"\nfile = "set.jsonl"\nkind = "closed"\n'

Record = dict[str, Any]


def record(name: str, tags: list[str] | None, **rest: Any) -> Record:
    return {"id": name, "title": f"Product {name}", "lang": "en", "tags": tags, **rest}


def make_card(folder: Path, entry: str = ENTRY) -> Path:
    card = folder / "cards" / "my_set"
    card.mkdir(parents=True)
    (card / "dataset.toml").write_text(entry, encoding="utf-8")
    return card


def make_data(folder: Path, records: list[Record]) -> Path:
    """The data root, with the file that `ENTRY` names."""
    folder.mkdir(exist_ok=True)
    lines = [json.dumps(each, ensure_ascii=False) for each in records]
    (folder / "set.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def load(folder: Path, records: list[Record], more: str = "", limit: int | None = None) -> GoldSet:
    card = make_card(folder, ENTRY + more)
    return load_gold(card, make_data(folder / "data", records), limit=limit)


def test_what_a_set_holds(tmp_path: Path) -> None:
    records = [
        record("a", ["Colour=red", "Size=S"], tags_unjudged=[" Fit=slim ", "Fit=wide"]),
        record("b", [], tags_unjudged=[]),
        record("c", None),
        record("d", ["Size=M"]),
    ]
    gold = load(tmp_path, records, 'apart = ["Size"]\nalternatives = true\n')
    data = (tmp_path / "data" / "set.jsonl").read_bytes()
    assert (gold.name, gold.kind) == ("my_set", TagKind.CLOSED)
    assert [(p.id, p.tags) for p in gold.products] == [
        ("a", ("Colour=red", "Size=S")),
        ("b", ()),
        ("d", ("Size=M",)),
    ]
    assert gold.unjudged == {"a": frozenset({"Fit=slim", "Fit=wide"})}
    assert (gold.apart, gold.alternatives) == (("Size",), True)
    assert gold.fingerprint == hashlib.sha256(data).hexdigest()[:16]


def test_groups_may_stand_in_the_id(tmp_path: Path) -> None:
    records = [
        record("p-en-x1", ["t"]),
        record("p-zh-x1", ["t"]),
        record("other", ["t"], group="mine"),
    ]
    gold = load(tmp_path, records, "group_from = '^p-(?:en|zh)-(.+)$'\n")
    assert [product.group for product in gold.products] == ["x1", "x1", "mine"]


def test_a_sample_is_stable_and_takes_whole_groups(tmp_path: Path) -> None:
    records = [record(f"{g}-{i}", ["t"], group=g) for g in "abcdefgh" for i in range(3)]
    records += [record(f"single-{i}", ["t"]) for i in range(20)]
    card = make_card(tmp_path, ENTRY + "rows = 10\n")
    data = make_data(tmp_path / "data", records)
    sample = load_gold(card, data).products
    ids = [product.id for product in sample]
    assert 8 <= len(ids) <= 10
    assert [each["id"] for each in records if each["id"] in ids] == ids
    assert all(ids.count(each) == 1 for each in ids)
    for group in {product.group for product in sample} - {""}:
        assert sum(product.group == group for product in sample) == 3
    make_data(data, records[::-1])
    assert {product.id for product in load_gold(card, data).products} == set(ids)


def test_a_limit_replaces_the_rows_of_the_card(tmp_path: Path) -> None:
    records = [record(str(i), ["t"]) for i in range(20)]
    card = make_card(tmp_path, ENTRY + "rows = 10\n")
    data = make_data(tmp_path / "data", records)
    sizes = [len(load_gold(card, data, limit=limit).products) for limit in (None, 5, 15, 99)]
    assert sizes == [10, 5, 15, 20]
    with pytest.raises(CatalogError, match="no labelled products"):
        load_gold(card, data, limit=0)


@pytest.mark.parametrize("name", ["set.jsonl", "./set.jsonl", "../set.jsonl"])
def test_data_may_lie_beside_the_card(tmp_path: Path, name: str) -> None:
    card = make_card(tmp_path, ENTRY.replace("set.jsonl", name))
    make_data((card / name).resolve().parent, [record("a", ["t"])])
    assert len(load_gold(card, None).products) == 1


def test_without_a_data_root_both_ways_to_name_it_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="my_set") as caught:
        load_gold(make_card(tmp_path), None)
    assert "--data" in caught.value.hint
    assert "LLMTAGGER_GOLD" in caught.value.hint


@pytest.mark.parametrize("name", ["set.jsonl", "./set.jsonl"])
def test_data_that_is_not_there(tmp_path: Path, name: str) -> None:
    card = make_card(tmp_path, ENTRY.replace("set.jsonl", name))
    with pytest.raises(ConfigError, match=r"no file .*set\.jsonl"):
        load_gold(card, tmp_path / "data")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        pytest.param(ENTRY + "row = 3\n", "row: Extra", id="unknown-key"),
        pytest.param(ENTRY.replace("closed", "open"), "kind: ", id="unknown-kind"),
        pytest.param(ENTRY + "rows = 0\n", "rows: ", id="no-rows"),
        pytest.param(ENTRY + 'rows = "3"\n', "rows: ", id="number-in-quotes"),
        pytest.param(ENTRY + 'apart = "Size"\n', "apart: ", id="no-list"),
        pytest.param(ENTRY + "group_from = '('\n", "group_from: ", id="bad-pattern"),
        pytest.param(ENTRY + "group_from = 'a'\n", "one pair of parentheses", id="no-group"),
        pytest.param('kind = "closed"\n', "title: Field required; licence: ", id="missing"),
        pytest.param("file = \n", "not valid TOML", id="bad-toml"),
    ],
)
def test_a_wrong_card_is_refused(tmp_path: Path, entry: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_card(make_card(tmp_path, entry))
    assert said in caught.value.message
    assert "dataset.toml" in caught.value.message
    assert caught.value.hint


def test_a_folder_without_an_entry(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_card(tmp_path)


@pytest.mark.parametrize(
    ("records", "said"),
    [
        pytest.param([record("a", ["t"]), record("", ["t"])], "the first on line 2", id="bad-row"),
        pytest.param([record("a", ["t"]), record("a", ["t"])], "twice", id="id-twice"),
        pytest.param([record("a", None)], "no labelled products", id="nothing-labelled"),
        pytest.param([record("a", [], tags_unjudged="t")], "not a list of texts", id="unjudged"),
        pytest.param([record("a", [], tags_unjudged=[3])], "not a list of texts", id="number"),
    ],
)
def test_data_that_is_no_gold_set(tmp_path: Path, records: list[Record], said: str) -> None:
    with pytest.raises(CatalogError, match=said):
        load(tmp_path, records)


def test_a_key_apart_that_no_tag_has(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the key Sise") as caught:
        load(tmp_path, [record("a", ["Size=S", "Sise"])], 'apart = ["Size", "Sise"]\n')
    assert "Size" in caught.value.hint


def test_all_cards_are_here() -> None:
    assert len(CARDS) == 13


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_every_card_can_be_read(card: Path) -> None:
    assert read_card(card).title
    lines = (card / "card.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"# {card.name}"
    assert tuple(line[3:] for line in lines if line.startswith("## ")) == SECTIONS


def test_the_committed_set_is_as_its_card_says() -> None:
    gold = load_gold(DATASETS / "examples", None)
    tags = [tag for product in gold.products for tag in product.tags or ()]
    assert (len(gold.products), len(tags), len(set(tags))) == (436, 2096, 470)
    text = (DATASETS / "examples" / "card.md").read_text(encoding="utf-8")
    assert "| products | 436 |\n| tags | 2,096 |\n| distinct tags | 470 " in text
