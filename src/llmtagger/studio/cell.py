"""One cell, opened: evidence of each tag, marks, ratings."""

from __future__ import annotations

from collections.abc import Callable

from nicegui import ui

from llmtagger.datatypes import Product
from llmtagger.errors import LlmtaggerError
from llmtagger.evaluation.trials import Cell, Shown
from llmtagger.person import login
from llmtagger.studio.chip import draw_chip, shown_tag
from llmtagger.studio.frame import Frame, text
from llmtagger.vocabulary import Vocabulary

_SHOWN = 1200  # characters of a description


def open_cell(
    frame: Frame, product: Product, version: str, cell: Cell | None, changed: Callable[[], None]
) -> None:
    """Show a cell in a sheet over the page; `changed` is called after each mark."""
    say, book = frame.say, frame.workspace.book
    author = login()
    with ui.dialog() as sheet, ui.card().classes("sheet"):
        text("h1", product.title).props("dir=auto")
        ui.label(f"{product.id} · {version}").classes("facts")
        for name, said in list(product.fields())[1:]:
            label = f"{name.removeprefix('attributes.')}: {said[:_SHOWN]}"
            ui.label(label).classes("field").props("dir=auto")
        lines = ui.column().classes("w-full gap-0")

        def act(change: Callable[[], None], said: str = "") -> None:
            try:
                change()
            except LlmtaggerError as error:
                frame.complain(error)
            else:
                if said:
                    frame.done(said)
            changed()
            draw()

        def draw() -> None:
            name = frame.workspace.judge.name
            marked = {name(mark.tag): mark.tag for mark in book.marks(product.id)}
            shown = list(frame.workspace.judged(cell).tags) if cell else []
            names = {tag.name for tag in shown}
            gold = list(map(name, frame.workspace.gold(product) or ()))
            shown += [
                Shown(tag, "right" if tag in gold else "wrong")
                for tag in dict.fromkeys((*gold, *marked))
                if tag not in names
            ]
            lines.clear()
            with lines:
                for tag in shown:
                    _line(frame, product.lang, tag, marked, lambda t, r: act(
                        lambda: book.mark(product, t, r, author)
                    ), lambda t: act(lambda: book.unmark(product.id, t)))  # fmt: skip

        draw()
        if cell and cell.rejected:
            refused = ", ".join(f"{r.text} ({r.reason.value})" for r in cell.rejected)
            ui.label(f"{say('refused')}: {refused}").classes("refusal").props("dir=auto")
        names = _spoken(frame.workspace.index.vocabulary)
        with ui.row().classes("w-full items-center no-wrap"):
            missing = ui.select(
                names, label=say("Add a missing tag"), with_input=True,
                new_value_mode="add-unique", clearable=True,
            ).props("dense outlined").classes("grow").mark("missing")  # fmt: skip

            def add() -> None:
                if missing.value:
                    act(lambda: book.mark(product, str(missing.value), True, author))
                    missing.set_value(None)

            ui.button(say("Right"), on_click=add).props("flat no-caps").mark("add")
        rated = {(r.product_id, r.version): r for r in book.ratings()}.get((product.id, version))
        with ui.row().classes("w-full items-center"):
            stars = ui.rating(rated.stars if rated else None, max=5).mark("stars")
            comment = ui.input(say("Comment"), value=rated.comment if rated else "")
            comment.props("dense outlined").classes("grow").mark("comment")

        def rate() -> None:
            given = int(stars.value) if stars.value else None
            said = comment.value or ""
            act(lambda: book.rate(product, version, given, said, author), say("Saved"))

        def settle() -> None:
            act(lambda: book.take(product, {}, author, reviewed=True), say("Saved"))

        with ui.row().classes("w-full justify-end"):
            ui.button(say("These are all its tags"), on_click=settle).props("flat no-caps").mark(
                "reviewed"
            )
            ui.button(say("Save"), on_click=rate).props("flat no-caps").mark("rate")
            ui.button(say("Close"), on_click=sheet.close).props("flat no-caps").mark("close")
    sheet.on("hide", sheet.delete)
    sheet.open()


def _line(
    frame: Frame,
    lang: str,
    tag: Shown,
    marked: dict[str, str],
    mark: Callable[[str, bool], None],
    unmark: Callable[[str], None],
) -> None:
    look = shown_tag(tag, frame.workspace, lang)
    with ui.element("div").classes("line"):
        with ui.element("div").classes("grow"):
            draw_chip(look)
            detail = " · ".join(part for part in (look["score"], look["why"]) if part)
            ui.label(detail).classes("why").props("dir=auto")
        if tag.name in marked:
            ui.button(frame.say("Undo"), on_click=lambda: unmark(marked[tag.name])).props(
                "flat dense no-caps"
            ).mark(f"undo {tag.name}")
        ui.button("✓", on_click=lambda: mark(tag.name, True)).props(
            f'flat dense aria-label="{frame.say("Right")}"'
        ).mark("mark-right")
        ui.button("✗", on_click=lambda: mark(tag.name, False)).props(
            f'flat dense aria-label="{frame.say("Wrong")}"'
        ).mark("mark-wrong")


def _spoken(vocabulary: Vocabulary) -> dict[str, str]:
    """What a person may type for each tag: its name and its aliases, found as they type."""
    return {
        tag.name: " / ".join((tag.name, *tag.aliases, *tag.labels.values()))
        for tag in vocabulary
        if not tag.retired
    }
