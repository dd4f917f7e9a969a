"""The studio's pages, in a simulated browser."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nicegui")

from nicegui import Client, ui
from nicegui.testing import User, UserInteraction, user_simulation

from llmtagger import studio
from llmtagger.backends import template_worker
from llmtagger.backends.fakes import FakeGenerator, HashingEncoder
from llmtagger.backends.index_writer import build
from llmtagger.backends.template_worker import TemplateWorker
from llmtagger.datatypes import Product
from llmtagger.evaluation import verdicts
from llmtagger.evaluation.trials import Cell, Shown, cell_record
from llmtagger.marks import State
from llmtagger.studio.messages import explained
from llmtagger.studio.pace import Pace, duration
from llmtagger.studio.server import _is_unforeseen, _routes
from llmtagger.studio.silence import silent_answers
from llmtagger.studio.words import _ZH
from llmtagger.studio.workspace import Workspace
from llmtagger.templates import find_template

Walk = Callable[[User], Awaitable[None]]
V1, V2 = find_template("tag.v1"), find_template("tag.v2")
PRODUCTS = [
    Product("same", "red mug", tags=("mug",), category="Kitchen", lang="en"),
    Product("differ", "leather wallet", tags=("wallet",), category="Bags", lang="en"),
    Product("wrong", "blue mug", tags=("mug",), category="Kitchen", lang="en"),
    Product("apart", "无线耳机", tags=("耳机",), lang="zh"),
    Product("none", "a plain thing", tags=("thing",), lang="en"),
]


def cell(id: str, version: str, *kept: str, dropped: str = "") -> Cell:
    """A cell whose outcome the workspace judges by the product's own tags."""
    product = next(each for each in PRODUCTS if each.id == id)
    tags = [Shown(name, "unjudged", kept=True, score=0.9) for name in kept]
    tags += [Shown(dropped, "unjudged", chosen=True, score=0.1)] if dropped else []
    return Cell(product, version, tuple(tags), prompt_tokens=10, judged=True)


CELLS = [
    cell("same", "tag.v1", "mug", dropped="gift"),
    cell("same", "tag.v2", "mug"),
    cell("differ", "tag.v1", "wallet", "bag"),
    cell("differ", "tag.v2", "wallet"),
    cell("wrong", "tag.v1", "wallet"),
    cell("wrong", "tag.v2", "wallet"),
    cell("apart", "tag.v1", "耳机"),
    cell("apart", "tag.v2", "电视"),
]


@pytest.fixture(scope="module")
def worker() -> Iterator[TemplateWorker]:
    with TemplateWorker() as worker:
        yield worker


class Shared:
    """A worker that outlives its workspace."""

    def __init__(self, worker: TemplateWorker) -> None:
        self.filling = worker.filling

    def __exit__(self, *error: object) -> None:
        pass


class Model(FakeGenerator):
    """Says the first tag that is offered; opened once."""

    def __exit__(self, *error: object) -> None:
        pass


@pytest.fixture
def workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: TemplateWorker
) -> Iterator[Workspace]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(template_worker, "TemplateWorker", lambda: Shared(worker))
    monkeypatch.setattr("llmtagger.studio.workspace.kept_answers", lambda *_: Model())
    build(PRODUCTS, tmp_path / "shop", HashingEncoder())
    endpoints = ("http://127.0.0.1:9/v1",)
    with Workspace(tmp_path / "shop", endpoints=endpoints, cache=tmp_path) as workspace:
        yield workspace


@pytest.fixture
def tried(workspace: Workspace) -> Workspace:
    """With cells of two versions, as if the model had been asked, and both chosen."""
    for each in CELLS:
        template = {"tag.v1": V1, "tag.v2": V2}[each.version]
        basis = workspace._basis(template)
        current = replace(each, index=workspace.index.fingerprint)
        workspace.shelf.keep_cell(basis, each.product.id, cell_record(current))
    workspace.shelf.keep_view("matrix", {"versions": ["tag.v1", "tag.v2"], "size": 10})
    return workspace


