"""Masks personal data in product texts: e-mails, phone, ID and card numbers.

Product texts are full of digits (barcodes, part numbers, sizes), so a number counts only with a
checksum, with the grouping of a phone number, or with a word before it that says what it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from llmtagger.datatypes import Product, Shortlist
from llmtagger.normalise import INVISIBLE
from llmtagger.protocols import Retriever

MASK = "█"  # neither a word nor a digit: no tag's name is found in it, and none across it
_NARROW = str.maketrans(
    "０１２３４５６７８９＠．＋－（）：Ｘ　", "0123456789@.+-():X "
)  # one for one
_START, _END = r"(?<![A-Za-z\d])(?<!\d[.,])", r"(?![A-Za-z\d])(?![.,]\d)"

_EMAIL = re.compile(r"(?<![\w.+-])[\w.%+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w@])")
_PHONES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        _START + r"(?:(?:\+|00)?86[ -]?)?1[3-9]\d(?:[ -]?\d{4}){2}" + _END,  # Chinese, mobile
        _START + r"(?:\(0\d{2,3}\) ?|0\d{2,3}[ -])[2-9]\d{6,7}(?:-\d{1,6})?" + _END,  # and fixed
        _START + r"[48]00[- ]?(?:\d{3}[- ]?\d{4}|\d{4}[- ]?\d{3})" + _END,  # and paid by a firm
        _START + r"(?:1[ .-]?)?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[.-])[2-9]\d{2}[ .-]\d{4}" + _END,
        r"(?<![\w+])\+[1-9](?:[ .()/-]{0,2}\d){7,14}(?!\d)",  # any country's, written in full
        r"(?:\b(?:t[eé]l|phone|mobile|fax|whats\s?app|hotline)|电话|手机号?码?|热线|传真)"
        r"\s?[.:]\s?:?\s?\(?\d{2,}(?:[ .()/-]{1,2}\d{2,}){0,5}(?!\d)",
    )
)
_LABELLED = 7  # least digits of a number that only a word says to be a phone's
_RESIDENT = re.compile(
    _START + r"[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx]" + _END
)
_SSN = re.compile(_START + r"(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?!-)" + _END)
_IBAN = re.compile(_START + r"[A-Z]{2}\d{2}(?: ?[A-Z\d]{4}){2,7}(?: ?[A-Z\d]{1,3})?" + _END)
_CARD = re.compile(_START + r"\d(?:[ -]?\d){14,18}" + _END)
_ISSUER = re.compile(  # by the first digits, with the lengths that each issues
    r"4\d{15}(?:\d{3})?|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"
    r"|3[47]\d{13}|6(?:011|4[4-9]\d|5\d\d)\d{12}|35\d{14}|62\d{14,17}"
)


def redact(text: str) -> str:
    """The text with each piece of personal data as one `MASK`; unchanged where there is none.

    >>> redact("Mug, ask ann@example.com or 138 1234 5678. EAN 4006381333931")
    'Mug, ask █ or █. EAN 4006381333931'
    """
    visible = INVISIBLE.sub("", text)
    places = sorted(_places(visible.translate(_NARROW)))
    if not places:
        return text
    parts, reached = [], 0
    for start, end in places:
        if start >= reached:
            parts += [visible[reached:start], MASK]
        reached = max(reached, end)
    return "".join(parts) + visible[reached:]


def redacted(product: Product) -> Product:
    """The product with personal data masked wherever a tag may be read from; its id stays."""
    return replace(
        product,
        title=redact(product.title),
        description=redact(product.description),
        brand=redact(product.brand),
        category=redact(product.category),
        attributes={redact(key): redact(value) for key, value in product.attributes.items()},
        reviews=tuple(map(redact, product.reviews)),
    )


class Redacting:
    """A retriever that neither sees personal data nor puts a tag or key that holds some on offer.

    What it finds is grounds for a tag, and grounds are written down.
    """

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever

    def retrieve(self, products: Sequence[Product]) -> list[Shortlist]:
        """One shortlist a product, in their order."""
        found = self._retriever.retrieve([redacted(product) for product in products])
        return [_without(shortlist) for shortlist in found]


def _without(shortlist: Shortlist) -> Shortlist:
    return replace(
        shortlist,
        candidates=tuple(
            candidate
            for candidate in shortlist.candidates
            if all(map(_is_clean, (candidate.tag.name, *candidate.tag.labels.values())))
        ),
        keys=tuple(filter(_is_clean, shortlist.keys)),
    )


def _is_clean(text: str) -> bool:
    return MASK not in redact(text)


def _places(text: str) -> Iterator[tuple[int, int]]:
    """Where personal data stands; places may overlap."""
    for pattern, holds in _KINDS:
        for found in pattern.finditer(text):
            if holds(found[0]):
                yield found.span()


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def _is_long_enough(phone: str) -> bool:
    return len(_digits(phone)) >= _LABELLED


def _is_resident(number: str) -> bool:
    """The check digit of a Chinese resident identity number (GB 11643, ISO 7064 MOD 11-2)."""
    total = sum(int(digit) << (17 - place) for place, digit in enumerate(number[:17]))
    return "10X98765432"[total % 11] == number[17].upper()


def _is_card(number: str) -> bool:
    """A number of a known issuer whose check digit is right (Luhn)."""
    digits = _digits(number)
    if not _ISSUER.fullmatch(digits):
        return False
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(each - 9 * (each > 9) for each in doubled) % 10 == 0


def _is_iban(number: str) -> bool:
    """The check digits of a bank account number (ISO 13616, ISO 7064 MOD 97-10)."""
    plain = number.replace(" ", "")
    return int("".join(str(int(char, 36)) for char in plain[4:] + plain[:4])) % 97 == 1


_KINDS: tuple[tuple[re.Pattern[str], Callable[[str], bool]], ...] = (
    (_EMAIL, bool),
    *((phone, _is_long_enough) for phone in _PHONES),
    (_RESIDENT, _is_resident),
    (_SSN, bool),
    (_IBAN, _is_iban),
    (_CARD, _is_card),
)
