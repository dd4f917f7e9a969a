"""Hostile texts without number: each is read in linear time by every pattern and function.

`make test` draws four of them; with --torture come all atoms with all tails, and pairs of atoms.
"""

from __future__ import annotations

import random

import pytest
from tests.test_patterns import TAILS, atoms, dear, text_of

LONG = 40


@pytest.mark.seeds(short=1, long=LONG)
def test_any_text_is_read_in_linear_time(seed: int, pytestconfig: pytest.Config) -> None:
    dice = random.Random(0)
    texts = [(atom, tail) for atom in atoms() for tail in TAILS]
    texts += [("".join(dice.sample(atoms(), 2)), dice.choice(TAILS)) for _ in atoms()]
    dice.shuffle(texts)
    mine = texts[seed::LONG] if pytestconfig.getoption("--torture") else texts[:4]
    assert dear(text_of(*each) for each in mine) == []
