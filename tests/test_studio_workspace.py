"""What the studio's pages work on, without a page."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from llmtagger.backends import index_writer, template_worker
from llmtagger.backends.fakes import FakeGenerator, HashingEncoder
from llmtagger.backends.index_folder import open_index
from llmtagger.backends.index_writer import add, build
from llmtagger.backends.template_worker import TemplateWorker
from llmtagger.datatypes import Completion, Constraint, Product, Prompt
from llmtagger.errors import (
    ConfigError,
    EngineCancelled,
    EngineUnreachable,
    GoldError,
    IndexMissing,
    PromptError,
)
from llmtagger.evaluation import answers
from llmtagger.evaluation.trials import Cell
from llmtagger.goldbook import VIEWS
from llmtagger.marks import State
from llmtagger.studio.watching import Watchers
from llmtagger.studio.workspace import Workspace
from llmtagger.templates import Examples, TemplateFile, find_template

KINDS = (("wallet", "leather"), ("backpack", "waterproof"), ("mug", "ceramic"))
TAG = find_template("tag.v1")


class Model(FakeGenerator):
    """A model that can be opened, closed and broken."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.fails, self.closed = fails, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.closed += 1

    def complete(self, prompt: Prompt, constraint: Constraint) -> Completion:
        if self.fails:
            raise EngineUnreachable("no answer", hint="start it")
        return super().complete(prompt, constraint)


class Models:
    """Stands in for `kept_answers`: one model after the other."""

    def __init__(self) -> None:
        self.opened: list[Model] = []
        self.fails = False

    def __call__(self, *arguments: object) -> Model:
        self.opened.append(Model(self.fails))
        return self.opened[-1]

    @property
    def asked(self) -> int:
        return sum(len(model.asked) for model in self.opened)


def catalogue() -> list[Product]:
    """Eighteen products in English, six in Chinese, and one that nobody has labelled."""
    found = []
    for number in range(18):
        kind, made_of = KINDS[number % 3]
        title = f"{made_of} {kind} number {number}"
        found.append(Product(f"e{number}", title, tags=(kind, made_of), lang="en"))
    for number in range(6):
        found.append(Product(f"z{number}", f"防水背包 {number}", tags=("防水", "背包"), lang="zh"))
    return [*found, Product("new", "leather wallet with zip", lang="en")]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "index"
    build(catalogue(), folder, HashingEncoder())
    return folder


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Models:
    models = Models()
    monkeypatch.setattr("llmtagger.studio.workspace.kept_answers", models)
    return models


Open = Callable[..., Workspace]


class Shared:
    """A worker that outlives its workspace: starting one for each test takes most of the time."""

    def __init__(self, worker: TemplateWorker) -> None:
        self.filling = worker.filling

    def __exit__(self, *error: object) -> None:
        pass


@pytest.fixture(scope="module")
def worker() -> Iterator[TemplateWorker]:
    with TemplateWorker() as worker:
        yield worker


