"""Settings: one TOML file read into frozen values with a fingerprint."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmtagger.errors import ConfigError

Record = TypeVar("Record", bound=BaseModel)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class RetrievalSettings(_Section):
    """How neighbours and candidates are found."""

    neighbours: int = Field(10, ge=0, le=200, description="similar products that vote")
    candidates: int = Field(48, ge=1, le=1000, description="tags that are scored")
    offered: int = Field(24, ge=1, le=500, description="tags that the model may choose from")
    text_limit: int = Field(2000, ge=50, description="characters of a product that are compared")
    keys: int = Field(24, ge=1, le=200, description="keys that a span answer may use")
    near_duplicate: float = Field(
        0.95, gt=0, le=1, description="similarity from which a product counts as the same one"
    )


class PromptSettings(_Section):
    """What a prompt holds."""

    examples: int = Field(3, ge=0, le=50, description="similar products that are shown")
    description_tokens: int = Field(160, ge=0, description="most tokens of a description")
    example_tokens: int = Field(40, ge=0, description="most tokens of an example's text")
    redact: bool = Field(False, description="e-mails, phone, ID and card numbers are masked")


class AnswerSettings(_Section):
    """What an answer may hold."""

    max_tags: int = Field(10, ge=1, le=200)
    max_tokens: int = Field(256, ge=8, le=4096)


class ScoringSettings(_Section):
    """Where scores are cut."""

    threshold: float = Field(0.35, ge=0, le=1, description="kept from this score on")
    review: float = Field(0.15, ge=0, le=1, description="shown for review from this score on")
    max_tags: int | None = Field(None, ge=1, description="most tags of a product, its own included")
    categories: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        default_factory=dict, description="thresholds of categories"
    )
    blocklist: list[str] = Field(default_factory=list, description="tags that are never used")


class EngineSettings(_Section):
    """How the model's server is asked."""

    concurrency: int = Field(64, ge=1, le=1024, description="requests in flight")
    timeout: float = Field(300.0, gt=0, description="seconds for one answer")
    price_per_million_tokens: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="what a million tokens cost"
    )


class CatalogueSettings(_Section):
    """How input files are read."""

    encoding: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    on_duplicate: Literal["error", "first", "last"] = "error"


def _version(task: str) -> str:
    return rf"^{task}\.v[1-9][0-9]*$"


class LiveSettings(_Section):
    """Which prompt is used for each kind of tags, where none is named."""

    tag: str | None = Field(None, description="of closed tags", pattern=_version("tag"))
    span: str | None = Field(None, description="of `key=value` tags", pattern=_version("span"))
    free: str | None = Field(None, description="of free tags", pattern=_version("free"))


class Settings(_Section):
    """Everything that a run depends on besides its input, index, model and prompt."""

    retrieval: RetrievalSettings = RetrievalSettings()
    prompt: PromptSettings = PromptSettings()
    answer: AnswerSettings = AnswerSettings()
    scoring: ScoringSettings = ScoringSettings()
    engine: EngineSettings = EngineSettings()
    catalogue: CatalogueSettings = CatalogueSettings()
    live: LiveSettings = LiveSettings()

    @property
    def fingerprint(self) -> str:
        """A hash of what changes an answer.

        Thresholds re-cut it, the engine only serves it, and a prompt has an identity of its own.
        """
        kept = self.model_dump(mode="json", exclude={"scoring", "engine", "live"})
        if not self.prompt.redact:  # as it was before there was this setting
            del kept["prompt"]["redact"]
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


DEFAULT_FILE = "llmtagger.toml"


def load_settings(path: Path | None = None) -> Settings:
    """Settings from `path`, else from `llmtagger.toml` in the working folder, else defaults."""
    if path is None:
        path = Path(DEFAULT_FILE)
        if not path.exists():
            return Settings()
    return read_toml(
        path,
        Settings,
        f"the settings {path}",
        unreadable="check --config",
        invalid="docs/configuration.md lists every setting",
    )


def read_toml(
    path: Path, record: type[Record], name: str, *, unreadable: str, invalid: str
) -> Record:
    """One TOML file as a record; else a `ConfigError` with the hint for its case.

    `name` is what the file is called where it cannot be read.
    """
    try:
        return record.model_validate(parse_toml(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise ConfigError(f"cannot read {name}: {error.strerror}", hint=unreadable) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}", hint="correct that line") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
        )
        raise ConfigError(f"{path}: {faults}", hint=invalid) from error


def parse_toml(text: str) -> dict[str, Any]:
    """A TOML text as a table; `TOMLDecodeError` also where it is nested too deeply to be read.

    >>> parse_toml("[answer]\\nmax_tags = 3")
    {'answer': {'max_tags': 3}}
    """
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise tomllib.TOMLDecodeError("values are nested too deeply") from error
