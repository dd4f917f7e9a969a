"""The key that servers ask for: from the environment or a file, and nowhere else."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from llmtagger.errors import ConfigError

_KEY, _FILE = "LLMTAGGER_API_KEY", "LLMTAGGER_API_KEY_FILE"
_USABLE = re.compile(r"[!-~]+")  # what may stand in a header; it would be quoted in an error else


def api_key() -> str | None:
    """What `LLMTAGGER_API_KEY` says, else what the file `LLMTAGGER_API_KEY_FILE` names holds.

    None where neither is set. `ConfigError`, which does not quote the key, where it cannot be one.
    """
    source = f"the environment variable {_KEY}"
    key = os.environ.get(_KEY, "").strip()
    if not key and (file := os.environ.get(_FILE)):
        source = f"the file {file} that {_FILE} names"
        try:
            key = _read(Path(file), source).strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise ConfigError(
                f"cannot read {source}: {why}", hint="put the key into it, on one line"
            ) from error
        if not key:
            raise ConfigError(f"{source} is empty", hint="put the key into it, on one line")
    if key and not _USABLE.fullmatch(key):
        raise ConfigError(
            f"{source} holds more than a key: blanks, or characters that no key has",
            hint="put the key there, and nothing else",
        )
    return key or None


def _read(path: Path, source: str) -> str:
    """The file's text; refused, as ssh does, where it is ours and others may read it."""
    with path.open(encoding="utf-8") as file:
        known = os.fstat(file.fileno())
        if stat.S_ISREG(known.st_mode) and known.st_uid == os.getuid() and known.st_mode & 0o077:
            raise ConfigError(
                f"{source} can be read by others (mode {known.st_mode & 0o777:04o})",
                hint=f"make it yours alone: chmod 600 {path}",
            )
        return file.read()
