"""`llmtagger tune`, `adapter`, `label` and `tag --adapter` from the outside."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from llmtagger import adapters, tagging
from llmtagger.adapters import Adapter, Tuned, Verdict
from llmtagger.backends import hardware
from llmtagger.backends.fakes import HashingEncoder
from llmtagger.backends.index_folder import open_index
from llmtagger.backends.index_writer import build
from llmtagger.backends.models import resolve_model
from llmtagger.catalog import read_catalog
from llmtagger.cli import app
from llmtagger.cli.label import likely
from llmtagger.datatypes import Product
from llmtagger.errors import CatalogError, TuningError
from llmtagger.recipe import Recipe
from llmtagger.tagging import TagJob, choose_adapter, choose_template
from llmtagger.templates import find_template

EXAMPLES = Path(__file__).parents[1] / "examples"
BETTER = Verdict(products=50, f1=0.8125, added=(0.03, 0.01, 0.05))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def said(result: Result) -> str:
    """What a person reads, without the breaks of lines that were too long."""
    assert result.exit_code == 0, result.exception
    return " ".join(result.stderr.split())


def refused(result: Result, error: type[CatalogError | TuningError]) -> CatalogError | TuningError:
    assert result.exit_code == 1
    assert isinstance(result.exception, error)
    assert result.exception.hint
    return result.exception


@pytest.fixture(autouse=True)
def plain_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(hardware, "has_cuda", lambda: False)
    monkeypatch.setattr(hardware, "has_fast_bfloat16", lambda flags: False)


def built(folder: Path, count: int) -> Path:
    lines = (EXAMPLES / "catalogue.jsonl").read_text("utf-8").splitlines(keepends=True)[:count]
    (folder / "shop.jsonl").write_text("".join(lines), "utf-8")
    products = read_catalog(folder / "shop.jsonl", rejected=lambda row: pytest.fail(row.reason))
    build(products, folder / "index", HashingEncoder())
    return folder / "index"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("shop"), 60)


@pytest.fixture
def index(shop: Path, tmp_path: Path) -> Path:
    """A copy of the index, to put adapters into."""
    return Path(shutil.copytree(shop, tmp_path / "index", symlinks=True))


@pytest.fixture(scope="module")
def base(make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ["user", "assistant", ":", '["', '", "', '"]']
    return make_model(tmp_path_factory.mktemp("models") / "tiny", words)


Put = Callable[..., Adapter]


@pytest.fixture
def put(index: Path, base: Path) -> Put:
    """`put(name, **changed)`: an adapter of that index, made up."""
    template = find_template("tag.v2")

    def write(name: str, **changed: Any) -> Adapter:
        folder = adapters.folder_of(index, name)
        folder.mkdir(parents=True)
        (folder / adapters.WEIGHTS).write_bytes(name.encode())
        fields: dict[str, Any] = {
            "name": name,
            "created": f"2026-11-20T10:00:00+00:00 {name}",
            "source": str(base),
            "base": "tiny",
            "base_fingerprint": resolve_model(str(base)).fingerprint,
            "prompt": "tag.v2",
            "template": template.identity,
            "vocabulary": open_index(index).manifest.vocabulary,
            "index": "i1",
            "settings": "s1",
            "recipe": Recipe(),
            "versions": {},
            "counts": {"train": 48},
            "learnt": ("learnt-id",),
            "held_out": ("held-out-id",),
            "weights": hashlib.sha256(name.encode()).hexdigest(),
            "seconds": 1.0,
            "losses": {"train": [(1, 2.5)], "held_out": []},
        }
        adapter = Adapter(**fields | changed)
        adapters.write_adapter(index, adapter)
        return adapter

    return write


def test_a_dry_run_counts_and_tunes_nothing(index: Path, base: Path) -> None:
    text = said(run("tune", "-i", index, "--base", base, "--dry-run", "--epochs", "3"))
    counts = {name: int(count) for count, name in re.findall(r"(\d+) ([a-z ]+)[,.]", text)}
    assert counts["train"] + counts["held out"] == 60
    assert "replayed" not in counts
    assert re.search(r"[\d,]+ tokens, [\d,]+ of them to be learnt: about \d+ minutes", text)
    few = said(run("tune", "-i", index, "--base", base, "--dry-run", "--limit", "5"))
    assert "Examples: 5 train, " in few
    assert adapters.list_adapters(index) == []
    assert said(run("adapter", "list", "-i", index)).startswith("No adapter yet: llmtagger tune")


def test_too_few_labels_are_an_error(tmp_path: Path, base: Path) -> None:
    few = built(tmp_path, 39)
    error = refused(run("tune", "-i", few, "--base", base, "--dry-run"), CatalogError)
    assert "39 labelled products are too few to tune on" in error.message
    assert "at least 40" in error.hint


def test_there_must_be_something_to_go_on_from(index: Path, base: Path) -> None:
    error = refused(run("tune", "-i", index, "--base", base, "--continue"), TuningError)
    assert "is live" in error.message


def test_adapters_are_listed(index: Path, put: Put) -> None:
    put("first")
    put("second", verdict=BETTER)
    adapters.promote(index, "second")
    text = said(run("adapter", "list", "-i", index))
    assert "first tiny tag.v2 48 – not judged" in text
    assert "● second tiny tag.v2 48 0.812 +3.0 [+1.0, +5.0]" in text
    assert text.index("first") < text.index("second")
    result = run("adapter", "list", "-i", index, "--json")
    found = json.loads(result.stdout)
    assert [(each["name"], each["live"]) for each in found] == [("first", False), ("second", True)]
    assert found[1]["verdict"] == {"products": 50, "f1": 0.8125, "added": [0.03, 0.01, 0.05]}
    assert not {"learnt", "held_out", "losses"} & found[0].keys()


def test_an_adapter_is_shown(index: Path, put: Put) -> None:
    adapter = put("first")
    result = run("adapter", "show", "first", "-i", index)
    record = json.loads(result.stdout)
    assert record["losses"] == {"train": [[1, 2.5]], "held_out": []}
    assert record["weights"] == adapter.weights
    assert not {"learnt", "held_out"} & record.keys()
    assert "'gone'" in refused(run("adapter", "show", "gone", "-i", index), TuningError).message
    assert refused(run("adapter", "show", "../x", "-i", index), TuningError)


def test_adapters_are_promoted_and_reverted(index: Path, put: Put) -> None:
    put("good", verdict=BETTER)
    put("new")
    error = refused(run("adapter", "promote", "new", "-i", index), TuningError)
    assert "never judged" in error.message
    assert refused(run("adapter", "revert", "-i", index), TuningError)
    assert "good is live" in said(run("adapter", "promote", "good", "-i", index))
    assert adapters.live(index) == "good"
    assert "Live now: no adapter." in said(run("adapter", "revert", "-i", index))
    assert adapters.promotions(index).live is None


def job(index: Path, **options: Any) -> TagJob:
    return TagJob("in.jsonl", index, "out.jsonl", **options)


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({}, "live"),
        ({"adapter": "none"}, None),
        ({"adapter": "new"}, "new"),
        ({"llm": "never"}, None),
        ({"llm": "never", "adapter": "new"}, None),
        ({"endpoints": ("http://away:1/v1",)}, None),
        ({"endpoints": ("http://away:1/v1",), "adapter": "new"}, "new"),
    ],
    ids=str,
)
def test_which_adapter_is_used(
    index: Path, put: Put, options: dict[str, Any], chosen: str | None
) -> None:
    put("live", verdict=BETTER)
    put("new")
    assert choose_adapter(job(index)) is None
    adapters.promote(index, "live")
    found = choose_adapter(job(index, **options))
    assert (found and found.name) == chosen
    wanted = choose_template(job(index, **options), open_index(index), found)
    assert wanted.name == ("tag.v2" if chosen else "tag.v1")
    assert choose_template(job(index, prompt="tag.v1"), open_index(index), found).name == "tag.v1"


@pytest.mark.live
def test_the_adapter_that_comes_along_fits_the_embedded_model(index: Path) -> None:
    """Whoever changes that prompt has to tune it anew: benchmarks/general_adapter.py --ship."""
    general = adapters.read_adapter(index, adapters.GENERAL)
    template = choose_template(job(index), open_index(index), general)
    fingerprint = resolve_model(general.source).fingerprint
    assert adapters.check_fits(general, fingerprint, template.identity, "any vocabulary") == []
    folder = adapters.served(index, general).folder
    assert sum(path.stat().st_size for path in folder.iterdir()) < 6_000_000
    assert not (index / adapters.FOLDER).exists()
    refusal = refused(run("adapter", "promote", adapters.GENERAL, "-i", index), TuningError)
    assert "--adapter general" in refusal.hint


def test_the_adapter_that_comes_along_is_for_closed_tags(tmp_path: Path) -> None:
    products = [Product(f"p{n}", f"red mug {n}", tags=("Color=red",)) for n in range(5)]
    build(products, tmp_path / "index", HashingEncoder())
    job = ("tag", EXAMPLES / "new.jsonl", "-i", tmp_path / "index", "--adapter", adapters.GENERAL)
    refusal = refused(run(*job, "-o", tmp_path / "o.jsonl"), TuningError)
    assert "are span" in refusal.message


Wanted = list[tuple[str, tuple[str, ...], Tuned | None]]


@pytest.fixture
def wanted(monkeypatch: pytest.MonkeyPatch) -> Wanted:
    """The models that a run looks for; none is there."""
    found: Wanted = []

    def look(model: str, endpoints: tuple[str, ...], engine: object, tuned: Any = None) -> None:
        found.append((model, endpoints, tuned))
        raise InterruptedError

    monkeypatch.setattr(tagging, "model_source", look)
    return found


def test_tagging_asks_for_the_adapter(
    index: Path, put: Put, base: Path, wanted: Wanted, tmp_path: Path
) -> None:
    adapter = put("live", verdict=BETTER)
    adapters.promote(index, "live")
    tuned = Tuned("live", adapters.folder_of(index, "live"), adapter.weights)
    away = "http://127.0.0.1:1/v1"
    line = ("tag", EXAMPLES / "new.jsonl", "-i", index, "-o", tmp_path / "o.jsonl")
    command = (*line, "--llm", "always")
    for more in (
        (),
        ("--adapter", "none"),
        ("--endpoint", away),
        ("--endpoint", away, "--adapter", "live"),
    ):
        assert isinstance(run(*command, *more).exception, InterruptedError)
    assert wanted == [
        (str(base), (), tuned),
        ("auto", (), None),
        ("auto", (away,), None),
        (str(base), (away,), tuned),
    ]
    assert "'gone'" in refused(run(*command, "--adapter", "gone"), TuningError).message


def test_an_adapter_that_does_not_fit_is_refused(
    index: Path,
    put: Put,
    make_model: Callable[..., Path],
    wanted: Wanted,
    tmp_path: Path,
) -> None:
    put("live", verdict=BETTER)
    adapters.promote(index, "live")
    other = make_model(tmp_path / "other", ["user"], seed=1)
    command = ("tag", EXAMPLES / "new.jsonl", "-i", index, "-o", tmp_path / "o.jsonl")
    error = refused(run(*command, "--model", other), TuningError)
    assert "made for tiny" in error.message
    error = refused(run(*command, "--prompt", "tag.v1"), TuningError)
    assert "tuned to the prompt tag.v2" in error.message
    assert wanted == []


def test_suggestions_are_told(index: Path, tmp_path: Path) -> None:
    lines = (EXAMPLES / "catalogue.jsonl").read_text("utf-8").splitlines(keepends=True)[59:63]
    path = tmp_path / "new.jsonl"
    path.write_text("".join([*lines, "{broken\n"]), "utf-8")
    new = [json.loads(line) for line in lines[1:]]  # the first is in the index
    result = run("label", "suggest", path, "-i", index, "--json")
    assert "Rows skipped because they are not products: 1." in said(result)
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert {each["id"]: each["title"] for each in found} == {e["id"]: e["title"] for e in new}
    for each in found:
        scores = [tag["score"] for tag in each["tags"]]
        assert scores == sorted(scores, key=lambda score: abs(score - 0.5))
        assert 0 < len(scores) <= 5
    (first,) = run("label", "suggest", path, "-i", index, "-n", "1", "--json").stdout.splitlines()
    assert json.loads(first) == found[0]
    assert "Drawn at random: with fewer than 100 labelled products" in said(result)
    text = said(run("label", "suggest", path, "-i", index))
    places = [text.index(each["id"]) for each in found]
    assert places == sorted(places)
    path.write_text(lines[0], "utf-8")
    assert "already labelled" in said(run("label", "suggest", path, "-i", index))


def test_suggestions_come_out_of_mapped_columns(index: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("What,It is called\nn1,leather wallet\nn2,ceramic mug\n", "utf-8")
    command = ("label", "suggest", path, "-i", index, "--json")
    assert "--map" in refused(run(*command), CatalogError).hint
    result = run(*command, "--map", "id=What", "--map", "title=It is called")
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert {each["id"] for each in found} == {"n1", "n2"}


def test_faulty_labels_are_told(tmp_path: Path) -> None:
    lines = []
    for number in range(45):
        kind, of = (("wallet", "leather"), ("mug", "ceramic"))[number % 2]
        title = f"{chr(97 + number % 26) * 5} {of} {kind} {number * 7919} {number * 104729}"
        tags = [kind] if number == 20 else [kind, of]
        lines.append(json.dumps({"id": f"p{number}", "title": title, "tags": tags}) + "\n")
    (tmp_path / "c.jsonl").write_text("".join(lines), "utf-8")
    products = read_catalog(tmp_path / "c.jsonl", rejected=lambda row: pytest.fail(row.reason))
    build(products, tmp_path / "index", HashingEncoder())
    result = run("label", "audit", "-i", tmp_path / "index", "--json")
    first = json.loads(result.stdout.splitlines()[0])
    assert first.keys() == {"id", "title", "tag", "probability", "fault"}
    assert (first["id"], first["tag"], first["fault"]) == ("p20", "leather", "missing")
    text = said(run("label", "audit", "-i", tmp_path / "index", "-n", "1"))
    assert f"p20 leather missing, but {likely(first['probability'])} likely" in text
