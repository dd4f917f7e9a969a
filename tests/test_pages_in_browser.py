"""The HTML reports in a real browser: hostile texts are shown, and nothing of them runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests import test_report

from llmtagger.datatypes import Problem, Product, Reason, Rejection
from llmtagger.evaluation.matrix import write_matrix
from llmtagger.evaluation.report import write_comparison, write_report
from llmtagger.evaluation.trials import Cell, Shown

HOSTILE = (
    "<script>document.title = 'ran'</script><img src=x onerror=\"document.title = 'ran'\">"
    "\"><svg onload=document.title='ran'>' onmouseover=\"document.title='ran'\" x='"
    "</style></title></textarea><iframe src=\"javascript:parent.document.title='ran'\"></iframe>"
    "<a href=\"javascript:document.title='ran'\">a</a>"
)


def hostile(value: Any) -> Any:
    """A record with hostile texts in place of all of its texts that are names, deep down."""
    if isinstance(value, dict):
        return {key: hostile(each) for key, each in value.items()}
    if isinstance(value, list):
        return [hostile(each) for each in value]
    is_name = isinstance(value, str) and not value.isidentifier() and value[:2] != "20"
    return HOSTILE if is_name else value


def matrix(path: Path) -> None:
    product = Product(HOSTILE, HOSTILE, HOSTILE, tags=(HOSTILE,))
    shown = (Shown(HOSTILE, "wrong", kept=True, why=HOSTILE), Shown("mug", "right", kept=True))
    rejected = (Rejection(HOSTILE, Reason.NOT_IN_VOCABULARY),)
    write_matrix([[Cell(product, HOSTILE, shown, rejected, Problem(HOSTILE, HOSTILE))]], path)


def report(path: Path) -> None:
    measured = test_report.results()
    samples = [hostile(test_report.sample(number)) for number in range(25)]
    write_report(measured, samples, path)


def comparison(path: Path) -> None:
    write_comparison(test_report.comparison(), path)


PAGES: dict[str, Callable[[Path], None]] = {
    "matrix": matrix,
    "report": report,
    "comparison": comparison,
}


@pytest.mark.parametrize("write", PAGES.values(), ids=PAGES)
def test_nothing_runs_and_nothing_is_fetched(
    write: Callable[[Path], None], browser: Any, tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    write(path)
    tab = browser.new_page()
    fetched: list[str] = []
    tab.on("request", lambda request: fetched.append(request.url))
    tab.on("dialog", lambda dialog: pytest.fail(f"a dialog: {dialog.message}"))
    tab.goto(path.as_uri())
    title = tab.title()
    for element in tab.query_selector_all("bdi, .chip, td, a")[:50]:
        element.dispatch_event("mouseover")
    tab.wait_for_timeout(200)
    assert "<script>" in tab.inner_text("body")
    assert tab.title() == title != "ran"
    assert fetched == [path.as_uri()]
    assert tab.query_selector_all("script, iframe, img, object, form") == []
    tab.close()


def test_the_same_texts_would_run_where_they_were_not_escaped(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(f"<title>x</title><body>{HOSTILE}")
    tab = browser.new_page()
    tab.goto((tmp_path / "page.html").as_uri())
    tab.wait_for_timeout(200)
    assert tab.title() == "ran"
    tab.close()
