"""The adapters of an index: records, what is live, and what must not be used."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmtagger import adapters
from llmtagger.adapters import Adapter, Verdict
from llmtagger.errors import TuningError
from llmtagger.recipe import Recipe

BETTER = Verdict(products=50, f1=0.8, added=(0.03, 0.01, 0.05))
NO_BETTER = Verdict(products=50, f1=0.7, added=(0.01, -0.02, 0.04))
BAD_NAMES = [
    *("", ".", "..", "../other", "a/b", "/etc", "a\\b", ".hidden", "-i", "_x"),
    *("Upper", "a b", "a\n", "a\0", "ä", "a" * 65),
]


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A folder for adapters; what else an index holds does not matter to them."""
    folder = tmp_path / "index"
    folder.mkdir()
    return folder


Put = Callable[..., Adapter]


@pytest.fixture
def put(index: Path) -> Put:
    """`put(name, **changed)`: an adapter with weights of its own, written into the index."""

    def write(name: str, **changed: Any) -> Adapter:
        folder = adapters.folder_of(index, name)
        folder.mkdir(parents=True)
        content = f"weights of {name}".encode()
        (folder / adapters.WEIGHTS).write_bytes(content)
        fields: dict[str, Any] = {
            "name": name,
            "created": "2026-11-20T10:00:00+00:00",
            "source": "auto",
            "base": "small",
            "base_fingerprint": "hub:a/small@1",
            "prompt": "tag.v1",
            "template": "tag.v1@abc",
            "vocabulary": "v1",
            "index": "i1",
            "settings": "s1",
            "recipe": Recipe(epochs=3, rate=1e-4),
            "versions": {"torch": "2.13.0"},
            "counts": {"train": 2, "tags": 5},
            "learnt": ("w1", "钱包"),
            "held_out": ("z3",),
            "weights": hashlib.sha256(content).hexdigest(),
            "seconds": 1.5,
            "losses": {"train": [(1, 2.5), (2, 1.25)], "held_out": []},
        }
        adapter = Adapter(**fields | changed)
        adapters.write_adapter(index, adapter)
        return adapter

    return write


@pytest.mark.parametrize("more", [{}, {"verdict": BETTER, "parent": "first"}], ids=["new", "whole"])
def test_a_record_is_read_back_as_it_was(index: Path, put: Put, more: dict[str, Any]) -> None:
    adapter = put("2026-11-20.1", **more)
    assert adapters.read_adapter(index, "2026-11-20.1") == adapter
    folder = index / "adapters" / "2026-11-20.1"
    assert sorted(path.name for path in folder.iterdir()) == ["adapter.json", adapters.WEIGHTS]
    tuned = adapters.served(index, adapter)
    assert (tuned.name, tuned.folder, tuned.weights) == (adapter.name, folder, adapter.weights)


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_a_name_that_leads_elsewhere_is_refused(index: Path, put: Put, name: str) -> None:
    put("good")
    for act in (adapters.folder_of, adapters.read_adapter, adapters.promote):
        with pytest.raises(TuningError, match="cannot be an adapter's name") as refused:
            act(index, name)
        assert "lower-case" in refused.value.hint
    assert not (index / "adapters" / adapters.PROMOTED).exists()


@pytest.mark.parametrize("name", ["a", "0", "2026-11-20.1", "shop_v2", "a..b", "a" * 64])
def test_a_plain_name_is_a_folder_of_the_index(index: Path, name: str) -> None:
    assert adapters.folder_of(index, name).resolve() == index.resolve() / "adapters" / name


def test_an_adapter_that_is_not_there_is_named(index: Path, put: Put) -> None:
    put("here")
    (index / "adapters" / "empty").mkdir()
    for name in ("gone", "empty"):
        with pytest.raises(TuningError, match=f"has no adapter '{name}'") as refused:
            adapters.read_adapter(index, name)
        assert "adapter list" in refused.value.hint


