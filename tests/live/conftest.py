"""One real server for all live tests of a run, or the one that LLMTAGGER_TEST_ENDPOINT names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmtagger.backends.models import resolve_model
from llmtagger.backends.vllm_client import VllmGenerator
from llmtagger.backends.vllm_process import ServerInfo, serving


@pytest.fixture(scope="session")
def server() -> Iterator[ServerInfo]:
    """A vLLM server of the embedded model."""
    url = os.environ.get("LLMTAGGER_TEST_ENDPOINT")
    if url:
        generator = VllmGenerator([url])
        name = generator.model
        generator.close()
        yield ServerInfo(url, name, 0, 0, 0.0, Path(os.devnull), True, "", Path(os.devnull))
        return
    with serving(resolve_model("smollm2-135m"), progress=lambda message, seconds: None) as info:
        yield info


@pytest.fixture(scope="session")
def generator(server: ServerInfo) -> Iterator[VllmGenerator]:
    """A client of the server."""
    made = VllmGenerator([server.url], model=server.model)
    yield made
    made.close()
