"""`llmtagger eval` and `llmtagger calibrate` from the outside: files, messages and exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from llmtagger.asking import Asked
from llmtagger.backends.fakes import FakeGenerator, HashingEncoder
from llmtagger.calibration import read_calibration
from llmtagger.cli import app
from llmtagger.cli.exits import ExitCode
from llmtagger.errors import (
    CatalogError,
    ConfigError,
    IndexDamaged,
    IndexMissing,
    LlmtaggerError,
    Unpromised,
)

EXAMPLES = Path(__file__).parents[1] / "examples"
ENTRY = 'title = "Ours"\nlicence = "ours"\nfile = "./gold.jsonl"\nkind = "closed"\n'
RUN = 'dataset = "ours"\nregime = "cold"\nlabelled = 30\ntest = 20\nllm = "never"\nask_test = 0\n'
BLUNT = "[settings.retrieval]\nneighbours = 0\ncandidates = 1\n"
Record = dict[str, Any]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def said(result: Result) -> str:
    """What a person reads, without the breaks of lines that were too long."""
    assert result.exit_code == 0, result.exception
    return " ".join(result.stderr.split())


def records(path: Path) -> list[Record]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module", autouse=True)
def counted_words() -> Iterator[None]:
    """Evaluation chooses the encoder by language; here words are counted instead."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llmtagger.backends.encoders.load_encoder", lambda name: HashingEncoder())
        yield


def make_run(folder: Path, text: str = RUN) -> Path:
    """A gold set of one's own, `ours`, with a run beside it."""
    card = folder / "ours"
    card.mkdir()
    lines = (EXAMPLES / "catalogue.jsonl").read_text("utf-8").splitlines(keepends=True)
    (card / "gold.jsonl").write_text("".join(lines[:75]), "utf-8")
    (card / "dataset.toml").write_text(ENTRY, "utf-8")
    path = folder / "run.toml"
    path.write_text(text, "utf-8")
    return path


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two evaluations on the same products: `sharp`, and `blunt`, which looks at hardly a tag."""
    folder = tmp_path_factory.mktemp("evaluated")
    path = make_run(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMTAGGER_CACHE_DIR", str(folder / "cache"))
        for name, more in (("sharp", ""), ("blunt", BLUNT)):
            path.write_text(RUN + more, "utf-8")
            said(run("eval", "run", path, "-o", folder / name))
    return {name: folder / name for name in ("sharp", "blunt")}


def test_a_run_writes_figures_samples_and_a_report(evaluated: dict[str, Path]) -> None:
    folder = evaluated["sharp"]
    results = json.loads((folder / "results.json").read_text("utf-8"))
    samples = records(folder / "samples.jsonl")
    report = (folder / "report.html").read_text("utf-8")
    assert (results["run"]["dataset"], results["run"]["llm"]) == ("ours", "never")
    assert results["products"]["test"] == len(samples) >= 20
    right = sum(len({*s["kept"]["system"]} & {*s["gold"]}) for s in samples)
    gold = sum(len(s["gold"]) for s in samples)
    assert results["system"]["micro_recall"]["value"] == pytest.approx(right / gold)
    assert results["llm_only"] is None
    assert report.lower().startswith("<!doctype html>")
    assert samples[0]["title"] in report


def test_a_run_is_told_in_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_run(tmp_path, RUN.replace("30", "0"))
    monkeypatch.setenv("COLUMNS", "200")
    text = said(run("eval", "run", path, "-o", tmp_path / "new" / "results", "--limit", "40"))
    found = json.loads((tmp_path / "new" / "results" / "results.json").read_text("utf-8"))
    assert found["products"]["train"] + found["products"]["test"] <= 40
    assert "ours, cold, 0 labelled" in text
    figure = found["system"]["micro_f1"]
    assert f"system {figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]" in text
    assert "lookup (best baseline)" in text
    assert "System minus lookup:" in text
    assert "llm_only" not in text
    assert "report.html" in text


def test_a_run_is_printed_as_json(tmp_path: Path) -> None:
    path = make_run(tmp_path, RUN.replace("30", "0"))
    result = run("eval", "run", path, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 0
    assert result.stdout == (tmp_path / "out" / "results.json").read_text("utf-8")


def test_two_runs_are_compared(
    evaluated: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    page = tmp_path / "compared.html"
    text = said(run("eval", "compare", evaluated["blunt"], evaluated["sharp"], "-o", page))
    assert "B minus A:" in text
    assert "micro_recall" in text
    assert "b is better" in text
    assert str(page) in text
    assert "blunt" in page.read_text("utf-8")
    same = said(run("eval", "compare", evaluated["sharp"], evaluated["sharp"]))
    assert re.search(r"No difference: same tags on all \d+ products\.", same)
    assert "points" not in same  # figures of nothing are not shown
    turned = run("eval", "compare", evaluated["sharp"], evaluated["blunt"], "--json")
    assert json.loads(turned.stdout)["micro_recall"]["verdict"] == "a is better"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of some of the examples, calibrated."""
    folder = tmp_path_factory.mktemp("calibrated")
    lines = (EXAMPLES / "catalogue.jsonl").read_text("utf-8").splitlines(keepends=True)[:75]
    (folder / "shop.jsonl").write_text("".join(lines), "utf-8")
    said(
        run("index", "build", folder / "shop.jsonl", "-o", folder / "index", "--encoder", "hashing")
    )
    text = said(run("calibrate", "-i", folder / "index"))
    found = read_calibration(folder / "index")
    assert found is not None
    assert (found.products, found.model, found.asked, found.ask) == (75, None, None, None)
    assert (
        f"Fitted to 75 labelled products: cross-validated micro-F1 {found.unasked.f1:.3f}" in text
    )
    for precision in (0.9, 0.95):
        promised = found.unasked.cut_for(precision) is not None
        says = "keeps" if promised else "cannot be promised yet: all tags go to review"
        assert f"--min-precision {precision}: {says}" in text
    return folder / "index"