def edited(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / adapters.RECORD
        path.write_text(json.dumps(json.loads(path.read_bytes()) | changes), "utf-8")

    return edit


def cut_record(folder: Path) -> None:
    path = folder / adapters.RECORD
    path.write_bytes(path.read_bytes()[:-20])


def other_weights(folder: Path) -> None:
    (folder / adapters.WEIGHTS).write_bytes(b"weights of soup")


def less_weights(folder: Path) -> None:
    os.truncate(folder / adapters.WEIGHTS, 3)


def no_weights(folder: Path) -> None:
    (folder / adapters.WEIGHTS).unlink()


def a_folder_as_record(folder: Path) -> None:
    (folder / adapters.RECORD).unlink()
    (folder / adapters.RECORD).mkdir()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        pytest.param(cut_record, "record cannot be read", id="cut"),
        pytest.param(edited(seconds="long"), "record cannot be read", id="mistyped"),
        pytest.param(edited(run="rm"), "record cannot be read", id="another field"),
        pytest.param(edited(recipe={"epochs": 0}), "record cannot be read", id="recipe"),
        pytest.param(a_folder_as_record, "record cannot be read", id="a folder"),
        pytest.param(edited(name="other"), "about another adapter", id="renamed"),
        pytest.param(edited(format=2), "of another format", id="format"),
        pytest.param(other_weights, "weights are not those", id="weights"),
        pytest.param(less_weights, "weights are not those", id="cut weights"),
        pytest.param(no_weights, "No such file", id="no weights"),
        pytest.param(edited(seconds=2.5), "has been altered", id="altered"),
        pytest.param(edited(weights="0" * 64), "weights are not those", id="digest"),
    ],
)
def test_a_damaged_adapter_is_refused(
    index: Path, put: Put, damage: Callable[[Path], None], says: str
) -> None:
    put("shop", verdict=BETTER)
    folder = adapters.folder_of(index, "shop")
    damage(folder)
    for act in (adapters.read_adapter, adapters.promote):
        with pytest.raises(TuningError, match=says) as refused:
            act(index, "shop")
        assert str(folder) in refused.value.message
        assert "tune again" in refused.value.hint
    assert adapters.promotions(index).live is None


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", [adapters.RECORD, adapters.WEIGHTS, adapters.PROMOTED])
def test_a_pickle_is_refused_and_never_loaded(
    index: Path, put: Put, tmp_path: Path, name: str
) -> None:
    trap = tmp_path / "sprung"
    payload = pickle.dumps(Payload(trap))
    pickle.loads(payload)
    trap.rmdir()  # it works
    put("shop")
    folder = adapters.folder_of(index, "shop")
    (folder.parent if name == adapters.PROMOTED else folder).joinpath(name).write_bytes(payload)
    act = adapters.promotions if name == adapters.PROMOTED else adapters.list_adapters
    with pytest.raises(TuningError, match="cannot be used"):
        act(index)
    assert not trap.exists()


