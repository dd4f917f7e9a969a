"""The three products that this project was conceived with, tagged freely by a stronger model.

Run with `pytest tests/model --model FOLDER`, FOLDER being for instance Qwen2.5-Coder-1.5B-Instruct.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmtagger.catalog import read_catalog
from llmtagger.tagging import TagJob, run
from llmtagger.vocabulary import read_vocabulary

EXAMPLES = Path(__file__).parents[2] / "examples"
ENOUGH = 3  # of the five expected tags of each product


class Quiet:
    """A reporter that says nothing."""

    def waiting(self, message: str, seconds: float) -> None: ...

    def started(self, total: int, done: int) -> None: ...

    def understood(self, understood: object) -> None: ...

    def finished_one(self, tagged: object) -> None: ...


@pytest.fixture(scope="module")
def tagged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output for the three products with free tags, from an index of the examples."""
    from llmtagger.backends.encoders import load_encoder
    from llmtagger.backends.index_writer import build

    model = request.config.getoption("--model")
    if not model:
        pytest.skip("needs --model FOLDER")
    folder = tmp_path_factory.mktemp("free")
    products = read_catalog(
        EXAMPLES / "catalogue.jsonl", rejected=lambda row: pytest.fail(row.reason)
    )
    vocabulary = read_vocabulary(EXAMPLES / "vocabulary.jsonl")
    build(products, folder / "index", load_encoder("multilingual"), vocabulary=vocabulary)
    lines = (EXAMPLES / "new.jsonl").read_text(encoding="utf-8").splitlines()
    three = [line for line in lines if '"conceived-' in line]
    (folder / "three.jsonl").write_text("\n".join(three) + "\n", encoding="utf-8")
    output = folder / "tagged.jsonl"
    job = TagJob(
        str(folder / "three.jsonl"),
        folder / "index",
        str(output),
        model=model,
        prompt="free.v1",
        llm="always",
    )
    run(job, Quiet())
    return output


@pytest.mark.model
@pytest.mark.parametrize("name", ["conceived-1", "conceived-2", "conceived-3"])
def test_the_model_finds_most_expected_tags(tagged: Path, name: str) -> None:
    """Literally or by alias, among what the model itself proposed."""
    vocabulary = read_vocabulary(EXAMPLES / "vocabulary.jsonl")
    records = [json.loads(line) for line in tagged.read_text(encoding="utf-8").splitlines()]
    gold_lines = (EXAMPLES / "new_gold.jsonl").read_text(encoding="utf-8").splitlines()
    gold = [json.loads(line) for line in gold_lines]
    record = next(each for each in records if each["id"] == name)
    expected = next(each["tags"] for each in gold if each["id"] == name)
    said = [t["tag"] for t in record["tags"] + record["review"] if t["evidence"]["model"]["chosen"]]
    said += [each["text"] for each in record["rejected"] if each["reason"] == "below_threshold"]

    def identity(text: str) -> str:
        known = vocabulary.resolve(text)
        return known.id if known else text

    found = {identity(text) for text in said} & {identity(text) for text in expected}
    assert len(found) >= ENOUGH, f"found {found} of {expected}; the model said {said}"
