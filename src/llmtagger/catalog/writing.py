"""Results in the format that the output's name asks for; a file appears whole or not at all."""

from __future__ import annotations

import codecs
import fcntl
import glob
import itertools
import json
import os
import secrets
import stat
import sys
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any, BinaryIO

from llmtagger.catalog.additions import Additions, collect
from llmtagger.catalog.excel import write_rows
from llmtagger.catalog.files import Source, open_source
from llmtagger.catalog.jsonback import write_json
from llmtagger.catalog.parquetback import write_parquet
from llmtagger.catalog.products import FIELDS, join_tags
from llmtagger.catalog.returning import write_excel
from llmtagger.catalog.rows import MOST_COLUMNS, RECORD_LIMIT, CatalogOptions, RejectedRow
from llmtagger.catalog.tables import guard, table_line
from llmtagger.catalog.writeback import write_table
from llmtagger.datatypes import REVIEWS
from llmtagger.errors import CatalogError
from llmtagger.terminal import harmless

Records = Iterable[Mapping[str, Any]]
WriteBack = Callable[[Source, CatalogOptions, Additions, BinaryIO], None]

_LEADING = tuple(name for name in FIELDS if name not in ("tags", "attributes"))
_RESULTS = ("tags", "review", "problem")
_APART = (*_RESULTS, "attributes", "rejected", "run")  # not in a cell as they stand, or in none
_BATCH = 1_000  # rows of a Parquet file written at once
_STDOUT = "-"
_STDIN = "/dev/stdin"  # may be a file that the shell has opened
_REJECTED = ("line", "reason", "raw")
RECORDS = (".jsonl", ".ndjson")  # formats that hold full records, with evidence


def write_records(
    records: Records,
    output: Path | str,
    *,
    source: Path | str | None = None,
    options: CatalogOptions = CatalogOptions(),  # noqa: B008  it is frozen
    review_column: str | None = None,
    plain: bool = False,
) -> int:
    """Write output records to a .jsonl, .csv, .tsv, .xlsx or .parquet file; `-` is JSONL to stdout.

    Returns how many there were. Tables are for people: a column for each field and attribute,
    the names of `tags` and of those for `review` joined with `|` (a JSON list where a tag holds
    that), and the `problem`. Scores and evidence are in JSONL only. In .csv and .tsv files a cell
    that a spreadsheet would take for a formula has a quote before it, which reading takes away.
    A .csv file starts with a byte order mark.

    Where `output` has the format of `source`, by its suffix, the source is written back: each
    product's new tags stand after those a person put there, those for review in `review_column`,
    and nothing else is changed. JSONL is written back only with `plain`; without, it holds the
    full records.
    """
    if str(output) == _STDOUT:
        return _write_stdout(records)
    path = Path(output)
    check_format(path, source, plain=plain)
    suffix = path.suffix.lower()
    back = _back(suffix, source, plain)
    with replacing(path, like=source) as handle:
        if back is not None and source is not None:
            with open_source(source) as original:
                additions = collect(records, review_column)
                back(original, options, additions, handle)
            return additions.records
        return _WRITERS[suffix](records, handle)


def check_format(path: Path, source: Path | str | None, *, plain: bool = False) -> None:
    """Raise `CatalogError` where `write_records` has no format for the name of an output."""
    suffix = path.suffix.lower()
    if suffix not in _WRITERS and _back(suffix, source, plain) is None:
        raise CatalogError(
            f"cannot tell the format of the output {path} from its name",
            hint=f"end it in {', '.join(_WRITERS)}; or in the input's suffix, to get the input "
            "back with tags",
        )


def is_written_back(output: Path | str, source: Path | str, *, plain: bool = False) -> bool:
    """Whether the output is the source with its new tags, going by their suffixes."""
    return _back(Path(output).suffix.lower(), source, plain) is not None


def writes_back(path: Path | str) -> bool:
    """Whether a file of that name can get its own tags back."""
    return is_written_back(path, path, plain=True)


def _back(suffix: str, source: Path | str | None, plain: bool) -> WriteBack | None:
    """What writes the source back, where it has the same format and can be."""
    if source is None or str(source) == _STDOUT or Path(source).suffix.lower() != suffix:
        return None
    if suffix in RECORDS and not plain:
        return None
    return _WRITE_BACK.get(suffix)


