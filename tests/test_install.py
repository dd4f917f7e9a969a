"""The installer: what it asks uv for, where torch comes from, and what a broken run leaves."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from tools import install
from tools.install import Environment, InstallError

ROOT = Path(__file__).parents[1]
LOCK = """\
six==1.17.0 \\
    --hash=sha256:00
uv==0.13.8 \\
    --hash=sha256:01 \\
    --hash=sha256:02
"""


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """A checkout with locks of three packages and no .venv."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "cpu.lock").write_text(LOCK)
    (tmp_path / "requirements" / "torch.lock").write_text("# no hash\ntorch==2.13.0+cpu ; 1\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    return Environment(tmp_path)


class Commands:
    """Stands for running commands: keeps them, makes what they would, fails where told to."""

    def __init__(self, environment: Environment, fail_at: str = "") -> None:
        self.ran: list[str] = []
        self.files: list[str] = []  # what was installed from one
        self._environment = environment
        self._fail_at = fail_at

    def __call__(
        self,
        command: Sequence[str | Path],
        *,
        quiet: bool = False,
        variables: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> str:
        words = " ".join(map(str, command))
        self.ran.append(words)
        if "-r" in words.split():
            self.files.append(Path(command[-1]).read_text())
        if self._fail_at and self._fail_at in words:
            raise InstallError(f"could not {self._fail_at}")
        programs = self._environment.folder / "bin"
        if "-m venv" in words:
            programs.mkdir(parents=True, exist_ok=True)
            (programs / "python").unlink(missing_ok=True)
            (programs / "python").symlink_to(sys.executable)
        if " -e " in words:
            (programs / "llmtagger").touch()
        return ""


def run_install(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, fail_at: str = ""
) -> list[str]:
    return run_commands(environment, monkeypatch, fail_at).ran


def run_commands(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, fail_at: str = ""
) -> Commands:
    commands = Commands(environment, fail_at)
    monkeypatch.setattr(install, "run", commands)
    if fail_at:
        with pytest.raises(InstallError):
            install.install(environment)
    else:
        install.install(environment)
    return commands


def test_the_second_time_there_is_nothing_to_do(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [each for each in run_install(environment, monkeypatch) if "--dry-run" not in each]
    steps = ("-m venv", "uv.lock", "torch==2.13.0+cpu", "cpu.lock", " -e ")
    order = [next(n for n, command in enumerate(first) if step in command) for step in steps]
    assert order == sorted(order)
    assert run_install(environment, monkeypatch) == []


def any_has(commands: list[str], word: str) -> bool:
    return any(word in command for command in commands)


@pytest.mark.parametrize("step", ["uv.lock", "torch==", "cpu.lock", " -e "])
def test_a_broken_run_is_followed_by_a_clean_one(
    step: str, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_install(environment, monkeypatch, fail_at=step)
    assert not environment.current
    again = run_install(environment, monkeypatch)
    assert "-m venv --clear" in again[0]
    assert environment.current


def test_what_is_installed_has_a_locked_hash_and_is_not_built(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = run_commands(environment, monkeypatch)
    from_files = [each for each in commands.ran if " -r " in each]
    assert len(from_files) == 2
    assert all("--require-hashes --only-binary :all:" in each for each in from_files)
    uv = "uv==0.13.8 \\\n    --hash=sha256:01 \\\n    --hash=sha256:02\n"
    assert commands.files == [uv, LOCK]


def test_a_changed_lock_is_installed_over_the_old_one(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_install(environment, monkeypatch)
    environment.lock.write_text(LOCK.replace("1.17", "1.18"))
    assert not environment.current
    again = run_install(environment, monkeypatch)
    assert not any_has(again, "-m venv")
    assert any_has(again, "cpu.lock")


def test_an_environment_that_was_moved_is_not_current(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_install(environment, monkeypatch)
    moved = environment.root.rename(tmp_path.parent / f"{tmp_path.name}-moved")
    assert not Environment(moved).current


class Sources:
    """Stands for uv: can have torch from those sources that it is told."""

    def __init__(self, environment: Environment, *have: str) -> None:
        self.environment = environment
        self._have = have

    def finds(self, source: Sequence[str], requirement: str) -> str | None:
        assert requirement == "torch==2.13.0+cpu"
        name = " ".join(source) or "pip"
        return None if name in self._have else f"nothing at {name}"


@pytest.mark.parametrize(
    ("have", "expected"),
    [
        (["pip"], []),
        (["pip", "--torch-backend=cpu"], []),
        (["--torch-backend=cpu"], ["--torch-backend=cpu"]),
    ],
    ids=["pip's sources", "both", "PyTorch's index"],
)
def test_where_torch_comes_from(
    have: list[str], expected: list[str], environment: Environment
) -> None:
    assert install.torch_source(Sources(environment, *have)) == expected  # type: ignore[arg-type]


def test_a_torch_that_is_nowhere_has_one_message_with_the_remedy(environment: Environment) -> None:
    with pytest.raises(InstallError) as failure:
        install.torch_source(Sources(environment))  # type: ignore[arg-type]
    message = str(failure.value)
    assert message.startswith("torch==2.13.0+cpu was not found.")
    assert "pip's sources: nothing at pip" in message
    assert "PyTorch's index for CPUs: nothing at --torch-backend=cpu" in message
    assert "PIP_FIND_LINKS=/folder/with/the/wheel make install" in message


@pytest.mark.parametrize(
    ("listing", "expected"),
    [
        ("", {}),
        ("global.cert='/a.pem'\n:env:.cert='/b.pem'\n", {"cert": "/b.pem"}),
        (":env:.cert='/b.pem'\nglobal.cert='/a.pem'\n", {"cert": "/b.pem"}),
        ("global.index-url='a'\ninstall.index-url='b'\n", {"index-url": "b"}),
        ("global.find-links='\\n/a\\n/b'\n", {"find-links": "\n/a\n/b"}),
        ("list.format='columns'\nWARNING: something\n", {}),
    ],
    ids=["empty", "environment last", "environment first", "sections", "lines", "other lines"],
)
def test_pip_settings_are_read(listing: str, expected: dict[str, str]) -> None:
    assert install.pip_settings(listing) == expected


@pytest.mark.parametrize(
    ("pip", "expected"),
    [
        ({}, {}),
        ({"timeout": "3"}, {}),
        ({"find-links": "\n/a\n/b"}, {"UV_FIND_LINKS": "/a,/b"}),
        (
            {"index-url": "file:///a", "cert": "/c"},
            {"UV_DEFAULT_INDEX": "file:///a"} | {"SSL_CERT_FILE": "/c"},
        ),
        (
            {"extra-index-url": "file:///a  file:///b"},
            {"UV_INDEX": "file:///a file:///b", "UV_INDEX_STRATEGY": "unsafe-best-match"},
        ),
    ],
    ids=["none", "of no concern", "several folders", "index and certificate", "extra indexes"],
)
def test_uv_is_told_what_pip_knows(pip: dict[str, str], expected: dict[str, str]) -> None:
    assert install.uv_settings(pip) == expected


def test_an_old_python_is_refused_with_the_remedy() -> None:
    with pytest.raises(InstallError, match=r"Python 3\.9; llmtagger needs 3\.11(.|\n)*PYTHON="):
        install.check_python((3, 9))
    install.check_python((3, 11))


def test_a_failing_command_is_quoted() -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no room left')"]
    with pytest.raises(InstallError, match="no room left"):
        install.run(command, quiet=True)


def test_a_lock_that_names_no_uv_is_told_of(environment: Environment) -> None:
    environment.lock.write_text("six==1.17.0\n")
    with pytest.raises(InstallError, match=r"cpu\.lock does not name uv"):
        _ = environment.uv


def requirements(lock: str) -> list[tuple[Requirement, list[str]]]:
    """The requirements of a lock, each with its hashes."""
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.split(" --hash=") for line in text.splitlines() if line and line[0] != "#"]
    return [(Requirement(wanted.strip()), hashes) for wanted, *hashes in lines]


def pinned() -> dict[str, Version]:
    """What the locks install on this machine."""
    every = [each for lock in ("torch.lock", "cpu.lock") for each, _ in requirements(lock)]
    here = {"platform_python_implementation": "CPython"}
    fitting = [r for r in every if r.marker is None or r.marker.evaluate(here)]
    return {
        canonicalize_name(r.name): Version(str(r.specifier).removeprefix("==")) for r in fitting
    }


def test_every_locked_version_but_torch_has_its_hashes() -> None:
    found = requirements("cpu.lock")
    assert len(found) > 200
    assert [str(each) for each, hashes in found if not hashes] == []
    assert [str(each) for each, _ in found if each.name == "torch"] == []
    [(torch, hashes)] = requirements("torch.lock")
    assert (torch.name, hashes) == ("torch", [])


def test_the_lock_holds_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    versions = pinned()
    for text in (*project["dependencies"], *extras["cpu"], *extras["dev"], *extras["langchain"]):
        asked = Requirement(text)
        version = versions.get(canonicalize_name(asked.name))
        assert version is not None, f"{text} is not in the lock: make lock"
        assert asked.specifier.contains(version, prereleases=True), f"{text}, locked {version}"


def test_the_lock_leaves_out_what_breaks_the_rest() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    left_out = set(tool["uv"]["exclude-dependencies"])
    assert {"torchvision", "torchaudio", "torchcodec", "llama-cpp-python"} <= left_out
    assert not left_out & set(pinned())


def test_torch_is_locked_as_the_cpu_build() -> None:
    assert pinned()["torch"].local == "cpu"


def test_make_lists_what_it_can_do() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    names = [line.split()[1] for line in shown.stdout.splitlines() if line.startswith("  make ")]
    assert {"install", "demo", "test", "check", "lock", "docs", "clean"} <= set(names)
