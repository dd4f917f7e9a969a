"""Files cut short, with a bit flipped, or replaced by a pickle: refused, with what to do."""

from __future__ import annotations

import json
import pickle
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from tests.torture.conftest import catalogue
from tests.torture.damaging import MARK, Payload, damages, pickled, write_scorer

from llmtagger.backends.encoders import load_encoder
from llmtagger.backends.fakes import FakeGenerator
from llmtagger.backends.index_folder import CatalogueIndex, open_index
from llmtagger.backends.index_writer import build
from llmtagger.backends.manifest import MANIFEST, describe_files, read_manifest
from llmtagger.backends.snapshots import current_snapshot
from llmtagger.calibration import Calibration, read_calibration
from llmtagger.datatypes import (
    Constraint,
    Evidence,
    Product,
    Prompt,
    ScoredTag,
    ScoredTags,
    Tag,
    TaggedProduct,
    TagKind,
)
from llmtagger.errors import IndexFolderError, LlmtaggerError, RunError
from llmtagger.evaluation.answers import KeptAnswers
from llmtagger.runs import Journal
from llmtagger.vocabulary import Vocabulary

pytestmark = pytest.mark.usefixtures("nothing_is_unpickled")


def test_the_payload_would_be_noticed() -> None:
    pickle.loads(pickle.dumps(Payload()))
    assert MARK.exists()
    MARK.rmdir()


def remedy(read: Callable[[Path], int], path: Path) -> str | None:
    """What a refusal says to do; None where the file was read."""
    try:
        read(path)
    except RunError as error:
        return error.hint
    return None


