"""How many cores the libraries of arrays take."""

import numpy as np
import torch
from threadpoolctl import ThreadpoolController

from llmtagger.threads import one_core_each


def threads_of_numpy() -> list[int]:
    libraries = ThreadpoolController().lib_controllers
    return [each.num_threads for each in libraries if "numpy" in each.filepath]


def test_numpy_works_with_one_thread_and_gets_its_own_back() -> None:
    assert np.eye(2).sum() == 2
    for library in ThreadpoolController().lib_controllers:
        if "numpy" in library.filepath:
            library.set_num_threads(2)

    with one_core_each():
        inside = threads_of_numpy()

    assert set(inside) == {1}
    assert set(threads_of_numpy()) == {2}


def test_encoders_too_where_a_server_is_on_these_cores() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_core_each():
            alone = torch.get_num_threads()
        with one_core_each(crowded=True):
            crowded = torch.get_num_threads()

        assert (alone, crowded, torch.get_num_threads()) == (2, 1, 2)
    finally:
        torch.set_num_threads(before)
