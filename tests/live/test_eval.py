"""`llmtagger eval run`, `calibrate` and `tag --min-precision` with a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmtagger.backends.vllm_process import ServerInfo

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
NAMES = ("system", "knn_vote", "tfidf_linear", "embedding_linear", "lookup", "llm_only")


def llmtagger(cache: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llmtagger", *words],
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
        env=environment(cache),
    )


def environment(cache: Path) -> dict[str, str]:
    """This process's, with a cache of its own, where no answer is kept yet."""

    return os.environ | {"LLMTAGGER_CACHE_DIR": str(cache)}


def test_an_evaluation_asks_once_and_repeats_itself(server: ServerInfo, tmp_path: Path) -> None:
    run = tmp_path / "run.toml"
    run.write_text(
        f'dataset = "{ROOT / "eval" / "datasets" / "examples"}"\n'
        "test = 30\nask_train = 10\nask_test = 6\n",
        encoding="utf-8",
    )
    found: list[dict[str, Any]] = []
    for endpoint, folder in ((server.url, "a"), (server.url, "b")):
        done = llmtagger(
            tmp_path / "cache",
            *("eval", "run", str(run), "-o", str(tmp_path / folder)),
            *("--limit", "120", "--endpoint", endpoint),
        )
        assert done.returncode == 0, done.stderr
        found.append(json.loads((tmp_path / folder / "results.json").read_text("utf-8")))
    first, second = found
    for name in NAMES:
        assert set(first[name]["micro_f1"]) == {"value", "low", "high"}
        assert first[name]["micro_f1"] == second[name]["micro_f1"]
    assert first["llm_only"]["products"] == 6
    assert first["system"]["out_of_vocabulary"] == 0
    assert first["system"]["micro_f1"]["value"] > 0.2
    assert second["seconds"]["total"] < first["seconds"]["total"]
    assert (tmp_path / "a" / "report.html").stat().st_size > 10_000
    compared = llmtagger(
        tmp_path / "cache", "eval", "compare", str(tmp_path / "a"), str(tmp_path / "b")
    )
    assert "No difference: same tags on all" in compared.stderr


def test_a_calibrated_index_keeps_a_promise_and_needs_no_server(
    server: ServerInfo, tmp_path: Path
) -> None:
    index, cache = tmp_path / "index", tmp_path / "cache"
    examples = ROOT / "examples"
    built = llmtagger(
        cache,
        *("index", "build", str(examples / "catalogue.jsonl"), "-o", str(index)),
        *("--vocabulary", str(examples / "vocabulary.jsonl")),
    )
    assert built.returncode == 0, built.stderr
    fitted = llmtagger(
        cache, "calibrate", "-i", str(index), "--endpoint", server.url, "--ask", "20"
    )
    assert fitted.returncode == 0, fitted.stderr
    scorer = json.loads((index / "scorer.json").read_text("utf-8"))
    assert scorer["ask"]["products"] == 20
    assert scorer["unasked"]["f1"] > 0.3
    output = tmp_path / "tagged.jsonl"
    tagged = llmtagger(
        cache,
        *("tag", str(examples / "new.jsonl"), "-i", str(index), "-o", str(output)),
        *("--llm", "never", "--min-precision", "0.8", "--show", "0", "--json"),
    )
    assert tagged.returncode == 0, tagged.stderr
    summary = json.loads(tagged.stdout)
    cut = summary["cut"]["threshold"]
    records = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    assert len(records) == summary["products"] == 46
    assert summary["asked"] == 0
    assert all(tag["score"] >= cut - 1e-4 for record in records for tag in record["tags"])
    assert all(tag["score"] < cut for record in records for tag in record["review"])
