"""Hostile text through every command: nothing but harmless characters reaches the terminal."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
import unicodedata
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tools.cli_reference import commands
from typer.main import get_command

from llmtagger import cli
from llmtagger.backends import vllm_process
from llmtagger.backends.encoders import load_encoder
from llmtagger.backends.fakes import FakeGenerator
from llmtagger.backends.index_writer import build
from llmtagger.backends.vllm_state import ServerInfo
from llmtagger.datatypes import Product
from llmtagger.evaluation import answers

# A window's title, a colour, C1's CSI, a reversed line, a line separator, rich's markup, a bell.
EVIL = "\x1b]0;own\x07\x1b[31m\x9b2J\u202e\u2028[bold red]\u200f\x85"
REVERSING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
RUN = 'dataset = "set"\nregime = "cold"\nlabelled = 30\ntest = 20\nllm = "never"\nask_test = 0\n'
Lines = Callable[["World"], list[list[str | Path]]]


@dataclass(frozen=True)
class World:
    """Files with hostile names and contents; `folder` is the current one."""

    folder: Path

    @property
    def index(self) -> Path:
        return self.folder / f"index{EVIL}"

    @property
    def new(self) -> Path:
        return self.folder / f"new{EVIL}.jsonl"

    @property
    def labelled(self) -> Path:
        return self.folder / f"labelled{EVIL}.csv"

    @property
    def gone(self) -> Path:
        return self.folder / f"gone{EVIL}"


def product(number: int, *, tags: bool = True) -> dict[str, Any]:
    colour = ("red", "blue", "green")[number % 3]
    record = {
        "id": f"p{number}{EVIL}",
        "title": f"{colour} {EVIL} leather wallet number {number}",
        "description": f"{EVIL} of {colour} leather",
        "category": f"bags{EVIL}",
        f"column{EVIL}": EVIL,
    }
    return record | ({"tags": [f"{colour}{EVIL}", f"wallet{EVIL}"]} if tags else {})


def written(path: Path, records: list[dict[str, Any]], more: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in records) + more, "utf-8")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("hostile"))
    records = [product(number) for number in range(30)]
    products = [
        Product(each["id"], each["title"], category=each["category"], tags=tuple(each["tags"]))
        for each in records
    ]
    build(products, world.index, load_encoder("hashing"))
    broken = f'{{"id": "b{EVIL}"\n'
    written(world.new, [product(number, tags=False) for number in range(100, 103)], broken)
    header = f"id,title,tags,column{EVIL}\n"
    world.labelled.write_text(header + f"n1{EVIL},wallet {EVIL},red{EVIL},{EVIL}\n", "utf-8")
    written(world.folder / "set" / "gold.jsonl", [product(number) for number in range(75)])
    card = f'title = "T"\nlicence = "{EVIL!r}"\nfile = "./gold.jsonl"\nkind = "closed"\n'
    (world.folder / "set" / "dataset.toml").write_text(card, "utf-8")
    (world.folder / f"run{EVIL}.toml").write_text(RUN, "utf-8")
    (world.folder / f"ids{EVIL}.txt").write_text(f"p1{EVIL}\nunknown{EVIL}\n", "utf-8")
    text = (
        "{% block system %}Be brief.{% endblock %}{% block user %}{{ product.title }}{% endblock %}"
    )
    (world.folder / f"text{EVIL}.jinja").write_text(f"{text}{{# {EVIL} #}}", "utf-8")
    return world


@pytest.fixture
def world(made: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A copy of it, in which nothing heavy is loaded and no model is there but a fake one."""
    shutil.copytree(made.folder, tmp_path / "w", symlinks=True)
    monkeypatch.chdir(tmp_path / "w")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LLMTAGGER_CACHE_DIR", str(tmp_path / f"cache{EVIL}"))
    fake = FakeGenerator()
    monkeypatch.setattr(answers, "kept_answers", lambda *_, **__: nullcontext(fake))
    monkeypatch.setattr(
        "llmtagger.backends.encoders.load_encoder", lambda name: load_encoder("hashing")
    )
    info = ServerInfo(
        f"http://x{EVIL}", f"model{EVIL}", 1, 1, 0.0, tmp_path / EVIL, True, EVIL, tmp_path / EVIL
    )
    (tmp_path / EVIL).write_text(f"line {EVIL}\n", "utf-8")
    for name in ("status", "stop"):
        monkeypatch.setattr(vllm_process, name, lambda: [info])
    monkeypatch.setattr(vllm_process, "start", lambda *_, **__: info)
    monkeypatch.setattr(vllm_process, "log_path", lambda port: info.log)
    return World(tmp_path / "w")


