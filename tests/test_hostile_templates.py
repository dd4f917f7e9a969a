"""A template that somebody sent, given on the command line: every way in refuses it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from llmtagger.backends.fakes import HashingEncoder
from llmtagger.backends.index_writer import build
from llmtagger.cli import app
from llmtagger.datatypes import Product
from llmtagger.errors import PromptError

WAYS_IN = {
    "tag": ("tag", "new.jsonl", "-o", "out.jsonl", "--llm", "never", "--prompt", "tag.v9.jinja"),
    "tag --dry-run": ("tag", "new.jsonl", "-o", "-", "--dry-run", "--prompt", "tag.v9.jinja"),
    "render": ("prompt", "render", "tag.v9.jinja", "new.jsonl"),
    "new": ("prompt", "new", "tag.v1", "tag.v9.jinja"),
}
HARM = {
    "long text": "{{ 'a' * 10**9 }}",
    "wide number": "{{ '%999999999d' % 1 }}",
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "power": "{{ 9 ** (9 ** (9 ** 9)) }}",
    "escape": "{{ ''.__class__.__mro__ }}",
    "include": "{% include '../secret.txt' %}",
    "include of an absolute path": "{% include '/etc/passwd' %}",
    "import": "{% from 'tag.v1.jinja' import x %}",
}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "shop"
    build([Product("w", "Leather wallet", tags=("wallet",), lang="en")], folder, HashingEncoder())
    return folder


def run(words: Sequence[str], index: Path) -> BaseException | None:
    options = [] if words[1] == "new" else ["-i", str(index)]
    return CliRunner().invoke(app, [*words, *options]).exception


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
@pytest.mark.parametrize("words", WAYS_IN.values(), ids=WAYS_IN)
def test_a_hostile_template_is_refused(
    words: Sequence[str], harm: str, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("new.jsonl").write_text('{"id": "1", "title": "A wallet"}\n')
    Path("secret.txt").write_text("canary")
    template = f"{{% block system %}}S{{% endblock %}}{{% block user %}}{harm}{{% endblock %}}"
    Path("tag.v9.jinja").write_text(template)
    error = run(words, index)
    assert isinstance(error, PromptError)
    assert error.hint
    assert "canary" not in error.message
    assert not Path("out.jsonl").exists()
    assert not Path("prompts").exists()
    assert psutil.Process().memory_info().rss < 4 << 30


def test_a_template_that_means_no_harm_is_filled(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("new.jsonl").write_text('{"id": "1", "title": "A wallet"}\n')
    body = "{% block system %}S{% endblock %}{% block user %}{{ product.title }}{% endblock %}"
    Path("tag.v9.jinja").write_text(body)
    for name in ("tag", "new"):  # the others count tokens, for which they make the model ready
        assert run(WAYS_IN[name], index) is None
    assert Path("out.jsonl").is_file()
    assert Path("prompts/tag.v3.jinja").is_file()
