"""The key of a server: where it may come from, and that no error quotes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmtagger.backends.api_key import api_key
from llmtagger.errors import ConfigError


def test_without_a_setting_there_is_none() -> None:
    assert api_key() is None


def test_it_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMTAGGER_API_KEY", " canary\n")
    assert api_key() == "canary"


def test_it_comes_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("canary\n")
    (tmp_path / "key").chmod(0o600)
    monkeypatch.setenv("LLMTAGGER_API_KEY_FILE", str(tmp_path / "key"))
    assert api_key() == "canary"
    monkeypatch.setenv("LLMTAGGER_API_KEY", "nearer")
    assert api_key() == "nearer"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the file .*: No such file"),
        (b"", "is empty"),
        (b"canary\ncanary", "holds more than a key"),
        ("canary é".encode(), "holds more than a key"),
        (b"canary \xff", "it is no text"),
    ],
    ids=["missing", "empty", "two lines", "other characters", "no text"],
)
def test_an_unusable_file_is_refused_without_quoting_it(
    content: bytes | None, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "file").write_bytes(content)
        (tmp_path / "file").chmod(0o600)
    monkeypatch.setenv("LLMTAGGER_API_KEY_FILE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=message) as caught:
        api_key()
    assert "canary" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_file_that_others_can_read_is_refused(
    mode: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("canary\n")
    (tmp_path / "key").chmod(mode)
    monkeypatch.setenv("LLMTAGGER_API_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(ConfigError, match=f"can be read by others .mode {mode:04o}.") as caught:
        api_key()
    assert f"chmod 600 {tmp_path / 'key'}" in caught.value.hint
