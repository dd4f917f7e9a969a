"""Help, completion, -v, progress without a terminal, gates and Markdown of the command line."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
import typer
from tools.cli_reference import commands, help_of
from typer.main import get_command
from typer.testing import CliRunner

from llmtagger.cli import app, eval
from llmtagger.cli.exits import ExitCode
from llmtagger.cli.progress import ProgressReporter, StageReporter
from llmtagger.cli.results import show_results
from llmtagger.cli.screen import Screen
from llmtagger.datatypes import Evidence, Product, ScoredTag, ScoredTags, Tag, TaggedProduct
from llmtagger.output import Cut

PATHS = list(commands(get_command(app), ()))


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_help_is_not_cut_at_80_columns(path: tuple[str, ...]) -> None:
    lines = help_of(path).splitlines()
    usage = [line for line in lines if not line.startswith("Usage:")]
    assert [line for line in usage if line.endswith(("...", "…"))] == []
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_commands(shell: str) -> None:
    line = {"COMP_WORDS": "llmtagger ca", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "llmtagger ca"}
    line |= {"_LLMTAGGER_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    result = CliRunner().invoke(app, [], env=line, prog_name="llmtagger")
    assert "calibrate" in result.stdout
    assert "doctor" not in result.stdout


@pytest.mark.parametrize(("options", "loud"), [((), False), (("-v",), True)])
def test_verbose_logs_what_is_decided(options: tuple[str, ...], loud: bool) -> None:
    code = (
        "import logging, sys; from llmtagger.cli import app; import llmtagger.cli.doctor as d;"
        "d.examine = lambda: (logging.getLogger('llmtagger.x').info('decided [b]\\x1b[1m'),"
        " logging.getLogger('llmtagger.x').warning('odd'), [d.Finding('a', d.Health.OK, 'b')])[2];"
        "app(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *options, "doctor"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ("s  decided [b]\\u001b[1m\n" in done.stderr) is loud
    assert "Note: odd" in done.stderr
    assert "\x1b" not in done.stderr


def test_without_a_terminal_each_stage_is_a_line() -> None:
    out, now = io.StringIO(), 0.0
    with StageReporter(Screen(file=out), clock=lambda: now) as reporter:
        for second in range(100):
            now = float(second)
            reporter.stage("tagging", second, 100)
        reporter.waiting("starting the server", 1.0)
    assert out.getvalue().splitlines() == [
        "tagging 0/100",
        "tagging 30/100",
        "tagging 60/100",
        "tagging 90/100",
        "starting the server",
    ]


def test_the_time_left_does_not_count_the_start_of_the_server() -> None:
    out, now = io.StringIO(), 0.0
    with ProgressReporter(Screen(file=out, width=100), clock=lambda: now) as reporter:
        reporter.started(100, 0)
        for done in range(12):
            now = 300.0 + done  # the server took five minutes, and each product takes a second
            reporter.finished_one(TaggedProduct(Product(str(done), "Mug")))
    assert "About 94 seconds for the 94 products left, based on the first 6.\n" in out.getvalue()


@pytest.mark.parametrize(
    ("text", "gate"),
    [("0.6", ("micro_f1", 0.6)), ("macro_f1=0.55", ("macro_f1", 0.55)), ("=1", ("micro_f1", 1.0))],
)
def test_a_gate_names_a_metric_and_a_value(text: str, gate: tuple[str, float]) -> None:
    assert eval._gate(text) == gate


@pytest.mark.parametrize("text", ["", "f1=0.5", "micro_f1=", "micro_f1=60", "-0.1", "nan"])
def test_what_is_no_gate_is_wrong_usage(text: str) -> None:
    arguments = ["eval", "run", "none.toml", "-o", "none", f"--fail-under={text}"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == ExitCode.USAGE
    assert "micro_f1" in result.stderr


def test_a_figure_under_the_gate_is_exit_code_4(capsys: pytest.CaptureFixture[str]) -> None:
    system = {"micro_f1": {"value": 0.612}, "macro_f1": {"value": 0.4}}
    eval._check([("micro_f1", 0.612), ("macro_f1", 0.4)], system)
    with pytest.raises(typer.Exit) as stopped:
        eval._check([("micro_f1", 0.6), ("macro_f1", 0.41)], system)
    assert stopped.value.exit_code == ExitCode.GATE
    assert capsys.readouterr().err == "Gate failed: macro_f1 is 0.400, below 0.41.\n"


def test_the_precision_of_nothing_passes_no_gate(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        eval._check([("micro_precision", 0.1)], {"micro_precision": {"value": None}})
    assert capsys.readouterr().err == "Gate failed: micro_precision is –, below 0.1.\n"


def test_a_figure_of_few_products_has_no_interval() -> None:
    few = {"value": 0.5, "low": None, "high": None}
    assert eval._interval(few) == "0.500 [–]"
    assert eval.points(few) == "+50.0 points [–]"
    assert eval.points({"value": 0.5, "low": 0.4, "high": 0.6}) == "+50.0 points [+40.0, +60.0]"


def test_figures_as_markdown() -> None:
    table = eval._markdown(("", "F1"), [("a|b", "0.5"), ("c", "0.25")])
    assert table == "|  | F1 |\n| --- | ---: |\n| a\\|b | 0.5 |\n| c | 0.25 |\n"


def test_shown_results_are_cut_as_those_that_are_written() -> None:
    items = [ScoredTag(Tag(name, name), 0.9, Evidence()) for name in ("first", "second", "sale")]
    tagged = TaggedProduct(
        Product("1", "x"), ScoredTags((*items, ScoredTag(Tag("dim", "dim"), 0.2, Evidence())))
    )
    out = io.StringIO()
    show_results(Screen(file=out), [tagged], Cut(0.5, 0.1, max_tags=1, blocklist=("sale",)))
    shown = out.getvalue()
    assert [line[:10].strip() for line in shown.splitlines() if " 0." in line] == [
        "first", "? second", "? dim"
    ]  # fmt: skip
    assert "? marks a tag for review (over the limit, below the threshold)." in shown


def test_results_end_with_a_legend() -> None:
    out = io.StringIO()
    scored = ScoredTags((ScoredTag(Tag("a", "a"), 0.9, Evidence()),))
    show_results(Screen(file=out), [TaggedProduct(Product("1", "x"), scored)], Cut(0.5, 0.1))
    assert "Each row is a tag, its score" in out.getvalue()
    assert "?" not in out.getvalue()
    empty = io.StringIO()
    show_results(Screen(file=empty), [], Cut(0.5, 0.1))
    assert empty.getvalue() == ""
