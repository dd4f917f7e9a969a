"""Replaces the contents of an index folder as a whole: a reader sees the old or the new.

DIR/CURRENT              the name of the snapshot to read, one line
DIR/snapshots/<name>/    the one that CURRENT names, and the one before it
DIR/snapshots/.tmp-*     being written, or left behind by a crash; the next writer sweeps it
DIR/.lock                held by the one writer
DIR/scorer.json          the learned scorer, see `calibration`; knows when it is stale
DIR/adapters/            tuned adapters, see `adapters`; each knows what it fits
DIR/studio.sqlite        tags that people gave by hand, see `goldbook`
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from llmtagger.adapters import FOLDER
from llmtagger.calibration import FILE, PART
from llmtagger.errors import IndexDamaged, IndexFolderError, IndexMissing
from llmtagger.goldbook import FILES
from llmtagger.locking import sole

_CURRENT, _SNAPSHOTS, _LOCK = "CURRENT", "snapshots", ".lock"
_NEW_CURRENT, _TEMPORARY = "CURRENT.new", ".tmp-"
_OURS = {_CURRENT, _SNAPSHOTS, _LOCK, _NEW_CURRENT, FILE, PART, FOLDER, *FILES}
_NAME = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{8}")


def current_snapshot(directory: Path) -> Path:
    """The folder that a reader should open now."""
    try:
        name = (directory / _CURRENT).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise IndexMissing(
            f"`{directory}` is not an index folder.",
            hint="Build one with `llmtagger index build`.",
        ) from error
    if not _NAME.fullmatch(name):
        raise IndexDamaged(
            f"{directory / _CURRENT} names no snapshot",
            hint="build the index again with `llmtagger index build`",
        )
    return directory / _SNAPSHOTS / name


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Be the only writer of an index folder, which is made if need be."""
    _claim(directory)
    busy = IndexFolderError(
        f"another process is writing to {directory}", hint="wait until it has finished"
    )
    with sole(directory / _LOCK, busy):
        yield


def _claim(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        strange = sorted({path.name for path in directory.iterdir()} - _OURS)
    except OSError as error:
        raise IndexFolderError(
            f"cannot use {directory} as an index folder: {error.strerror}",
            hint="name a new or empty folder that you may write to",
        ) from error
    if strange:
        raise IndexFolderError(
            f"{directory} holds other files, such as {strange[0]}",
            hint="name a new or empty folder, or that of an index",
        )


@contextmanager
def new_snapshot(directory: Path) -> Iterator[Path]:
    """A folder to write the next snapshot into; published when the block ends without an error."""
    snapshots = directory / _SNAPSHOTS
    snapshots.mkdir(exist_ok=True)
    _sweep(snapshots, keep=None)
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
    temporary = snapshots / (_TEMPORARY + name)
    temporary.mkdir()
    try:
        yield temporary
        _publish(directory, temporary, name)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _publish(directory: Path, temporary: Path, name: str) -> None:
    for path in sorted(temporary.rglob("*")):
        _sync(path)
    _sync(temporary)
    snapshots = temporary.parent
    temporary.rename(snapshots / name)
    _sync(snapshots)
    before = _name_or_none(directory)
    pointer = directory / _NEW_CURRENT
    pointer.write_text(name + "\n", encoding="utf-8")
    _sync(pointer)
    pointer.replace(directory / _CURRENT)
    _sync(directory)
    _sweep(snapshots, keep={name, before})


def _name_or_none(directory: Path) -> str | None:
    try:
        return current_snapshot(directory).name
    except IndexFolderError:
        return None


def _sweep(snapshots: Path, keep: set[str | None] | None) -> None:
    """Remove what a crash left behind and, given `keep`, all other snapshots."""
    for path in snapshots.iterdir():
        if path.name.startswith(_TEMPORARY) or (keep is not None and path.name not in keep):
            shutil.rmtree(path, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
