"""A template's rules as fields on the page, in one language at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nicegui import events, ui

from llmtagger.errors import PromptError
from llmtagger.studio.form import Form
from llmtagger.studio.frame import Frame, text
from llmtagger.studio.words import LANGUAGES

_NEW_RULE = {"en": "New rule", "zh": "新规则"}


class Fields:
    """The fields of one form; `edited` hears each new source."""

    def __init__(self, frame: Frame, edited: Callable[[str], Awaitable[None]]) -> None:
        self._frame, self._edited = frame, edited
        self._form: Form | None = None
        self._lang = frame.lang
        self._box = ui.element("div").classes("fields").mark("fields")

    def show(self, form: Form) -> None:
        """Draw a form again."""
        self._form = form
        if form.languages and self._lang not in form.languages:
            self._lang = form.languages[0]
        self._draw()

    def clear(self) -> None:
        """Draw nothing."""
        self._form = None
        self._box.clear()

    def _draw(self) -> None:
        form, say = self._form, self._frame.say
        self._box.clear()
        if form is None:
            return
        with self._box:
            if len(form.languages) > 1:
                with ui.element("div").classes("tools"):
                    ui.label(say("Rules for products in")).classes("note")
                    ui.toggle(
                        {each: LANGUAGES[each] for each in form.languages},
                        value=self._lang, on_change=self._switch,
                    ).props("dense unelevated no-caps").mark("rules-language")  # fmt: skip
            for at in form.of(self._lang):
                self._draw_field(form, at)
            if any(form.fields[at].number is not None for at in form.of(self._lang)):
                ui.button(say("Add a rule"), on_click=self._add).props("flat dense no-caps").mark(
                    "add-rule"
                )

    def _draw_field(self, form: Form, at: int) -> None:
        field, say = form.fields[at], self._frame.say
        with ui.element("div").classes("rule"):
            text("span", "" if field.number is None else f"{field.number}.").classes("number")
            name = say("Rule {number}", number=field.number) if field.number else say("Line")
            area = ui.textarea(value=field.text)
            area.on_value_change(lambda event: self._changed(at, event))
            area.props(f'autogrow dense outlined debounce=300 aria-label="{name}" rows=1')
            area.classes("grow").mark(f"field-{at}")
            if field.number is not None:
                remove = say("Remove rule {number}", number=field.number)
                ui.button("✕", on_click=lambda: self._remove(at)).props(
                    f'flat dense aria-label="{remove}"'
                ).mark(f"remove-{at}")

    def _switch(self, event: events.ValueChangeEventArguments[str]) -> None:
        self._lang = event.value
        self._draw()

    async def _changed(self, at: int, event: events.ValueChangeEventArguments[str]) -> None:
        """Take over what was typed, or say at the field why not."""
        if self._form is None:
            return
        typed = " ".join((event.value or "").splitlines())
        try:
            self._form = self._form.with_text(at, typed)
        except PromptError as error:
            _complain_at(event.sender, self._frame.explain(error))
            return
        _complain_at(event.sender, "")
        await self._edited(self._form.source)

    async def _add(self) -> None:
        if self._form is not None:
            await self._redrawn(self._form.with_rule(self._lang, _NEW_RULE[self._lang]))

    async def _remove(self, at: int) -> None:
        assert self._form is not None
        try:
            form = self._form.without(at)
        except PromptError as error:
            self._frame.complain(error)
            return
        await self._redrawn(form)

    async def _redrawn(self, form: Form) -> None:
        self.show(form)
        await self._edited(form.source)


def _complain_at(area: ui.element, said: str) -> None:
    """Show an error under a field; an empty text takes it away."""
    area.props["error"], area.props["error-message"] = bool(said), said
    area.update()
