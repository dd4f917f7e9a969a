"""How many cores the libraries of arrays may take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext


@contextmanager
def one_core_each(*, crowded: bool = False) -> Iterator[None]:
    """NumPy, SciPy and FAISS work with one thread inside, as far as they are loaded by then.

    A handful of products is too little to share out: their threads wait for each other by spinning,
    which takes the cores from the server and from who asks it. PyTorch's stay, encoders need them,
    unless the cores are `crowded` by a server that computes on them: there an encoder's threads
    spin away three times what one takes.
    OpenMP counts threads for each thread that calls it, so call and search in the same one.
    """
    from threadpoolctl import ThreadpoolController

    libraries = [
        library
        for library in ThreadpoolController().lib_controllers
        if "torch" not in library.filepath
    ]
    before = [library.num_threads for library in libraries]
    try:
        for library in libraries:
            library.set_num_threads(1)
        with _one_for_encoders() if crowded else nullcontext():
            yield
    finally:
        for library, threads in zip(libraries, before, strict=True):
            library.set_num_threads(threads)


@contextmanager
def _one_for_encoders() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
