"""The frame of every page: head, navigation, language, colours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from llmtagger.datatypes import Problem
from llmtagger.errors import LlmtaggerError
from llmtagger.studio.messages import explained
from llmtagger.studio.words import LANGUAGES, translated
from llmtagger.studio.workspace import Workspace

PAGES = {"/": "Matrix", "/edit": "Edit", "/verdict": "Verdict", "/gold": "Gold"}
_LOOK = "look"  # the shelf's name for language and colours


@dataclass(frozen=True)
class Frame:
    """What a page needs besides its own content."""

    workspace: Workspace
    lang: str
    dark: bool

    def say(self, text: str, **values: object) -> str:
        """A text in the page's language; `{name}` in it becomes that value."""
        said = translated(text, self.lang)
        return said.format(**values) if values else said

    def explain(self, error: LlmtaggerError) -> str:
        """What went wrong and what to do, in the page's language."""
        said = [explained(each, self.lang) for each in (error.message, error.hint)]
        return " → ".join(said)

    @property
    def between(self) -> str:
        """What stands between two sentences."""
        return "" if self.lang == "zh" else " "

    def why(self, evidence: str) -> str:
        """The evidence of a tag, in the page's language."""
        return " · ".join(explained(part, self.lang) for part in evidence.split(" · "))

    def problem(self, problem: Problem) -> str:
        """Why a product has no trustworthy answer, or what to know of it."""
        return explained(problem.message[:200], self.lang)

    def complain(self, error: LlmtaggerError) -> None:
        """Show what went wrong and what to do."""
        ui.notify(
            self.explain(error), type="negative", timeout=0, close_button="✕", multi_line=True,
            classes="complaint",
        )  # fmt: skip

    def done(self, text: str) -> None:
        """Say that something was done."""
        ui.notify(text, type="positive", position="bottom")

    async def confirmed(self, question: str, detail: str, yes: str) -> bool:
        """Whether a person confirms what cannot be undone.

        What follows runs in the caller's place on the page, since the dialog's own is gone by then.
        """
        with ui.dialog() as sheet, ui.card().classes("sheet"):
            text("h1", question)
            ui.label(detail).classes("facts")
            with ui.row().classes("w-full justify-end"):
                ui.button(self.say("Cancel"), on_click=lambda: sheet.submit(False)).props(
                    "flat no-caps autofocus"
                )
                ui.button(yes, on_click=lambda: sheet.submit(True)).props(
                    "unelevated no-caps"
                ).mark("confirm")
        sheet.on("hide", sheet.delete)
        return bool(await sheet)


@contextmanager
def framed(workspace: Workspace, here: str) -> Iterator[Frame]:
    """Draw the frame; what is made inside is the page."""
    look = workspace.shelf.view(_LOOK)
    frame = Frame(workspace, look.get("lang", "en"), bool(look.get("dark", False)))
    ui.on_exception(
        lambda error: frame.complain(error) if isinstance(error, LlmtaggerError) else None
    )
    ui.dark_mode(frame.dark)
    ui.colors(
        primary="#3f8fdd" if frame.dark else "#0b62b5",
        positive="#17714a",
        negative="#b02a1e",
        warning="#8a6a00",
    )
    ui.add_css(resources.files(__package__).joinpath("studio.css").read_text("utf-8"))
    ui.query("html").props(f"lang={frame.lang}")
    with ui.header(elevated=False).classes("bar"):
        ui.label("llmtagger").classes("wordmark")
        ui.label(workspace.folder.name).classes("where")
        with ui.element("nav").classes("tabs"):
            for path, name in PAGES.items():
                link = ui.link(frame.say(name), path).classes("tab")
                if path == here:
                    link.classes("here").props("aria-current=page")
        ui.space()
        _switch(frame, "language", LANGUAGES["zh" if frame.lang == "en" else "en"],
                lang="zh" if frame.lang == "en" else "en")  # fmt: skip
        _switch(frame, "colours", frame.say("Light" if frame.dark else "Dark"),
                dark=not frame.dark)  # fmt: skip
    with ui.element("main").classes("page"):
        yield frame


def _switch(frame: Frame, marker: str, text: str, **change: object) -> None:
    def flip() -> None:
        shelf = frame.workspace.shelf
        shelf.keep_view(_LOOK, shelf.view(_LOOK) | change)
        ui.navigate.reload()

    ui.button(text, on_click=flip).props("flat dense no-caps").classes("switch").mark(marker)


def text(tag: str, said: str) -> TextElement:
    """An HTML element that holds nothing but a text."""
    return TextElement(tag=tag, text=said)
