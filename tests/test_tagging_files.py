"""What a run leaves behind: outputs, backups, details, statistics; and what a preview leaves."""

from __future__ import annotations

import csv
import json
import os
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.example_index import EXAMPLES, build_examples

from llmtagger.config import EngineSettings, ScoringSettings, Settings
from llmtagger.datatypes import TaggedProduct
from llmtagger.errors import ConfigError, RunError
from llmtagger.runs import Journal
from llmtagger.tagging import Change, RunSummary, TagJob, dry_run, preview, run

Record = dict[str, Any]


class Silent:
    """Watches a run; `finished` counts the products that were tagged now."""

    def __init__(self) -> None:
        self.finished = 0
        self.read = ""

    def waiting(self, message: str, seconds: float) -> None: ...

    def started(self, total: int, done: int) -> None: ...

    def understood(self, understood: object) -> None:
        self.read = str(understood)

    def finished_one(self, tagged: TaggedProduct) -> None:
        self.finished += 1


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_examples(tmp_path_factory.mktemp("built"))


def _products(count: int) -> list[Record]:
    lines = (EXAMPLES / "new.jsonl").read_text("utf-8").splitlines()[:count]
    return [json.loads(line) for line in lines]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Six new products as a table; the first one has a tag already."""
    path = tmp_path / "new.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "tags"])
        for number, product in enumerate(_products(6)):
            writer.writerow([product["id"], product["title"], "" if number else "my own"])
    return path


@pytest.fixture
def job(index: Path, source: Path, tmp_path: Path) -> Callable[..., TagJob]:
    def make(output: str = "out.jsonl", **options: Any) -> TagJob:
        return TagJob(str(source), index, str(tmp_path / output), llm="never", **options)

    return make


def _records(path: Path) -> list[Record]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _rows(path: Path) -> list[Record]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_preview_shows_what_a_run_does_and_writes_nothing(
    job: Callable[..., TagJob], tmp_path: Path
) -> None:
    before, shown = _files(tmp_path), list[Change]()
    summary = preview(job(), Silent(), shown.append)
    assert _files(tmp_path) == before
    done = run(job(), Silent())
    assert (summary.kept, summary.review, summary.tags) == (done.kept, done.review, done.tags)
    written = _records(tmp_path / "out.jsonl")
    assert [each.product.id for each in shown] == [each["id"] for each in written]
    for change, record in zip(shown, written, strict=True):
        assert [i.tag.name for i in change.added] == [item["tag"] for item in record["tags"]]
        assert [i.tag.name for i, _ in change.review] == [i["tag"] for i in record["review"]]


def test_a_preview_does_not_show_tags_that_are_there(
    job: Callable[..., TagJob], source: Path
) -> None:
    shown: list[Change] = []
    preview(job(), Silent(), shown.append)
    tag = shown[1].added[0].tag.name
    rows = source.read_text("utf-8").splitlines()
    rows[2] += tag.upper()
    source.write_text("\n".join(rows), "utf-8")
    again: list[Change] = []
    preview(job(), Silent(), again.append)
    assert [item.tag.name for item in again[1].added] == [
        item.tag.name for item in shown[1].added if item.tag.name != tag
    ]


def test_a_preview_uses_the_journal_of_a_run_and_leaves_it(
    job: Callable[..., TagJob], tmp_path: Path
) -> None:
    run(job(limit=4), Silent())
    before, reporter = _files(tmp_path), Silent()
    summary = preview(job(), reporter, lambda change: None)
    assert (summary.resumed, reporter.finished) == (4, 2)
    assert _files(tmp_path) == before


def test_only_untagged_products_are_tagged(job: Callable[..., TagJob], tmp_path: Path) -> None:
    reporter = Silent()
    summary = run(job(only_untagged=True), reporter)
    assert (summary.products, summary.passed, reporter.finished) == (6, 1, 5)
    first, *rest = _records(tmp_path / "out.jsonl")
    assert first["tags"] == [{"tag": "my own", "given": True}]
    assert first["review"] == []
    assert all("score" in item for record in rest for item in record["tags"])
    assert run(job(), reporter).resumed == 5  # the journal knows no result for the first one


def test_statistics_are_what_the_output_holds(job: Callable[..., TagJob], tmp_path: Path) -> None:
    scoring = ScoringSettings(max_tags=1)
    first = run(job(), Silent())
    blocked = next(iter(first.tags))
    scoring = ScoringSettings(max_tags=1, blocklist=[blocked])
    summary = run(job(settings=Settings(scoring=scoring)), Silent())
    written = _records(tmp_path / "out.jsonl")
    kept = Counter(item["tag"] for record in written for item in record["tags"])
    why = Counter(item["reason"] for record in written for item in record["review"])
    dropped = Counter(item["reason"] for record in written for item in record["rejected"])
    assert (summary.kept, summary.tags) == (kept.total(), dict(kept))
    assert list(summary.tags.values()) == sorted(summary.tags.values(), reverse=True)
    assert summary.review == why.total()
    assert summary.reasons == dict(why)
    assert why["too_many"] > 0
    assert summary.blocked == dropped["blocked"] >= first.tags[blocked] > 0
    assert summary.untagged == sum(not each["tags"] for each in written[1:])
    assert max(len(record["tags"]) for record in written) == 1
    assert json.loads(json.dumps(_as_json(summary)))["tags"] == summary.tags


def _as_json(summary: RunSummary) -> Record:
    from dataclasses import asdict

    return asdict(summary)


def test_cutting_anew_asks_nothing(job: Callable[..., TagJob], tmp_path: Path) -> None:
    run(job(), Silent())
    category = ScoringSettings(categories={"x": 0.9}, blocklist=["y"], max_tags=1, threshold=0.5)
    for options in (
        {"settings": Settings(scoring=category)},
        {"max_tags": 2},
        {"threshold": 0.9},
        {"details": tmp_path / "details.jsonl"},
    ):
        reporter = Silent()
        assert run(job(**options), reporter).resumed == 6
        assert reporter.finished == 0


def test_an_option_goes_before_the_settings(job: Callable[..., TagJob]) -> None:
    scoring = ScoringSettings(max_tags=3, categories={"": 0.1, "x": 0.2})
    settings = Settings(scoring=scoring)
    assert run(job(settings=settings), Silent()).cut.max_tags == 3
    found = run(job(settings=settings, max_tags=1, threshold=0.4), Silent()).cut
    assert (found.max_tags, found.threshold, found.categories) == (1, 0.4, ())


def test_own_tags_count_for_the_limit_and_are_never_removed(
    job: Callable[..., TagJob], source: Path, tmp_path: Path
) -> None:
    """The first product has one tag of its own, the second gets two; at most two are wanted."""
    rows = source.read_text("utf-8").splitlines()
    rows[2] += "mine|yours"
    source.write_text("\n".join(rows), "utf-8")
    unlimited = run(job("all.csv", threshold=0.05), Silent())
    summary = run(job("out.csv", threshold=0.05, max_tags=2), Silent())
    before, after = _rows(tmp_path / "all.csv"), _rows(tmp_path / "out.csv")
    assert all(len(row["tags"].split("|")) > 2 for row in before)
    assert [len(row["tags"].split("|")) for row in after] == [2] * 6
    assert after[0]["tags"].startswith("my own|")
    assert after[1]["tags"] == "mine|yours"
    shown: list[Change] = []
    preview(job("out.csv", threshold=0.05, max_tags=2), Silent(), shown.append)
    assert [len(change.added) for change in shown] == [1, 0, 2, 2, 2, 2]
    assert summary.kept == 9 < unlimited.kept


def test_a_misspelt_blocked_tag_is_told_of(job: Callable[..., TagJob]) -> None:
    settings = Settings(scoring=ScoringSettings(blocklist=["no such tag"]))
    (warning,) = (w for w in run(job(settings=settings), Silent()).warnings if "blocklist" in w)
    assert "no such tag" in warning


def test_rejected_rows_are_counted_by_reason(
    job: Callable[..., TagJob], source: Path, tmp_path: Path
) -> None:
    whole = source.read_text("utf-8")
    source.write_text(f"{whole},no id,\n,none either,\nx,,\n", "utf-8")
    summary = run(job(), Silent())
    assert summary.rejected_reasons == {"the id is empty": 2, "the title is empty": 1}
    assert Path(f"{tmp_path}/out.jsonl.rejects.jsonl").exists()
    source.write_text(whole, "utf-8")
    run(job(), Silent())
    assert not Path(f"{tmp_path}/out.jsonl.rejects.jsonl").exists()


def test_in_place_keeps_a_backup_and_never_overwrites_one(
    job: Callable[..., TagJob], source: Path, tmp_path: Path
) -> None:
    before = source.read_bytes()
    source.chmod(0o640)
    Path(f"{source}.bak").write_text("an older one")
    summary = run(job("new.csv", in_place=True), Silent())
    assert summary.backup == f"{source}.bak.2"
    assert Path(summary.backup).read_bytes() == before
    assert Path(f"{source}.bak").read_text() == "an older one"
    assert stat.S_IMODE(source.stat().st_mode) == 0o640
    assert stat.S_IMODE(Path(summary.backup).stat().st_mode) == 0o640
    rows = _rows(source)
    assert [row["title"] for row in rows] == [each["title"] for each in _products(6)]
    assert rows[0]["tags"].startswith("my own")
    assert any(row["tags"] for row in rows[1:])
    after, reporter = source.read_bytes(), Silent()
    again = run(job("new.csv", in_place=True), reporter)
    assert source.read_bytes() == after
    assert (again.backup, reporter.finished) == (None, 0)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("new.csv", "new.csv.bak", "new.csv.bak.2", "new.csv.journal")
    }


def test_in_place_through_a_link_changes_the_file(
    index: Path, source: Path, tmp_path: Path
) -> None:
    link = tmp_path / "folder" / "link.csv"
    link.parent.mkdir()
    link.symlink_to(source)
    before = source.read_bytes()
    run(TagJob(str(link), index, str(link), llm="never", in_place=True), Silent())
    assert link.is_symlink()
    assert source.read_bytes() != before
    assert Path(f"{source}.bak").read_bytes() == before
    assert {path.name for path in link.parent.iterdir()} == {"link.csv"}


def test_in_place_a_failure_leaves_the_file_and_no_backup(
    job: Callable[..., TagJob], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = source.read_bytes()

    def fail(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(Exception, match="No space left"):
        run(job("new.csv", in_place=True), Silent())
    assert source.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"new.csv", "new.csv.journal"}


@pytest.mark.parametrize("name", ["-", "absent.csv", "new.md"])
def test_what_cannot_be_changed_in_place_is_refused(
    index: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("new.md").write_text("id,title\n")
    with pytest.raises(ConfigError, match="changed in place") as refused:
        run(TagJob(name, index, name, llm="never", in_place=True), Silent())
    assert "-o" in refused.value.hint


def test_details_hold_the_full_records(job: Callable[..., TagJob], tmp_path: Path) -> None:
    details = tmp_path / "details.jsonl"
    run(job("out.csv", details=details), Silent())
    run(job("other.jsonl"), Silent())
    expected = _records(tmp_path / "other.jsonl")
    found = _records(details)
    for record in (*expected, *found):
        del record["run"]
    assert found == expected
    assert set(_rows(tmp_path / "out.csv")[0]) == {"id", "title", "tags"}


def test_the_review_column_of_an_earlier_run_is_no_part_of_a_product(
    job: Callable[..., TagJob],
) -> None:
    first = run(job("new.csv", in_place=True, review_column="doubtful"), Silent())
    assert first.review > 0
    reporter = Silent()
    assert run(job("new.csv", in_place=True, review_column="doubtful"), reporter).resumed == 6


def test_two_runs_through_a_link_are_one(job: Callable[..., TagJob], tmp_path: Path) -> None:
    (tmp_path / "link.jsonl").symlink_to("out.jsonl")
    run(job("link.jsonl"), Silent())
    assert run(job("out.jsonl"), Silent()).resumed == 6
    assert not (tmp_path / "link.jsonl.journal").exists()
    with (
        Journal(tmp_path / "out.jsonl.journal", {}, fresh=True),
        pytest.raises(RunError, match="another process"),
    ):
        run(job("link.jsonl"), Silent())


def test_an_estimate_is_of_the_whole_file(
    job: Callable[..., TagJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmtagger import tagging

    class Unasked:
        identity = "fake"

    monkeypatch.setattr(tagging, "model_source", lambda *_: Unasked())
    settings = Settings(engine=EngineSettings(price_per_million_tokens=2.0))
    options = {"settings": settings, "endpoints": ("http://127.0.0.1:9/v1",)}
    from dataclasses import replace

    few = dry_run(replace(job(limit=2, **options), llm="always"))
    assert (len(few.prompts), few.products, few.asked) == (2, 6, 1.0)
    assert few.prompt_tokens == round(sum(few.tokens) / 2 * 6)
    assert few.answer_tokens == 6 * settings.answer.max_tokens
    assert few.costs is not None
    low, high = few.costs
    assert low == pytest.approx(few.prompt_tokens * 2 / 1e6)
    assert high > low
    untagged = dry_run(replace(job(limit=2, only_untagged=True, **options), llm="always"))
    assert (len(untagged.prompts), untagged.products) == (1, 5)
    assert dry_run(job(limit=2)).prompt_tokens == 0


def test_a_run_says_how_its_input_was_read(job: Callable[..., TagJob]) -> None:
    reporter = Silent()
    run(job(), reporter)
    assert reporter.read.startswith("table: 6 products")