def visit(workspace: Workspace, walk: Walk) -> None:
    """Serve the studio to a simulated browser, and walk through it."""

    async def go() -> None:
        async with user_simulation(root=lambda: None) as user:
            try:
                _routes(workspace)
                await walk(user)
            finally:
                Client.page_routes.clear()  # else the simulation unloads their module, llmtagger

    asyncio.run(asyncio.wait_for(go(), 60))


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/", ["Ask the model", "in three steps", "Show the products without answers"]),
        ("/edit", ["Save as a version", "What the model reads", "Discard draft", "Add a rule"]),
        ("/verdict", ["Compare", "Nothing to compare yet. Press Compare."]),
        ("/gold", ["Approve all reviewed", "Import", "Export: Label Studio"]),
    ],
)
def test_every_page_is_drawn(workspace: Workspace, path: str, seen: list[str]) -> None:
    async def walk(user: User) -> None:
        await user.open(path)
        for text in (*seen, "Matrix", "Edit", "Verdict", "Gold", "shop"):
            await user.should_see(text, retries=30)

    visit(workspace, walk)


def test_what_cannot_be_read_is_told_of_on_the_page(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    """In place of it, or over it; a traceback would tell nobody what to do."""

    async def walk(user: User) -> None:
        await user.open("/")
        await user.open("/verdict")
        workspace.shelf.close()
        user.find("language").click()
        for _ in range(40):
            if user.notify.messages:
                break
            await asyncio.sleep(0.05)
        assert "delete that file" in user.notify.messages[-1]
        answer = await user.http_client.get("/")
        assert answer.status_code == 500
        assert "studio-views.sqlite cannot be used" in answer.text
        assert "delete that file" in answer.text

    visit(workspace, walk)
    logged = [record for record in caplog.records if record.exc_info]
    assert logged
    assert not any(map(_is_unforeseen, logged))


def rows(user: User) -> list[str]:
    """The ids of the products that the matrix shows."""
    (table,) = user.find(ui.table).elements
    return [row["id"] for row in table.rows]


async def shows(user: User, wanted: list[str]) -> None:
    """The table comes to hold these rows; filters wait until nobody types."""
    for _ in range(40):
        if rows(user) == wanted:
            return
        await asyncio.sleep(0.05)
    assert rows(user) == wanted


def choose(user: User, label: str, value: str | None) -> None:
    (select,) = (each for each in user.find(ui.select).elements if each.props["label"] == label)
    assert value is None or value in select.options
    select.set_value(value)


def tick(user: User, label: str) -> None:
    user.find(kind=ui.checkbox, content=label).click()


def test_the_matrix_shows_what_is_asked_for(tried: Workspace) -> None:
    """Alone and together; all rows are in the order of the products again when nothing is asked."""
    everything = [product.id for product in tried.products]

    def those(*ids: str) -> list[str]:
        return [id for id in everything if id in ids]

    async def walk(user: User) -> None:
        await user.open("/")
        await shows(user, those("same", "differ", "wrong", "apart"))  # "none" was not asked about
        tick(user, "Also products without answers")
        await shows(user, everything)
        user.find("more-filters").click()
        tick(user, "Only where versions differ")
        await shows(user, those("differ", "apart"))
        tick(user, "Only wrong")
        await shows(user, those("differ", "apart"))
        tick(user, "Only where versions differ")
        await shows(user, those("differ", "apart", "wrong"))  # "same" dropped its wrong tag
        choose(user, "Tag", "wallet")
        await shows(user, those("differ", "wrong"))
        choose(user, "Category", "Kitchen")
        await shows(user, ["wrong"])
        choose(user, "Tag", None)
        choose(user, "Category", None)
        tick(user, "Only wrong")
        choose(user, "Language", "zh")
        await shows(user, ["apart"])
        choose(user, "Language", None)
        user.find("search").type("MUG")
        await shows(user, those("same", "wrong"))
        user.find("search").clear().type("apart")
        await shows(user, ["apart"])
        user.find("search").clear().type("no such product")
        await shows(user, [])
        user.find("search").clear()
        await shows(user, everything)
        tick(user, "Most different first")
        await shows(
            user, ["apart", "differ", *(id for id in everything if id not in ("apart", "differ"))]
        )

    visit(tried, walk)


def test_a_row_holds_the_tags_beside_gold(tried: Workspace) -> None:
    async def walk(user: User) -> None:
        await user.open("/")
        (table,) = user.find(ui.table).elements
        assert [column["name"] for column in table.columns] == ["product", "tag.v1", "tag.v2"]
        held = {row["id"]: row for row in table.rows}
        assert "none" not in held
        assert held["differ"]["title"] == "leather wallet"

        def tags(id: str, version: str) -> list[tuple[str, str, str]]:
            shown = held[id]["cells"][version]["tags"]
            return [(tag["name"], tag["mark"], tag["look"]) for tag in shown]

        assert tags("same", "tag.v1") == [("mug", "✓", "right"), ("giftᵐ", "", "out")]
        assert tags("differ", "tag.v1") == [("wallet", "✓", "right"), ("bag", "+", "wrong")]
        assert tags("wrong", "tag.v2") == [("wallet", "+", "wrong"), ("mug", "−", "missed")]

    visit(tried, walk)


def test_asking_fills_the_matrix(workspace: Workspace) -> None:
    """The first screen says what to do, and shows no row before there is an answer."""

    async def walk(user: User) -> None:
        await user.open("/")
        await user.should_see("Find out how good the prompt is, in three steps")
        await user.should_see("5 answers to ask for")
        await user.should_not_see(kind=ui.table)
        user.find("ask").click()
        await user.should_see(kind=ui.table, retries=100)
        for _ in range(200):
            if len(rows(user)) == len(PRODUCTS):
                break
            await asyncio.sleep(0.05)
        (table,) = user.find(ui.table).elements
        assert len(workspace.known(V1, workspace.products)) == len(PRODUCTS)
        assert all(row["cells"]["tag.v1"]["problem"] == "" for row in table.rows)
        await user.should_not_see("in three steps")

    visit(workspace, walk)


def test_a_mark_in_a_cell_changes_the_matrix(tried: Workspace) -> None:
    async def walk(user: User) -> None:
        await user.open("/")
        (table,) = user.find(ui.table).elements
        (listener,) = (each for each in table._event_listeners.values() if each.type == "cell")
        table._handle_event({"listener_id": listener.id, "args": ["differ", "tag.v1"]})
        await user.should_see("mark-right")
        with user.scope(kind=ui.dialog):
            await user.should_see("bag")
            await user.should_not_see("undo bag")
            both = sorted(user.find("mark-right").elements, key=lambda each: each.id)
        assert len(both) == 2  # wallet and bag
        click(user, both[1])
        await user.should_see("undo bag")
        cells = next(row["cells"] for row in table.rows if row["id"] == "differ")
        looks = [[tag["look"] for tag in cells[name]["tags"]] for name in ("tag.v1", "tag.v2")]
        assert looks == [["right", "right"], ["right", "missed"]]
        assert set(tried.gold(PRODUCTS[1]) or ()) == {"wallet", "bag"}
        user.find("undo bag").click()
        await user.should_not_see("undo bag")
        assert tried.gold(PRODUCTS[1]) == ("wallet",)

    visit(tried, walk)


def click(user: User, element: Any) -> None:
    UserInteraction(user, {element}, None).click()


def test_the_other_language(workspace: Workspace) -> None:
    async def walk(user: User) -> None:
        await user.open("/")
        await user.should_see("Ask the model")
        user.find("language").click()
        for path, text in (
            ("/", "询问模型"),
            ("/edit", "存为新版本"),
            ("/verdict", "比较"),
            ("/gold", "批准"),
        ):
            await user.open(path)
            await user.should_see(text, retries=30)
            await user.should_see("标准答案")
            await user.should_not_see("Ask the model")
        user.find("language").click()
        await user.open("/")
        await user.should_see("Ask the model")

    visit(workspace, walk)


def test_the_editor_renders_what_is_typed_and_keeps_it(workspace: Workspace) -> None:
    async def walk(user: User) -> None:
        await user.open("/edit")
        await user.should_see("rendered-user", retries=50)
        await user.should_see("tag.v1, unchanged")
        (code,) = user.find(ui.codemirror).elements
        assert code.value == V1.body
        code.set_value(V1.body.replace("{% block user %}", "{% block user %}Dear model. "))
        await user.should_see("Dear model.", retries=50)
        await user.should_see("Draft of tag.v1, changed and kept")
        code.set_value("{% block system %}")
        await user.should_see("not valid", retries=50)
        code.set_value(V1.body)
        await user.should_see("tag.v1, unchanged", retries=50)

    visit(workspace, walk)
    assert workspace.shelf.draft("tag.v1", "another tab") is None


def test_an_index_without_labels_has_all_pages(workspace: Workspace, tmp_path: Path) -> None:
    build([Product("x", "a thing")], tmp_path / "bare", HashingEncoder())
    with Workspace(tmp_path / "bare", endpoints=("http://x",), cache=tmp_path) as bare:

        async def walk(user: User) -> None:
            for path in ("/", "/edit", "/verdict", "/gold"):
                await user.open(path)
                await user.should_see("bare", retries=30)
            await user.open("/edit")
            await user.should_see("No product matches.", retries=30)
            user.find("next").click()
            user.find("ask").click()

        visit(bare, walk)


def test_gold_is_approved(workspace: Workspace) -> None:
    new = Product("new", "green mug")
    workspace.book.take(new, {"mug": True, "hat": False}, "ana", reviewed=True)

    async def walk(user: User) -> None:
        await user.open("/gold")
        (table,) = user.find(ui.table).elements
        (row,) = table.rows
        assert (row["id"], row["state"], row["right"], row["wrong"]) == (
            "new", "reviewed", "mug", "hat",
        )  # fmt: skip
        user.find("approve").click()
        await user.should_see("Approve all 1 reviewed products?")
        assert workspace.book.state("new") is State.REVIEWED
        user.find("confirm").click()
        await user.should_see("1 products approved", retries=50)
        assert table.rows[0]["state"] == "approved"

    visit(workspace, walk)
    assert workspace.book.state("new") is State.APPROVED
    assert "new" in {product.id for product in workspace.products}


def test_approving_leaves_matrix_and_verdict_as_they_are(tried: Workspace) -> None:
    """What was answered is shown, and said to be of an earlier state of the index."""
    new = Product("new", "green mug")
    tried.book.take(new, {"mug": True}, "ana", reviewed=True)
    tried.shelf.keep_view("verdict", {"a": "tag.v1", "b": "tag.v2"})

    async def walk(user: User) -> None:
        await user.open("/")
        before = rows(user)
        assert len(before) == 4
        await user.should_not_see("from before the index changed")
        tried.approve(["new"], "ana")
        await user.open("/")
        assert rows(user) == before
        await user.should_see("8 answers are from before the index changed")
        await user.open("/verdict")
        await user.should_see("4 products.", retries=50)

    visit(tried, walk)


def test_totals_stand_above_the_matrix(tried: Workspace) -> None:
    async def walk(user: User) -> None:
        await user.open("/")
        for text in ("tag.v1 · live", "✓ right", "+ wrong", "− missed", "F1", "0.667"):
            await user.should_see(text)

    visit(tried, walk)


def silent(id: str, version: str) -> Cell:
    return replace(cell(id, version), tags=())


def test_a_model_that_chooses_nothing_is_told_of_and_can_be_switched(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmtagger.backends import models

    for product in PRODUCTS:
        basis = workspace._basis(V1)
        workspace.shelf.keep_cell(basis, product.id, cell_record(silent(product.id, "tag.v1")))
    monkeypatch.setattr(models, "resolve_model", lambda name: name)
    workspace.endpoints = ()
    for product in PRODUCTS:  # the basis names the model
        basis = workspace._basis(V1)
        workspace.shelf.keep_cell(basis, product.id, cell_record(silent(product.id, "tag.v1")))

    async def walk(user: User) -> None:
        await user.open("/")
        await user.should_see("The model chose no tag in 5 of 5 answers")
        user.find("switch-model").click()
        await user.should_see("Now: auto")
        user.find("model-name").type("some/larger-model")
        user.find("switch-it").click()
        for _ in range(100):
            if workspace.model == "some/larger-model":
                return
            await asyncio.sleep(0.05)
        raise AssertionError(workspace.model)

    visit(workspace, walk)
    assert workspace.known(V1, workspace.products) == {}  # the other model was not asked yet


def test_a_model_that_reacts_is_not_complained_of() -> None:
    cells = [silent("same", "v")] * 9 + [replace(CELLS[0])]
    assert silent_answers(cells) is None
    assert silent_answers(cells[:4]) is None  # too few to tell
    assert silent_answers(cells[:9]) == (9, 9)


def test_no_difference_is_said_in_a_sentence(workspace: Workspace) -> None:
    for version, template in (("tag.v1", V1), ("tag.v2", V2)):
        for product in PRODUCTS:
            record = cell_record(silent(product.id, version))
            workspace.shelf.keep_cell(workspace._basis(template), product.id, record)
    workspace.shelf.keep_view("verdict", {"a": "tag.v1", "b": "tag.v2"})

    async def walk(user: User) -> None:
        await user.open("/verdict")
        await user.should_see(
            "No difference: same tags on all 5 products. The model chose none, so the prompt "
            "cannot matter. Try a larger model.",
            retries=50,
        )
        (button,) = user.find("promote tag.v2").elements
        assert button.props.get("flat")  # quiet: the verdict does not speak for it

    visit(workspace, walk)


def test_only_what_is_better_is_offered_loudly(workspace: Workspace) -> None:
    words = [
        "mug",
        "wallet",
        "lamp",
        "kettle",
        "scarf",
        "pillow",
        "bicycle",
        "guitar",
        "ladder",
        "compass",
    ]
    workspace.products = tuple(Product(word, f"new {word}", tags=(word,)) for word in words)
    for version, template in (("tag.v1", V1), ("tag.v2", V2)):
        for product in workspace.products:
            name = product.id if version == "tag.v2" else "wrong one"
            shown = Shown(name, "unjudged", kept=True, score=0.9)
            record = cell_record(Cell(product, version, (shown,), judged=True))
            workspace.shelf.keep_cell(workspace._basis(template), product.id, record)
    workspace.shelf.keep_view("verdict", {"a": "tag.v1", "b": "tag.v2"})

    async def walk(user: User) -> None:
        await user.open("/verdict")
        await user.should_see("tag.v2 is better: F1 +", retries=50)
        (button,) = user.find("promote tag.v2").elements
        assert button.props.get("unelevated")

    visit(workspace, walk)


def test_a_draft_is_discarded_after_a_question(workspace: Workspace) -> None:
    async def walk(user: User) -> None:
        await user.open("/edit")
        await user.should_see("rendered-user", retries=50)
        (code,) = user.find(ui.codemirror).elements
        changed = V1.body.replace("{% block user %}", "{% block user %}Dear model. ")
        code.set_value(changed)
        await user.should_see("changed and kept", retries=50)
        user.find("drop").click()
        await user.should_see("Discard the draft?")
        assert code.value == changed
        user.find("confirm").click()
        await user.should_see("tag.v1, unchanged", retries=50)
        assert code.value == V1.body

    visit(workspace, walk)


def test_rules_are_plain_fields_in_the_language_of_the_page(workspace: Workspace) -> None:
    async def walk(user: User) -> None:
        await user.open("/edit")
        await user.should_see("rendered-user", retries=50)
        await user.should_see(content="Choose only from")
        (code,) = user.find(ui.codemirror).elements
        areas = list(user.find(ui.textarea).elements)
        (rule,) = (each for each in areas if (each.value or "").startswith("Choose a tag only"))
        rule.set_value("Choose what shoppers ask for.")
        await user.should_see("2. Choose what shoppers ask for.", retries=50)
        old = (
            "Choose a tag only if the product's own text supports it; when in doubt, leave it out."
        )
        assert code.value == V1.body.replace(old, "Choose what shoppers ask for.")
        rule.set_value("{% if %}")
        for _ in range(50):
            if rule.props.get("error"):
                break
            await asyncio.sleep(0.05)
        assert "plain text" in rule.props["error-message"]
        assert "{% if %}" not in code.value

    visit(workspace, walk)


def test_a_template_without_fields_says_why(workspace: Workspace) -> None:
    async def walk(user: User) -> None:
        await user.open("/edit?version=tag.v2")
        await user.should_see("cannot be shown as plain fields: line 2 has {{", retries=50)

    visit(workspace, walk)


def test_a_review_goes_from_product_to_product(tried: Workspace) -> None:
    async def walk(user: User) -> None:
        await user.open("/")
        (table,) = user.find(ui.table).elements
        (listener,) = (each for each in table._event_listeners.values() if each.type == "cell")
        first, second = rows(user)[:2]
        table._handle_event({"listener_id": listener.id, "args": [first, "tag.v1"]})
        await user.should_see("1 / 4")
        user.find("review-next").click()
        await user.should_see("2 / 4")
        user.find("reviewed").click()
        await user.should_see("3 / 4")
        user.find("review-previous").click()
        await user.should_see("2 / 4")
        assert tried.book.state(second) is State.REVIEWED
        assert tried.book.state(first) is State.OPEN

    visit(tried, walk)


def test_messages_are_in_the_language_of_the_page() -> None:
    said = "the prompt tag.draft uses unknown variables: titel"
    assert explained(said, "zh") == "提示词 tag.draft 使用了未知变量：titel"
    assert explained(said, "en") == said
    assert explained("“zip” in title", "zh") == "“zip”在 title 中"
    assert explained("something else", "zh") == "something else"


def test_every_message_of_prompts_and_of_the_studio_has_a_translation() -> None:
    folder = Path(studio.__file__).parent
    paths = [*folder.glob("*.py"), folder.parent / "sandbox.py", folder.parent / "versions.py"]
    paths += [folder.parent / "evaluation" / name for name in ("trials.py", "answers.py")]
    missing = [
        text
        for path in paths
        for text in raised(ast.parse(path.read_text(encoding="utf-8")))
        if explained(text, "zh") == text
    ]
    assert missing == []


def raised(tree: ast.AST) -> Iterator[str]:
    """The messages and hints of errors that are made in a source; what varies is `x`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (hint := [k for k in node.keywords if k.arg == "hint"]):
            for part in (*node.args[:1], hint[0].value):
                if text := written(part):
                    yield text


def written(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(written(each) or "x" for each in node.values)
    if isinstance(node, ast.BinOp):
        return written(node.left) + written(node.right)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(12, "less than a minute"), (500, "about 8 min"), (9000, "about 2.5 h")],
)
def test_how_long_it_takes_is_said_as_people_say_it(seconds: float, said: str) -> None:
    assert duration(seconds, lambda text, **values: text.format(**values)) == said


def test_the_pace_is_measured_after_the_first_answer() -> None:
    times = iter([100.0, 102.0, 104.0, 109.0])
    pace = Pace(lambda: next(times))
    for _ in range(2):
        pace.answered()
    assert pace.seconds is None
    for _ in range(2):
        pace.answered()
    assert pace.seconds == 3.0


def test_the_verdict(tried: Workspace) -> None:
    async def walk(user: User) -> None:
        await user.open("/verdict")
        await user.should_see("Too few products for a verdict", retries=50)
        await user.should_see("4 products.")

    tried.shelf.keep_view("verdict", {"a": "tag.v1", "b": "tag.v2"})
    visit(tried, walk)


# --- words


def texts(node: ast.expr) -> set[str]:
    """The texts that an expression may come to: constants, and both ends of `a if b else c`."""
    if isinstance(node, ast.IfExp):
        return texts(node.body) | texts(node.orelse)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value}
    return set()


def words() -> tuple[set[str], set[str]]:
    """What is given to `say`, and every text at all, in the studio's source."""
    said, every = set[str](), set[str]()
    for path in Path(studio.__file__).parent.glob("*.py"):
        if path.name == "words.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                every.add(node.value)
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if name == "say":
                    said |= texts(node.args[0])
    return said, every


# What is said by a name: roles of messages, states of gold, sentences of a verdict.
SENTENCES = {
    *(verdicts._SAME, verdicts._SILENT, verdicts._BETTER, verdicts._UNCLEAR, verdicts._FEW)
}
SAID_BY_NAME = {"System", "User", *(state.value for state in State), *SENTENCES}


def test_every_word_has_a_translation() -> None:
    from llmtagger.studio import chip, editor, frame, matrix, verdict

    said, _ = words()
    assert "Ask the model" in said
    tables = (frame.PAGES, editor._STRATEGIES, verdict._FIGURES, verdict._SIDES, chip._REASONS)
    named = {word for table in tables for word in table.values()} - {"F1"}
    named |= {word for step in matrix._STEPS for word in step}
    wanted = said | named | SAID_BY_NAME | {"right", "wrong", "missed"}
    assert wanted - _ZH.keys() == set()


def test_every_translation_is_used() -> None:
    _, every = words()
    assert _ZH.keys() - every - SAID_BY_NAME == set()
    assert all(word and word != chinese for word, chinese in _ZH.items())
