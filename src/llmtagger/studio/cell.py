"""One product after another, opened: the evidence of each tag, and what people say of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nicegui import events, ui

from llmtagger.datatypes import Product
from llmtagger.errors import LlmtaggerError
from llmtagger.evaluation.trials import Cell, Shown
from llmtagger.person import login
from llmtagger.studio.chip import draw_chip, refusals, shown_tag
from llmtagger.studio.frame import Frame, text
from llmtagger.vocabulary import Vocabulary

_SHOWN = 1200  # characters of a description
_NEXT, _PREVIOUS, _DONE = {"ArrowRight", "j"}, {"ArrowLeft", "k"}, {"d"}


class Review:
    """A sheet over the page that goes through a queue of products, by buttons or keys.

    `cell_of` gives the cell of a product, and `changed` hears whose gold was changed.
    """

    def __init__(
        self,
        frame: Frame,
        queue: Sequence[Product],
        at: int,
        version: str,
        cell_of: Callable[[str], Cell | None],
        changed: Callable[[str], None],
    ) -> None:
        self._frame, self._queue, self._at, self._version = frame, tuple(queue), at, version
        self._cell_of, self._changed = cell_of, changed
        self._book, self._author = frame.workspace.book, login()
        with ui.dialog() as self._sheet, ui.card().classes("sheet"):
            self._draw_head()
            self._content = ui.column().classes("w-full gap-0 review")
            self._draw_foot()
            ui.keyboard(self._pressed, repeating=False, ignore=["input", "select", "textarea"])
        self._sheet.on("hide", self._sheet.delete)
        self._draw()
        self._sheet.open()

    @property
    def _product(self) -> Product:
        return self._queue[self._at]

    def _draw_head(self) -> None:
        say = self._frame.say
        with ui.element("div").classes("head"):
            for step, sign, name, marker in (
                (-1, "‹", "Previous product", "review-previous"),
                (1, "›", "Next product", "review-next"),
            ):
                ui.button(sign, on_click=lambda step=step: self._go(step)).props(
                    f'flat dense aria-label="{say(name)}"'
                ).mark(marker)
            self._place = ui.label().classes("note").mark("place")
            ui.space()
            ui.label(say("Keys: ← → previous and next, D done")).classes("note keys")
            ui.button("✕", on_click=self._sheet.close).props(
                f'flat dense aria-label="{say("Close")}"'
            ).mark("close")

    def _draw_foot(self) -> None:
        say = self._frame.say
        with ui.element("div").classes("foot"):
            ui.label(say("Are these all of its tags?")).classes("note")
            ui.space()
            ui.button(say("Done, list is complete"), on_click=self._done).props(
                "unelevated no-caps"
            ).mark("reviewed")

    def _pressed(self, event: events.KeyEventArguments) -> None:
        if not event.action.keydown or event.modifiers.ctrl or event.modifiers.alt:
            return
        key = str(event.key)
        if key in _NEXT:
            self._go(1)
        elif key in _PREVIOUS:
            self._go(-1)
        elif key in _DONE:
            self._done()

    def _go(self, step: int) -> None:
        if 0 <= self._at + step < len(self._queue):
            self._at += step
            self._draw()

    def _done(self) -> None:
        """Say that the product has these tags and no others, and go on to the next."""
        product = self._product
        if self._act(lambda: self._book.take(product, {}, self._author, reviewed=True)):
            self._frame.done(self._frame.say("Saved: the list of tags is complete."))
            if self._at + 1 < len(self._queue):
                self._go(1)
            else:
                self._sheet.close()

    def _act(self, change: Callable[[], None]) -> bool:
        """Make a change, and show it; whether it was made."""
        try:
            change()
        except LlmtaggerError as error:
            self._frame.complain(error)
            return False
        self._changed(self._product.id)
        self._draw_tags()
        return True

    def _draw(self) -> None:
        product, cell = self._product, self._cell_of(self._product.id)
        self._place.text = f"{self._at + 1} / {len(self._queue)}"
        self._content.clear()
        with self._content:
            text("h1", product.title).props("dir=auto")
            ui.label(f"{product.id} · {self._version}").classes("facts").props("dir=auto")
            for name, said in list(product.fields())[1:]:
                label = f"{name.removeprefix('attributes.')}: {said[:_SHOWN]}"
                ui.label(label).classes("field").props("dir=auto")
            self._lines = ui.column().classes("w-full gap-0 lines")
            self._draw_tags()
            if cell and cell.rejected:
                ui.label(refusals(self._frame, cell)).classes("refusal").props("dir=auto")
            self._draw_missing()
            self._draw_rating()

    def _draw_tags(self) -> None:
        judge, cell = self._frame.workspace.judge, self._cell_of(self._product.id)
        marked = {judge.written(mark.tag): mark.tag for mark in self._book.marks(self._product.id)}
        shown = list(self._frame.workspace.judged(cell).tags) if cell else []
        names = {tag.name for tag in shown}
        gold = list(map(judge.written, self._frame.workspace.gold(self._product) or ()))
        shown += [
            Shown(tag, "right" if tag in gold else "wrong")
            for tag in dict.fromkeys((*gold, *marked))
            if tag not in names
        ]
        self._lines.clear()
        with self._lines:
            for tag in shown:
                self._draw_line(tag, marked.get(tag.name))

    def _draw_line(self, tag: Shown, marked: str | None) -> None:
        frame, product, book = self._frame, self._product, self._book
        look = shown_tag(tag, frame.workspace, product.lang, frame.why)

        def mark(right: bool) -> None:
            self._act(lambda: book.mark(product, tag.name, right, self._author))

        with ui.element("div").classes("line"):
            with ui.element("div").classes("grow"):
                draw_chip(look)
                detail = " · ".join(part for part in (look["score"], look["why"]) if part)
                ui.label(detail).classes("why").props("dir=auto")
            if marked is not None:
                ui.button(
                    frame.say("Undo"),
                    on_click=lambda: self._act(lambda: book.unmark(product.id, marked)),
                ).props("flat dense no-caps").mark(f"undo {tag.name}")
            for right, sign, name in ((True, "✓", "Right"), (False, "✗", "Wrong")):
                ui.button(sign, on_click=lambda right=right: mark(right)).props(
                    f'flat dense aria-label="{frame.say(name)}"'
                ).mark(f"mark-{name.lower()}")

    def _draw_missing(self) -> None:
        say, product = self._frame.say, self._product
        names = _spoken(self._frame.workspace.index.vocabulary)
        with ui.element("div").classes("pair"):
            missing = ui.select(
                names, label=say("Add a missing tag"), with_input=True,
                new_value_mode="add-unique", clearable=True,
            ).props("dense outlined").classes("grow").mark("missing")  # fmt: skip

            def add() -> None:
                if missing.value:
                    tag = str(missing.value)
                    self._act(lambda: self._book.mark(product, tag, True, self._author))
                    missing.set_value(None)

            ui.button(say("Add tag"), on_click=add).props("flat no-caps").mark("add")

    def _draw_rating(self) -> None:
        say, product, version = self._frame.say, self._product, self._version
        rated = {(r.product_id, r.version): r for r in self._book.ratings()}.get(
            (product.id, version)
        )
        with ui.element("div").classes("pair"):
            stars = ui.rating(rated.stars if rated else None, max=5).mark("stars")
            comment = ui.input(say("Comment"), value=rated.comment if rated else "")
            comment.props("dense outlined").classes("grow").mark("comment")

            def rate() -> None:
                given, said = int(stars.value) if stars.value else None, comment.value or ""
                if self._act(lambda: self._book.rate(product, version, given, said, self._author)):
                    self._frame.done(say("Saved"))

            ui.button(say("Save rating"), on_click=rate).props("flat no-caps").mark("rate")


def _spoken(vocabulary: Vocabulary) -> dict[str, str]:
    """What a person may type for each tag: its name and its aliases, found as they type."""
    return {
        tag.name: " / ".join((tag.name, *tag.aliases, *tag.labels.values()))
        for tag in vocabulary
        if not tag.retired
    }