def prompt_lines(world: World) -> list[list[str | Path]]:
    new: list[str | Path] = ["prompt", "new", "tag.v1", f"text{EVIL}.jinja"]
    return [[*new, "--note", f"why {EVIL}", "--author", EVIL]]


def gold_lines(world: World) -> list[list[str | Path]]:
    return [["gold", "import", world.labelled, "-i", world.index, "--author", EVIL]]


# How each command is fed. Where a name of a command is missing here, a test fails.
TABLE: dict[str, Lines] = {
    "tag": lambda w: [
        ["tag", w.new, "-i", w.index, "-o", f"out{EVIL}.jsonl", "--llm", "never"],
        ["tag", w.new, "-i", w.index, "-o", "-", "--llm", "never"],
        ["tag", w.new, "-i", w.index, "-o", f"o{EVIL}.csv", "--llm", "never", "--json"],
        ["tag", w.new, "-i", w.index, "-o", "x.jsonl", "--dry-run", "--endpoint", "-"],
        ["tag", w.gone, "-i", w.index, "-o", "x.jsonl", "--llm", "never"],
        ["tag", w.new, "-i", w.index, "-o", "x.jsonl", "--adapter", EVIL],
        ["tag", w.new, "-i", w.index, "-o", "x.jsonl", "--model", EVIL, "--llm", "always"],
    ],
    "calibrate": lambda w: [
        ["calibrate", "-i", w.index],
        ["calibrate", "-i", w.index, "--model", EVIL],
        ["calibrate", "-i", w.gone],
    ],
    "tune": lambda w: [
        ["tune", "-i", w.index, "--base", EVIL, "--dry-run"],
        ["tune", "-i", w.gone, "--prompt", EVIL],
    ],
    "studio": lambda w: [["studio", "-i", w.gone]],
    "doctor": lambda w: [["doctor"], ["doctor", "--json"]],
    "index build": lambda w: [
        ["index", "build", w.new, w.labelled, "-o", f"other{EVIL}", "--encoder", "hashing"],
        ["index", "build", w.labelled, "-o", "x", "--encoder", EVIL],
        ["index", "build", w.labelled, "-o", "x", "--vocabulary", w.gone],
    ],
    "index add": lambda w: [["index", "add", w.index, w.labelled, w.new]],
    "index remove": lambda w: [["index", "remove", w.index, "--ids", f"ids{EVIL}.txt"]],
    "index search": lambda w: [
        ["index", "search", w.index, f"wallet {EVIL}"],
        ["index", "search", w.index, f"wallet {EVIL}", "--json"],
    ],
    "index info": lambda w: [["index", "info", w.index], ["index", "info", w.gone]],
    "eval run": lambda w: [
        ["eval", "run", f"run{EVIL}.toml", "-o", f"first{EVIL}"],
        ["eval", "run", w.gone, "-o", "x"],
        ["eval", "run", w.gone, "-o", "x", "--fail-under", EVIL],
    ],
    "eval compare": lambda w: [["eval", "compare", w.gone, w.index]],
    "adapter list": lambda w: [["adapter", "list", "-i", w.index], ["adapter", "list", "-i", EVIL]],
    "adapter show": lambda w: [["adapter", "show", EVIL, "-i", w.index]],
    "adapter judge": lambda w: [["adapter", "judge", EVIL, "-i", w.index]],
    "adapter promote": lambda w: [["adapter", "promote", EVIL, "-i", w.index]],
    "adapter revert": lambda w: [["adapter", "revert", "-i", w.gone]],
    "label suggest": lambda w: [
        ["label", "suggest", w.new, "-i", w.index],
        ["label", "suggest", w.new, "-i", w.index, "--json"],
    ],
    "label audit": lambda w: [
        ["label", "audit", "-i", w.index],
        ["label", "audit", "-i", w.index, "--json"],
    ],
    "gold import": gold_lines,
    "gold export": lambda w: [
        *gold_lines(w),
        ["gold", "export", f"gold{EVIL}.csv", "-i", w.index],
        ["gold", "export", w.gone / "x.csv", "-i", w.index],
    ],
    "gold status": lambda w: [["gold", "status", "-i", w.index], ["gold", "status", "-i", w.gone]],
    "gold approve": lambda w: [
        *gold_lines(w),
        ["gold", "approve", f"n1{EVIL}", f"nobody{EVIL}", "-i", w.index],
    ],
    "engine start": lambda w: [["engine", "start", "--model", EVIL]],
    "engine stop": lambda w: [["engine", "stop"]],
    "engine status": lambda w: [["engine", "status"], ["engine", "status", "--json"]],
    "engine logs": lambda w: [["engine", "logs"]],
    "prompt list": lambda w: [
        *prompt_lines(w),
        ["prompt", "list"],
        ["prompt", "list", "--json"],
    ],
    "prompt show": lambda w: [
        *prompt_lines(w),
        ["prompt", "show", "tag.v3"],
        ["prompt", "show", EVIL],
    ],
    "prompt new": prompt_lines,
    "prompt diff": lambda w: [*prompt_lines(w), ["prompt", "diff", "tag.v1", "tag.v3"]],
    "prompt render": lambda w: [["prompt", "render", "tag.v1", w.gone, "-i", w.index]],
    "prompt try": lambda w: [
        ["prompt", "try", "tag.v1", "tag.v2", w.new, "-i", w.index],
        ["prompt", "try", "tag.v1", w.new, "-i", w.index, "--json"],
    ],
    "prompt compare": lambda w: [
        ["prompt", "compare", "tag.v1", "tag.v2", "-i", w.index, "--limit", "10"],
        ["prompt", "compare", EVIL, "tag.v2", "-i", w.index],
    ],
    "prompt promote": lambda w: [
        *prompt_lines(w),
        ["prompt", "promote", "tag.v3", "--note", EVIL, "--author", EVIL],
        ["prompt", "promote", EVIL],
    ],
}
LEAVES = {
    " ".join(path)
    for path in commands(get_command(cli.app), ())
    if path and path not in {other[:-1] for other in commands(get_command(cli.app), ()) if other}
}


