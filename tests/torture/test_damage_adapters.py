"""An adapter's files, and the merged models in the cache, damaged: never used as they are."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.torture.conftest import write_products
from tests.torture.damaging import Payload, all_damages, pickled, write_scorer
from typer.testing import CliRunner

from llmtagger import adapters, calibration, cli
from llmtagger.adapters import Adapter, Verdict
from llmtagger.backends import tuned_model
from llmtagger.backends.models import Model
from llmtagger.errors import LlmtaggerError, TuningError
from llmtagger.recipe import Recipe
from llmtagger.tagging import TagJob, choose_adapter
from llmtagger.templates import find_template

pytestmark = pytest.mark.usefixtures("nothing_is_unpickled")

AWAY = "http://127.0.0.1:9/v1"  # refuses connections; damage is found before it is asked
BETTER = Verdict(products=50, f1=0.8, added=(0.03, 0.01, 0.05))
NAMES = ("2026-11-20.1", "2026-11-20.3")  # one bit apart
FILES = (adapters.RECORD, adapters.WEIGHTS, adapters.CONFIG, calibration.FILE)


def _put(index: Path, name: str, prompt: str = "tag.v2") -> None:
    """An adapter as a tuning would leave it, with made-up weights."""
    folder = adapters.folder_of(index, name)
    folder.mkdir(parents=True)
    weights, config = f"weights of {name}".encode() * 20, json.dumps({"r": 8, "of": name}).encode()
    (folder / adapters.WEIGHTS).write_bytes(weights)
    (folder / adapters.CONFIG).write_bytes(config)
    adapter = Adapter(
        name=name,
        created="2026-11-20T10:00:00+00:00",
        source="auto",
        base="small",
        base_fingerprint="hub:a/small@1",
        prompt=prompt,
        template=find_template(prompt).identity,
        vocabulary="",
        index="i1",
        settings="s1",
        recipe=Recipe(epochs=3, rate=1e-4),
        versions={"torch": "2.13.0"},
        counts={"train": 2, "tags": 5},
        learnt=("w1", "钱包"),
        held_out=("z3",),
        weights=hashlib.sha256(weights).hexdigest(),
        config=hashlib.sha256(config).hexdigest(),
        seconds=1.5,
        losses={"train": [(1, 2.5), (2, 1.25)], "held_out": []},
        verdict=BETTER,
    )
    adapters.write_adapter(index, adapter)
    write_scorer(index, folder)


@pytest.fixture(scope="module")
def tuned(index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with two adapters, of which the second was live and the first is."""
    folder: Path = shutil.copytree(index, tmp_path_factory.mktemp("tuned") / "shop")
    for name in NAMES:
        _put(folder, name)
    for name in reversed(NAMES):
        adapters.promote(folder, name)
    return folder


@pytest.fixture
def copy(tuned: Path, tmp_path: Path) -> Path:
    """One to damage."""
    return shutil.copytree(tuned, tmp_path / "shop")


def _run(index: Path, *line: str) -> None:
    """`llmtagger` with that index; raises what it would end with."""
    result = CliRunner().invoke(cli.app, [*line, "-i", str(index)])
    if result.exception is not None:
        raise result.exception


def _uses(index: Path) -> dict[str, Callable[[], object]]:
    """What uses the first adapter, which is live."""
    job = TagJob("new.jsonl", index, "tagged.jsonl")
    return {
        "read": lambda: adapters.read_adapter(index, NAMES[0]),
        "list": lambda: _run(index, "adapter", "list"),
        "show": lambda: _run(index, "adapter", "show", NAMES[0]),
        "promote": lambda: _run(index, "adapter", "promote", NAMES[0]),
        "tag with the live one": lambda: choose_adapter(job),
        "tag by name": lambda: choose_adapter(replace(job, adapter=NAMES[0])),
    }


def _same(path: Path, raw: bytes) -> bool:
    try:
        return bool(json.loads(path.read_bytes()) == json.loads(raw))
    except ValueError:
        return False


@pytest.mark.parametrize("name", FILES)
@pytest.mark.seeds(short=2, long=100)
def test_no_file_of_an_adapter_may_be_altered(copy: Path, name: str, seed: int) -> None:
    path = adapters.folder_of(copy, NAMES[0]) / name
    raw, promoted = path.read_bytes(), adapters.promotions(copy)
    uses = _uses(copy)
    if name == calibration.FILE:
        uses = {"read": lambda: adapters.read_scorer(copy, NAMES[0])}
    for what, damaged in all_damages(path, seed):
        path.write_bytes(damaged)
        if name in (adapters.RECORD, calibration.FILE) and _same(path, raw):
            continue  # white space
        for user, use in uses.items():
            with pytest.raises(LlmtaggerError) as refused:
                use()
            assert str(path.parent) in refused.value.message, f"{user}: {what}"
            assert "llmtagger" in refused.value.hint, f"{user}: {what}"
        assert adapters.promotions(copy) == promoted
        path.write_bytes(raw)
    assert adapters.read_adapter(copy, NAMES[0]).verdict == BETTER
    assert adapters.read_scorer(copy, NAMES[0]) is not None


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_tagged_with_a_damaged_adapter(copy: Path, name: str) -> None:
    path = adapters.folder_of(copy, NAMES[0]) / name
    path.write_bytes(pickled(path))
    write_products(copy.parent / "new.jsonl", 2)
    output = copy.parent / "tagged.jsonl"
    line = ["tag", str(copy.parent / "new.jsonl"), "-o", str(output), "--endpoint", AWAY]
    with pytest.raises(LlmtaggerError) as refused:
        _run(copy, *line, "--adapter", NAMES[0])
    assert str(path.parent) in refused.value.message
    wanted = f"adapter judge {NAMES[0]}" if name == calibration.FILE else "--adapter none"
    assert wanted in refused.value.hint
    assert not output.exists()


