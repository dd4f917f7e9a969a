"""Files as lines of text: encoding found, damage kept visible, length of a line bounded."""

from __future__ import annotations

import codecs
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmtagger.catalog.rows import RECORD_LIMIT
from llmtagger.errors import CatalogError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is the start of this one
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_HEAD = 65_536  # bytes that are searched for the pattern of UTF-16
_FEWEST_ZEROS = 4  # fewer are stray NUL bytes
_SAMPLE = 1_000  # lines with more than ASCII that decide between encodings
_PIECE = 1_000_000  # bytes of one line that are looked at
_JSON_START = re.compile(rb'\s*[\[{]\s*["{]')
_HIGH = re.compile(rb"[\x80-\xff]+")
_ENCODING_HINT = "give its encoding, e.g. --encoding cp1252"
ESCAPED = re.compile("[\udc00-\udcff]")  # what stands for a byte that did not decode


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Bytes that do not decode become lone surrogates, so that only their row is lost."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error("llmtagger.escape", _escape)


@dataclass(frozen=True, slots=True)
class Source:
    """A regular file that can be read more than once; a copy where the input was `piped`."""

    path: Path
    name: str
    piped: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A physical line with its number and its end; `whole` is false where it was too long."""

    number: int
    text: str
    whole: bool = True


@contextmanager
def open_source(path: Path | str) -> Iterator[Source]:
    """The file at `path`; standard input (`-`) and pipes are copied to a file first."""
    with ExitStack() as stack:
        try:
            source = _opened(Path(path), stack)
        except OSError as error:
            raise unreadable(str(path), error) from error
        yield source


def _opened(path: Path, stack: ExitStack) -> Source:
    piped = str(path) == "-"
    if path.is_file() and not piped:
        path.open("rb").close()
        return Source(path, str(path))
    # Nameless: whoever is killed leaves nothing.
    copy = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  the stack closes it
    if piped:
        shutil.copyfileobj(sys.stdin.buffer, copy)
    else:
        with path.open("rb") as pipe:
            shutil.copyfileobj(pipe, copy)
    copy.flush()
    again = Path(f"/proc/self/fd/{copy.fileno()}")
    return Source(again, "standard input" if piped else str(path), True)


def unreadable(name: str, error: OSError) -> CatalogError:
    """What to say where the system does not let us read."""
    return CatalogError(
        f"cannot read the catalogue {name}: {error.strerror}", hint="check the path of the file"
    )


def lines(source: Source, encoding: str) -> Iterator[Line]:
    """Every line with its end as it stands; ends are \\n, \\r\\n and a lone \\r."""
    with source.path.open(encoding=encoding, errors="llmtagger.escape", newline="") as handle:
        number = 0
        while text := handle.readline(RECORD_LIMIT):
            number += 1
            whole, rest = True, text
            while len(rest) == RECORD_LIMIT and not rest.endswith(("\n", "\r")):
                rest = handle.readline(RECORD_LIMIT)
                whole = whole and not rest
            if number == 1:
                text = text.removeprefix("\ufeff")
            yield Line(number, text, whole)


def find_encoding(source: Source, given: str | None) -> str:
    """The encoding of a file; `CatalogError` where it is empty or most of it does not decode."""
    with source.path.open("rb") as handle:
        head = handle.read(_HEAD)
    if not head.strip():
        raise CatalogError(f"{source.name} is empty", hint="check that its export finished")
    if given is not None:
        return _checked(source, given)
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding
    return _utf16(head) or _utf8_or_gb18030(source)


def marked_encoding(source: Source, encoding: str) -> tuple[str, bytes]:
    """The encoding without, and the byte order mark that the file has before it, if any.

    Python's `utf-16` and `utf-8-sig` stand for a mark and an encoding together.
    """
    with source.path.open("rb") as handle:
        head = handle.read(4)
    plain = encoding.removesuffix("-sig")
    if plain in ("utf-16", "utf-32"):
        plain = next((each for mark, each in _BOMS if head.startswith(mark)), plain)
    mark = "\ufeff".encode(plain, "ignore")
    return plain, mark if mark and head.startswith(mark) else b""


def _checked(source: Source, encoding: str) -> str:
    try:
        b"".decode(encoding)
        decoder = codecs.lookup(encoding)
    except (LookupError, UnicodeError) as error:
        raise CatalogError(
            f"no encoding is called {encoding!r}", hint="e.g. utf-8, utf-16, gb18030, cp1252"
        ) from error
    faulty = seen = 0
    for line in lines(source, decoder.name):
        seen += bool(line.text.strip())
        faulty += ESCAPED.search(line.text) is not None
        if seen >= _SAMPLE:
            break
    if faulty * 2 > seen:
        raise CatalogError(
            f"{source.name} does not decode as {encoding}: {faulty} of its first {seen} lines fail",
            hint="leave --encoding out, so that it is found by itself",
        )
    return decoder.name


def _utf16(head: bytes) -> str | None:
    """UTF-16 without a mark: of each pair of bytes, the same half is often zero."""
    if _is_text_with_zeros(head):
        return None
    pairs = len(head) // 2
    even, odd = head[: 2 * pairs : 2].count(0), head[1 : 2 * pairs : 2].count(0)
    if odd >= max(_FEWEST_ZEROS, pairs // 10) and even * 100 < pairs:
        return "utf-16-le"
    if even >= max(_FEWEST_ZEROS, pairs // 10) and odd * 100 < pairs:
        return "utf-16-be"
    return None


def _is_text_with_zeros(head: bytes) -> bool:
    """Whether a line, or the start of JSON, stands before the first zero byte.

    In UTF-16 a zero byte is in the first line's end at the latest.
    """
    before = head[: head.find(b"\0")]
    if b"\n" not in before and not _JSON_START.match(before):
        return False
    return _decodes(before, "utf-8", whole=False)


def _utf8_or_gb18030(source: Source) -> str:
    """By a majority of the lines that are more than ASCII."""
    seen = utf8 = gb18030 = faulty = 0
    for piece, whole in _pieces(source.path):
        seen += bool(piece.strip())
        if piece.isascii():
            continue
        if _decodes(piece, "utf-8", whole):
            utf8 += 1
        else:
            faulty += 1
            gb18030 += _is_gb18030(piece, whole)
        if utf8 + faulty >= _SAMPLE:
            break
    if gb18030 > utf8 and gb18030 * 2 > faulty:
        return "gb18030"
    if faulty * 2 > seen:
        raise CatalogError(
            f"{source.name} is neither UTF-8 nor UTF-16 nor GB18030", hint=_ENCODING_HINT
        )
    return "utf-8"


def _pieces(path: Path) -> Iterator[tuple[bytes, bool]]:
    """The start of each line, and whether that is all of it."""
    with path.open("rb") as handle:
        while piece := handle.readline(_PIECE):
            whole = rest = len(piece) < _PIECE or piece.endswith(b"\n")
            while not rest:
                tail = handle.readline(_PIECE)
                rest = len(tail) < _PIECE or tail.endswith(b"\n")
            yield piece, whole


def _decodes(piece: bytes, encoding: str, whole: bool) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(piece, whole)
    except UnicodeDecodeError:
        return False
    return True


def _is_gb18030(piece: bytes, whole: bool) -> bool:
    """Chinese text comes in pairs of high bytes, accented Latin letters come alone."""
    runs = [len(run) for run in _HIGH.findall(piece)]
    paired = sum(run for run in runs if run % 2 == 0)
    return paired * 10 >= sum(runs) * 7 and _decodes(piece, "gb18030", whole)


def first_character(source: Source, encoding: str) -> str:
    """What tells JSON from a table where no suffix does."""
    return next((text[0] for line in lines(source, encoding) if (text := line.text.strip())), "")
