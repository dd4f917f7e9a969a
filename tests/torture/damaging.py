"""Ways to damage a file: cut short, with a bit flipped, or replaced by a pickle."""

from __future__ import annotations

import os
import pickle
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from llmtagger.backends.index_folder import open_index
from llmtagger.calibration import Calibration, Fitted

MARK = Path(tempfile.gettempdir()) / f"llmtagger-unpickled-{os.getpid()}"


class Payload:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(MARK),)


def pickled(path: Path) -> bytes:
    """A payload in the form that a reader of such a file might be made to load."""
    if path.suffix == ".npy":
        with path.with_suffix(".made").open("wb") as file:
            np.save(file, np.array([Payload()], dtype=object), allow_pickle=True)
        raw = path.with_suffix(".made").read_bytes()
        path.with_suffix(".made").unlink()
        return raw
    return pickle.dumps(Payload())


def damages(raw: bytes, seed: int) -> Iterator[tuple[str, bytes]]:
    """A cut and a flipped bit, at places that the seed decides."""
    dice = random.Random(f"{seed} {len(raw)}")
    if raw:
        length = (0, len(raw) - 1, len(raw) // 2)[seed] if seed < 3 else dice.randrange(len(raw))
        yield f"cut to {length}", raw[:length]
        flipped = bytearray(raw)
        place = dice.randrange(len(raw))
        flipped[place] ^= 1 << dice.randrange(8)
        yield f"bit {place}", bytes(flipped)


def all_damages(path: Path, seed: int) -> Iterator[tuple[str, bytes]]:
    """Those, and a pickle in its place."""
    yield from damages(path.read_bytes(), seed)
    yield "pickle", pickled(path)


def write_scorer(index: Path, folder: Path) -> None:
    """A learned scorer for an index, whole, in a folder."""
    opened = open_index(index)
    fitted = Fitted(
        bias=-2.0,
        of={"vote": (1.5, 0.25)},
        bend=(1.0, 1.0, 0.0),
        threshold=0.4,
        f1=0.8,
        calibration_error=0.01,
        promises=[],
    )
    Calibration(
        created="now",
        index=opened.fingerprint,
        vocabulary=opened.manifest.vocabulary,
        settings="s",
        products=40,
        unasked=fitted,
    ).write(folder)