@pytest.mark.parametrize("name", FILES[:3])
def test_every_bit_of_an_adapter_counts(copy: Path, name: str) -> None:
    path = adapters.folder_of(copy, NAMES[0]) / name
    raw = path.read_bytes()
    for place in range(0, len(raw), 1 + len(raw) // 150):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1 << place % 8]) + raw[place + 1 :])
        if name == adapters.RECORD and _same(path, raw):
            continue
        with pytest.raises(TuningError) as refused:
            adapters.read_adapter(copy, NAMES[0])
        assert "tune again" in refused.value.hint, place


def test_no_bit_of_what_is_live_leads_to_another_adapter(copy: Path) -> None:
    """Nor is it taken for another history."""
    path = copy / adapters.FOLDER / adapters.PROMOTED
    raw = path.read_bytes()
    damaged = [raw[:length] for length in range(len(raw) - 2)]  # the last is a line's end
    for place in range(len(raw)):
        for bit in (0, 1, 5):
            damaged.append(raw[:place] + bytes([raw[place] ^ 1 << bit]) + raw[place + 1 :])
    for content in damaged:
        path.write_bytes(content)
        if not _same(path, raw):
            with pytest.raises(TuningError, match=r"promoted\.json cannot be used") as refused:
                adapters.live(copy)
            assert "remove that file" in refused.value.hint


@pytest.mark.seeds(short=1, long=50)
def test_who_wants_the_live_adapter_is_told_of_the_damage(copy: Path, seed: int) -> None:
    path = copy / adapters.FOLDER / adapters.PROMOTED
    raw = path.read_bytes()
    uses: list[Callable[[], object]] = [
        lambda: _run(copy, "adapter", "list"),
        lambda: _run(copy, "adapter", "promote", NAMES[1]),
        lambda: _run(copy, "adapter", "revert"),
        lambda: choose_adapter(TagJob("new.jsonl", copy, "tagged.jsonl")),
    ]
    for what, damaged in all_damages(path, seed):
        if damaged.strip() == raw.strip():
            continue
        path.write_bytes(damaged)
        if _same(path, raw):
            continue
        for use in uses:
            with pytest.raises(TuningError) as refused:
                use()
            assert "adapter promote" in refused.value.hint, what
        assert path.read_bytes() == damaged
    path.unlink()  # the remedy
    _run(copy, "adapter", "promote", NAMES[1])
    assert adapters.live(copy) == NAMES[1]


def test_what_is_written_by_earlier_versions_is_read(copy: Path) -> None:
    path = adapters.folder_of(copy, NAMES[0]) / adapters.RECORD
    for each in (path, copy / adapters.FOLDER / adapters.PROMOTED):
        record = json.loads(each.read_bytes())
        del record["checksum"]
        each.write_text(json.dumps(record), "utf-8")
    assert adapters.read_adapter(copy, adapters.live(copy)).name == NAMES[0]


def test_a_damaged_adapter_does_not_stand_in_the_way_of_a_new_one(copy: Path) -> None:
    """Its remedy is to tune again, which takes a name at the end."""
    first = adapters.new_name(copy)
    _put(copy, first)
    (adapters.folder_of(copy, first) / adapters.WEIGHTS).write_bytes(b"")
    assert adapters.new_name(copy) == first[:-1] + "2"


MODEL = Model("small", "/models/small", Path("/models/small"), "hub:a/small@1")
SUM = "ab" * 32


@pytest.fixture
def merged(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were merged into, with made-up weights."""
    folders: list[Path] = []

    def make(base: Model, adapter: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "llama"}', "utf-8")
        (folder / "model.safetensors").write_bytes(bytes(range(256)) * 8)
        folders.append(folder)

    monkeypatch.setattr(tuned_model, "has_cuda", lambda: False)
    monkeypatch.setattr(tuned_model, "_make", make)
    return folders


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.seeds(short=2, long=100)
def test_a_damaged_merged_model_is_made_anew(merged: list[Path], seed: int) -> None:
    def use() -> dict[str, bytes]:
        found = tuned_model.with_adapter(MODEL, "shop", Path("adapter"), SUM)
        assert found.folder is not None
        return _contents(found.folder)

    whole = use()
    assert use() == whole
    assert len(merged) == 1
    for name, raw in whole.items():
        path = merged[0] / name
        for what, damaged in all_damages(path, seed):
            made = len(merged)
            path.write_bytes(damaged)
            assert use() == whole, f"{name}: {what}"
            assert len(merged) == made + (damaged != raw)
        path.unlink()
        assert use() == whole
    (merged[0] / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
    assert use() == whole


def test_a_merged_model_without_room_is_told_of(
    merged: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(base: Model, adapter: Path, folder: Path) -> Any:
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr(tuned_model, "_make", full)
    with pytest.raises(TuningError, match="No space left on device") as refused:
        tuned_model.with_adapter(MODEL, "shop", Path("adapter"), SUM)
    assert "LLMTAGGER_CACHE_DIR" in refused.value.hint
