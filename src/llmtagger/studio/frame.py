"""The frame of every page: head, navigation, language, colours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from llmtagger.errors import LlmtaggerError
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

    def say(self, text: str) -> str:
        """A word in the page's language."""
        return translated(text, self.lang)

    def complain(self, error: LlmtaggerError) -> None:
        """Show what went wrong and what to do."""
        _complain(error)

    def done(self, text: str) -> None:
        """Say that something was done."""
        ui.notify(text, type="positive", position="bottom")


@contextmanager
def framed(workspace: Workspace, here: str) -> Iterator[Frame]:
    """Draw the frame; what is made inside is the page."""
    ui.on_exception(_complain)
    look = workspace.shelf.view(_LOOK)
    frame = Frame(workspace, look.get("lang", "en"), bool(look.get("dark", False)))
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


def _complain(error: Exception) -> None:
    """Show an error of ours; any other is for the terminal."""
    if isinstance(error, LlmtaggerError):
        ui.notify(
            f"{error.message} → {error.hint}", type="negative", timeout=0, close_button="✕",
            multi_line=True, classes="complaint",
        )  # fmt: skip


def _switch(frame: Frame, marker: str, text: str, **change: object) -> None:
    def flip() -> None:
        shelf = frame.workspace.shelf
        shelf.keep_view(_LOOK, shelf.view(_LOOK) | change)
        ui.navigate.reload()

    ui.button(text, on_click=flip).props("flat dense no-caps").classes("switch").mark(marker)


def text(tag: str, said: str) -> TextElement:
    """An HTML element that holds nothing but a text."""
    return TextElement(tag=tag, text=said)
