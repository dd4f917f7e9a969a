"""The adapters of an index: a folder each, with a record of how it was made; one may be live.

INDEX/adapters/<name>/adapter.json              the record
INDEX/adapters/<name>/adapter_model.safetensors the weights, with adapter_config.json beside them
INDEX/adapters/promoted.json                    the names that were live, the last one being it

The adapter called `general` comes with llmtagger and serves any index of closed tags.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from llmtagger.calibration import Calibration, read_calibration
from llmtagger.errors import TuningError
from llmtagger.hashing import sha256
from llmtagger.keeping import write_whole
from llmtagger.recipe import Recipe

FOLDER = "adapters"
GENERAL = "general"
_SHIPPED = Path(__file__).parent / "general"
WEIGHTS, CONFIG, RECORD, PROMOTED = (
    *("adapter_model.safetensors", "adapter_config.json"),
    *("adapter.json", "promoted.json"),
)
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_FORMAT = 1
_CHECKSUM = "checksum"


@dataclass(frozen=True, slots=True)
class Tuned:
    """An adapter to be served with a model: its name, folder, and its weights' SHA-256."""

    name: str
    folder: Path
    weights: str


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Kept(_Record):
    """What has a file of its own, with a checksum; earlier versions wrote none."""

    def write(self, path: Path) -> None:
        """Write it in one step."""
        fields = self.model_dump(mode="json")
        text = json.dumps(fields | {_CHECKSUM: _checksum(fields)}, ensure_ascii=False, indent=1)
        try:
            write_whole(path, text + "\n")
        except OSError as error:
            raise TuningError(
                f"cannot write {path}: {error.strerror}",
                hint="check that its folder is writable and has room, then try again",
            ) from error

    @classmethod
    def read(cls, path: Path) -> tuple[Self, bool]:
        """What is kept there, and whether it is what was written; `ValueError` where it is none."""
        try:
            fields = json.loads(path.read_bytes())
            stated = fields.pop(_CHECKSUM, None)
        except (TypeError, AttributeError, RecursionError) as error:
            raise ValueError("no JSON object") from error
        return cls.model_validate(fields), stated in (None, _checksum(fields))


