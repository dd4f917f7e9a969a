"""Files of a command are checked before anything is read: nothing that is read is overwritten."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmtagger.catalog.preflight import Output, check_files
from llmtagger.errors import ConfigError

LINKS: dict[str, Callable[[Path, Path], object]] = {
    "symlink": lambda source, output: output.symlink_to(source.name),
    "hard-link": lambda source, output: output.hardlink_to(source),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text('{"id": "1", "title": "Mug"}\n')
    return path


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_a_link_to_the_input_is_no_output(
    source: Path, tmp_path: Path, link: Callable[[Path, Path], object]
) -> None:
    output = tmp_path / "out.jsonl"
    link(source, output)
    with pytest.raises(ConfigError, match=r"the output .*out\.jsonl is an input") as refused:
        check_files([source], [Output(output, "the output")], hint="use --in-place")
    assert refused.value.hint == "use --in-place"


@pytest.mark.parametrize("name", ["in.jsonl", "./in.jsonl", "../{}/in.jsonl", "folder/../in.jsonl"])
def test_another_spelling_of_the_input_is_no_output(
    source: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="is an input"):
        check_files([source], [Output(name.format(tmp_path.name), "the output")])


def test_outputs_that_are_yet_to_be_made_may_not_be_one(tmp_path: Path) -> None:
    outputs = [
        Output(tmp_path / "new" / "out.jsonl", "the output"),
        Output(f"{tmp_path}/new/../new/out.jsonl", "the details file"),
    ]
    with pytest.raises(ConfigError, match="the details file and the output are the same file"):
        check_files([], outputs)
    check_files([], [outputs[0], Output(tmp_path / "new" / "details.jsonl", "the details file")])


CHECK = """
import sys
from llmtagger.catalog.preflight import Output, check_files
from llmtagger.errors import ConfigError
try:
    check_files([sys.argv[1]], [Output(sys.argv[2], "the output")])
except ConfigError as error:
    sys.exit(error.message)
"""


@pytest.mark.parametrize(
    ("read", "written", "fault"),
    [
        pytest.param("-", "in.jsonl", True, id="stdin"),
        pytest.param("/dev/stdin", "in.jsonl", True, id="a-name-of-stdin"),
        pytest.param("/proc/self/fd/0", "in.jsonl", True, id="another-name-of-stdin"),
        pytest.param("in.jsonl", "-", False, id="stdout-elsewhere"),
        pytest.param("-", "-", False, id="stdin-to-stdout"),
        pytest.param("-", "out.jsonl", False, id="another-file"),
    ],
)
def test_what_the_shell_has_opened_is_known(
    source: Path, tmp_path: Path, read: str, written: str, fault: bool
) -> None:
    with source.open() as stdin:
        done = subprocess.run(
            [sys.executable, "-c", CHECK, read, written],
            cwd=tmp_path,
            stdin=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
    assert ("is an input" in done.stderr) is fault
    assert done.returncode == fault


def test_appending_to_the_input_is_seen(source: Path, tmp_path: Path) -> None:
    with source.open("a") as stdout:
        done = subprocess.run(
            [sys.executable, "-c", CHECK, "in.jsonl", "-"],
            cwd=tmp_path,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert "is an input" in done.stderr


@pytest.mark.parametrize(
    ("output", "says"),
    [
        pytest.param(Output("out.txt", "the output", (".csv",)), "end it in .csv", id="suffix"),
        pytest.param(Output("folder", "the output"), "name a file", id="a-folder"),
        pytest.param(Output("in.jsonl", "the report", folder=True), "name a folder", id="a-file"),
        pytest.param(Output("in.jsonl/out.csv", "the output"), "name a folder", id="in-a-file"),
        pytest.param(
            Output("in.jsonl/deep/er/out.csv", "the output"), "name a folder", id="deep-in-a-file"
        ),
    ],
)
def test_a_place_that_cannot_be(
    source: Path, tmp_path: Path, output: Output, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(source.parent)
    with pytest.raises(ConfigError) as refused:
        check_files([], [output])
    assert says in refused.value.hint
    assert output.role in refused.value.message


@pytest.mark.parametrize("folder", [True, False])
def test_a_folder_that_may_not_be_written_to(
    tmp_path: Path, folder: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked of the system, since root may write anywhere."""
    asked: list[Path] = []

    def access(path: Path, mode: int) -> bool:
        asked.append(path)
        return False

    monkeypatch.setattr(os, "access", access)
    with pytest.raises(ConfigError, match="Permission denied") as refused:
        check_files([], [Output(tmp_path / "new" / "deep", "the output", folder=folder)])
    assert "may be written to" in refused.value.hint
    assert asked == [tmp_path]


@pytest.mark.parametrize(
    "output",
    [
        Output("/dev/null", "the output"),
        Output("-", "the output", (".csv",)),
        Output("new/folder/out.csv", "the output", (".csv",)),
        Output("OUT.CSV", "the output", (".csv",)),
        Output("folder", "the index", folder=True),
        Output("new", "the index", folder=True),
    ],
    ids=lambda output: f"{output.path}",
)
def test_places_that_will_do(
    tmp_path: Path, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    check_files(["/dev/null", tmp_path], [output])
    assert {each.name for each in tmp_path.iterdir()} == {"folder"}
