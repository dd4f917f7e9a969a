"""The next version of a prompt: checked before it is written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from llmtagger.config import PromptSettings
from llmtagger.errors import PromptError
from llmtagger.sandbox import Fill, filling
from llmtagger.stages.prompting import PromptRenderer
from llmtagger.templates import OWN, Examples, TemplateFile, make_live, save_version

PROMOTIONS = "promotions.jsonl"


def make_version(
    parent: TemplateFile,
    text: str,
    *,
    note: str,
    author: str,
    examples: Examples | None = None,
    folder: Path = OWN,
    filling: Callable[[TemplateFile], Fill] = filling,
) -> TemplateFile:
    """Save `text` as the version after `parent`'s; raises `PromptError` where it does not render.

    `examples` are the parent's, or those that a header in `text` asks for, unless given. `filling`
    may try it elsewhere.
    """
    edited = TemplateFile(parent.name, re.sub(r"\r\n?", "\n", text))
    own = edited.header if edited.body != edited.source else parent.header
    header = own.model_copy(
        update={"note": note, "author": author, "examples": examples or own.examples}
    )
    if edited.body == parent.body and header.examples == parent.header.examples:
        raise PromptError("nothing was changed", hint="no version was made")
    PromptRenderer(edited, PromptSettings(), max_tags=10, filling=filling)
    return save_version(parent, edited.body, header, folder)


def promote_version(
    name: str, config: Path, *, note: str, author: str, folder: Path = OWN
) -> str | None:
    """Make a version live in the settings, and write down why; the version it takes the place of.

    One line a promotion is added to `promotions.jsonl` beside the versions.
    """
    before = make_live(name, config)
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": name,
        "before": before,
        "author": author,
        "note": note,
    }
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / PROMOTIONS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return before
