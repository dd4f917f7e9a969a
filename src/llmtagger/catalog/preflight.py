"""A command's files, checked before anything is read: no output is an input or another output."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmtagger.errors import ConfigError

_STANDARD = "-"
_STDIN, _STDOUT = 0, 1
Identity = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Output:
    """A file that a command is going to write: where, and its role in messages.

    `suffixes` are those that its name may end in; any will do where there are none. A `folder` is
    made where it is missing.

    >>> Output("gold.xlsx", "the output", suffixes=(".csv", ".xlsx"))
    """

    path: Path | str
    role: str
    suffixes: Sequence[str] = ()
    folder: bool = False


def check_files(
    inputs: Iterable[Path | str], outputs: Iterable[Output], *, hint: str = "name another file"
) -> None:
    """Raise `ConfigError` where an output would destroy an input or another output, or cannot be.

    Files are the same by inode, whatever they are called: by links, or as the file that the shell
    has opened for `-`. `hint` says what to do where the output is the input.
    """
    read = {known: path for path in inputs if (known := _identity(path, _STDIN))}
    written: dict[Identity, Output] = {}
    for output in outputs:
        known = _identity(output.path, _STDOUT)
        if known in read:
            raise ConfigError(f"{output.role} {output.path} is an input", hint=hint)
        if known in written:
            raise ConfigError(
                f"{output.role} and {written[known].role} are the same file: {output.path}",
                hint="name another file for one of them",
            )
        if known:
            written[known] = output
        if str(output.path) != _STANDARD:
            _check_place(output)


def _identity(path: Path | str, standard: int) -> Identity | None:
    """Equal for two names of one file, also of one that is yet to be made; None for a device."""
    try:
        found = os.stat(standard if str(path) == _STANDARD else path)
    except FileNotFoundError:
        return (os.path.realpath(path),)
    except (OSError, ValueError):  # a closed stream, or a name that no file can have
        return None
    known = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
    return (found.st_dev, found.st_ino) if known else None


def _check_place(output: Output) -> None:
    path = Path(output.path)
    if output.suffixes and path.suffix.lower() not in output.suffixes:
        raise ConfigError(
            f"cannot tell the format of {output.role} {path} from its name",
            hint=f"end it in {', '.join(output.suffixes)}",
        )
    if path.is_dir() != output.folder and path.exists():
        raise ConfigError(
            f"{output.role} {path} is a {'file' if output.folder else 'folder'}",
            hint=f"name a {'folder' if output.folder else 'file'}",
        )
    _check_folder(output, Path(os.path.realpath(path)))


def _check_folder(output: Output, path: Path) -> None:
    """Whether the file can be made: its folder, or the nearest one that exists, is writable."""
    if path.exists() and not path.is_file() and not output.folder:
        return  # a device or a pipe
    folder = path if output.folder and path.is_dir() else path.parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise ConfigError(
            f"cannot write {output.role} {output.path}: {folder} is not a folder",
            hint="name a folder",
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        reason = "Read-only file system" if _read_only(folder) else "Permission denied"
        raise ConfigError(
            f"cannot write {output.role} {output.path}: {reason}",
            hint="name a folder that may be written to",
        )


def _read_only(folder: Path) -> bool:
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
