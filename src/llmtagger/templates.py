"""Prompt templates on disk: which there are, which is live, and how the next version is made.

A template is `TASK.vN.jinja`. The working folder's `prompts/` comes first, then those that come
with llmtagger. A version is never edited: saving makes the next one, with a header that says who
made it, when, out of what, and why.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import tempfile
import tomllib
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmtagger.config import DEFAULT_FILE, LiveSettings, parse_toml
from llmtagger.datatypes import Strategy, TagKind
from llmtagger.errors import ConfigError, PromptError
from llmtagger.locking import sole

OWN = Path("prompts")  # of the working folder
_PACKAGED = Path(__file__).parent / "prompts"
_CHECKOUT = Path(__file__).parents[2] / "prompts"
_TASKS = {"tag": TagKind.CLOSED, "span": TagKind.SPAN, "free": TagKind.FREE}
_NAME = re.compile(r"([a-z]+)\.v([1-9][0-9]{0,5})")
# A comment, so that the template is one file and Jinja itself reads past it.
_HEADER = re.compile(r"\A\{#---\r?\n(.*?)^---#\}\r?\n?", re.DOTALL | re.MULTILINE)


class Examples(BaseModel):
    """Which labelled products a prompt shows: `pinned` ones first, then by the strategy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: Strategy = Strategy.SIMILAR
    count: int | None = Field(None, ge=0, le=50, description="None: as the settings say")
    pinned: tuple[str, ...] = ()


class Header(BaseModel):
    """What a version says of itself, in TOML at its top."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parent: str | None = None
    author: str = ""
    date: datetime | None = None
    note: str = ""
    examples: Examples = Examples()

    def text(self) -> str:
        """The header as it stands in a file; what is not said is left out."""
        table = tomlkit.document()
        for key, value in self.model_dump(mode="json", exclude_defaults=True).items():
            table[key] = value
        # The one text that would end the comment early. In TOML it can only be inside a string.
        said = tomlkit.dumps(table).replace("#}", "#\\u007d")
        return f"{{#---\n{said}---#}}\n" if said else ""


@dataclass(frozen=True)
class TemplateFile:
    """A prompt template on disk; `name` is like `tag.v1` and says the task and the version."""

    name: str
    source: str

    @property
    def hash(self) -> str:
        """Identifies the template's text."""
        return hashlib.sha256(self.source.encode()).hexdigest()[:16]

    @property
    def identity(self) -> str:
        """Tells this template, and this text of it, from others."""
        return f"{self.name}@{self.hash}"

    @property
    def task(self) -> str:
        """The first part of the name."""
        return self.name.split(".")[0]

    @property
    def kind(self) -> TagKind:
        """The kind of tags that the template asks for."""
        return _TASKS[self.task]

    @cached_property
    def header(self) -> Header:
        """What the version says of itself. `PromptError` where that cannot be read."""
        found = _HEADER.match(self.source)
        if found is None:
            return Header()
        try:
            return Header.model_validate(parse_toml(found[1]))
        except (tomllib.TOMLDecodeError, ValidationError) as error:
            said = str(error).split("\n")
            raise PromptError(
                f"the header of the prompt {self.name} cannot be read: {'; '.join(said[:3])}",
                hint="prompts/README.md says what a header may hold",
            ) from error

    @property
    def body(self) -> str:
        """The source without its header."""
        return _HEADER.sub("", self.source)


def list_templates() -> list[str]:
    """The names of all templates, by task and version."""
    found = {path.stem for folder in _folders() for path in folder.glob("*.jinja")}
    known = [name for name in found if (split := _split(name)) and split[0] in _TASKS]
    return sorted(known, key=_split)


