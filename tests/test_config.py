"""Settings: what a file may say, and which of it an answer depends on."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmtagger.config import (
    AnswerSettings,
    CatalogueSettings,
    EngineSettings,
    PromptSettings,
    RetrievalSettings,
    ScoringSettings,
    Settings,
    load_settings,
)
from llmtagger.errors import ConfigError


def test_a_file_changes_what_it_names_only(tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    path.write_text(
        '\ufeff[scoring]\nthreshold = 1\n[catalogue]\nencoding = "gb18030"\n'
        'columns = { title = "品名" }\n',
        encoding="utf-8",
    )
    assert load_settings(path) == Settings(
        scoring=ScoringSettings(threshold=1.0),
        catalogue=CatalogueSettings(encoding="gb18030", columns={"title": "品名"}),
    )


def test_without_a_path_the_working_folder_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings() == Settings()
    Path("llmtagger.toml").write_text("[answer]\nmax_tags = 3\n")
    assert load_settings().answer.max_tags == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(
            "[retrieval]\nneighbors = 3\n", "retrieval.neighbors: Extra", id="unknown-key"
        ),
        pytest.param("[retreival]\n", "retreival: Extra", id="unknown-section"),
        pytest.param('[answer]\nmax_tags = "many"\n', "answer.max_tags: ", id="text"),
        pytest.param('[answer]\nmax_tags = "3"\n', "answer.max_tags: ", id="number-in-quotes"),
        pytest.param("[answer]\nmax_tags = true\n", "answer.max_tags: ", id="boolean"),
        pytest.param("[answer]\nmax_tags = 2.5\n", "answer.max_tags: ", id="fraction"),
        pytest.param("[answer]\nmax_tags = 0\n", "answer.max_tags: ", id="too-small"),
        pytest.param("[scoring]\nthreshold = 1.1\n", "scoring.threshold: ", id="too-large"),
        pytest.param("[scoring]\nthreshold = nan\n", "scoring.threshold: ", id="not-a-number"),
        pytest.param("[scoring]\nmax_tags = 0\n", "scoring.max_tags: ", id="no-tags"),
        pytest.param(
            "[scoring.categories]\nShoes = 2\n", "scoring.categories.Shoes: ", id="of-a-category"
        ),
        pytest.param('[scoring]\nblocklist = "sale"\n', "scoring.blocklist: ", id="no-list"),
        pytest.param('[catalogue]\non_duplicate = "keep"\n', "on_duplicate: ", id="choice"),
        pytest.param("answer = 3\n", "answer: ", id="not-a-section"),
        pytest.param(
            '[answer]\nmax_tags = "a"\n[prompt]\nx = 1\n', "prompt.x: ", id="every-fault-is-told"
        ),
        pytest.param("[answer\n", "not valid TOML", id="bad-toml"),
        pytest.param("[answer]\nmax_tags = 1\nmax_tags = 2\n", "not valid TOML", id="twice"),
        pytest.param(b"\xff\xfe", "not valid TOML", id="not-utf-8"),
        pytest.param(f"answer = {'[' * 9999}", "nested too deeply", id="deep-lists"),
        pytest.param(f"answer = {'{a=' * 9999}", "nested too deeply", id="deep-tables"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str | bytes, said: str) -> None:
    path = tmp_path / "shop.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert said in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("name", ["absent.toml", "."])
def test_a_path_that_is_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot read the settings"):
        load_settings(tmp_path / name)


@pytest.mark.parametrize(
    "settings",
    [
        Settings(retrieval=RetrievalSettings(neighbours=11)),
        Settings(retrieval=RetrievalSettings(near_duplicate=0.9)),
        Settings(prompt=PromptSettings(examples=4)),
        Settings(answer=AnswerSettings(max_tags=3)),
        Settings(catalogue=CatalogueSettings(columns={"title": "name"})),
    ],
    ids=lambda settings: next(iter(settings.model_fields_set)),
)
def test_the_fingerprint_changes_with_what_answers_depend_on(settings: Settings) -> None:
    assert settings.fingerprint != Settings().fingerprint
    assert settings.fingerprint == settings.model_copy(deep=True).fingerprint


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(scoring=ScoringSettings(threshold=0.9, review=0.8)),
        Settings(scoring=ScoringSettings(max_tags=1, blocklist=["a"], categories={"a": 0.1})),
        Settings(engine=EngineSettings(concurrency=1, timeout=1.0)),
        Settings(engine=EngineSettings(price_per_million_tokens=2.5)),
    ],
    ids=["default", "scoring", "limits", "engine", "price"],
)
def test_the_fingerprint_leaves_out_what_can_be_recut_or_resent(settings: Settings) -> None:
    assert settings.fingerprint == Settings().fingerprint