def test_other_files_beside_an_adapter_are_never_loaded(
    index: Path,
    put: Put,
    tmp_path: Path,
    make_model: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither where its record is read nor where it is trained on from or merged."""
    from llmtagger.backends import hardware, tuned_model
    from llmtagger.tuning.examples import Example
    from llmtagger.tuning.training import Trainer

    monkeypatch.setattr(hardware, "has_cuda", lambda: False)
    base = make_model(tmp_path / "base", ["mug", "user", ":", "assistant"])
    adapter = put("shop")
    folder = adapters.folder_of(index, "shop")
    examples = [Example("p", "en", (("user", "mug"),), "mug")]
    Trainer(base, folder, Recipe(rank=2, epochs=1)).train(examples, [])
    trap = tmp_path / "sprung"
    for name in ("adapter_model.bin", "checkpoint.pt", "optimizer.pt", "training_args.bin"):
        (folder / name).write_bytes(pickle.dumps(Payload(trap)))
    (folder / "modeling_llama.py").write_text(f"import os; os.mkdir({str(trap)!r})", "utf-8")
    weights = hashlib.sha256((folder / adapters.WEIGHTS).read_bytes()).hexdigest()
    adapters.write_adapter(index, adapter.model_copy(update={"weights": weights}))
    assert adapters.read_adapter(index, "shop").weights == weights
    Trainer(base, tmp_path, Recipe(rank=2), parent=folder)
    tuned_model.merge(base, folder, tmp_path / "merged")
    (folder / adapters.WEIGHTS).unlink()  # what is left has the old, unsafe form
    with pytest.raises(FileNotFoundError):
        Trainer(base, tmp_path, Recipe(rank=2), parent=folder)
    with pytest.raises(TuningError, match=r"holds no adapter_model\.safetensors"):
        tuned_model.merge(base, folder, tmp_path / "again")
    assert not trap.exists()


def test_only_what_is_better_is_promoted(index: Path, put: Put) -> None:
    put("good", verdict=BETTER)
    put("poor", verdict=NO_BETTER)
    put("level", verdict=Verdict(products=9, f1=0.7, added=(0.02, 0.0, 0.04)))
    put("new")
    for name, says in (
        ("poor", r"adds \+1\.0 \[-2\.0, \+4\.0\] points"),
        ("level", r"adds \+2\.0 \[\+0\.0, \+4\.0\] points"),
        ("new", "it was never judged"),
    ):
        with pytest.raises(TuningError, match=says) as refused:
            adapters.promote(index, name)
        assert f"--adapter {name}" in refused.value.hint
        assert adapters.promotions(index).names == (None,)
    adapters.promote(index, "good")
    assert adapters.live(index) == "good"


def test_promotions_are_taken_back_one_by_one(index: Path, put: Put) -> None:
    for name in ("one", "two"):
        put(name, verdict=BETTER)
    for name in ("one", "two", "two", "one"):
        adapters.promote(index, name)
    assert adapters.promotions(index).names == (None, "one", "two", "one")
    found = []
    for _ in range(3):
        back = adapters.revert(index)
        assert back == adapters.promotions(index).live
        found.append(back)
    assert found == ["two", "one", None]
    with pytest.raises(TuningError, match="nothing to go back to") as refused:
        adapters.revert(index)
    assert "promote" in refused.value.hint


def test_without_a_promotion_nothing_is_live(index: Path, put: Put) -> None:
    put("shop", verdict=BETTER)
    assert adapters.promotions(index).live is None
    with pytest.raises(TuningError, match=r"no adapter of .* is live") as refused:
        adapters.live(index)
    assert "llmtagger tune" in refused.value.hint
    with pytest.raises(TuningError, match="nothing to go back to"):
        adapters.revert(index)
    assert not (index / "adapters" / adapters.PROMOTED).exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"names": [3]}', '{"names": ["a"], "more": 1}'])
def test_damaged_promotions_are_refused(index: Path, put: Put, text: str) -> None:
    put("shop", verdict=BETTER)
    (index / "adapters" / adapters.PROMOTED).write_text(text, "utf-8")
    for act in (adapters.promotions, adapters.live, adapters.revert):
        with pytest.raises(TuningError, match="it cannot be read") as refused:
            act(index)
        assert refused.value.hint
    with pytest.raises(TuningError, match="it cannot be read"):
        adapters.promote(index, "shop")


@pytest.mark.parametrize("names", [[], [None, "../../elsewhere"], ["UPPER"]], ids=str)
def test_promotions_of_no_adapter_are_refused(index: Path, names: list[str | None]) -> None:
    """Somebody else's file: no name leads out of the index, and none is an empty history."""
    (index / "adapters").mkdir()
    (index / "adapters" / adapters.PROMOTED).write_text(json.dumps({"names": names}), "utf-8")
    with pytest.raises(TuningError) as refused:
        adapters.read_adapter(index, adapters.live(index))
    assert refused.value.hint


def test_adapters_are_listed_oldest_first(index: Path, put: Put) -> None:
    assert adapters.list_adapters(index) == []
    put("a", created="2026-11-21T10:00:00+00:00")
    put("z", created="2026-11-20T10:00:00+00:00")
    put("c", created="2026-11-20T10:00:00+00:00")
    (index / "adapters" / ".unfinished").mkdir()
    (index / "adapters" / "unjudged").mkdir()
    assert [each.name for each in adapters.list_adapters(index)] == ["c", "z", "a"]


def test_a_new_name_is_a_new_one(index: Path, put: Put) -> None:
    names = []
    for _ in range(3):
        names.append(adapters.new_name(index))
        put(names[-1])
    day = names[0].removesuffix(".1")
    assert names == [f"{day}.{number}" for number in (1, 2, 3)]
    assert len(day) == len("2026-11-20")


def test_an_adapter_fits_its_model_prompt_and_vocabulary(put: Put) -> None:
    adapter = put("shop")
    same = ("hub:a/small@1", "tag.v1@abc", "v1")
    assert adapters.check_fits(adapter, *same) == []
    (warning,) = adapters.check_fits(adapter, *same[:2], "v2")
    assert "shop" in warning
    assert "tune --continue" in warning
    with pytest.raises(TuningError, match=r"made for small .hub:a/small@1., not for") as refused:
        adapters.check_fits(adapter, "hub:a/small@2", *same[1:])
    assert "auto" in refused.value.hint
    with pytest.raises(TuningError, match=r"tuned to the prompt .*abc, not to .*x$") as no:
        adapters.check_fits(adapter, same[0], "tag.v1@x", "v1")
    assert "no adapter" in no.value.hint


def test_without_an_index_there_is_no_list(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="there is no index"):
        adapters.list_adapters(tmp_path / "nowhere")