def write_rejects(
    rows: Sequence[RejectedRow], path: Path, *, like: Path | str | None = None
) -> int:
    """Write rejected rows as JSONL (line, reason, raw); returns how many there were.

    Without rows, what an earlier run has written there is removed. `like` is as in `replacing`.
    """
    if not rows:
        if _holds_rejects(path):
            path.unlink()
        return 0
    with replacing(path, like=like) as handle:
        records = ({name: getattr(row, name) for name in _REJECTED} for row in rows)
        return _write_jsonl(records, handle)


def _holds_rejects(path: Path) -> bool:
    """Whether a file begins with a rejected row: any other is not ours to remove."""
    try:
        with path.open("rb") as handle:
            first = json.loads(handle.readline(RECORD_LIMIT))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and tuple(first) == _REJECTED


@contextmanager
def replacing(path: Path, *, like: Path | str | None = None) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` at the end, unless something fails before.

    It gets the permissions of the file that it replaces. A file that was not there gets those that
    the umask leaves, but only its owner may do more with it than with the file `like`, which it
    was made from: what is in a private file does not become readable to others.

    The next writer removes files left by a killed one.
    """
    path = Path(os.path.realpath(path))
    special = path.exists() and not path.is_file()
    if not special:
        _sweep(path)
    fresh = path if special else path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with fresh.open("wb") if special else _private(fresh, path, like) as handle:
            if not special:
                fcntl.flock(handle, fcntl.LOCK_SH)  # tells it from what a killed writer has left
            yield handle
            handle.flush()
            if not special:
                os.fsync(handle.fileno())
        if not special:
            os.replace(fresh, path)
    except BaseException as error:
        if not special:
            fresh.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise CatalogError(
                f"cannot write {path}: {error.strerror}",
                hint="check that its folder exists, is writable and has room, then try again",
            ) from error
        raise


def _private(fresh: Path, path: Path, like: Path | str | None) -> BinaryIO:
    """A new file, opened with the permissions that it is to have in the end."""
    origin = None if like is None else _permissions(Path(_STDIN if str(like) == "-" else like))
    replaced = _permissions(path)
    wanted = 0o666 if origin is None else 0o666 & (origin | 0o200)
    opened = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, wanted)
    handle = os.fdopen(opened, "wb")
    if replaced is not None:
        os.fchmod(opened, replaced)
    return handle


def _permissions(path: Path) -> int | None:
    """Those of a regular file; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return stat.S_IMODE(found.st_mode) & 0o777 if stat.S_ISREG(found.st_mode) else None


def _sweep(path: Path) -> None:
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????.tmp"):
        with suppress(OSError), left.open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def _write_stdout(records: Records) -> int:
    try:
        return _write_jsonl(records, sys.stdout.buffer, said=harmless)
    except BrokenPipeError:
        raise
    except OSError as error:
        # What is left in the buffer would be written, and fail, once more at the very end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise CatalogError(
            f"cannot write to the standard output: {error.strerror}",
            hint="make room where it goes to, then try again",
        ) from error


def _write_jsonl(records: Records, handle: IO[bytes], said: Callable[[str], str] = str) -> int:
    count = 0
    for record in records:
        handle.write(said(json.dumps(record, ensure_ascii=False)).encode() + b"\n")
        count += 1
    handle.flush()
    return count


def _write_csv(records: Records, handle: IO[bytes]) -> int:
    """With a byte order mark, by which spreadsheets know that it is UTF-8."""
    handle.write(codecs.BOM_UTF8)
    return _write_lines(records, handle, ",")


def _write_tsv(records: Records, handle: IO[bytes]) -> int:
    return _write_lines(records, handle, "\t")


def _write_lines(records: Records, handle: IO[bytes], delimiter: str) -> int:
    with _flattened(records) as (columns, rows, count):
        handle.write(_csv_line(columns, delimiter))
        for row in rows:
            handle.write(_csv_line([row.get(name, "") for name in columns], delimiter))
    return count


def _csv_line(cells: list[str], delimiter: str) -> bytes:
    return f"{table_line(list(map(guard, cells)), delimiter)}\n".encode()


def _write_parquet(records: Records, handle: IO[bytes]) -> int:
    import pyarrow as pa
    from pyarrow import parquet

    with _flattened(records) as (columns, rows, count):
        schema = pa.schema([(name, pa.string()) for name in columns])
        with parquet.ParquetWriter(handle, schema) as writer:
            while batch := list(islice(rows, _BATCH)):
                full = [{name: row.get(name, "") for name in columns} for row in batch]
                writer.write_table(pa.Table.from_pylist(full, schema=schema))
    return count


def _write_xlsx(records: Records, handle: IO[bytes]) -> int:
    with _flattened(records) as (columns, rows, count):
        table = ([row.get(name, "") for name in columns] for row in rows)
        write_rows(itertools.chain([columns], table), handle, "products", cut=True)
    return count


_WRITERS: dict[str, Callable[[Records, IO[bytes]], int]] = {
    ".jsonl": _write_jsonl,
    ".ndjson": _write_jsonl,
    ".csv": _write_csv,
    ".tsv": _write_tsv,
    ".parquet": _write_parquet,
    ".xlsx": _write_xlsx,
}

# Formats that are written back where the input has them: the source, its additions, the new file
_WRITE_BACK: dict[str, WriteBack] = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), write_table),
    **dict.fromkeys((*RECORDS, ".json"), write_json),
    ".xlsx": write_excel,
    ".parquet": write_parquet,
}


@contextmanager
def _flattened(records: Records) -> Iterator[tuple[list[str], Iterator[dict[str, str]], int]]:
    """The columns of all records, the records as text cells, and their number.

    Columns are known after the last record only, so the cells wait in a temporary file.
    """
    found: dict[str, None] = {}
    count = 0
    with ExitStack() as stack:
        try:
            waiting = stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))
            for record in records:
                row = _flat(record)
                found.update(dict.fromkeys(row))
                waiting.write(json.dumps(row) + "\n")
                count += 1
            waiting.seek(0)
        except OSError as error:
            raise CatalogError(
                f"cannot write to the temporary folder {tempfile.gettempdir()}: {error.strerror}",
                hint="make room there, or name another one in TMPDIR, then try again",
            ) from error
        if len(found) > MOST_COLUMNS:
            raise CatalogError(
                f"the products have {len(found):,} different fields and attributes, more than "
                f"the {MOST_COLUMNS:,} columns of a table",
                hint="write to a .jsonl file instead",
            )
        extra = [name for name in found if name not in (*_LEADING, *_RESULTS)]
        leading = [name for name in _LEADING if name in found or name in ("id", "title")]
        yield [*leading, *extra, *_RESULTS], map(json.loads, waiting), count


def _flat(record: Mapping[str, Any]) -> dict[str, str]:
    """A record as cells for people: one for each attribute, no evidence."""
    row: dict[str, str] = {}
    plain = {name: value for name, value in record.items() if name not in _APART}
    for name, value in plain.items():
        is_list = name == REVIEWS and isinstance(value, list)  # a review may hold any delimiter
        row[_free(name, row)] = json.dumps(value, ensure_ascii=False) if is_list else _cell(value)
    for name, value in (record.get("attributes") or {}).items():
        row[_free(f"attributes.{name}", row)] = _cell(value)
    for each in ("tags", "review"):
        row[each] = join_tags([item["tag"] for item in record.get(each) or ()])
    problem = record.get("problem")
    row["problem"] = problem["message"] if isinstance(problem, Mapping) else _cell(problem)
    return row


def _free(name: str, taken: Container[str]) -> str:
    """The name of a column; names that a reader would take for the same are numbered."""
    name = name.strip() or "unnamed"
    numbered = (f"{name} ({number})" for number in itertools.count(2))
    return name if name not in taken else next(each for each in numbered if each not in taken)


def _cell(value: Any) -> str:
    """A value as a person would write it: `S; M`, `width: 3; height: 4`."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_cell(each)}" for name, each in value.items())
    if isinstance(value, list):
        return "; ".join(map(_cell, value))
    return "" if value is None else json.dumps(value, ensure_ascii=False)
