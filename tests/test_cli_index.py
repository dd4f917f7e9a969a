"""`llmtagger index …` from the outside: output, messages and exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from llmtagger.backends.index_folder import open_index
from llmtagger.cli.index import app
from llmtagger.errors import CatalogError, ConfigError, EncoderError, IndexMissing, LlmtaggerError

CATALOGUE = """id,title,tags
w1,red leather wallet,"wallet,leather"
w2,blue leather wallet,"wallet,leather"
s1,blue suede shoe,shoe
"""


def run(*arguments: str | Path, given: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments], input=given)


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    path = tmp_path / "shop.csv"
    path.write_text(CATALOGUE, encoding="utf-8")
    return path


@pytest.fixture
def folder(catalogue: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "index"
    assert run("build", catalogue, "-o", folder, "--encoder", "hashing").exit_code == 0
    return folder


def test_build_says_what_it_made(catalogue: Path, tmp_path: Path) -> None:
    result = run("build", catalogue, "-o", tmp_path / "i", "--encoder", "hashing")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "3 products, 3 of them labelled, 3 tags, encoder hashing, flat search" in result.stderr


def test_search_finds_products_and_tags(folder: Path) -> None:
    result = run("search", folder, "leather wallet", "-k", "2", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["query"] == "leather wallet"
    first, second = sorted(found["products"], key=lambda product: product["id"])
    assert second["id"] == "w2"
    assert first == {
        "id": "w1",
        "title": "red leather wallet",
        "similarity": pytest.approx((2 / 3) ** 0.5, abs=1e-4),
        "tags": ["wallet", "leather"],
    }
    assert {tag["tag"] for tag in found["tags"]} == {"wallet", "leather"}


def test_search_reads_well(folder: Path) -> None:
    result = run("search", folder, "[bold]leather[/] wallet", "-k", "1")
    assert re.search(r"red leather wallet +0\.\d{3}", result.stdout)


def test_info(folder: Path) -> None:
    record = json.loads(run("info", folder, "--json").stdout)
    assert (record["products"], record["tags"], record["encoder"]) == (3, 3, "hashing")
    assert record["fingerprint"] == open_index(folder).fingerprint
    assert re.search(r"^products +3$", run("info", folder).stdout, re.MULTILINE)


def test_add_and_remove(folder: Path, tmp_path: Path) -> None:
    more = tmp_path / "more.jsonl"
    more.write_text('{"id": "w3", "title": "green wallet"}\n{"id": "s1", "title": "suede boot"}\n')
    assert run("add", folder, more).exit_code == 0
    index = open_index(folder)
    assert len(index) == 4
    row = index.position("s1")
    assert row is not None
    assert index.product(row).title == "suede boot"
    result = run("remove", folder, "--ids", "-", given="w3\n\n nobody \nw3\n")
    assert result.exit_code == 0
    assert "1 ids are not in the index: nobody" in result.stderr
    assert "Removed 1 products." in result.stderr
    assert open_index(folder).position("w3") is None


def test_several_files_are_one_catalogue(catalogue: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"id": "w1", "title": "a later wallet"}\n{"id": "x", "title": "lamp"}\n')
    titles = {}
    for choice in ("first", "last"):
        target = tmp_path / choice
        arguments = ("-o", target, "--encoder", "hashing", "--on-duplicate", choice)
        assert run("build", catalogue, other, *arguments).exit_code == 0
        index = open_index(target)
        row = index.position("w1")
        assert row is not None
        titles[choice] = (len(index), index.product(row).title)
    assert titles == {"first": (4, "red leather wallet"), "last": (4, "a later wallet")}
    refused = run("build", catalogue, other, "-o", tmp_path / "e", "--encoder", "hashing")
    assert isinstance(refused.exception, CatalogError)
    assert "'w1'" in refused.exception.message


def test_rejected_rows_are_written_and_the_rest_is_indexed(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": "1", "title": "lamp"}\n{broken\n{"id": "2", "title": "oak"}\n')
    result = run("build", bad, "-o", tmp_path / "i", "--encoder", "hashing")
    assert result.exit_code == 3
    rejects = tmp_path / "i.rejects.jsonl"
    (row,) = map(json.loads, rejects.read_text().splitlines())
    assert (row["line"], row["raw"]) == (2, "{broken")
    assert "1 rows rejected" in result.stderr
    assert str(rejects) in result.stderr.replace("\n", "")
    assert len(open_index(tmp_path / "i")) == 2


def test_a_vocabulary_file_decides_the_tags(catalogue: Path, tmp_path: Path) -> None:
    tags = tmp_path / "tags.txt"
    tags.write_text("Wallet\nwallet\nshoe\nlamp\n")
    arguments = ("-o", tmp_path / "i", "--encoder", "hashing", "--vocabulary", tags)
    result = run("build", catalogue, *arguments)
    assert result.exit_code == 0
    assert "'wallet' is read as 'Wallet'" in result.stderr
    assert "1 labels are not in the vocabulary and were left out: leather" in result.stderr
    assert open_index(tmp_path / "i").manifest.tags == 3


@pytest.mark.parametrize(
    ("title", "encoder"), [("leather wallet", "english"), ("真皮钱包", "multilingual")]
)
def test_the_language_chooses_the_encoder(title: str, encoder: str, tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps({"id": "1", "title": title}, ensure_ascii=False) + "\n", "utf-8")
    result = run("build", path, "-o", tmp_path / "i")
    assert result.exit_code == 0
    assert f"Encoder: {encoder}" in result.stderr
    assert open_index(tmp_path / "i").manifest.encoder == encoder


def test_english_is_warned_of_for_chinese(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"id": "1", "title": "真皮钱包"}\n', encoding="utf-8")
    result = run("build", path, "-o", tmp_path / "i", "--encoder", "english")
    assert "--encoder multilingual" in result.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["build", "missing.csv", "-o", "x"], CatalogError),
        (["build", "{catalogue}", "-o", "x", "--encoder", "no such one"], EncoderError),
        (["build", "{catalogue}", "-o", "x", "--on-duplicate", "some"], ConfigError),
        (["search", "nowhere", "text"], IndexMissing),
        (["info", "nowhere"], IndexMissing),
        (["add", "nowhere", "{catalogue}"], IndexMissing),
        (["remove", "nowhere", "--ids", "{catalogue}"], IndexMissing),
        (["remove", "nowhere", "--ids", "missing.txt"], CatalogError),
    ],
    ids=lambda value: "_".join(value[:2]) if isinstance(value, list) else value.__name__,
)
def test_what_cannot_be_done_is_refused_with_a_remedy(
    arguments: list[str],
    error: type[LlmtaggerError],
    catalogue: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*(each.format(catalogue=catalogue) for each in arguments))
    assert isinstance(result.exception, error)
    assert result.exception.hint
    assert not (tmp_path / "x" / "CURRENT").exists()


@pytest.mark.parametrize(
    "arguments", [["build", "a.csv"], ["search"], ["build", "a", "--kind", "x"]]
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_build_says_how_each_file_was_read_and_what_looks_wrong(tmp_path: Path) -> None:
    path = tmp_path / "woo.csv"
    path.write_text("Type,SKU,Name,Published,Categories,Tags\nsimple,1,Hat,1,Hats,\n", "utf-8")
    result = run("build", path, "-o", tmp_path / "i", "--encoder", "hashing")
    assert result.exit_code == 0
    line = 'WooCommerce export: 1 product, tags from "Tags", categories from "Categories".'
    assert line in result.stderr
    assert 'Check: no product has tags ("Tags" is empty everywhere).' in result.stderr
