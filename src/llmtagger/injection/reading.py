"""Text as a person would read it: disguises undone, each once and in linear time."""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote

from llmtagger.normalise import INVISIBLE, unescaped, unicode_form

HIDDEN = "\x02"  # stands before what was written in tag characters, which nobody sees
_TAG_CHARACTERS = re.compile("(\U0001f3f4?)([\U000e0020-\U000e007e]{4,})")  # a flag has them too
_TO_ASCII = {code: code - 0xE0000 for code in range(0xE0020, 0xE007F)}
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{24,}")
_URL_SAFE = str.maketrans("-_", "+/")
_ESCAPES = re.compile("%[0-9A-Fa-f]{2}")
_WORD = re.compile(r"\w+")
_SPREAD = re.compile(r"(?<![^\W_])(?:[^\W_][\W_]{1,3}){7,}[^\W_](?![^\W_])")  # l e t t e r s
_WIDE, _SEPARATOR = re.compile(r"[\W_]{2,}"), re.compile(r"[\W_]")
_LOOK_ALIKES = str.maketrans(  # Cyrillic and Greek letters in a word with Latin ones
    "авгдезікмнорѕтухсјԁһԛԝνοαρτυχικεηβμγ",
    "abrdesikmhopstyxcjdhqwvoaptuxikenbuy",
)
_DIGITS = str.maketrans("013457@$", "oieastas")  # read as letters
_SIGNS = str.maketrans("“”„«»「」『』《》‘’–—―。、", '"' * 11 + "''---.,")
_STYLED = re.compile(  # letters that no normal form turns into plain ones
    "(?:LATIN LETTER SMALL CAPITAL|NEGATIVE (?:SQUARED|CIRCLED) LATIN CAPITAL LETTER"
    "|REGIONAL INDICATOR SYMBOL LETTER) ([A-Z])"
)
_STYLED_BLOCKS = ((0x250, 0x2B0), (0x1D00, 0x1D80), (0xA730, 0xA800), (0x1F130, 0x1F200))
_PLAIN = {
    code: found[1]
    for start, end in _STYLED_BLOCKS
    for code in range(start, end)
    if (found := _STYLED.fullmatch(unicodedata.name(chr(code), "")))
}


def as_read(text: str) -> str:
    """Lower case, escapes and Base64 decoded, no marks, spread and styled letters as plain ones.

    >>> as_read("Ｉ&#103;n&oacute;re  \\u1d00\\u029f\\u029f")
    'ignore  all'
    """
    seen = unescaped(text) if "&" in text else text
    if len(_ESCAPES.findall(seen)) > 2:
        seen = unquote(seen)
    seen = "\n".join((seen, *_decoded(seen)))
    if not seen.isascii():
        seen = _WORD.sub(_latin, plain(_shown(seen).translate(_PLAIN)))
    return _SPREAD.sub(_joined, seen.lower().translate(_DIGITS))


def plain(text: str) -> str:
    """The text without width, ligatures and marks, with plain quotation marks and dashes."""
    apart = unicode_form("NFKD", text)
    return "".join(char for char in apart if not unicodedata.combining(char)).translate(_SIGNS)


def _shown(text: str) -> str:
    """Hidden letters made visible, and other invisible characters left out."""
    shown = _TAG_CHARACTERS.sub(
        lambda run: "" if run[1] else HIDDEN + run[2].translate(_TO_ASCII), text
    )
    return INVISIBLE.sub("", shown)


def _latin(word: re.Match[str]) -> str:
    seen = word[0].lower()
    mixed = not seen.isascii() and any("a" <= char <= "z" for char in seen)
    return seen.translate(_LOOK_ALIKES) if mixed else seen


def _joined(run: re.Match[str]) -> str:
    return " ".join(_SEPARATOR.sub("", word) for word in _WIDE.split(run[0]))


def _decoded(text: str) -> Iterator[str]:
    """What stands in a text in Base64, as far as it is text itself."""
    for found in _BASE64.finditer(text):
        word = found[0].translate(_URL_SAFE)
        try:
            yield base64.b64decode(word + "=" * (-len(word) % 4), validate=True).decode()
        except (binascii.Error, ValueError):
            continue