@pytest.fixture
def opened(
    built: Path,
    models: Models,
    worker: TemplateWorker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Open:
    """Opens a workspace in a folder of its own, as often as is wanted."""
    monkeypatch.setattr(template_worker, "TemplateWorker", lambda: Shared(worker))
    shutil.copytree(built, tmp_path / "index")
    monkeypatch.chdir(tmp_path)

    def open_it(**more: Any) -> Workspace:
        where: dict[str, Any] = {
            "endpoints": ("http://127.0.0.1:9/v1",),
            "cache": tmp_path / "cache",
        }
        return Workspace(tmp_path / "index", **(where | more))

    return open_it


def quiet(message: str, seconds: float) -> None:
    pass


def asked(workspace: Workspace, template: TemplateFile, products: Sequence[Product]) -> list[Cell]:
    return list(workspace.ask(template, products, quiet))


def test_products_are_the_labelled_ones_in_an_order_that_stays(opened: Open) -> None:
    with opened() as one, opened() as other:
        labelled = {product.id for product in catalogue() if product.tags}
        assert {product.id for product in one.products} == labelled
        assert one.products == other.products
        assert [product.id for product in one.products] != sorted(labelled)


# --- rendering


def test_a_prompt_and_what_it_shares(opened: Open) -> None:
    with opened() as workspace:
        one, other = (each for each in workspace.products if each.id in ("e0", "e1"))
        rendered = workspace.render(TAG, one, other)
        (role, rules), (_, text) = rendered.messages
        assert role == "system"
        assert one.title in text
        assert other.title not in text.split(one.title)[-1]
        assert 0 < workspace.count(rules) <= rendered.shared < rendered.tokens
        assert rendered.tokens == workspace.count(f"{rules}\n{text}")
        assert rendered.truncated == ()
        same = workspace.render(TAG, one, one)
        assert same.shared == same.tokens == rendered.tokens


def test_what_is_cut_is_named(opened: Open) -> None:
    with opened() as workspace:
        long = replace(workspace.products[0], description="very long " * 5000)
        assert workspace.render(TAG, long, workspace.products[1]).truncated == ("description",)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{% block system %}", "not valid"),
        ("{% block system %}S{% endblock %}{% block user %}{{ 1 // 0 }}{% endblock %}", "by zero"),
        ("{% block system %}S{% endblock %}{% block user %}{{ price }}{% endblock %}", "price"),
        ("no blocks", "lacks the block"),
    ],
)
def test_a_bad_template_is_an_error_with_a_hint(opened: Open, body: str, said: str) -> None:
    with opened() as workspace:
        one, other = workspace.products[:2]
        for use in (
            lambda draft: workspace.render(draft, one, other),
            lambda draft: asked(workspace, draft, [one]),
            lambda draft: workspace.save(TAG, draft.source, note="", author="ana"),
        ):
            with pytest.raises(PromptError, match=said) as caught:
                use(workspace.draft(TAG, body))
            assert caught.value.hint
        assert not Path("prompts").exists()
        assert workspace.render(TAG, one, other).tokens


def test_a_template_without_an_end_is_not_saved(opened: Open) -> None:
    """Nor filled in this process, which would never come back."""
    endless = (
        "{% block system %}{% for a in range(99999) %}{% for b in range(99999) %}"
        "{% endfor %}{% endfor %}{% endblock %}{% block user %}U{% endblock %}"
    )
    with opened() as workspace, pytest.raises(PromptError, match="takes longer than"):
        workspace.save(TAG, endless, note="", author="ana")


# --- cells


def test_a_cell_a_product_which_is_kept(opened: Open, models: Models) -> None:
    with opened() as workspace:
        some = workspace.products[:5]
        assert workspace.known(TAG, some) == {}
        cells = asked(workspace, TAG, some)
        assert {cell.product.id: cell.product for cell in cells} == {each.id: each for each in some}
        assert {cell.version for cell in cells} == {"tag.v1"}
        assert all(cell.judged and cell.said and cell.prompt_tokens for cell in cells)
        known = workspace.known(TAG, workspace.products)
        assert known == {
            cell.product.id: replace(cell, tags=rounded(cell), seconds=round(cell.seconds, 3))
            for cell in cells
        }
    assert models.asked == 5


def rounded(cell: Cell) -> tuple[Any, ...]:
    """Its tags as a record has them."""
    return tuple(
        replace(tag, score=None if tag.score is None else round(tag.score, 4)) for tag in cell.tags
    )


def test_after_a_restart_nothing_is_asked_again(opened: Open, models: Models) -> None:
    with opened() as workspace:
        asked(workspace, TAG, workspace.products[:4])
        before = workspace.known(TAG, workspace.products)
    assert [model.closed for model in models.opened] == [1]
    with opened() as workspace:
        assert workspace.known(TAG, workspace.products) == before
        assert len(before) == 4
    assert len(models.opened) == 1


