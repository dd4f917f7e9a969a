"""Masking personal data: what is masked, what is left, and what a tagger then sees and shows."""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace
from typing import Any

import pytest

from llmtagger.backends.fakes import FakeGenerator
from llmtagger.config import PromptSettings, Settings
from llmtagger.datatypes import Product, Span
from llmtagger.pipeline import build_tagger
from llmtagger.redaction import MASK, redact, redacted
from llmtagger.templates import find_template
from llmtagger.vocabulary import Vocabulary

PERSONAL = {
    "e-mail": "ann.lee+shop@mail.example.co.uk",
    "e-mail, wide": "ann＠example．com",
    "Chinese mobile": "13812345678",
    "Chinese mobile, grouped": "138 1234 5678",
    "Chinese mobile, with its country": "+86 138-1234-5678",
    "Chinese mobile, wide": "１３８１２３４５６７８",
    "Chinese mobile, broken up unseen": "138\u200b1234\u200b5678",
    "Chinese landline": "010-62345678",
    "Chinese landline, bracketed": "(021) 62345678",
    "Chinese service number": "400-820-8820",
    "American": "(415) 555-2671",
    "American, dotted": "415.555.2671",
    "American, toll-free": "1-800-555-0199",
    "British": "+44 20 7946 0958",
    "German": "+49 (30) 901820",
    "French, labelled": "Tél. : 01 42 68 53 00",
    "labelled": "Tel: 0800 123456",
    "labelled in Chinese": "电话：6234 5678",
    "resident identity": "11010519491231002X",
    "social security": "219-09-9999",
    "bank account": "GB82 WEST 1234 5698 7654 32",
    "bank account, plain": "DE89370400440532013000",
    "Visa": "4111 1111 1111 1111",
    "Mastercard": "5555-5555-5555-4444",
    "American Express": "378282246310005",
    "UnionPay": "6222020000000007",
}

ORDINARY = {
    "EAN-13": "EAN 4006381333931",
    "UPC": "076955701415",
    "GTIN-14": "10012345678902",
    "ISBN": "ISBN 978-3-16-148410-0",
    "IMEI": "490154203237518",
    "sizes": "Sizes 37 38 - 40 41 - 43 44",
    "phones that fit": "Case for iPhone 11 12 13 14 15 16, phone 6.1 inch",
    "measures": "120x200x35 cm, 1800-2200 W, 3pcs@9.99",
    "part number": "HP 35100-10100 / CF-19ABCD1234",
    "a date": "2024-11-21 to 2025-01-01",
    "a longer number": "serial 991381234567899",
    "not that person": "110105194912310021",
    "not that card": "4111 1111 1111 1112",
    "not that account": "GB83 WEST 1234 5698 7654 32",
    "a decimal": "0.13812345678",
    "a model": "款号AB13812345678C",
    "price list": "1,380,123,456.78",
    "at": "@home @2x a@b",
}


@pytest.mark.parametrize("text", PERSONAL.values(), ids=PERSONAL)
def test_personal_data_is_masked_wherever_it_stands(text: str) -> None:
    for frame in ("{}", "Mug, ask {} now", "杯子，{}。", "({}) and, again: {}."):
        assert redact(frame.replace("{}", text)) == frame.replace("{}", MASK)


@pytest.mark.parametrize("text", ORDINARY.values(), ids=ORDINARY)
def test_other_numbers_stay(text: str) -> None:
    assert redact(text) == text


def test_a_text_without_personal_data_stays_as_it_is_written() -> None:
    text = "Mug\u200b ５０ｃｌ\u00ad"
    assert redact(text) is text


def test_masking_twice_changes_nothing_more() -> None:
    once = redact(" / ".join(PERSONAL.values()))
    assert once == " / ".join([MASK] * len(PERSONAL))
    assert redact(once) == once


