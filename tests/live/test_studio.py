"""The studio in a real browser, with the real engine: the tutorial, and what goes wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmtagger.backends.encoders import load_encoder
from llmtagger.backends.index_writer import build
from llmtagger.backends.vllm_process import ServerInfo
from llmtagger.catalog import read_catalog
from llmtagger.evaluation.trials import Cell, Shown, cell_record
from llmtagger.goldbook import FILE, GoldBook
from llmtagger.studio.workspace import Workspace
from llmtagger.templates import find_template
from llmtagger.versions import make_version
from llmtagger.vocabulary import read_vocabulary

pytestmark = [pytest.mark.live, pytest.mark.timeout(700)]

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
HOSTILE = (
    "Mug <script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> "
    "\u202egnp.exe\u202c {{ constructor.constructor('window.hacked = 1')() }}"
)
ANSWERS = 240_000  # ms, with other tests beside it

Page = Any  # of playwright, which has no types that mypy could follow here


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of the examples, and a product that means harm."""
    folder = tmp_path_factory.mktemp("index") / "examples"
    products = list(
        read_catalog(EXAMPLES / "catalogue.jsonl", rejected=lambda row: pytest.fail(row.reason))
    )[::5]
    evil = replace(products[0], id="<b>evil</b>", title=HOSTILE, description=HOSTILE, group="")
    vocabulary = read_vocabulary(EXAMPLES / "vocabulary.jsonl")
    build([*products, evil], folder, load_encoder("multilingual"), vocabulary=vocabulary)
    return folder


