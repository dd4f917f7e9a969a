"""What the documentation says: its blocks run, its links lead somewhere, its numbers are true.

Pages that ask a model are run in tests/live/test_docs.py, with the real server.
"""

from __future__ import annotations

import html
import re
import tomllib
from pathlib import Path

import pytest
from rich.cells import cell_len
from tools import cli_reference
from tools.run_docs import (
    Block,
    DocsError,
    needs_model,
    pages,
    prepare,
    python_script,
    read_blocks,
    run_page,
    runnable,
    shell_script,
)

from llmtagger import __version__
from llmtagger.cli import results
from llmtagger.config import LiveSettings, Settings
from llmtagger.datatypes import TagKind
from llmtagger.templates import live_template

ROOT = Path(__file__).parents[1]
PAGES = pages()


def read(page: Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


OFFLINE = [page for page in PAGES if runnable(read(page)) and not needs_model(read(page))]


@pytest.mark.parametrize("page", OFFLINE, ids=str)
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path) -> None:
    prepare(tmp_path)
    run_page(str(page), read(page), tmp_path)


def test_the_picture_of_the_terminal_is_as_results_are_shown() -> None:
    """With the legend; and a Chinese character is two cells wide, so that none hides the next."""
    picture = read(Path("docs/terminal.svg"))
    texts = re.findall(r'<text [^>]*textLength="([\d.]+)"[^>]*>([^<]+)</text>', picture)
    said = [(float(length), html.unescape(text)) for length, text in texts]
    lines = " ".join(text.replace("\xa0", " ") for _, text in said)
    assert results.LEGEND.strip() in lines
    assert "? marks a tag for review (" in lines
    assert any(not text.isascii() and cell_len(text) > len(text) for _, text in said)
    assert all(length == pytest.approx(12.2 * cell_len(text)) for length, text in said)


def test_some_pages_are_run() -> None:
    assert OFFLINE


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("```console\n$ true\n$ ls no-such-file\n$ true\n```\n", "page.md, line 2: exit 2"),
        ("```console\n$ llmtagger no-such-command\n```\n", "No such command"),
        ("text\n\n```python\nx = 1\n\nassert x == 2\n```\n", 'page.md", line 6'),
        ("```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n", 'page.md", line 6'),
        ("```console\n$ true\n", "the block of line 1 has no end"),
    ],
    ids=["a command in the middle", "a wrong command", "python", "second block", "no end"],
)
def test_a_failing_block_is_caught(page: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DocsError) as failure:
        run_page("page.md", page, tmp_path)
    assert message in str(failure.value)


def test_blocks_see_what_earlier_ones_did(tmp_path: Path) -> None:
    page = (
        "```console\n$ echo 1 > one\n```\n\n```\n$ only shown\n```\n\n"
        "```python\nfrom pathlib import Path\n```\n\n"
        "```python\nassert Path('one').read_text() == '1\\n'\nPath('two').touch()\n```\n\n"
        "```console\n$ ls two\n```\n"
    )
    run_page("page.md", page, tmp_path)
    assert (tmp_path / "two").exists()


def test_a_command_that_tags_is_given_the_server(tmp_path: Path) -> None:
    page = "```console\n$ llmtagger tag no-such.csv -i no-index -o out.jsonl --endpoint\n```\n"
    with pytest.raises(
        DocsError, match=r"command llmtagger tag .* --endpoint http://127\.0\.0\.1:9"
    ):
        run_page("page.md", page.replace(" --endpoint", ""), tmp_path, "http://127.0.0.1:9")


def test_blocks_are_read_as_marked() -> None:
    page = (
        "a\n```console\n$ one \\\n  two\nprinted\n$ three\n```\n"
        "```\nb\n```\n```python\nx = 1\n```\n"
    )
    console, plain, python = read_blocks(page)
    assert shell_script(console) == "one \\\n  two\nthree\n"
    assert plain == Block("", 9, "b\n")
    assert python_script([python]) == "\n" * 11 + "x = 1\n"
    assert runnable(page) == [console, python]


def test_the_commands_are_documented_as_they_are() -> None:
    written = cli_reference.PAGE.read_text(encoding="utf-8")
    assert written == cli_reference.reference(), "make docs"


def test_the_commands_are_all_there() -> None:
    titles = re.findall(r"^## (.+)$", cli_reference.reference(), re.MULTILINE)
    for name in ("index build", "index search", "tag", "engine start", "prompt render", "doctor"):
        assert f"llmtagger {name}" in titles


def prose(text: str) -> str:
    """The text without its blocks and inline code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^\s*```.*?^\s*```", "", text, flags=re.S | re.M))


def anchors(text: str) -> set[str]:
    titles = re.findall(
        r"^#+ (.+)$", re.sub(r"^\s*```.*?^\s*```", "", text, flags=re.S | re.M), re.M
    )
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(read(page))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = ROOT / page.parent / name if name else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8"))):
            dead.append(link)
    assert dead == []


def test_every_setting_is_documented_with_its_default() -> None:
    [block] = [b for b in read_blocks(read(Path("docs/configuration.md"))) if b.mark == "toml"]
    shown = tomllib.loads(block.text)
    Settings.model_validate(shown)
    defaults = Settings().model_dump(mode="json")
    assert {name: set(section) for name, section in shown.items()} == {
        name: set(section) for name, section in defaults.items()
    }
    live = LiveSettings(**shown.pop("live"))
    for kind in TagKind:
        assert live_template(kind, live) == live_template(kind, LiveSettings(**defaults["live"]))
    del defaults["live"]
    for section, values in defaults.items():
        for name, value in values.items():
            if value not in (None, {}, []):  # of those, the page shows examples
                assert shown[section][name] == value, f"{section}.{name}"


def test_the_newest_version_of_the_changelog_is_this_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    newest = re.search(r"^## (\d\S*)", read(Path("CHANGELOG.md")), re.MULTILINE)
    assert newest is not None
    assert newest[1] == project["version"] == __version__
