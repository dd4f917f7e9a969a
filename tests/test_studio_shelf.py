"""What the studio finds again after a restart."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmtagger.errors import ConfigError
from llmtagger.goldbook import VIEWS
from llmtagger.studio.shelf import Shelf


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path / VIEWS)
    yield shelf
    shelf.close()


def test_all_of_it_is_there_after_a_restart(tmp_path: Path) -> None:
    first = Shelf(tmp_path / VIEWS)
    first.keep_cell("basis", "p1", {"tags": ["钱包", "\ud800"], "seconds": 0.5})
    first.keep_draft("tag.v1", "tab", "text {# 钱包 #}")
    first.keep_view("matrix", {"versions": ["tag.v1"]})
    first.close()
    second = Shelf(tmp_path / VIEWS)
    assert second.cells("basis", ["p1"]) == {"p1": {"tags": ["钱包", "\ud800"], "seconds": 0.5}}
    draft = second.draft("tag.v1", "tab")
    assert draft is not None
    assert (draft.parent, draft.tab, draft.text) == ("tag.v1", "tab", "text {# 钱包 #}")
    assert second.view("matrix") == {"versions": ["tag.v1"]}
    second.close()


def test_cells_belong_to_a_basis_and_a_product(shelf: Shelf) -> None:
    shelf.keep_cell("one", "p1", {"n": 1})
    shelf.keep_cell("one", "p2", {"n": 2})
    shelf.keep_cell("two", "p1", {"n": 3})
    shelf.keep_cell("one", "p1", {"n": 4})
    assert shelf.cells("one", ["p1", "p3"]) == {"p1": {"n": 4}}
    assert shelf.cells("two", ["p1", "p2"]) == {"p1": {"n": 3}}
    assert shelf.cells("three", ["p1"]) == {}
    assert shelf.cells("one", iter(["p2", "p1"])) == {"p1": {"n": 4}, "p2": {"n": 2}}


def test_a_tab_has_its_own_draft_else_the_newest(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import UTC, datetime

    from llmtagger.studio import shelf as module

    class Clock:
        hour = 0

        @classmethod
        def now(cls, zone: object) -> datetime:
            cls.hour += 1
            return datetime(2026, 1, 1, cls.hour, tzinfo=UTC)

    monkeypatch.setattr(module, "datetime", Clock)
    shelf.keep_draft("tag.v1", "old", "first")
    shelf.keep_draft("tag.v1", "new", "second")
    shelf.keep_draft("tag.v2", "newest", "of another version")

    def text(tab: str) -> str | None:
        draft = shelf.draft("tag.v1", tab)
        return draft.text if draft else None

    assert (text("old"), text("new"), text("third")) == ("first", "second", "second")
    shelf.keep_draft("tag.v1", "old", "first again")
    assert (text("old"), text("new"), text("third")) == ("first again", "second", "first again")
    shelf.drop_draft("tag.v1", "old")
    assert text("old") == "second"
    shelf.drop_draft("tag.v1", "new")
    assert text("new") is None
    kept = shelf.draft("tag.v2", "x")
    assert kept is not None
    assert kept.text == "of another version"


def test_a_view_that_was_never_used_is_empty(shelf: Shelf) -> None:
    assert shelf.view("matrix") == {}
    shelf.keep_view("matrix", {"size": 10})
    shelf.keep_view("matrix", {"size": 25})
    assert shelf.view("matrix") == {"size": 25}
    assert shelf.view("verdict") == {}


def test_two_studios_and_many_threads_write_at_once(tmp_path: Path) -> None:
    shelves = [Shelf(tmp_path / VIEWS) for _ in range(2)]

    def write(number: int) -> None:
        for turn in range(20):
            shelves[number % 2].keep_cell("basis", f"{number}.{turn}", {"n": number})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = [f"{number}.{turn}" for number in range(4) for turn in range(20)]
    for each in shelves:
        assert each.cells("basis", ids) == {id: {"n": int(id[0])} for id in ids}
        each.close()


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / VIEWS).write_text("no database at all, and longer than a header of one" * 20)
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        Shelf(tmp_path / VIEWS)
    assert "delete" in caught.value.hint
    with pytest.raises(ConfigError, match="cannot be used"):
        Shelf(tmp_path / "nowhere" / VIEWS)