def tag(index: Path, folder: Path, *options: str) -> Result:
    inputs = folder / "new.jsonl"
    lines = (EXAMPLES / "new.jsonl").read_text("utf-8").splitlines(keepends=True)[:8]
    inputs.write_text("".join(lines), "utf-8")
    output = folder / "out.jsonl"
    return run("tag", inputs, "-i", index, "-o", output, "--show", "0", "--llm", "never", *options)


@pytest.mark.parametrize("precision", [0.7, 0.9, 0.95])
def test_only_what_is_promised_is_kept(index: Path, tmp_path: Path, precision: float) -> None:
    calibration = read_calibration(index)
    assert calibration is not None
    cut = calibration.unasked.cut_for(precision)
    result = tag(index, tmp_path, "--min-precision", str(precision))
    assert result.exit_code == (ExitCode.UNPROMISED if cut is None else ExitCode.DONE)
    text = " ".join(result.stderr.split())
    tagged = records(tmp_path / "out.jsonl")
    scores = [item["score"] for record in tagged for item in record["tags"]]
    rest = [item["score"] for record in tagged for item in record["review"]]
    assert f"8 products: {len(scores)} tags kept, {len(rest)} for review" in text
    assert "The model was asked about 0 of 8." in text
    assert all(score >= round(cut or 2.0, 4) for score in scores)
    assert all(score <= round(cut or 2.0, 4) for score in rest)
    assert all(r["run"]["scorer"] == f"fitted@{calibration.fingerprint}" for r in tagged)


def test_a_lower_promise_keeps_more(index: Path, tmp_path: Path) -> None:
    kept = []
    for precision in ("0.6", "0.7", "0.8", "0.999"):
        result = tag(index, tmp_path, "--min-precision", precision, "--json")
        kept.append(json.loads(result.stdout)["kept"])
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > kept[-1] == 0


class FakeSource:
    """A server of our own that is called by another name than its model is known by."""

    identity = "small@weights:1"
    notes: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.opened = 0

    @contextmanager
    def open(self, waiting: object) -> Iterator[Asked]:
        self.opened += 1
        yield Asked(FakeGenerator(lambda prompt, constraint: "[]"), lambda: None)


def test_the_model_that_was_calibrated_is_known_when_tagging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (EXAMPLES / "catalogue.jsonl").read_text("utf-8").splitlines(keepends=True)[:40]
    (tmp_path / "shop.jsonl").write_text("".join(lines), "utf-8")
    own, source = tmp_path / "index", FakeSource()
    for module in ("tagging", "evaluation.answers"):
        monkeypatch.setattr(f"llmtagger.{module}.model_source", lambda *_: source)
    monkeypatch.setenv("LLMTAGGER_CACHE_DIR", str(tmp_path / "cache"))
    said(run("index", "build", tmp_path / "shop.jsonl", "-o", own, "--encoder", "hashing"))
    said(run("calibrate", "-i", own, "--model", "small", "--ask", "20"))
    found = read_calibration(own)
    assert found is not None
    assert (found.model, found.ask is not None) == ("small@weights:1", True)
    again = said(run("calibrate", "-i", own, "--model", "small", "--ask", "20"))
    assert "on 20 products" in again
    assert source.opened == 1  # its answers were kept
    assert "Note:" not in said(tag(own, tmp_path, "--llm", "auto"))


def test_after_a_change_the_scorer_is_stale(tmp_path: Path) -> None:
    lines = (EXAMPLES / "catalogue.jsonl").read_text("utf-8").splitlines(keepends=True)
    for name, part in (("shop", lines[:30]), ("more", lines[30:32])):
        (tmp_path / f"{name}.jsonl").write_text("".join(part), "utf-8")
    own = tmp_path / "index"
    said(run("index", "build", tmp_path / "shop.jsonl", "-o", own, "--encoder", "hashing"))
    said(run("calibrate", "-i", own))
    assert "Note:" not in said(tag(own, tmp_path))
    said(run("index", "add", own, tmp_path / "more.jsonl"))
    refused = tag(own, tmp_path, "--min-precision", "0.9", "--fresh")
    assert isinstance(refused.exception, Unpromised)
    assert "llmtagger calibrate" in refused.exception.hint
    assert "index changed since calibration" in said(tag(own, tmp_path, "--fresh"))
    said(run("calibrate", "-i", own))
    assert "Note:" not in said(tag(own, tmp_path, "--fresh"))


