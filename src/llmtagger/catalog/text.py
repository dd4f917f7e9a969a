"""Product text made readable: broken encodings mended, HTML reduced to its lines, language told."""

from __future__ import annotations

import re
from typing import Any, Literal

from llmtagger.datatypes import Problem, Product
from llmtagger.normalise import unescaped

LOST = "\ufffd"  # stands for a character that could not be read
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")
_BLOCKS = (
    "address,article,aside,blockquote,br,dd,div,dl,dt,figcaption,figure,footer,h1,h2,h3,h4,h5,h6,"
    "header,hr,li,main,nav,ol,p,pre,section,table,td,th,tr,ul"
)
_UNSEEN = ["script", "style", "template", "noscript", "iframe", "title"]
_MOST_TAGS = 5_000  # deep nesting takes quadratic time to parse: 200,000 levels took 260 s
_UNSEEN_TEXT = re.compile(r"(?is)<(script|style|template|noscript|iframe|title)\b.*?(</\1\s*>|$)")
_COMMENT = re.compile(r"(?s)<!--.*?(-->|$)")
_TAG = re.compile(r"</?[A-Za-z][^>]*(>|$)")
_SUSPECT = re.compile("[\x80-\u2fff\uf8ff\ufb01\ufb02\ufffd]")  # without these nothing is broken
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_HAN_SHARE = 0.3


def writable(value: Any) -> Any:
    """A JSON value whose texts any file can hold: halves of surrogate pairs and NUL become `LOST`.

    >>> writable({"a\\ud800": ["b\\0"]}) == {"a\\ufffd": ["b\\ufffd"]}
    True
    """
    if isinstance(value, str):
        plain = value.isascii() and "\0" not in value
        return value if plain else _UNWRITABLE.sub(LOST, value)
    if isinstance(value, dict):
        return {writable(key): writable(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [writable(each) for each in value]
    return value


def loss(product: Product) -> Problem | None:
    """A warning about a product whose text has lost characters; the tags hold all the same."""
    texts = [*product.fields(), *(("tags", tag) for tag in product.tags or ())]
    fields = dict.fromkeys(writable(name) for name, text in texts if LOST in name or LOST in text)
    if not fields:
        return None
    names = ", ".join(fields)[:200]
    return Problem("text_repaired", f"characters that could not be read stand as {LOST} in {names}")


def mend(text: str) -> str:
    """Text that was decoded wrongly, mended: `"PiquÃ© Â®"` becomes `"Piqué ®"`.

    Nothing else changes: width, ligatures, quotes and invisible characters stay as they are.
    """
    # Each character once: a description is several times as long as its alphabet.
    if text.isascii() or not _SUSPECT.search("".join(set(text))):
        return text
    import ftfy
    from ftfy.badness import is_bad

    return ftfy.fix_encoding(text) if is_bad(text) else text


def guess_language(text: str) -> Literal["zh", "en"]:
    """`"zh"` where more than three letters in ten are Chinese, else `"en"`."""
    if text.isascii():
        return "en"
    letters = sum(map(str.isalpha, text))
    return "zh" if len(_HAN.findall(text)) > _HAN_SHARE * letters else "en"


def html_to_text(source: str) -> str:
    """What a reader of the page sees, a block a line.

    >>> html_to_text("<p>Soft&nbsp;<b>wool</b></p><ul><li>S<li>M</ul><script>x()</script>")
    'Soft wool\\nS\\nM'
    """
    if "<" not in source:
        return _lines(unescaped(source))
    flat = " ".join(source.split())
    return _lines(_parsed(flat) if flat.count("<") <= _MOST_TAGS else _stripped(flat))


def _parsed(source: str) -> str:
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(source)
    tree.strip_tags(_UNSEEN)
    for node in tree.css(_BLOCKS):
        node.insert_before("\n")
        node.insert_after("\n")
    return tree.body.text() if tree.body else ""


def _stripped(source: str) -> str:
    """A rougher reading in linear time, for bodies with more tags than a product needs."""
    for unseen in (_COMMENT, _UNSEEN_TEXT, _TAG):
        source = unseen.sub("\n", source)
    return unescaped(source)


def _lines(text: str) -> str:
    return "\n".join(line for part in text.split("\n") if (line := " ".join(part.split())))
