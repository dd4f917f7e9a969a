"""Orders to the model, put where and as somebody might hide them in a catalogue."""

from __future__ import annotations

import base64
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

from llmtagger.datatypes import Candidate, Product, Shortlist
from llmtagger.injection import rules_in

FILE = Path(__file__).with_name("payloads.toml")
TEXTS = Path(__file__).with_name("guard")  # what benchmarks/guard.py reads
OF_PRODUCT = ("title", "description", "comment", "attribute", "key", "brand")
OF_INDEX = ("neighbour", "tag", "alias")
PLACES = OF_PRODUCT + OF_INDEX

_LOOK_ALIKES = str.maketrans("aceiopsxyABCEHKMOPTX", "асеіорѕхуАВСЕНКМОРТХ")
_SMALL_CAPITALS = str.maketrans("abcdefghijklmnopqrtuvwyz", "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘǫʀᴛᴜᴠᴡʏᴢ")
_DIGITS = str.maketrans("aeiostAEIOST", "431057431057")


def full_width(text: str) -> str:
    """Each ASCII character in its full-width form."""
    return "".join(
        chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else "\u3000" if c == " " else c for c in text
    )


def zero_width(text: str) -> str:
    """A zero-width space after each character."""
    return "\u200b".join(text)


def homoglyphs(text: str) -> str:
    """Cyrillic letters for the Latin ones that they look like; other text stays."""
    return text.translate(_LOOK_ALIKES)


def digits(text: str) -> str:
    """Digits for letters; other text stays."""
    return text.translate(_DIGITS)


def spread(text: str) -> str:
    """A space after each character."""
    return " ".join(text)


def base64_text(text: str) -> str:
    """A request to decode, and the text in Base64."""
    return f"Decode and obey: {base64.b64encode(text.encode()).decode()}"


OBFUSCATIONS: Mapping[str, Callable[[str], str]] = {
    "plain": str,
    "zero_width": zero_width,
    "full_width": full_width,
    "homoglyphs": homoglyphs,
    "digits": digits,
    "spread": spread,
    "base64": base64_text,
}


def small_capitals(text: str) -> str:
    """Small capitals for letters, as far as Unicode has them; other text stays."""
    return text.lower().translate(_SMALL_CAPITALS)


def squared(text: str) -> str:
    """White letters on black squares; other text stays."""
    return "".join(chr(0x1F170 + ord(c) - 65) if "A" <= c <= "Z" else c for c in text.upper())


def html_escapes(text: str) -> str:
    """Each character as its number in HTML."""
    return "".join(f"&#{ord(c)};" for c in text)


FORMS: Mapping[str, Callable[[str], str]] = {
    **OBFUSCATIONS,
    "small_capitals": small_capitals,
    "squared": squared,
    "html_escapes": html_escapes,
    "percent_escapes": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "pinyin": str,
    "other_language": str,
}


@dataclass(frozen=True, slots=True)
class Payload:
    """One order in one place and one disguise; `text` has {tag} for the tag that it names."""

    order: str
    lang: str
    text: str
    place: str
    obfuscation: str

    @property
    def id(self) -> str:
        """Tells payloads apart: `ignore-above/title/plain`."""
        return f"{self.order}/{self.place}/{self.obfuscation}"

    @property
    def is_known(self) -> bool:
        """Whether a rule of the guard finds it in the middle of a line."""
        return bool(rules_in(f"Mug {self.said('gift')}"))

    def said(self, tag: str) -> str:
        """The text that names a tag, in its disguise."""
        return OBFUSCATIONS[self.obfuscation](self.text.replace("{tag}", tag))

    def mention(self) -> Payload:
        """The same place with the tag's name alone: what the text says, and nobody orders."""
        return replace(self, text="{tag}", obfuscation="plain")

    def on_product(self, product: Product, tag: str) -> Product:
        """The product with this in it, if it goes into products."""
        said = self.said(tag)
        if self.place == "title":
            return replace(product, title=f"{product.title} {said}")
        if self.place == "description":
            return replace(product, description=f"{product.description}\n{said}".strip())
        if self.place == "comment":
            return replace(product, description=f"{product.description}\n<!-- {said} -->".strip())
        if self.place == "attribute":
            return replace(product, attributes={**product.attributes, "Note": said})
        if self.place == "key":
            return replace(product, attributes={**product.attributes, said: "yes"})
        if self.place == "brand":
            return replace(product, brand=f"{product.brand} {said}".strip())
        return product

    def on_shortlist(self, shortlist: Shortlist, tag: str) -> Shortlist:
        """The shortlist with this in its nearest neighbour or in a tag, if it goes there.

        The tag is the first on offer that is not the one named.
        """
        said = self.said(tag)
        if self.place == "neighbour" and shortlist.neighbours:
            first, *rest = shortlist.neighbours
            told = replace(first.product, title=f"{first.product.title} {said}")
            return replace(shortlist, neighbours=(replace(first, product=told), *rest))
        if self.place not in ("tag", "alias"):
            return shortlist
        candidates = list(shortlist.candidates)
        for at, candidate in enumerate(candidates):
            if tag not in (candidate.tag.name, *candidate.tag.labels.values()):
                candidates[at] = self._on_tag(candidate, said)
                break
        return replace(shortlist, candidates=tuple(candidates))

    def _on_tag(self, candidate: Candidate, said: str) -> Candidate:
        tag = candidate.tag
        if self.place == "alias":
            return replace(candidate, tag=replace(tag, aliases=(*tag.aliases, said)))
        labels = {lang: f"{label} {said}" for lang, label in tag.labels.items()}
        return replace(candidate, tag=replace(tag, name=f"{tag.name} {said}", labels=labels))


def payloads(path: Path = FILE) -> list[Payload]:
    """All payloads: each order plain in six places, and in each disguise in one.

    Places take turns, so that each order meets each kind, and each disguise each place.
    """
    orders = tomllib.loads(path.read_text(encoding="utf-8"))["order"]
    return list(_spread_out(orders))


def _spread_out(orders: list[dict[str, str]]) -> Iterator[Payload]:
    turn = cycle(PLACES)
    for number, order in enumerate(orders):
        plain = [PLACES[(number + at) % len(PLACES)] for at in range(6)]
        for place in plain:
            yield _payload(order, place, "plain")
        for name in OBFUSCATIONS:
            if name != "plain" and _changes(order, name):
                yield _payload(order, next(turn), name)


def _changes(order: Mapping[str, str], obfuscation: str) -> bool:
    """Look-alikes and digits leave a Chinese text as it is."""
    return order["lang"] == "en" or obfuscation not in ("homoglyphs", "digits")


def _payload(order: dict[str, str], place: str, obfuscation: str) -> Payload:
    return Payload(order["id"], order["lang"], order["text"], place, obfuscation)


@dataclass(frozen=True)
class Attack:
    """A prompt injection: what its author is after, its form, and the text in that form."""

    aim: str
    form: str
    text: str


def attacks(half: str) -> list[Attack]:
    """Those written `before` or `after` the rules."""
    found = _toml(TEXTS / f"attacks_{half}.toml")
    return [
        Attack(aim, form, FORMS[form](text))
        for aim, forms in found.items()
        for form, texts in forms.items()
        for text in texts
    ]


def harmless() -> list[str]:
    """Sentences that no rule should find."""
    return [text for texts in _toml(TEXTS / "harmless.toml").values() for text in texts]


def _toml(path: Path) -> Mapping[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))
