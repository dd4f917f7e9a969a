"""The pages whose commands ask a model, run with the real server."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools.run_docs import ROOT, needs_model, pages, prepare, run_page

from llmtagger.backends.vllm_process import ServerInfo

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]

PAGES = [page for page in pages() if needs_model((ROOT / page).read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_the_blocks_of_a_page_run(page: Path, server: ServerInfo, tmp_path: Path) -> None:
    prepare(tmp_path)
    run_page(str(page), (ROOT / page).read_text(encoding="utf-8"), tmp_path, server.url)


def test_the_tutorial_is_run() -> None:
    assert Path("docs/tutorial.md") in PAGES
