"""Takes docs/images: every view of the studio, at desktop and phone width, light and dark.

    python tools/studio_images.py [-i indexes/examples]

It asks the real model about ten products with two versions of the prompt, marks a tag, and takes
the pictures with the Chromium that is installed. The index is copied first and stays as it is.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
SIZES = {"desktop": (1280, 820), "phone": (390, 844)}
VIEWS = {"matrix": "/", "edit": "/edit?version=tag.v3", "verdict": "/verdict", "gold": "/gold"}
ANSWERS = 600_000  # ms


@contextmanager
def studio(index: Path) -> Iterator[str]:
    """The studio on a copy of an index, in a working folder of its own; its address."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(index, folder / "shop", ignore=shutil.ignore_patterns("studio*"))
        rules = (ROOT / "prompts" / "tag.v1.jinja").read_text("utf-8")
        (folder / "shorter.jinja").write_text(
            rules.replace("; when in doubt, leave it out", ""), "utf-8"
        )
        line = [sys.executable, "-m", "llmtagger"]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        subprocess.run(
            [*line, "prompt", "new", "tag.v1", "shorter.jinja", "--note", "choose when in doubt"],
            cwd=folder, env=environment, check=True,
        )  # fmt: skip
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        process = subprocess.Popen(
            [*line, "studio", "-i", "shop", "--no-browser", "--port", port],
            cwd=folder, env=environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stderr is not None
            while "The studio is at" not in (said := process.stderr.readline()):
                assert said, "the studio did not start"
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.communicate()


def work(page: Any, address: str) -> None:
    """Do what an analyst does first: ask with two versions, mark a tag, begin a draft."""
    page.goto(address)
    page.get_by_label("Versions").click()
    page.get_by_role("option", name="tag.v3").click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Ask the model").click()
    page.wait_for_selector(".matrix .chip", timeout=ANSWERS)
    page.get_by_role("button", name="Cancel").wait_for(state="hidden", timeout=ANSWERS)
    page.locator(".matrix .cell").nth(2).click()
    page.get_by_label("Wrong").last.click()
    page.wait_for_selector("text=Undo")
    page.get_by_role("button", name="These are all its tags").click()


def pictures(browser: Any, address: str) -> None:
    """One picture a view, size and colours; the sheet of a cell besides."""
    IMAGES.mkdir(exist_ok=True)
    for size, (width, height) in SIZES.items():
        context = browser.new_context(viewport={"width": width, "height": height})
        page = context.new_page()
        for dark in ("", "-dark"):
            for view, path in VIEWS.items():
                page.goto(address + path)
                page.wait_for_load_state("networkidle")
                page.wait_for_timeout(1500)
                page.screenshot(path=IMAGES / f"studio-{view}-{size}{dark}.png")
            page.goto(address)
            page.locator(".matrix .cell").first.click()
            page.wait_for_timeout(1000)
            page.screenshot(path=IMAGES / f"studio-cell-{size}{dark}.png")
            page.keyboard.press("Escape")
            page.get_by_role("button", name="Light" if dark else "Dark").click()
            page.wait_for_timeout(1000)
        context.close()


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-i", "--index", type=Path, default=ROOT / "indexes" / "examples")
    chosen = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("no Chromium is installed: apt install chromium")
    with sync_playwright() as play, studio(chosen.index) as address:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        work(browser.new_page(), address)
        pictures(browser, address)
        browser.close()


if __name__ == "__main__":
    main()
