"""Arrays in .npy files: opened where they lie, written while their length is still unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from llmtagger.errors import IndexDamaged
from llmtagger.protocols import Vectors


def open_array(path: Path, dtype: DTypeLike, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """An array mapped into memory; `IndexDamaged` unless its type and shape agree.

    None in `shape` admits any length.
    """
    try:
        # As a plain array, which stays mapped: a `memmap` takes longer at each access.
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    except Exception as error:  # numpy's header reader lets any error of its parser through
        raise _damaged(path) from error
    fits = len(array.shape) == len(shape) and all(
        wanted in (None, found) for wanted, found in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype != dtype:
        raise _damaged(path)
    return array


def _damaged(path: Path) -> IndexDamaged:
    return IndexDamaged(
        f"{path} is damaged", hint="build the index again with `llmtagger index build`"
    )


class VectorWriter:
    """Appends rows to a new .npy file of float32; use it with `with`."""

    def __init__(self, path: Path, dimension: int) -> None:
        self._file = path.open("wb")
        self._dimension = dimension
        self.count = 0

    def __enter__(self) -> VectorWriter:
        self._file.write(self._header())
        return self

    def __exit__(self, *error: object) -> None:
        self._file.seek(0)
        self._file.write(self._header())
        self._file.close()

    def write(self, vectors: Vectors) -> None:
        """Append some rows."""
        self._file.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())
        self.count += len(vectors)

    def _header(self) -> bytes:
        """Version 1.0 of the format, padded to 128 bytes so that it can be written again."""
        shape = f"({self.count}, {self._dimension})"
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
        return b"\x93NUMPY\x01\x00\x76\x00" + text.ljust(117).encode("ascii") + b"\n"