def test_a_damaged_scorer_is_an_error_until_it_is_written_anew(tmp_path: Path) -> None:
    lines = (EXAMPLES / "catalogue.jsonl").read_text("utf-8").splitlines(keepends=True)[:25]
    (tmp_path / "shop.jsonl").write_text("".join(lines), "utf-8")
    own = tmp_path / "index"
    said(run("index", "build", tmp_path / "shop.jsonl", "-o", own, "--encoder", "hashing"))
    (own / "scorer.json").write_text("{", "utf-8")
    refused = tag(own, tmp_path)
    assert isinstance(refused.exception, IndexDamaged)
    said(run("calibrate", "-i", own))
    said(tag(own, tmp_path))


def test_a_promise_needs_a_calibration(tmp_path: Path) -> None:
    lines = (EXAMPLES / "catalogue.jsonl").read_text("utf-8").splitlines(keepends=True)[:10]
    (tmp_path / "shop.jsonl").write_text("".join(lines), "utf-8")
    own = tmp_path / "index"
    said(run("index", "build", tmp_path / "shop.jsonl", "-o", own, "--encoder", "hashing"))
    for options in (("--min-precision", "0.9"), ("--min-precision", "0.9", "--threshold", "0.5")):
        refused = tag(own, tmp_path, *options)
        assert isinstance(refused.exception, ConfigError)
        assert refused.exception.hint
    few = run("calibrate", "-i", own)
    assert isinstance(few.exception, CatalogError)
    assert "10 labelled products are too few" in few.exception.message
    assert not (own / "scorer.json").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (["calibrate", "-i", "{tmp}/nowhere"], IndexMissing, "nowhere"),
        (["eval", "run", "{tmp}/no.toml", "-o", "{tmp}/x"], ConfigError, "no.toml"),
        (["eval", "run", "{tmp}/faulty.toml", "-o", "{tmp}/x"], ConfigError, "regime"),
        (["eval", "run", "{tmp}/nocard.toml", "-o", "{tmp}/x"], ConfigError, "dataset.toml"),
        (["eval", "run", "{tmp}/away.toml", "-o", "{tmp}/x"], ConfigError, "not part of"),
        (
            ["eval", "run", "{tmp}/away.toml", "-o", "{tmp}/x", "--data", "{tmp}/no"],
            ConfigError,
            "there is no file",
        ),
        (["eval", "compare", "{tmp}/a", "{tmp}/b"], ConfigError, "holds no evaluation"),
    ],
    ids=["index", "run", "fault", "card", "data root", "data", "evaluation"],
)
def test_what_is_missing_is_named(
    arguments: list[str], error: type[LlmtaggerError], says: str, tmp_path: Path
) -> None:
    card = tmp_path / "away"
    card.mkdir()
    (card / "dataset.toml").write_text(ENTRY.replace("./gold", "gold"), "utf-8")
    for name in ("away", "nocard"):
        (tmp_path / f"{name}.toml").write_text(RUN.replace("ours", name), "utf-8")
    (tmp_path / "faulty.toml").write_text(RUN.replace("cold", "tepid"), "utf-8")
    result = run(*(each.format(tmp=tmp_path) for each in arguments))
    assert isinstance(result.exception, error)
    assert says in result.exception.message
    assert result.exception.hint


def test_the_data_root_may_stand_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_run(tmp_path, RUN.replace("30", "0"))
    card, data = tmp_path / "ours", tmp_path / "data"
    (card / "dataset.toml").write_text(ENTRY.replace("./gold", "gold"), "utf-8")
    data.mkdir()
    (card / "gold.jsonl").rename(data / "gold.jsonl")
    refused = run("eval", "run", path, "-o", tmp_path / "out")
    assert isinstance(refused.exception, ConfigError)
    assert "LLMTAGGER_GOLD" in refused.exception.hint
    monkeypatch.setenv("LLMTAGGER_GOLD", str(data))
    said(run("eval", "run", path, "-o", tmp_path / "out"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["eval", "run", "run.toml"],
        ["eval", "run", "run.toml", "-o", "x", "--limit", "3"],
        ["eval", "compare", "a"],
        ["calibrate"],
        ["calibrate", "-i", "x", "--ask", "1"],
        ["tag", "x.csv", "-i", "x", "-o", "y", "--min-precision", "0.2"],
        ["tag", "x.csv", "-i", "x", "-o", "y", "--min-precision", "95"],
        ["tag", "x.csv", "-i", "x", "-o", "y", "--llm", "sometimes"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_an_error_is_two_lines_and_exit_code_1(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "llmtagger", "eval", "compare", "a", "b"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith("Error: a holds no evaluation")
    assert "llmtagger eval run" in hint