@pytest.fixture(scope="module", params=["flat", "hnsw"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with every kind of file: experts, an extractor, a graph, a learned scorer."""
    folder: Path = tmp_path_factory.mktemp("damaged") / "shop"
    products = [
        replace(each, tags=(*(each.tags or ()), f"Color={('Red', 'Blue')[number % 2]}"))
        for number, each in enumerate(catalogue()[:40])
    ]
    tags = {tag: None for product in products for tag in product.tags or ()}
    vocabulary = Vocabulary(
        Tag(name, name, key="Color", kind=TagKind.SPAN) if "=" in name else Tag(name, name)
        for name in tags
    )
    build(products, folder, load_encoder("hashing"), vocabulary=vocabulary, kind=request.param)
    write_scorer(folder, folder)
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """One to damage."""
    return shutil.copytree(whole, tmp_path / "shop")


def _files(folder: Path) -> list[Path]:
    ignored = {".lock"}  # holds nothing
    return [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in ignored]


def _opened(folder: Path) -> tuple[CatalogueIndex, Calibration | None]:
    return open_index(folder), read_calibration(folder)


@pytest.mark.timeout(1200)
@pytest.mark.seeds(short=1, long=40)
def test_no_file_of_an_index_may_be_altered(copy: Path, seed: int) -> None:
    paths = _files(copy)
    names = {path.name for path in paths}
    assert {"CURRENT", "scorer.json", MANIFEST, "extractor.json", "products.arrow"} <= names
    for path in paths:
        raw = path.read_bytes()
        for what, damaged in (*damages(raw, seed), ("pickle", pickled(path))):
            path.write_bytes(damaged)
            if path.name in ("CURRENT", MANIFEST, "scorer.json") and _means_the_same(path, raw):
                continue  # white space
            with pytest.raises(IndexFolderError) as caught:
                _opened(copy)
            assert "llmtagger" in caught.value.hint, f"{path.name}: {what}"
        path.write_bytes(raw)
    _opened(copy)


def _means_the_same(path: Path, raw: bytes) -> bool:
    if path.name == "CURRENT":
        return path.read_bytes().strip() == raw.strip()
    try:
        return bool(json.loads(path.read_bytes()) == json.loads(raw))
    except ValueError:
        return False


def test_a_pickle_is_refused_although_its_checksum_agrees(copy: Path) -> None:
    snapshot = current_snapshot(copy)
    good = read_manifest(snapshot)
    for name in sorted(good.files):
        path = snapshot / name
        raw = path.read_bytes()
        path.write_bytes(pickled(path))
        replace(good, files=describe_files(snapshot)).write(snapshot)
        with pytest.raises(IndexFolderError) as caught:
            open_index(copy)
        assert "llmtagger index build" in caught.value.hint, name
        path.write_bytes(raw)
    good.write(snapshot)
    open_index(copy)


BASIS = {"model": "m", "prompt": "p"}
PRODUCTS = [Product(str(number), f"product {number}") for number in range(40)]


def _result(product: Product) -> TaggedProduct:
    number = int(product.id)
    evidence = Evidence(neighbours=((f"n{number}", 0.5),), signals={"vote": number / 40})
    item = ScoredTag(Tag(f"tag {number}", str(number)), 0.02 + number / 50, evidence)
    return TaggedProduct(product, ScoredTags((item,)), answered=True)


def _read_journal(path: Path) -> int:
    """How many results are there; all of them right."""
    with Journal(path, BASIS) as journal:
        found = list(journal.results(PRODUCTS))
        known = {tagged.product.id for tagged in found}
        assert known == {product.id for product in PRODUCTS if not journal.lacks(product)}
    assert found == [_result(product) for product in PRODUCTS if product.id in known]
    return len(found)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A finished journal."""
    path = tmp_path / "out.jsonl.journal"
    with Journal(path, BASIS) as journal:
        for product in PRODUCTS:
            journal.record(_result(product))
    return path


@pytest.mark.timeout(600)
@pytest.mark.seeds(short=20, long=1000)
def test_a_damaged_journal_is_refused_or_lacks_results(journal: Path, seed: int) -> None:
    """Never does it give other ones."""
    raw = journal.read_bytes()
    for _, damaged in damages(raw, seed):
        for suffix in ("-wal", "-shm"):
            Path(f"{journal}{suffix}").unlink(missing_ok=True)
        journal.write_bytes(damaged)
        hint = remedy(_read_journal, journal)
        assert hint is None or "--fresh" in hint


@pytest.mark.seeds(short=10, long=500)
def test_a_killed_runs_log_that_is_damaged_loses_results_at_most(
    journal: Path, tmp_path: Path, seed: int
) -> None:
    left = tmp_path / "left" / journal.name
    left.parent.mkdir()
    with Journal(journal, BASIS, fresh=True) as writing:
        for product in PRODUCTS:
            writing.record(_result(product))
        for path in (journal, Path(f"{journal}-wal")):  # as a kill would leave them
            shutil.copy(path, left.parent / path.name)
    raw = Path(f"{left}-wal").read_bytes()
    bare = left.read_bytes()
    assert len(raw) > 10_000
    for _, damaged in damages(raw, seed):
        left.write_bytes(bare)
        Path(f"{left}-wal").write_bytes(damaged)
        assert _read_journal(left) <= len(PRODUCTS)


def test_a_pickle_in_place_of_a_journal_or_of_a_result(journal: Path) -> None:
    raw = journal.read_bytes()
    journal.write_bytes(pickled(journal))
    with pytest.raises(RunError, match="cannot be used"):
        _read_journal(journal)
    journal.write_bytes(raw)
    connection = sqlite3.connect(journal)
    connection.execute("UPDATE results SET payload = ?", (pickled(journal),))
    connection.commit()
    connection.close()
    with pytest.raises(RunError, match="has been altered"):
        _read_journal(journal)


LIST = Constraint({"type": "array", "items": {"enum": ["wallet", "mug"]}}, 64)


def _prompt(number: int) -> Prompt:
    return Prompt((("user", f"product {number}"),), "tag.v1", "abc")


def _answers(path: Path) -> int:
    """How many had to be asked again; each answer is the right one."""

    def opened(stack: ExitStack) -> FakeGenerator:
        return FakeGenerator(lambda prompt, _: f'["{prompt.messages[0][1]}"]')

    with KeptAnswers(path, "m", 1, opened) as answers:
        for number in range(20):
            assert answers.complete(_prompt(number), LIST).text == f'["product {number}"]'
        return answers.asked


@pytest.mark.seeds(short=20, long=1000)
def test_damaged_answers_are_refused_or_asked_again(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "answers.sqlite"
    assert _answers(path) == 20
    raw = path.read_bytes()
    for _, damaged in damages(raw, seed):
        path.write_bytes(damaged)
        hint = remedy(_answers, path)
        assert hint is None or "remove that file" in hint
    path.write_bytes(pickled(path))
    with pytest.raises(RunError, match=r"answers\.sqlite cannot be used"):
        _answers(path)


def test_answers_whose_schema_is_no_utf_8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    _answers(path)
    raw = path.read_bytes()
    assert b"TEXT NOT NULL" in raw
    path.write_bytes(raw.replace(b"TEXT NOT NULL", b"\xcbEXT NOT NULL"))
    with pytest.raises(RunError, match=r"answers\.sqlite cannot be used"):
        _answers(path)


ANSWERS: dict[str, Callable[[str], object]] = {
    "altered": lambda said: said.replace("product 7", "product 8"),
    "no JSON": lambda said: "{" + said,
}


@pytest.mark.parametrize("change", ANSWERS.values(), ids=ANSWERS)
def test_one_answer_that_is_altered_is_refused(
    tmp_path: Path, change: Callable[[str], object]
) -> None:
    path = tmp_path / "answers.sqlite"
    _answers(path)
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT asked, said FROM checked_answers").fetchall()
    ((key, said),) = [row for row in rows if "product 7" in row[1]]
    connection.execute("UPDATE checked_answers SET said = ? WHERE asked = ?", (change(said), key))
    connection.commit()
    connection.close()
    with pytest.raises(LlmtaggerError, match="altered"):
        _answers(path)
