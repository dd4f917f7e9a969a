"""A copy of a file that is about to be replaced."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from llmtagger.errors import CatalogError


@contextmanager
def kept_backup(path: Path) -> Iterator[Path]:
    """Keep what a file held before it is replaced inside, as NAME.bak, NAME.bak.2, and so on.

    An older backup is never overwritten. Where the file was left or put back as it was, no backup
    stays.
    """
    real = Path(os.path.realpath(path))
    try:
        backup = _copied(real)
    except OSError as error:
        raise CatalogError(
            f"cannot keep a backup of {path}: {error.strerror}",
            hint="make room in its folder, or name an output with -o",
        ) from error
    try:
        yield backup
    finally:
        if filecmp.cmp(real, backup, shallow=False):
            backup.unlink()


def _copied(path: Path) -> Path:
    for number in count(1):
        backup = Path(f"{path}.bak" if number == 1 else f"{path}.bak.{number}")
        try:
            handle = os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            continue
        try:
            with os.fdopen(handle, "wb") as file, path.open("rb") as original:
                shutil.copyfileobj(original, file)
                file.flush()
                os.fsync(file.fileno())
            shutil.copystat(path, backup)
        except BaseException:
            backup.unlink()
            raise
        return backup
    raise AssertionError("never reached")