def test_a_mark_counts_at_once(opened: Open) -> None:
    with opened() as workspace:
        product = next(each for each in workspace.products if each.lang == "en")
        (cell,) = asked(workspace, TAG, [product])
        kind = (product.tags or ("",))[0]

        def outcomes(cell: Cell) -> dict[str, str]:
            return {tag.name: tag.outcome for tag in cell.tags}

        assert outcomes(cell)[kind] in ("right", "missed")
        assert "gift" not in outcomes(cell)
        workspace.book.mark(product, kind, False, "ana")
        workspace.book.mark(product, "gift", True, "ana")
        for now in (workspace.judged(cell), workspace.known(TAG, [product])[product.id]):
            assert outcomes(now).get(kind) != outcomes(cell)[kind]
            assert outcomes(now).get(kind) in ("wrong", None)
            assert outcomes(now)["gift"] == "missed"
        workspace.book.unmark(product.id, kind)
        workspace.book.unmark(product.id, "gift")
        assert outcomes(workspace.judged(cell)) == outcomes(cell)


def test_nobody_has_judged_what_has_neither_labels_nor_marks(opened: Open) -> None:
    with opened() as workspace:
        new = catalogue()[-1]
        assert workspace.gold(new) is None
        (cell,) = asked(workspace, TAG, [new])
        assert not cell.judged
        assert {tag.outcome for tag in cell.tags} == {"unjudged"}
        workspace.book.mark(new, "mug", False, "ana")
        assert workspace.gold(new) == ()
        assert {tag.outcome for tag in workspace.judged(cell).tags} == {"wrong"}


def test_another_text_is_another_template(opened: Open) -> None:
    with opened() as workspace:
        some = workspace.products[:3]
        asked(workspace, TAG, some)
        draft = workspace.draft(TAG, TAG.source + "\n")
        assert workspace.known(draft, some) == {}
        assert {cell.version for cell in asked(workspace, draft, some)} == {"tag.draft"}
        assert workspace.known(draft, some).keys() == workspace.known(TAG, some).keys()


def test_a_text_that_was_asked_with_as_a_draft_is_known_by_its_name(opened: Open) -> None:
    with opened() as workspace:
        some = workspace.products[:3]
        other = find_template("tag.v2")
        asked(workspace, workspace.draft(TAG, other.source), some)
        assert {cell.version for cell in workspace.known(other, some).values()} == {"tag.v2"}


@pytest.mark.parametrize(
    "settings", ["[retrieval]\nneighbours = 3", "[scoring]\nthreshold = 0.9"], ids=str
)
def test_other_settings_forget_cells(opened: Open, settings: str) -> None:
    with opened() as workspace:
        asked(workspace, TAG, workspace.products[:3])
    Path("llmtagger.toml").write_text(settings)
    with opened() as workspace:
        assert workspace.known(TAG, workspace.products) == {}
    Path("llmtagger.toml").unlink()
    with opened() as workspace:
        assert len(workspace.known(TAG, workspace.products)) == 3


def test_another_model_forgets_cells(opened: Open) -> None:
    with opened() as workspace:
        asked(workspace, TAG, workspace.products[:3])
    with opened(endpoints=("http://127.0.0.1:10/v1",)) as workspace:
        assert workspace.known(TAG, workspace.products) == {}


def test_cells_of_an_index_that_has_changed_stay_and_are_stale(opened: Open) -> None:
    with opened() as workspace:
        asked(workspace, TAG, workspace.products[:3])
        before = workspace.known(TAG, workspace.products)
        assert not any(map(workspace.is_stale, before.values()))
        folder = workspace.folder
    add(folder, [Product("more", "red mug", tags=("mug",))], HashingEncoder())
    with opened() as workspace:
        assert workspace.known(TAG, workspace.products) == before
        assert all(map(workspace.is_stale, before.values()))
        assert len(workspace.products) == 25
        (cell, *_) = asked(workspace, TAG, workspace.products[:3])
        assert not workspace.is_stale(cell)


def test_a_product_that_is_added_moves_no_other_one(opened: Open) -> None:
    with opened() as workspace:
        before = [product.id for product in workspace.products]
        folder = workspace.folder
    add(folder, [Product("more", "red mug", tags=("mug",))], HashingEncoder())
    with opened() as workspace:
        after = [product.id for product in workspace.products]
    assert [id for id in after if id != "more"] == before