def test_barcodes_are_hardly_ever_taken_for_something_else() -> None:
    """A number of 13 digits may be a mobile's with 86 in front; one in 800 is."""
    draw = random.Random(0)
    numbers = ["".join(draw.choices("0123456789", k=length)) for length in (8, 12, 13, 14) * 2000]
    taken = [number for number in numbers if redact(number) != number]
    assert all(number.startswith("86") for number in taken)
    assert len(taken) < len(numbers) / 500


@pytest.mark.parametrize(
    "text", ["1" * 200_000, "1 " * 100_000, "a@" * 100_000, "+1 (" * 50_000, "tel: 12 " * 25_000]
)
def test_no_text_holds_it_up(text: str) -> None:
    began = time.process_time()
    redact(text)
    assert time.process_time() - began < 5


def test_a_product_keeps_its_id_labels_and_unknown_fields() -> None:
    mail = "ann@example.com"
    product = Product(
        mail, mail, mail, mail, mail, {mail: mail}, tags=(mail,), group="g", extra={"seller": mail}
    )
    assert redacted(product) == Product(
        mail, MASK, MASK, MASK, MASK, {MASK: MASK}, tags=(mail,), group="g", extra={"seller": mail}
    )


REDACT = Settings(prompt=PromptSettings(redact=True))
LEATHER = Product(
    "n9",
    "Leather wallet ann@example.com zippered",
    description="Sold by 13812345678. Nylon.",
    attributes={"Contact ann@example.com": "4111 1111 1111 1111"},
    lang="en",
)


def _asked(catalogue: Any, answer: str, prompt: str, settings: Settings = REDACT) -> Any:
    generator = FakeGenerator(lambda *_: answer)
    tagger = build_tagger(catalogue, find_template(prompt), settings, generator)
    (tagged,) = tagger.tag([LEATHER])
    ((sent, constraint),) = generator.asked
    return tagged, "\n".join(text for _, text in sent.messages), json.dumps(dict(constraint.schema))


@pytest.mark.parametrize("prompt", ["tag.v1", "span.v1", "free.v1", "tag.v2"])
def test_the_model_is_shown_none_of_the_product(catalogue: Any, prompt: str) -> None:
    _, sent, _ = _asked(catalogue, "[]", prompt)
    assert MASK in sent
    assert not any(secret in sent for secret in ("ann@", "1381234", "4111"))
    _, sent, _ = _asked(catalogue, "[]", prompt, Settings())
    assert all(secret in sent for secret in ("ann@", "1381234"))


def test_neighbours_and_their_tags_are_masked_too(
    make_catalogue: Any, products: tuple[Product, ...]
) -> None:
    mail = "bob@example.com"
    seller = replace(products[0], title=f"{products[0].title} {mail}", tags=("wallet", mail))
    catalogue = make_catalogue([seller], Vocabulary.from_products([seller]))
    _, sent, schema = _asked(catalogue, "[]", "tag.v1")
    assert "bob" not in sent + schema
    assert '"wallet"' in schema
    _, sent, schema = _asked(catalogue, "[]", "tag.v1", Settings())
    assert mail in sent
    assert mail in schema


def test_evidence_is_right_for_what_is_left(catalogue: Any) -> None:
    tagged, *_ = _asked(catalogue, '["leather wallet", "zippered"]', "tag.v1")
    assert tagged.product is LEATHER
    evidence = {item.tag.name: item.evidence for item in tagged.scored.items}
    assert evidence["leather wallet"].spans == (Span("title", "Leather wallet"),)
    assert evidence["zippered"].spans == (Span("title", "zippered"),)


@pytest.mark.parametrize("answer", [MASK, "wallet zippered", f"wallet {MASK} zippered"])
def test_a_mask_is_no_value_and_joins_none(catalogue: Any, answer: str) -> None:
    tagged, *_ = _asked(catalogue, json.dumps({"Material": [answer]}), "span.v1")
    assert not any(item.evidence.chosen for item in tagged.scored.items)
    assert [each.text for each in tagged.rejected] == [f"Material={answer}"]


def test_a_run_without_masking_is_another_run() -> None:
    assert REDACT.fingerprint != Settings().fingerprint