def find_template(name: str) -> TemplateFile:
    """A template by name (`tag.v1`) or by the path of a `.jinja` file."""
    path = Path(name)
    if not name.endswith(".jinja"):
        places = [folder / f"{name}.jinja" for folder in _folders()]
        path = next((place for place in places if place.is_file()), places[-1])
    if path.stem.split(".")[0] not in _TASKS:
        raise PromptError(
            f"{path.name!r} does not say its task",
            hint=f"a prompt's file is named TASK.vN.jinja; tasks are {', '.join(_TASKS)}",
        )
    try:
        return TemplateFile(path.stem, path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(
            f"no prompt {name!r} ({error})",
            hint=f"known are {', '.join(list_templates())}, or give the path of a .jinja file",
        ) from error


def default_template(kind: TagKind) -> str:
    """The name of the prompt that comes with llmtagger for tags of that kind."""
    return f"{_task(kind)}.v1"


def tuning_template(kind: TagKind) -> str:
    """The name of the short prompt for tuned models, which need no instructions and no examples."""
    return f"{_task(kind)}.v2"


def live_template(kind: TagKind, live: LiveSettings) -> str:
    """The name of the prompt in use for tags of that kind: what the settings say, or the default.

    >>> live_template(TagKind.CLOSED, LiveSettings(tag="tag.v7"))
    'tag.v7'
    """
    return getattr(live, _task(kind)) or default_template(kind)


def save_version(
    parent: TemplateFile, body: str, header: Header, folder: Path = OWN
) -> TemplateFile:
    """Write the next version of the parent's task into `folder`, and return it.

    Its header gets the parent's name, and the date of now. What is there is never overwritten: of
    two that save at once, one gets the next number.
    """
    header = header.model_copy(
        update={"parent": parent.name, "date": datetime.now(UTC).replace(microsecond=0)}
    )
    # As it is read again: a version has one hash, whatever the line ends of where it was written.
    source = header.text() + re.sub(r"\r\n?", "\n", _HEADER.sub("", body))
    folder.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(prefix=".", suffix=".part", dir=folder)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(source)
        os.chmod(part, 0o644)
        while True:
            name = _next(parent.task, folder)
            try:
                os.link(part, folder / f"{name}.jinja")  # unlike a rename, fails where one is
            except FileExistsError:
                continue
            return TemplateFile(name, source)
    finally:
        os.unlink(part)


def difference(old: TemplateFile, new: TemplateFile) -> list[str]:
    """The lines of a unified diff of two templates' texts, their headers aside."""
    return list(
        difflib.unified_diff(
            old.body.splitlines(), new.body.splitlines(), old.name, new.name, lineterm=""
        )
    )


def make_live(name: str, config: Path = Path(DEFAULT_FILE)) -> str | None:
    """Name a template as the live one of its task in the settings; the one it takes the place of.

    The rest of the file stays as it is, comments included.
    """
    template = find_template(name)
    if template.name != name:
        raise PromptError(
            f"{name} is a file, and the settings name versions",
            hint="save it as a version first: llmtagger prompt new",
        )
    busy = ConfigError(f"{config} is being written", hint="try again")
    with sole(config.resolve().parent, busy):
        try:
            table = tomlkit.parse(config.read_text(encoding="utf-8-sig"))
        except FileNotFoundError:
            table = tomlkit.document()
        except (OSError, UnicodeDecodeError, tomlkit.exceptions.TOMLKitError) as error:
            raise ConfigError(
                f"{config} cannot be read: {error}", hint="correct the file"
            ) from error
        live = table.setdefault("live", tomlkit.table())
        if not isinstance(live, MutableMapping):
            raise ConfigError(f"live in {config} is no table", hint="write [live]")
        before = live.get(template.task)
        live[template.task] = name
        part = config.with_name(f".{config.name}.part")
        part.write_text(tomlkit.dumps(table), encoding="utf-8")
        part.replace(config)
    return None if before is None else str(before)


def _task(kind: TagKind) -> str:
    return next(task for task, asked in _TASKS.items() if asked is kind)


def _folders() -> Sequence[Path]:
    """Prompts lie in the installed package; in a checkout, at its top."""
    return OWN, _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT


def _split(name: str) -> tuple[str, int]:
    found = _NAME.fullmatch(name)
    return (found[1], int(found[2])) if found else ("", 0)


def _next(task: str, folder: Path) -> str:
    stems = {path.stem for place in (*_folders(), folder) for path in place.glob(f"{task}.*.jinja")}
    return f"{task}.v{max((_split(stem)[1] for stem in stems), default=0) + 1}"
