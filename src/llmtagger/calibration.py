"""What `llmtagger calibrate` learns for an index: weights, thresholds, promises; kept as JSON."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmtagger.errors import IndexDamaged, IndexFolderError
from llmtagger.keeping import write_whole

FILE, PART = "scorer.json", "scorer.part"  # PART is being written
FORMAT = 2  # 1: mentions counted in full wherever they stood
_CHECKSUM = "checksum"
_REMEDY = "write it again with `llmtagger calibrate`"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Promise(_Record):
    """Of the tags kept from `score` on, cross-validated: how many, how many right.

    `lower` is the lower end of a one-sided 99 % interval of their precision (Wilson's, with the
    products as clusters).
    """

    score: float
    kept: int
    right: int
    lower: float


class Fitted(_Record):
    """Weights as in `stages.scoring.Weights`, and what they were found to do on unseen products."""

    bias: float
    of: dict[str, tuple[float, float]]
    tags: dict[str, float] = Field(default_factory=dict)
    keys: dict[str, float] = Field(default_factory=dict)
    bend: tuple[float, float, float]
    threshold: float = Field(ge=0, le=1)
    f1: float
    calibration_error: float
    promises: list[Promise]

    def cut_for(self, precision: float) -> float | None:
        """The lowest score from which on the precision's lower bound is that; None if none is."""
        return min((p.score for p in self.promises if p.lower >= precision), default=None)


class AskRule(_Record):
    """When the model is worth asking: where a candidate's score is as near as `margin` to the cut.

    `added` is what asking for every product added to F1, with a 95 % interval, cross-validated;
    `share` of the products are asked under the rule, which keeps `kept` of what asking adds.
    """

    margin: float = Field(ge=0)
    added: tuple[float, float, float]
    products: int
    share: float
    kept: float


class Calibration(_Record):
    """The learned scorer of one index.

    `unasked` scores products that no model has answered, `asked` those that `model` has, by
    `prompt`. `index` and `vocabulary` are fingerprints of what it was fitted to.
    """

    format: int = FORMAT
    created: str
    index: str
    vocabulary: str
    settings: str
    products: int
    unasked: Fitted
    model: str | None = None
    prompt: str | None = None
    asked: Fitted | None = None
    ask: AskRule | None = None

    @property
    def fingerprint(self) -> str:
        """A hash of all that changes a score; not of when it was made."""
        text = self.model_dump_json(exclude={"created"})
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def _checksum(self) -> str:
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def write(self, directory: Path) -> Path:
        """Write it into the index folder, in one step."""
        path = directory / FILE
        record = self.model_dump(mode="json") | {_CHECKSUM: self._checksum}
        try:
            write_whole(path, json.dumps(record, indent=1) + "\n")
        except OSError as error:
            raise IndexFolderError(
                f"cannot write {path}: {error.strerror}",
                hint="check that its folder is writable and has room, then try again",
            ) from error
        return path


def read_calibration(directory: Path, remedy: str = _REMEDY) -> Calibration | None:
    """The index's learned scorer; None where there is none yet.

    Raises `IndexDamaged` with the `remedy` where the file cannot be read.
    """
    path = directory / FILE

    def damaged(why: str) -> IndexDamaged:
        return IndexDamaged(f"{path} cannot be used ({why})", hint=remedy)

    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise damaged(error.strerror or "unreadable") from error
    try:
        record = json.loads(text)
        stated = record.pop(_CHECKSUM, None)  # earlier versions wrote none
        calibration = Calibration.model_validate(record)
    except ValidationError as error:
        raise damaged(f"{error.error_count()} faults") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise damaged("no JSON object") from error
    if calibration.format != FORMAT:
        raise damaged(f"format {calibration.format}, not {FORMAT}")
    if stated not in (None, calibration._checksum):
        raise damaged("it has been altered")
    return calibration
