"""The studio in a real browser, with a stand-in for the model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nicegui")

pytestmark = pytest.mark.timeout(400)
PATIENCE = 120_000  # ms, on a machine that has other work

Start = Callable[[float], str]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a studio whose model takes so many seconds to start; its address."""
    running: list[subprocess.Popen[str]] = []

    def begin(seconds: float) -> str:
        environment = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
        app = Path(__file__).with_name("studio_app.py")
        process = subprocess.Popen(
            [sys.executable, str(app), str(tmp_path), "0", str(seconds)],
            stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        running.append(process)
        assert process.stderr is not None
        said = ""
        while "ready " not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        return said.split("ready ")[-1].strip()

    yield begin
    for process in running:
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page as wide as a phone, on which no script fails."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    shown = context.new_page()
    shown.set_default_timeout(PATIENCE)
    faults: list[str] = []
    shown.on("pageerror", lambda error: faults.append(str(error)))
    yield shown
    context.close()
    assert faults == []


def button(page: Any, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True)


def fits(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def test_an_analyst_from_the_first_screen_to_a_verdict(start: Start, page: Any) -> None:
    address = start(0)
    page.goto(address)
    page.wait_for_selector("text=in three steps")
    assert page.locator(".matrix .cell:visible").count() == 0
    assert fits(page)
    button(page, "Ask the model").click()
    page.wait_for_selector(".matrix .chip")
    page.wait_for_selector(".totals td:text-is('10')")
    assert "Red Mug" in page.locator(".matrix").inner_text()
    assert fits(page)

    page.locator(".matrix .cell").first.click()
    place = page.locator(".sheet .head .note").first
    page.wait_for_selector(".sheet .line")
    assert place.inner_text() == "1 / 10"
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".sheet .head :text('2 / 10')")
    page.keyboard.press("d")
    page.wait_for_selector(".sheet .head :text('3 / 10')")
    page.keyboard.press("Escape")
    page.locator(".sheet").wait_for(state="hidden")

    page.goto(f"{address}edit")
    page.wait_for_selector(".rendered")
    assert page.get_by_label("Rule 1", exact=True).input_value().startswith("Choose only from")
    page.get_by_label("Rule 2", exact=True).fill("Choose what a {{ shopper }} asks for.")
    page.wait_for_selector(".fault:visible")
    page.get_by_label("Rule 2", exact=True).fill("Choose what a shopper would ask for.")
    page.wait_for_selector(".rendered:has-text('2. Choose what a shopper would ask for.')")
    assert fits(page)
    button(page, "Discard draft").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    button(page, "Save as a version").click()
    button(page, "Save").click()
    page.wait_for_url("**version=tag.v3")

    page.goto(f"{address}verdict")
    page.wait_for_selector("text=Nothing to compare yet. Press Compare.")
    button(page, "Compare").click()
    page.wait_for_selector("text=No difference: same tags on all 10 products.")
    page.wait_for_selector(".figures")
    assert fits(page)
    loud = page.locator("button:has-text('Make tag.v3 live')")
    assert "bg-primary" not in (loud.get_attribute("class") or "")


def test_cancel_ends_the_start_of_the_model(start: Start, page: Any) -> None:
    page.goto(start(300))
    button(page, "Ask the model").click()
    page.wait_for_selector("text=Starting the model's server")
    button(page, "Cancel").click()
    button(page, "Cancel").wait_for(state="hidden", timeout=30_000)
    assert button(page, "Ask the model").is_enabled()
    assert page.locator(".complaint").count() == 0


def test_no_page_may_be_framed(start: Start, page: Any) -> None:
    address = start(0)
    answer = page.goto(address)
    assert answer.headers["content-security-policy"] == "frame-ancestors 'none'"
    assert answer.headers["x-frame-options"] == "DENY"
    page.set_content(f"<iframe src='{address}'></iframe>")
    page.wait_for_timeout(2000)
    assert page.frames[-1].locator("text=Ask the model").count() == 0
