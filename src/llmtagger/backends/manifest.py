"""What an index folder says of itself: how it was made, and a checksum for each file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from llmtagger.errors import IndexDamaged, IndexMismatch

FORMAT = 3
MANIFEST = "manifest.json"
METRIC = "cosine"

_REBUILD = "build the index again with `llmtagger index build`"
_CONTENT = ("products.arrow", "vectors.npy", "vocabulary.jsonl")  # the truth; all else follows


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file's size in bytes and its SHA-256, in hex."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """One snapshot's description; `docs/index-format.md` explains every field."""

    created: str
    llmtagger: str
    encoder: str
    encoder_revision: str
    dimension: int
    kind: str
    kind_wanted: str
    rows: int
    products: int
    labelled: int
    tags: int
    vocabulary: str
    vocabulary_source: str
    unknown_tags: int
    unknown_examples: tuple[str, ...]
    files: Mapping[str, FileEntry]
    format: int = FORMAT
    metric: str = METRIC

    @property
    def fingerprint(self) -> str:
        """A hash of what an answer may depend on; equal for two builds of the same content."""
        content = {
            "encoder": [self.encoder, self.encoder_revision, self.dimension],
            "kind": self.kind,
            "files": {name: self.files[name].sha256 for name in _CONTENT},
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def _checksum(self) -> str:
        """Of all fields; the fingerprint is of some, and equal for two builds."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def to_record(self) -> dict[str, Any]:
        """As a JSON object, with the fingerprint."""
        return asdict(self) | {"fingerprint": self.fingerprint}

    def write(self, folder: Path) -> None:
        """Write it into the snapshot's folder."""
        record = self.to_record() | {"checksum": self._checksum}
        text = json.dumps(record, ensure_ascii=False, indent=2)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read a snapshot's manifest; refuses one of a newer format."""
    path = folder / MANIFEST
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version = int(record["format"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise IndexDamaged(f"{path} is missing or damaged", hint=_REBUILD) from error
    if version != FORMAT:
        raise IndexMismatch(
            f"the index has format {version}; this llmtagger reads format {FORMAT}",
            hint="update llmtagger" if version > FORMAT else _REBUILD,
        )
    try:
        manifest = _from_record(record)
        stated, found = record["fingerprint"], manifest.fingerprint
    except (KeyError, TypeError, ValueError) as error:
        raise IndexDamaged(f"{path} is damaged: {error}", hint=_REBUILD) from error
    checksum = record.get("checksum")  # earlier versions wrote none
    if stated != found or checksum not in (None, manifest._checksum):
        raise IndexDamaged(f"{path} has been altered", hint=_REBUILD)
    return manifest


def _from_record(record: dict[str, Any]) -> Manifest:
    values = {field.name: record[field.name] for field in fields(Manifest)}
    values["unknown_examples"] = tuple(values["unknown_examples"])
    values["files"] = {
        name: FileEntry(int(entry["size"]), str(entry["sha256"]))
        for name, entry in values["files"].items()
    }
    for name in ("dimension", "rows", "products", "labelled", "tags"):
        if type(values[name]) is not int or values[name] < 0:
            raise ValueError(f"{name} is {values[name]!r}")
    return Manifest(**values)


def describe_files(folder: Path) -> dict[str, FileEntry]:
    """Size and checksum of every file in a snapshot's folder but the manifest itself."""
    return {
        path.relative_to(folder).as_posix(): FileEntry(path.stat().st_size, _sha256(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def check_files(folder: Path, manifest: Manifest, *, contents: bool) -> None:
    """Refuse a snapshot with a file that is missing, cut short or, if `contents`, altered."""
    for name, entry in manifest.files.items():
        path = folder / name
        fault = None
        if ".." in Path(name).parts or Path(name).is_absolute() or not path.is_file():
            fault = "is missing"
        elif (size := path.stat().st_size) != entry.size:
            fault = f"has {size} bytes instead of {entry.size}"
        elif contents and _sha256(path) != entry.sha256:
            fault = "has been altered: its checksum does not agree"
        if fault:
            raise IndexDamaged(f"{path} {fault}", hint=_REBUILD)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
