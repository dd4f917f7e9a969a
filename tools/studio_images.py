"""Takes docs/images: the studio's views, at desktop and phone width, light and dark.

    python tools/studio_images.py [-i indexes/examples] [-o docs/images] [--stand-in]

It asks the model about ten products with two versions of the prompt, marks a tag, and takes the
pictures with the Chromium that is installed. The index is copied first and stays as it is. Only
pictures that a page shows go into docs/images; into another folder go all of them. With
`--stand-in` no server is started: a stand-in for the model names tags that the product's text has.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
SIZES = {"desktop": (1280, 820), "phone": (390, 844)}
VIEWS = {"matrix": "/", "edit": "/edit?version=tag.v3", "verdict": "/verdict", "gold": "/gold"}
READY = {
    "matrix": ".matrix .chip",
    "edit": ".rendered",
    "verdict": ".figures",
    "gold": "text=Export: CSV",
}
ANSWERS = 900_000  # ms
SHORTER = ("; when in doubt, leave it out", "")  # how the second version differs


@contextmanager
def studio(index: Path, stand_in: bool) -> Iterator[str]:
    """The studio on a copy of an index, in a working folder of its own; its address."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(index, folder / "shop", ignore=shutil.ignore_patterns("studio*"))
        rules = (ROOT / "prompts" / "tag.v1.jinja").read_text("utf-8")
        (folder / "shorter.jinja").write_text(rules.replace(*SHORTER), "utf-8")
        line = [sys.executable, "-m", "llmtagger"]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        subprocess.run(
            [*line, "prompt", "new", "tag.v1", "shorter.jinja", "--note", "choose when in doubt"],
            cwd=folder, env=environment, check=True,
        )  # fmt: skip
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        begin = [sys.executable, __file__, "--serve"] if stand_in else [*line, "studio"]
        process = subprocess.Popen(
            [*begin, "-i", "shop", "--no-browser", "--port", port],
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


def serve_stand_in(options: list[str]) -> None:
    """`llmtagger studio`, with a stand-in for the model."""
    from llmtagger.backends.fakes import FakeGenerator
    from llmtagger.cli import app
    from llmtagger.datatypes import Completion, Constraint, Prompt
    from llmtagger.studio import workspace
    from llmtagger.wording import estimate_tokens

    class StandIn(FakeGenerator):
        def __exit__(self, *error: object) -> None: ...

        def complete(self, prompt: Prompt, constraint: Constraint) -> Completion:
            offered = constraint.schema["items"]["enum"]
            rules, text = (said for _, said in prompt.messages)
            product = re.split(r"\n(?:Product|商品)\n", text)[-1].casefold()
            named = [tag for tag in offered if tag.casefold() in product]
            if SHORTER[0] not in rules:  # chooses more where the rules let it
                named = list(dict.fromkeys((*named, *offered[:2])))
            answer = super().complete(prompt, constraint)
            said = "[" + ", ".join(f'"{tag}"' for tag in named[:10]) + "]"
            return replace(answer, text=said, seconds=0.4 + len(named) / 20)

    setattr(workspace, "kept_answers", lambda *what: StandIn())  # noqa: B010 - what it imports itself
    workspace.Workspace.count = staticmethod(estimate_tokens)  # type: ignore[assignment]
    app(["studio", *options])


def work(page: Any, address: str, take: Any) -> None:
    """Do what an analyst does first: ask with two versions, compare them, mark a tag."""
    page.goto(address)
    page.wait_for_selector(".start")
    take(page, "start")
    page.get_by_label("Versions").click()
    page.get_by_role("option", name="tag.v3").click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Ask the model").click()
    page.wait_for_selector(".matrix .chip", timeout=ANSWERS)
    page.get_by_role("button", name="Cancel").wait_for(state="hidden", timeout=ANSWERS)
    page.goto(f"{address}/verdict")
    page.get_by_role("button", name="Compare").click()
    page.wait_for_selector(".figures", timeout=ANSWERS)
    page.get_by_role("button", name="Cancel").wait_for(state="hidden", timeout=ANSWERS)
    page.goto(address)
    page.wait_for_selector(".matrix .chip")
    page.locator(".matrix .cell").nth(2).click()
    page.get_by_label("Wrong").last.click()
    page.wait_for_selector("text=Undo")
    page.get_by_role("button", name="Done, list is complete").click()


def pictures(browser: Any, address: str, take: Any) -> None:
    """One picture a view, size and colours; the sheet of a cell besides."""
    for size, (width, height) in SIZES.items():
        context = browser.new_context(viewport={"width": width, "height": height})
        page = context.new_page()
        for dark in ("", "-dark"):
            for view, path in VIEWS.items():
                page.goto(address + path)
                page.wait_for_selector(READY[view], timeout=ANSWERS)
                page.wait_for_timeout(1500)
                take(page, f"{view}-{size}{dark}")
                wide = page.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, f"{view} is {wide} px wide on a screen of {width}"
            page.goto(address)
            page.locator(".matrix .cell").first.click()
            page.wait_for_selector(".sheet .line")
            page.wait_for_timeout(1500)
            take(page, f"cell-{size}{dark}")
            page.keyboard.press("Escape")
            page.get_by_role("button", name="Light" if dark else "Dark").click()
            page.wait_for_timeout(1500)
        context.close()


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-i", "--index", type=Path, default=ROOT / "indexes" / "examples")
    parser.add_argument("-o", "--output", type=Path, default=IMAGES)
    parser.add_argument("--stand-in", action="store_true")
    chosen = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("no Chromium is installed: apt install chromium")
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md")]
    shown = set(re.findall(r"studio-[a-z-]+\.png", "".join(p.read_text("utf-8") for p in pages)))
    chosen.output.mkdir(parents=True, exist_ok=True)

    def take(page: Any, name: str) -> None:
        name = f"studio-{name}.png" if "-" in name else f"studio-{name}-desktop.png"
        if chosen.output != IMAGES or name in shown:
            page.screenshot(path=chosen.output / name)

    with sync_playwright() as play, studio(chosen.index, chosen.stand_in) as address:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 820})
        work(page, address, take)
        pictures(browser, address, take)
        browser.close()


if __name__ == "__main__":
    if "--serve" in sys.argv:
        serve_stand_in(sys.argv[2:])
    else:
        main()