def test_a_shelf_that_was_deleted_costs_no_gold(opened: Open) -> None:
    with opened() as workspace:
        asked(workspace, TAG, workspace.products[:3])
        workspace.book.mark(workspace.products[0], "gift", True, "ana")
        path = workspace.folder / VIEWS
    for each in path.parent.glob(f"{VIEWS}*"):
        each.unlink()
    with opened() as workspace:
        assert workspace.known(TAG, workspace.products) == {}
        assert "gift" in (workspace.gold(workspace.products[0]) or ())


# --- the engine


def test_closing_stops_asking(opened: Open, models: Models) -> None:
    with opened() as workspace:
        many = [replace(workspace.products[0], id=f"p{n}", title=f"mug {n}") for n in range(400)]
        cells = workspace.ask(TAG, many, quiet)
        next(cells)
        cells.close()  # type: ignore[attr-defined]
        assert 1 <= models.asked < 300
        assert len(workspace.known(TAG, many)) < 300
        assert models.opened[0].closed == 0  # what comes next finds it running


def test_the_first_answer_does_not_wait_for_the_others(opened: Open, models: Models) -> None:
    with opened() as workspace:
        cells = workspace.ask(TAG, workspace.products[:5], quiet)
        next(cells)
        assert models.asked == 1
        assert len(list(cells)) == 4


def test_the_model_is_opened_for_the_first_question(opened: Open, models: Models) -> None:
    with opened() as workspace:
        workspace.render(TAG, *workspace.products[:2])
        assert models.opened == []
        for each in workspace.products[:3]:
            asked(workspace, TAG, [each])
        assert len(models.opened) == 1
    assert models.opened[0].closed == 1


def test_an_engine_that_fails_is_opened_anew(opened: Open, models: Models) -> None:
    with opened() as workspace:
        some = workspace.products[:3]
        models.fails = True
        with pytest.raises(EngineUnreachable):
            asked(workspace, TAG, some)
        assert models.opened[0].closed == 1
        assert workspace.known(TAG, some) == {}
        models.fails = False
        assert len(asked(workspace, TAG, some)) == 3
    assert [model.closed for model in models.opened] == [1, 1]


def test_a_late_failure_leaves_the_new_engine_alone(opened: Open, models: Models) -> None:
    """Two tabs ask; one has failed and opened another engine before the other's failure comes."""
    with opened() as workspace:
        some = workspace.products[:9]
        late = workspace.ask(TAG, some, quiet)
        next(late)
        models.opened[0].fails = True
        workspace.stop_engine()
        asked(workspace, find_template("tag.v2"), some[:1])
        many = [replace(some[0], id=f"p{n}", title=f"mug {n}") for n in range(200)]
        late.close()  # type: ignore[attr-defined]
        workspace._let_go(models.opened[0])  # type: ignore[arg-type]
        assert [model.closed for model in models.opened] == [1, 0]
        assert len(asked(workspace, TAG, many[:2])) == 2
    assert [model.closed for model in models.opened] == [1, 1]


