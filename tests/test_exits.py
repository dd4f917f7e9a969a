"""What a command's exit code says, and that no other one is used."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import llmtagger
from llmtagger.cli.exits import ExitCode

CLI = sorted((Path(llmtagger.__file__).parent / "cli").glob("*.py"))
PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
EVIL = "\x1b]0;title\x07[bold]\u202e.csv"


def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The real command, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "llmtagger", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ) | {"COLUMNS": "80"},
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version"], ExitCode.DONE),
        (["index", "info", EVIL], ExitCode.FAILED),
        ([EVIL], ExitCode.USAGE),
        (["index"], ExitCode.USAGE),
        (["tag", "x.csv", "-i", "x", "-o", "y", "--llm", EVIL], ExitCode.USAGE),
        (["gold", "status", "-i", "x", EVIL], ExitCode.USAGE),
    ],
)
def test_the_code_says_what_happened(arguments: list[str], code: ExitCode) -> None:
    done = ran(*arguments)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    if EVIL in arguments:  # whoever names a file has not read its name with care
        assert "]0;title" in done.stderr
    assert not set("\x1b\x07\u202e") & set(done.stdout + done.stderr)


def test_a_crash_spells_out_what_its_message_holds() -> None:
    code = f"""
import llmtagger.cli
def crash(**named):
    raise RuntimeError({EVIL!r})
llmtagger.cli.app = crash
llmtagger.cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.FAILED
    assert "RuntimeError: \\u001b]0;title" in done.stderr
    assert not set("\x1b\x07\u202e") & set(done.stderr)


def test_every_exit_is_one_of_the_codes() -> None:
    exits = [
        (f"{path.name}:{node.lineno}", ast.unparse(node.args[0]))
        for path in CLI
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("typer.Exit", "SystemExit")
    ]
    assert len(exits) >= 8
    known = {*(f"ExitCode.{code.name}" for code in ExitCode), "code", "ExitCode(128 + number)"}
    assert [exit for exit in exits if exit[1] not in known] == []


def test_every_code_is_documented() -> None:
    page = PAGE.read_text("utf-8")
    assert [code for code in ExitCode if f"| {code.value} | {code.meaning} |" not in page] == []