def active(text: str) -> set[str]:
    """The characters of a text that a terminal acts on; a newline is layout."""
    return {
        each
        for each in text
        if (unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") and each != "\n")
        or unicodedata.bidirectional(each) in REVERSING
        or each in "\u200e\u200f"
    }


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[[list[str | Path]], str]:
    """The whole command, its errors and crashes included; what it printed."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def start(line: list[str | Path]) -> str:
        monkeypatch.setattr(sys, "argv", ["llmtagger", *map(str, line)])
        with pytest.raises(SystemExit):
            cli.main()
        said = capfd.readouterr()
        return said.out + said.err

    return start


def test_the_table_has_every_command() -> None:
    assert set(TABLE) == LEAVES


@pytest.mark.parametrize("name", sorted(TABLE))
def test_no_control_character_reaches_the_terminal(
    name: str, world: World, run: Callable[[list[str | Path]], str]
) -> None:
    said = [run(line) for line in TABLE[name](world)]
    assert [active(each) for each in said] == [set()] * len(said)
    assert any(said)
    assert not re.search("Traceback", "".join(said))


def test_hostile_figures_of_an_evaluation(capfd: pytest.CaptureFixture[str]) -> None:
    """The names in a run's results come from its file."""
    figure = {"value": 0.5, "low": 0.4, "high": 0.6}
    system = dict.fromkeys(("micro_f1", "micro_precision", "micro_recall", "macro_f1"), figure)
    names = dict.fromkeys(("knn_vote", "tfidf_linear", "embedding_linear", "lookup", "llm_only"))
    results = {
        "run": {"dataset": EVIL, "regime": EVIL, "labelled": 3},
        "system": {**system, "products": 3},
        "best_baseline": {"name": EVIL, "difference": figure},
        "model": None,
        "seconds": {"total": 1.0},
        **names,
    }
    cli.eval._show(results, Path(EVIL))
    assert active("".join(capfd.readouterr())) == set()