def _checksum(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


class Verdict(_Record):
    """Micro-F1 of the pipeline with the adapter's answers, on products held out.

    `added` is the paired difference to the pipeline without them, with the ends of its 95 %
    interval.
    """

    products: int
    f1: float
    added: tuple[float, float, float]

    @property
    def better(self) -> bool:
        """Whether the interval lies above 0."""
        return self.added[1] > 0

    @property
    def points(self) -> str:
        """What is added, in points of F1, for a person."""
        value, low, high = (100 * each for each in self.added)
        return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


class Adapter(_Kept):
    """How an adapter was made. `base` and `template` must be the same where it is used.

    `learnt` are the ids of the products that it was tuned on, its parents' included, `held_out`
    of those that it never saw: only these tell how good it is.
    """

    format: int = _FORMAT
    name: str
    created: str
    source: str = Field(description="what the base model was asked for by")
    base: str
    base_fingerprint: str
    prompt: str = Field(description="what the prompt was asked for by")
    template: str
    vocabulary: str = Field(description="its hash; empty of one that is for any")
    index: str
    settings: str
    recipe: Recipe
    versions: dict[str, str]
    counts: dict[str, int]
    learnt: tuple[str, ...]
    held_out: tuple[str, ...]
    weights: str = Field(description="SHA-256 of the weights")
    config: str | None = Field(None, description="SHA-256 of its settings; once, none was kept")
    seconds: float
    losses: dict[str, list[tuple[int, float]]]
    parent: str | None = None
    verdict: Verdict | None = None


class Promotions(_Kept):
    """The names that were live, oldest first; None stands for no adapter."""

    names: tuple[str | None, ...] = Field((None,), min_length=1)

    @property
    def live(self) -> str | None:
        """The one in use."""
        return self.names[-1]


def folder_of(index: Path, name: str) -> Path:
    """Where an adapter lies, or would."""
    if name == GENERAL:
        return _SHIPPED
    if not _NAME.fullmatch(name):
        raise TuningError(
            f"{name!r} cannot be an adapter's name",
            hint="use lower-case letters, digits, dots and dashes, 64 at the most",
        )
    return index / FOLDER / name


def new_name(index: Path) -> str:
    """A name that no adapter of the index has: the day and a number."""
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    taken = {path.parent.name for path in _records(index)}  # one that is damaged has its name, too
    return next(name for n in range(1, len(taken) + 2) if (name := f"{day}.{n}") not in taken)


def list_adapters(index: Path) -> list[Adapter]:
    """All finished adapters, oldest first; `TuningError` where there is no such folder."""
    if not index.is_dir():
        raise TuningError(f"there is no index {index}", hint="llmtagger index build makes one")
    found = [read_adapter(index, path.parent.name) for path in _records(index)]
    return sorted(found, key=lambda adapter: (adapter.created, adapter.name))


def _records(index: Path) -> list[Path]:
    return sorted((index / FOLDER).glob(f"*/{RECORD}"))


def read_adapter(index: Path, name: str) -> Adapter:
    """An adapter's record; `TuningError` where there is none, or where a file of it was altered."""
    folder = folder_of(index, name)
    try:
        adapter, whole = Adapter.read(folder / RECORD)
    except FileNotFoundError as error:
        raise TuningError(
            f"{index} has no adapter {name!r}",
            hint="`llmtagger adapter list` shows what there is; if it was live, go back with "
            "`llmtagger adapter revert`",
        ) from error
    except (OSError, ValueError) as error:
        raise _damaged(folder, "its record cannot be read") from error
    if adapter.name != name or adapter.format != _FORMAT:
        raise _damaged(folder, "its record is about another adapter or of another format")
    try:
        digest = sha256(folder / WEIGHTS)
        config = sha256(folder / CONFIG) if adapter.config else None
    except OSError as error:
        raise _damaged(folder, f"{error.filename}: {error.strerror}") from error
    if digest != adapter.weights:
        raise _damaged(folder, "its weights are not those that were written")
    if config != adapter.config:
        raise _damaged(folder, f"{CONFIG} is not what was written")
    if not whole:
        raise _damaged(folder, "its record has been altered")
    return adapter


def write_adapter(index: Path, adapter: Adapter) -> None:
    """Write the record, in one step; from then on the adapter counts as finished."""
    adapter.write(folder_of(index, adapter.name) / RECORD)


def read_scorer(index: Path, name: str) -> Calibration | None:
    """The scorer that was fitted to an adapter's answers; None where there is none.

    Raises `IndexDamaged` where it cannot be read.
    """
    remedy = f"write it again with `llmtagger adapter judge {name}`"
    return read_calibration(folder_of(index, name), remedy)


def promotions(index: Path) -> Promotions:
    """What is live and what was."""
    path = index / FOLDER / PROMOTED
    try:
        found, whole = Promotions.read(path)
    except FileNotFoundError:
        return Promotions()
    except (OSError, ValueError) as error:
        raise _lost(path, "it cannot be read") from error
    if not whole:
        raise _lost(path, "it has been altered")
    return found


def live(index: Path) -> str:
    """The name of the adapter in use; `TuningError` where there is none."""
    name = promotions(index).live
    if name is None:
        raise TuningError(
            f"no adapter of {index} is live",
            hint="`llmtagger adapter list` shows what there is, `llmtagger tune` makes one",
        )
    return name


def promote(index: Path, name: str) -> None:
    """Make an adapter the live one; `TuningError` unless it was found to be better."""
    if name == GENERAL:
        raise TuningError(
            f"{name} is no adapter of {index}, and was not judged there",
            hint=f"use it as it is: tag --adapter {name}",
        )
    verdict = read_adapter(index, name).verdict
    if verdict is None or not verdict.better:
        found = f"it adds {verdict.points} points" if verdict else "it was never judged"
        raise TuningError(
            f"{name} is not known to be better than the pipeline without it: {found}",
            hint="tune on more products or for more epochs, or use it as it is: tag --adapter "
            + name,
        )
    names = promotions(index).names
    if names[-1] != name:
        _write_promotions(index, (*names, name))


def revert(index: Path) -> str | None:
    """Go back to what was live before; its name. `TuningError` where nothing was."""
    names = promotions(index).names
    if len(names) < 2:
        raise TuningError(
            "there is nothing to go back to: no adapter was promoted",
            hint="`llmtagger adapter promote NAME` makes one live",
        )
    _write_promotions(index, names[:-1])
    return names[-2]


def check_fits(
    adapter: Adapter, base_fingerprint: str, template: str, vocabulary: str
) -> list[str]:
    """What to warn of; `TuningError` where the adapter cannot be used with that model or prompt."""
    if adapter.base_fingerprint != base_fingerprint:
        raise TuningError(
            f"the adapter {adapter.name} was made for {adapter.base} "
            f"({adapter.base_fingerprint}), not for this model ({base_fingerprint})",
            hint=f"name the model it was made for, {adapter.source}, or use no adapter",
        )
    if adapter.template != template:
        raise TuningError(
            f"the adapter {adapter.name} was tuned to the prompt {adapter.template}, not to "
            f"{template}",
            hint="use that prompt or no adapter, or tune again: llmtagger tune",
        )
    if adapter.vocabulary not in ("", vocabulary):
        return [
            f"The vocabulary has changed since {adapter.name} was tuned. "
            "`llmtagger tune --continue` teaches it the rest."
        ]
    return []


def served(index: Path, adapter: Adapter) -> Tuned:
    """The adapter as a model's server needs it."""
    return Tuned(adapter.name, folder_of(index, adapter.name), adapter.weights)


def _write_promotions(index: Path, names: Sequence[str | None]) -> None:
    (index / FOLDER).mkdir(exist_ok=True)
    Promotions(names=tuple(names)).write(index / FOLDER / PROMOTED)


def _lost(path: Path, why: str) -> TuningError:
    return TuningError(
        f"{path} cannot be used: {why}",
        hint="remove that file: no adapter is live then, until `llmtagger adapter promote NAME`",
    )


def _damaged(folder: Path, why: str) -> TuningError:
    remedy = "remove that folder, and tune again: llmtagger tune"
    if folder == _SHIPPED:
        remedy = "install llmtagger again"
    return TuningError(
        f"{folder} cannot be used: {why}", hint=f"{remedy}; meanwhile: tag --adapter none"
    )
