"""Text that a terminal would act on is spelt out, wherever it comes from."""

from __future__ import annotations

import ast
import io
import json
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

import llmtagger
from llmtagger.cli.console import marked
from llmtagger.cli.screen import Screen
from llmtagger.terminal import harmless, one_line

CLI = sorted((Path(llmtagger.__file__).parent / "cli").glob("*.py"))
ANY_TEXT = st.text(st.characters(exclude_categories=()))  # halves of surrogate pairs, too
SGR = re.compile(r"\x1b\[[0-9;]*m")


def is_active(character: str) -> bool:
    """Whether a terminal does something other than show a character (or break a line)."""
    if character in "\n\t":
        return False
    return (
        unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(character)
        in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
        or character in "\u200e\u200f\u061c"
    )


def test_every_active_character_is_spelt_out() -> None:
    active = "".join(map(chr, filter(lambda n: is_active(chr(n)), range(0x110000))))
    assert len(active) > 2000
    assert not any(map(is_active, harmless(active)))


@pytest.mark.parametrize("text", ["Größe 42 – 55″, 4K", "无线耳机（降噪）", "קפה", "👩‍🚀 नमस्ते\n\t"])
def test_what_people_write_stays(text: str) -> None:
    assert harmless(text) == text


@given(ANY_TEXT)
def test_harmless_json_says_the_same(text: str) -> None:
    assert json.loads(harmless(json.dumps(text, ensure_ascii=False))) == text


@given(ANY_TEXT, ANY_TEXT)
def test_a_value_never_becomes_markup(one: str, other: str) -> None:
    assert marked("[bold]{}[/] {}", one, other).plain == f"{one_line(one)} {one_line(other)}"


@given(ANY_TEXT)
def test_what_is_printed_holds_no_control_but_colours(text: str) -> None:
    out = io.StringIO()
    screen = Screen(file=out, force_terminal=True, width=40)
    table = Table(text, caption=text)
    table.add_row(text, style="red")
    for each in (text, table, marked("[green]{}[/]", text)):
        screen.print(each)
    assert not any(map(is_active, SGR.sub("", out.getvalue())))


def test_a_hostile_colour_is_spelt_out() -> None:
    out = io.StringIO()
    Screen(file=out, force_terminal=True).print("\x1b[31mred[/] [bold]\x9b2J")
    assert out.getvalue() == "\\u001b[31mred[/] [bold]\\u009b2J\n"


@pytest.fixture(scope="module")
def nodes() -> list[tuple[str, ast.AST]]:
    """Every node of every module of the command line, with the module's name."""
    return [
        (path.name, node) for path in CLI for node in ast.walk(ast.parse(path.read_text("utf-8")))
    ]


def test_only_the_console_writes_to_the_streams(nodes: list[tuple[str, ast.AST]]) -> None:
    streams = {"sys.stdout", "sys.stderr", "typer.echo", "typer.secho", "rich.print"}
    found = [
        f"{name}:{node.lineno}"
        for name, node in nodes
        if isinstance(node, ast.Attribute) and ast.unparse(node) in streams
    ]
    assert {each.partition(":")[0] for each in found} == {"console.py"}, found


def test_markup_stands_only_in_templates(nodes: list[tuple[str, ast.AST]]) -> None:
    """Elsewhere it would be printed as it is."""
    templates = {
        id(text)
        for _, node in nodes
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "marked"
        for text in ast.walk(node.args[0])
    }
    assert len(templates) > 10
    found = [
        f"{name}:{node.lineno}"
        for name, node in nodes
        if isinstance(node, ast.Constant)
        and re.search(r"\[/[a-z ]*\]", str(node.value))
        and id(node) not in templates
        and name != "console.py"
    ]
    assert found == []
