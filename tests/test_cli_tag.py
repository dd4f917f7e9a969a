"""`llmtagger tag` on the command line: which options go together, and what a person sees."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmtagger.cli import app
from llmtagger.cli.changes import show_change, show_statistics
from llmtagger.cli.options import mapped_columns
from llmtagger.cli.progress import brief, duration
from llmtagger.cli.screen import Screen
from llmtagger.datatypes import Evidence, Product, Reason, ScoredTag, Tag
from llmtagger.errors import ConfigError
from llmtagger.output import Cut
from llmtagger.tagging import Change, RunSummary


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("tag in.csv -i none", "give -o FILE, --in-place or --preview"),
        ("tag in.csv -i none -o out.csv --in-place", "give one"),
    ],
)
def test_wrong_usage_is_exit_code_2(line: str, says: str) -> None:
    done = CliRunner().invoke(app, line.split())
    assert done.exit_code == 2
    assert says in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("pairs", "found"),
    [
        ([], {}),
        (["title=Name"], {"title": "Name"}),
        (
            ["title = a=b", "attributes.Colour=Farbe"],
            {"title": "a=b", "attributes.Colour": "Farbe"},
        ),
        (["title=Name", "title=Name"], {"title": "Name"}),
    ],
)
def test_columns_are_mapped_by_pairs(pairs: list[str], found: dict[str, str]) -> None:
    assert mapped_columns(pairs) == found


@pytest.mark.parametrize("pairs", [["title"], ["title="], ["=Name"], ["title=a", "title=b"], [""]])
def test_what_is_no_pair_is_refused(pairs: list[str]) -> None:
    with pytest.raises(ConfigError, match="--map") as refused:
        mapped_columns(pairs)
    assert refused.value.hint


def test_a_mapped_column_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("new.csv").write_text("id,Odd heading\n1,Mug\n")
    line = ["tag", "new.csv", "-i", "none", "-o", "out.jsonl", "--map"]
    error = CliRunner().invoke(app, [*line, "title=Nope"]).exception
    assert "Nope" in str(error)
    error = CliRunner().invoke(app, [*line, "title=Odd heading"]).exception
    assert "none" in str(error)  # the products are read; the index is what is missing
    assert "column" not in str(error)


def _item(name: str, score: float = 0.5) -> ScoredTag:
    return ScoredTag(Tag(name, name), score, Evidence(neighbours=(("n" * 60, 0.5),)))


def _shown(change: Change, width: int) -> list[str]:
    screen = Screen(width=width, record=True, force_terminal=False)
    with screen.capture() as captured:
        show_change(screen, change)
    return captured.get().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_a_change_is_a_diff_that_fits_the_terminal(width: int) -> None:
    doubtful = tuple((_item(name), Reason.TOO_MANY) for name in "vwxyz")
    change = Change(Product("1", "Mug " * 99), (_item("leather " * 20), _item("mug")), doubtful)
    lines = _shown(change, width)
    assert max(map(len, lines)) <= width
    assert [line.split()[0] for line in lines] == ["1", "+", "+", "?", "?", "?", "…"]
    assert "2 more for review" in lines[-1]


def test_a_product_that_stays_as_it_is_is_not_shown() -> None:
    assert _shown(Change(Product("1", "Mug"), (), ()), 80) == []


def test_a_hostile_title_stays_on_its_line() -> None:
    change = Change(Product("1", "Mug\n+ forged\x1b[2J"), (_item("[red]"),), ())
    first, second = _shown(change, 80)
    assert "forged" in first
    assert "\x1b" not in first
    assert "+ [red]" in second


def test_statistics_say_what_became_of_the_tags() -> None:
    summary = RunSummary(
        {}, Cut(0.5, 0.1, max_tags=3), products=12, passed=2, untagged=1, blocked=4
    )
    summary.tags.update({"mug": 9, "cup": 1})
    summary.reasons.update({"too_many": 5, "below_threshold": 2, "new": 1, "no_answer": 1})
    summary.rejected_reasons.update({"the id is empty": 2})
    screen = Screen(width=80, force_terminal=False)
    with screen.capture() as captured:
        show_statistics(screen, summary)
    said = " ".join(captured.get().split())
    for part in (
        "had tags 2 of 12 products",
        "no tag 1 of 12",
        "most frequent mug 9, cup 1",
        "5 over the limit of 3 tags, 2 below the threshold",
        "blocked 4",
        "rejected rows the id is empty 2",
    ):
        assert part in said


def test_numbers_and_times_are_short() -> None:
    assert [brief(n) for n in (0, 712, 1_234, 96_000, 999_999, 3_400_000)] == [
        *("0", "712", "1.2k", "96k", "1000k", "3.4M")
    ]
    assert [duration(s) for s in (0.4, 75, 130, 7_000, 200_000)] == [
        *("1 second", "75 seconds", "2 minutes", "117 minutes", "2 days")
    ]
