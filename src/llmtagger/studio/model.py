"""Which model answers, and how to take another one."""

from __future__ import annotations

from nicegui import run, ui

from llmtagger.errors import LlmtaggerError
from llmtagger.studio.frame import Frame, text


def open_model_sheet(frame: Frame) -> None:
    """Show the model in use, and let a person name another."""
    say, workspace = frame.say, frame.workspace
    with ui.dialog() as sheet, ui.card().classes("sheet"):
        text("h1", say("Switch model"))
        if workspace.endpoints:
            _explain_server(frame)
        else:
            _draw_choice(frame, sheet)
    sheet.on("hide", sheet.delete)
    sheet.open()


def _explain_server(frame: Frame) -> None:
    say, workspace = frame.say, frame.workspace
    ui.label(
        say(
            "The answers come from the server at {address}.", address=", ".join(workspace.endpoints)
        )
    )
    ui.label(say("To use another one, stop the studio and start it with:"))
    ui.label(f"llmtagger studio -i {workspace.folder} --endpoint http://127.0.0.1:8000").classes(
        "rendered"
    )


def _draw_choice(frame: Frame, sheet: ui.dialog) -> None:
    say, workspace = frame.say, frame.workspace
    ui.label(say("Now: {model}", model=workspace.model)).classes("facts").props("dir=auto")
    ui.label(
        say(
            "A larger model reads better and answers more slowly. Answers of each model are kept, "
            "so you can switch back."
        )
    ).classes("facts")
    name = ui.input(say("Folder or Hugging Face id"), placeholder="Qwen/Qwen3-4B-Instruct-2507")
    name.classes("w-full").props("outlined autofocus").mark("model-name")
    busy = ui.label().classes("facts").props("role=status")

    async def switch() -> None:
        wanted = (name.value or "").strip()
        if not wanted:
            return
        button.set_enabled(False)
        busy.text = say("Looking for the model. A download may take minutes.")
        try:
            await run.io_bound(workspace.switch_model, wanted)
        except LlmtaggerError as error:
            frame.complain(error)
            busy.text = ""
            button.set_enabled(True)
            return
        sheet.close()
        ui.navigate.reload()

    with ui.row().classes("w-full justify-end"):
        ui.button(say("Close"), on_click=sheet.close).props("flat no-caps")
        button = ui.button(say("Switch"), on_click=switch).props("unelevated no-caps")
        button.mark("switch-it")