class Studio:
    """`llmtagger studio` in a working folder of its own."""

    def __init__(self, folder: Path, index: Path, *options: str) -> None:
        self.folder, self.index = folder, index
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._line = [sys.executable, "-m", "llmtagger", "studio", "-i", str(index)]
        self._line += ["--port", str(self.port), "--no-browser", *options]
        self.start()

    def start(self) -> None:
        """Start it, and wait until it says where it is."""
        # NiceGUI takes a process that inherits this for a test of its own.
        environment = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
        environment["LLMTAGGER_CACHE_DIR"] = str(self.folder / "cache")  # no answer is known
        self._process = subprocess.Popen(
            self._line, cwd=self.folder, env=environment, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        said = ""
        while "The studio is at" not in said:
            line = self._process.stderr.readline()
            if not line:
                self.stop()
                raise AssertionError(said)
            said += line

    def shell(self, *words: str) -> None:
        """Run a command of llmtagger beside it."""
        line = [sys.executable, "-m", "llmtagger", *words]
        subprocess.run(line, cwd=self.folder, check=True, timeout=120)

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        self._process.terminate()
        self._process.communicate(timeout=60)

    def at(self, path: str = "/") -> str:
        """The address of a page."""
        return f"http://127.0.0.1:{self.port}{path}"


@pytest.fixture
def studio(tmp_path: Path, index: Path, server: ServerInfo) -> Iterator[Studio]:
    shutil.copytree(index, tmp_path / "shop")
    running = Studio(tmp_path, tmp_path / "shop", "--endpoint", server.url)
    yield running
    running.stop()


@pytest.fixture
def page(browser: Any) -> Iterator[Page]:
    """A page on which no script fails, and which loads nothing from elsewhere."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    shown = context.new_page()
    faults: list[str] = []
    shown.on("pageerror", lambda error: faults.append(str(error)))
    shown.on(
        "request",
        lambda request: (
            None
            if re.match(r"(http|ws)://127\.0\.0\.1|data:|blob:", request.url)
            else faults.append(request.url)
        ),
    )
    yield shown
    context.close()
    assert faults == []


def button(page: Page, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True)


def choose(page: Page, label: str, option: str) -> None:
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option).first.click()


def go(page: Page, name: str) -> None:
    page.get_by_role("link", name=name, exact=True).click()
    page.wait_for_selector(f".tab.here:has-text('{name}')")


def write(page: Page, text: str) -> None:
    """Write at the end of the first rule of the system block."""
    page.wait_for_selector(".rendered")
    page.get_by_role("tab", name="Template (Jinja)").click()
    page.locator(".cm-line", has_text="You choose tags").click()
    page.keyboard.press("End")
    page.keyboard.insert_text(text)


def until(true: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_the_tutorial_from_a_first_look_to_a_promoted_prompt(studio: Studio, page: Page) -> None:
    done: set[str] = set()

    def named(name: str) -> str:
        done.add(name)
        return name

    page.goto(studio.at())
    go(page, named("Matrix"))
    button(page, named("Ask the model")).click()
    page.wait_for_selector(".matrix .chip", timeout=ANSWERS)
    page.wait_for_function("() => document.querySelectorAll('.matrix .chip').length > 20",
                           timeout=ANSWERS)  # fmt: skip
    button(page, named("Cancel")).wait_for(state="hidden", timeout=ANSWERS)
    button(page, named("More filters")).click()
    rows = page.locator(".matrix tbody tr[class]").count()
    page.get_by_role("checkbox", name=named("Only wrong")).click()
    until(lambda: page.locator(".matrix tbody tr[class]").count() <= rows)
    assert page.locator(".matrix .chip.wrong, .matrix .chip.missed").count() > 0
    page.get_by_role("checkbox", name="Only wrong").click()

    go(page, named("Edit"))
    choose(page, "Version", "tag.v1")
    write(page, " Think of shoppers.")
    done.add("Template (Jinja)")
    page.wait_for_selector("text=changed and kept")
    button(page, "Ask the model").click()
    page.wait_for_selector("th:has-text('tag.draft')", timeout=ANSWERS)
    button(page, "Cancel").wait_for(state="hidden", timeout=ANSWERS)
    button(page, named("Save as a version")).click()
    page.get_by_label("Why is there a new version?").fill("shoppers come first")
    button(page, named("Save")).click()
    page.wait_for_url("**version=tag.v3")
    made = (studio.folder / "prompts" / "tag.v3.jinja").read_text("utf-8")
    assert "Think of shoppers." in made
    assert 'note = "shoppers come first"' in made

    go(page, named("Verdict"))
    choose(page, "A", "tag.v1")
    choose(page, "B", "tag.v3")
    choose(page, "Products", "10")  # which the steps before have asked about
    button(page, named("Compare")).click()
    page.wait_for_selector(".verdict", timeout=ANSWERS)
    button(page, "Cancel").wait_for(state="hidden", timeout=ANSWERS)
    said = page.locator(".verdict").inner_text()
    assert "points" in said or "same tags on all 10 products" in said
    button(page, "Make tag.v3 live").click()
    page.get_by_label("Why?").fill("not worse")
    page.get_by_role("dialog").get_by_role("button", name=named("Make it live")).click()
    page.wait_for_selector("text=tag.v3 is live")
    assert 'tag = "tag.v3"' in (studio.folder / "llmtagger.toml").read_text("utf-8")
    why = json.loads((studio.folder / "prompts" / "promotions.jsonl").read_text("utf-8"))
    assert (why["version"], why["note"]) == ("tag.v3", "not worse")

    go(page, "Matrix")
    page.wait_for_selector(".matrix .chip")
    sheet = page.get_by_role("dialog")
    wrong = sheet.get_by_label(named_mark := "Wrong").first

    def opened() -> bool:
        """The matrix may be drawn anew between the two, and a key then goes nowhere."""
        page.locator(".matrix .cell:has(.chip)").first.focus()
        page.keyboard.press("Enter")
        patience = time.monotonic() + 4
        while not wrong.is_visible() and time.monotonic() < patience:
            time.sleep(0.1)
        return bool(wrong.is_visible())

    until(opened)
    wrong.click()
    done.update(("✓", "✗"))
    assert named_mark
    page.wait_for_selector("text=Undo")
    sheet.get_by_label(named("Add a missing tag")).fill("waterp")
    page.get_by_role("option", name="waterproof").first.click()
    button(page, named("Add tag")).click()
    button(page, named("Done, list is complete")).click()
    page.wait_for_selector("text=the list of tags is complete")
    page.keyboard.press("Escape")

    go(page, named("Gold"))
    page.wait_for_selector("td:has-text('reviewed')")
    with page.expect_download() as download:
        button(page, named("Export: XLSX")).click()
    exported = studio.folder / "gold.xlsx"
    download.value.save_as(exported)
    assert exported.read_bytes()[:2] == b"PK"
    with page.expect_file_chooser() as chooser:
        button(page, named("Import")).click()
    chooser.value.set_files(exported)
    page.wait_for_selector("text=imported")
    before = (studio.index / "CURRENT").read_text("utf-8")
    button(page, named("Approve all reviewed")).click()
    button(page, "Approve").click()
    page.wait_for_selector("td:has-text('approved')", timeout=60_000)
    assert (studio.index / "CURRENT").read_text("utf-8") != before

    tutorial = (ROOT / "docs" / "tutorial-studio.md").read_text("utf-8")
    assert set(re.findall(r"\*\*(.+?)\*\*", tutorial)) == done


def test_a_restart_finds_everything_as_it_was(studio: Studio, page: Page) -> None:
    page.goto(studio.at("/edit?version=tag.v1"))
    write(page, " A draft.")
    page.wait_for_selector("text=changed and kept")
    page.goto(studio.at())
    button(page, "Ask the model").click()
    page.wait_for_selector(".matrix .chip", timeout=ANSWERS)
    button(page, "Cancel").wait_for(state="hidden", timeout=ANSWERS)
    button(page, "中文").click()
    page.wait_for_selector("text=询问模型")
    tags = page.locator(".matrix .chip").all_inner_texts()
    studio.stop()
    studio.start()
    page.goto(studio.at())
    page.wait_for_selector(".matrix .chip")
    assert page.locator(".matrix .chip").all_inner_texts() == tags
    assert page.locator("text=询问模型").count() > 0
    page.goto(studio.at("/edit?version=tag.v1"))
    page.get_by_role("tab", name="模板（Jinja）").click()
    page.wait_for_selector(".cm-line:has-text('A draft.')")


def test_two_tabs_and_a_shell_lose_nothing_of_each_other(
    tmp_path: Path, index: Path, browser: Any
) -> None:
    shutil.copytree(index, tmp_path / "shop")
    studio = Studio(tmp_path, tmp_path / "shop", "--endpoint", "http://127.0.0.1:9", "--model", "x")
    tabs = [browser.new_context().new_page() for _ in range(2)]
    try:
        for number, tab in enumerate(tabs):
            tab.goto(studio.at("/edit?version=tag.v1"))
            write(tab, f" Of tab {number}.")
            tab.wait_for_selector("text=changed and kept")
        studio.shell("prompt", "new", "tag.v1", "--count", "1", "--note", "from a shell")
        for number, tab in enumerate(tabs):
            button(tab, "Save as a version").click()
            tab.get_by_label("Why is there a new version?").fill(f"tab {number}")
            button(tab, "Save").click()
            tab.wait_for_url(f"**version=tag.v{4 + number}")
        for number in (0, 1):
            made = (tmp_path / "prompts" / f"tag.v{4 + number}.jinja").read_text("utf-8")
            assert f"Of tab {number}." in made
            assert f"Of tab {1 - number}." not in made
        assert "from a shell" in (tmp_path / "prompts" / "tag.v3.jinja").read_text("utf-8")

        for tab in tabs:  # both see the product before either says something of it
            tab.goto(studio.at())
            button(tab, "Show the products without answers").click()
            tab.locator(".matrix .cell").first.click()
            tab.wait_for_selector("[role=dialog]")
        for tab, tag in zip(tabs, ("waterproof", "vegan"), strict=True):
            tab.get_by_role("dialog").get_by_label("Add a missing tag").fill(tag)
            tab.get_by_role("option", name=tag).first.click()
            button(tab, "Add tag").click()
            tab.wait_for_selector("text=Undo")
        studio.shell("gold", "status", "-i", "shop")
        with GoldBook(tmp_path / "shop" / FILE) as book:
            (entry,) = book.entries()
            marks = book.marks(entry.product.id)
        assert {(mark.tag, mark.right) for mark in marks} == {
            ("waterproof", True),
            ("vegan leather", True),
        }
    finally:
        for tab in tabs:
            tab.context.close()
        studio.stop()


def test_a_broken_template_is_named_and_not_asked_with(studio: Studio, page: Page) -> None:
    page.goto(studio.at("/edit?version=tag.v1"))
    write(page, "{{ product.titel }}")
    page.wait_for_selector(".fault:visible")
    assert "titel" in page.locator(".fault").inner_text()
    assert button(page, "Ask the model").is_disabled()
    write(page, "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")
    until(lambda: page.locator(".fault:visible").count())
    button(page, "Save as a version").click()
    button(page, "Save").click()
    page.wait_for_selector(".complaint")
    assert not (studio.folder / "prompts").exists()


def test_hostile_text_is_shown_and_does_nothing(studio: Studio, page: Page) -> None:
    page.goto(studio.at())
    button(page, "Show the products without answers").click()
    choose(page, "Products", "50")
    page.get_by_label("Search").fill("<b>evil")
    until(lambda: page.locator(".matrix tbody tr[class]").count() == 1)  # the others are gone
    page.locator(".matrix .cell").click()
    page.wait_for_selector("[role=dialog] >> text=onerror")
    page.keyboard.press("Escape")
    page.goto(studio.at("/edit?product=%3Cb%3Eevil%3C%2Fb%3E"))
    page.wait_for_selector(".rendered:has-text('onerror')")
    with page.expect_download() as download:
        page.goto(studio.at())
        button(page, "Show the products without answers").click()
        page.get_by_label("Search").fill("<b>evil")
        page.wait_for_selector("text=onerror")
        button(page, "Download report").click()
    report = studio.folder / "matrix.html"
    download.value.save_as(report)
    assert page.evaluate("window.hacked") is None
    text = report.read_text("utf-8")
    assert "<script>window" not in text
    assert "&lt;script&gt;window" in text


def test_a_dead_engine_is_told_and_comes_back(
    tmp_path: Path, index: Path, server: ServerInfo, page: Page
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shutil.copytree(index, tmp_path / "shop")
    relay = None
    dead = ["--endpoint", f"http://127.0.0.1:{port}", "--model", server.model]
    studio = Studio(tmp_path, tmp_path / "shop", *dead)
    try:
        page.goto(studio.at())
        button(page, "Ask the model").click()
        page.wait_for_selector(".complaint", timeout=ANSWERS)
        assert page.locator(".matrix .chip").count() == 0
        relay = _relay(port, server.url)
        button(page, "Ask the model").click()
        page.wait_for_selector(".matrix .chip", timeout=ANSWERS)
    finally:
        studio.stop()
        if relay is not None:
            relay.kill()
            relay.communicate()


def _relay(port: int, url: str) -> subprocess.Popen[bytes]:
    """A process that hands on what comes in at a port to the real server."""
    there = int(url.rsplit(":", 1)[1])
    source = f"""
import asyncio
async def pump(a, b):
    try:
        while data := await a.read(65536):
            b.write(data); await b.drain()
    finally:
        b.close()
async def one(r, w):
    r2, w2 = await asyncio.open_connection("127.0.0.1", {there})
    await asyncio.gather(pump(r, w2), pump(r2, w))
async def main():
    async with await asyncio.start_server(one, "127.0.0.1", {port}) as s:
        await s.serve_forever()
asyncio.run(main())
"""
    process = subprocess.Popen([sys.executable, "-c", source], stderr=subprocess.DEVNULL)
    until(lambda: _answers(port))
    return process


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_500_products_and_6_versions_stay_fluid(
    tmp_path: Path, index: Path, server: ServerInfo, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what is on the screen is in the page, and any part of it is there at once."""
    monkeypatch.chdir(tmp_path)
    some = list(read_catalog(EXAMPLES / "catalogue.jsonl", rejected=lambda row: None))
    more = [replace(each, id=f"{each.id}-{n}", group="") for n in (1, 2) for each in some]
    build(more[:520], tmp_path / "shop", load_encoder("multilingual"))
    parent = find_template("tag.v1")
    versions = [parent]
    for number in range(5):
        text = parent.body.replace("You choose", f"You choose {number}")
        versions.append(make_version(parent, text, note="", author=""))
    with Workspace(tmp_path / "shop", endpoints=[server.url], cache=tmp_path) as workspace:
        shown = tuple(Shown(f"tag {n}", "unjudged", kept=True, score=0.5) for n in range(8))
        for version in versions:
            for product in workspace.products:
                cell = cell_record(Cell(product, version.name, shown))
                workspace.shelf.keep_cell(workspace._basis(version), product.id, cell)
        workspace.shelf.keep_view(
            "matrix", {"versions": [each.name for each in versions], "size": 500}
        )
    studio = Studio(tmp_path, tmp_path / "shop", "--endpoint", server.url)
    try:
        begun = time.monotonic()
        page.goto(studio.at())
        page.wait_for_selector(".matrix .chip")
        assert time.monotonic() - begun < 20
        assert page.locator(".matrix .cell").count() < 600  # of 3,000
        scroller = page.locator(".matrix .q-table__middle")
        for part in (0.5, 1.0, 0.25):
            begun = time.monotonic()
            scroller.evaluate("(it, part) => { it.scrollTop = part * it.scrollHeight }", part)
            page.wait_for_function(
                """() => {
                    const box = document.querySelector('.q-table__middle').getBoundingClientRect();
                    const it = document.elementFromPoint(box.left + 400, box.top + 200);
                    return it && it.closest('.cell') && it.closest('tr').querySelector('.chip');
                }"""
            )
            assert time.monotonic() - begun < 5  # with the model's server beside it
    finally:
        studio.stop()