def test_kept_answers_that_were_closed_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as an error of SQLite, which no page expects."""
    kept = answers.KeptAnswers(tmp_path / "a.sqlite", "m", 4, lambda stack: FakeGenerator())
    prompt = Prompt((("user", "x"),), "tag.v1", "h", ())
    constraint = Constraint({"type": "array", "items": {"enum": ["a"]}}, 10)
    with kept:
        assert kept.complete(prompt, constraint).text == '["a"]'
    with pytest.raises(EngineUnreachable, match="stopped") as caught:
        kept.complete(prompt, constraint)
    assert caught.value.retryable
    with closing(sqlite3.connect(tmp_path / "a.sqlite")) as file:
        assert file.execute("SELECT COUNT(*) FROM checked_answers").fetchone() == (1,)


def test_answers_from_two_states_of_the_index_are_not_compared(opened: Open) -> None:
    """One of them knows a neighbour more: the prompt would not be the only difference."""
    other = find_template("tag.v2")
    with opened() as workspace:
        asked(workspace, TAG, workspace.products[:3])
        workspace.book.take(catalogue()[-1], {"wallet": True}, "ana", reviewed=True)
        workspace.approve(["new"], "ana")
        asked(workspace, other, workspace.products)
        with pytest.raises(ConfigError, match="no labelled product"):
            workspace.compared(TAG, other)


def test_a_folder_that_is_no_index_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(IndexMissing) as caught:
        Workspace(tmp_path / "nowhere", cache=tmp_path)
    assert caught.value.message == f"`{tmp_path / 'nowhere'}` is not an index folder."
    assert caught.value.hint == "Build one with `llmtagger index build`."
    (tmp_path / "other").mkdir()
    with pytest.raises(IndexMissing):
        Workspace(tmp_path / "other", cache=tmp_path)
    assert list((tmp_path / "other").iterdir()) == []


class Starting(Model):
    """A model whose server takes its time to start, and says how far it is."""

    def __init__(self, waiting: Callable[[str, float], None], seconds: float) -> None:
        super().__init__()
        self._waiting, self._seconds, self.up = waiting, seconds, False

    def complete(self, prompt: Prompt, constraint: Constraint) -> Completion:
        end = time.monotonic() + self._seconds
        while not self.up and time.monotonic() < end:
            self._waiting("loading", 0.0)
            time.sleep(0.01)
        self.up = True
        return super().complete(prompt, constraint)


def test_a_start_that_is_cancelled_ends_and_the_next_one_begins_anew(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[Starting] = []

    def start(*arguments: Any) -> Starting:
        models.append(Starting(arguments[-1], 30.0 if not models else 0.0))
        return models[-1]

    monkeypatch.setattr("llmtagger.studio.workspace.kept_answers", start)

    def gives_up(message: str, seconds: float) -> None:
        raise EngineCancelled("no longer wanted", hint="ask again")

    with opened() as workspace:
        begun = time.monotonic()
        with pytest.raises(EngineCancelled):
            list(workspace.ask(TAG, workspace.products[:3], gives_up))
        assert time.monotonic() - begun < 10
        models[0].up = True
        assert len(asked(workspace, TAG, workspace.products[:3])) == 3
        assert len(models) == 1  # what was opened is still in order


def test_a_start_goes_on_while_another_tab_waits_for_it() -> None:
    watchers, heard = Watchers(), []

    def gives_up(message: str, seconds: float) -> None:
        raise EngineCancelled("no longer wanted", hint="ask again")

    with watchers.watched_by(gives_up):
        with watchers.watched_by(lambda *said: heard.append(said)):
            watchers("loading", 1.0)
        assert heard == [("loading", 1.0)]
        with pytest.raises(EngineCancelled):
            watchers("loading", 2.0)
    watchers("loading", 3.0)  # nobody waits, nobody has given up


# --- versions


def test_save_promote_live(opened: Open) -> None:
    with opened() as workspace:
        assert workspace.live == "tag.v1"
        names = [template.name for template in workspace.versions()]
        assert names == ["tag.v1", "tag.v2"]
        examples = Examples(count=2)
        text = TAG.body.replace("{% block user %}", "{% block user %}New. ")
        made = workspace.save(TAG, text, note="say more", author="ana", examples=examples)
        assert made.name == "tag.v3"
        assert (made.header.parent, made.header.note) == ("tag.v1", "say more")
        assert made.header.examples == examples
        assert [template.name for template in workspace.versions()] == [*names, "tag.v3"]
        assert workspace.render(made, *workspace.products[:2]).messages[1][1].startswith("New. ")
        workspace.promote("tag.v3", note="better", author="ana")
        assert workspace.live == "tag.v3"
    (line,) = Path("prompts/promotions.jsonl").read_text().splitlines()
    said = json.loads(line)
    assert (said["version"], said["author"], said["note"]) == ("tag.v3", "ana", "better")
    with opened() as workspace:
        assert workspace.live == "tag.v3"


def test_nothing_changed_is_no_version(opened: Open) -> None:
    with opened() as workspace, pytest.raises(PromptError, match="nothing was changed"):
        workspace.save(TAG, TAG.body, note="", author="ana")


def test_compared(opened: Open) -> None:
    other = find_template("tag.v2")
    with opened() as workspace:
        with pytest.raises(ConfigError, match="no labelled product"):
            workspace.compared(TAG, other)
        asked(workspace, TAG, workspace.products[:12])
        asked(workspace, other, workspace.products[4:16])
        found = workspace.compared(TAG, other)
        assert (found["a"], found["b"]) == ("tag.v1", "tag.v2")
        assert found["system"]["products"] == 8
        assert (found["answers"], found["silent"]) == (16, 0)
        a, b = (found["cost"][side]["prompt_tokens"] for side in ("a", "b"))
        assert a > b > 0  # the short prompt of tuned models


# --- gold


def test_approved_gold_is_worked_on_with(opened: Open) -> None:
    new, other = catalogue()[-1], find_template("tag.v2")
    with opened() as workspace:
        some = workspace.products[:3]
        assert new.id not in {product.id for product in workspace.products}
        before = {cell.product.id: cell.kept for cell in asked(workspace, TAG, some)}
        asked(workspace, other, some)
        workspace.book.take(new, {"wallet": True, "gift": True, "mug": False}, "ana", reviewed=True)
        index = workspace.index
        assert workspace.approve([new.id, "unknown"], "ana") == []
        assert workspace.book.state(new.id) is State.APPROVED
        assert workspace.index.fingerprint != index.fingerprint
        (mine,) = (product for product in workspace.products if product.id == new.id)
        assert set(mine.tags or ()) == {"wallet", "gift"}
        assert workspace.index.vocabulary.resolve("gift") is not None
        known = workspace.known(TAG, workspace.products)  # nothing that was asked is lost
        assert {id: cell.kept for id, cell in known.items()} == before
        assert all(map(workspace.is_stale, known.values()))
        assert workspace.compared(TAG, other)["system"]["products"] == 3
        assert len(asked(workspace, TAG, [mine])) == 1
    row = open_index(workspace.folder).position(new.id)
    assert row is not None


def test_nothing_to_approve_changes_nothing(opened: Open) -> None:
    with opened() as workspace:
        index = workspace.index
        assert workspace.approve(["unknown"], "ana") == []
        assert workspace.index is index


def test_what_changes_while_it_is_approved_stays_open(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = catalogue()[-1]
    with opened() as workspace:
        workspace.book.take(new, {"wallet": True}, "ana", reviewed=True)

        def slow(*arguments: Any, **named: Any) -> None:
            add(*arguments, **named)
            workspace.book.mark(new, "gift", True, "bo")

        monkeypatch.setattr(index_writer, "add", slow)
        assert workspace.approve([new.id], "ana") == [new.id]
        assert workspace.book.state(new.id) is State.OPEN


def test_no_tag_is_lower_cased(opened: Open, tmp_path: Path) -> None:
    """What is compared is folded; what is shown, marked and exported is as people wrote it."""
    product = Product("x", "USB-C mug", tags=("USB-C", "iPhone 15"), lang="en")
    build([product, replace(product, id="y")], tmp_path / "cased", HashingEncoder())
    with Workspace(tmp_path / "cased", endpoints=("http://x",), cache=tmp_path) as workspace:
        workspace.book.mark(product, "Travel Mug", True, "ana")
        cells = asked(workspace, TAG, [product])
        kept = workspace.known(TAG, [product]).values()
        for cell in (*cells, *kept):
            assert {tag.name for tag in cell.tags} == {"USB-C", "iPhone 15", "Travel Mug"}
        assert workspace.label("usb-c", "en") == "USB-C"


def test_labels_are_those_of_the_language(opened: Open) -> None:
    with opened() as workspace:
        assert workspace.label("wallet", "en") == "wallet"
        assert workspace.label("no such tag", "zh-CN") == "no such tag"


def test_a_closed_workspace_holds_nothing(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_worker, "TemplateWorker", TemplateWorker)
    before = psutil.Process().children()
    with opened() as workspace:
        workspace.render(TAG, *workspace.products[:2])
        assert len(psutil.Process().children()) == len(before) + 1
    assert psutil.Process().children() == before
    with pytest.raises(GoldError):
        workspace.book.counts()
    with pytest.raises(ConfigError, match="closed"):
        workspace.shelf.view("matrix")
