"""The editor: a template beside what it becomes, and its answers on a few products."""

from __future__ import annotations

from nicegui import run, ui

from llmtagger.datatypes import Strategy
from llmtagger.errors import LlmtaggerError
from llmtagger.evaluation.trials import Cell
from llmtagger.person import login
from llmtagger.studio.asking import Asking, Column
from llmtagger.studio.chip import draw_chip, shown_tag
from llmtagger.studio.fields import Fields
from llmtagger.studio.form import Form, read_form
from llmtagger.studio.frame import Frame, text
from llmtagger.studio.silence import draw_silence
from llmtagger.studio.workspace import Rendered
from llmtagger.templates import Examples, TemplateFile, find_template

_TRIED = (5, 10, 25, 50)  # products
_STRATEGIES = {
    Strategy.SIMILAR: "nearest",
    Strategy.DIVERSE: "near and unlike each other",
    Strategy.COVERING: "covering tags in doubt",
}


class Editor:
    """The view of one browser tab."""

    def __init__(self, frame: Frame, version: str | None, product: str | None, tab: str) -> None:
        self._frame, self._workspace, self._tab = frame, frame.workspace, tab
        self._products = self._workspace.products
        self._at = next((at for at, each in enumerate(self._products) if each.id == product), 0)
        names = [template.name for template in self._workspace.versions()]
        start = version if version in names else self._workspace.live
        self._cells: dict[str, dict[str, Cell]] = {}
        self._drawing = 0
        self._from_fields = False
        say = frame.say
        with ui.element("div").classes("tools"):
            self._version = ui.select(names, value=start, label=say("Version"))
            self._version.props("dense outlined").mark("version")
            self._version.on_value_change(self._load)
            ui.button("‹", on_click=lambda: self._go(-1)).props(
                f'flat dense aria-label="{say("Previous product")}"'
            ).mark("previous")
            ui.button("›", on_click=lambda: self._go(1)).props(
                f'flat dense aria-label="{say("Next product")}"'
            ).mark("next")
            self._title = ui.label().classes("note").props("dir=auto").mark("product")
        with ui.element("div").classes("split"):
            with ui.element("section").classes("pane editor"):
                self._state = ui.label().classes("facts").props("role=status").mark("draft-state")
                with ui.tabs().props("dense no-caps align=left") as self._tabs:
                    rules = ui.tab("rules", say("Rules")).mark("tab-rules")
                    ui.tab("jinja", say("Template (Jinja)")).mark("tab-jinja")
                with ui.tab_panels(self._tabs, value=rules, animated=False).classes("panels"):
                    with ui.tab_panel("rules"):
                        self._fields = Fields(frame, self._edited)
                    with ui.tab_panel("jinja"):
                        self._why_jinja = ui.label().classes("facts").mark("why-jinja")
                        self._code = ui.codemirror(
                            language="Jinja2", line_wrapping=True,
                            theme="oneDark" if frame.dark else "basicLight",
                            on_change=self._changed,
                        ).classes("w-full").mark("code")  # fmt: skip
                with ui.element("div").classes("examples"):
                    self._strategy = ui.select(
                        {each: say(name) for each, name in _STRATEGIES.items()},
                        label=say("How examples are chosen"), on_change=self._changed,
                    ).props("dense outlined").classes("grow").mark("strategy")  # fmt: skip
                    self._count = ui.number(
                        say("Examples"), min=0, max=50, precision=0,
                        placeholder=say("as the settings say"), on_change=self._changed,
                    ).props("dense outlined clearable").classes("count").mark("count")  # fmt: skip
                    self._pinned = (
                        ui.input_chips(
                            say("Always include these products"), on_change=self._changed
                        )
                        .props("dense outlined")
                        .classes("grow")
                        .mark("pinned")
                    )
                with ui.row().classes("w-full items-center"):
                    ui.button(say("Save as a version"), on_click=self._save_sheet).props(
                        "unelevated no-caps"
                    ).mark("save")
                    self._discard = ui.button(say("Discard draft"), on_click=self._drop)
                    self._discard.props("flat no-caps").mark("drop")
            with ui.element("section").classes("pane"):
                text("h2", say("What the model reads for this product"))
                self._fault = ui.label().classes("fault").props("role=alert").mark("fault")
                self._fault.set_visibility(False)
                self._facts = ui.label().classes("facts").mark("facts")
                self._shown = ui.column().classes("w-full gap-0 prompt").mark("rendered")
        with ui.element("section").classes("pane").style("margin-top: 20px"):
            with ui.element("div").classes("tools"):
                self._size = ui.select(
                    [n for n in _TRIED if n < len(self._products)] or [len(self._products)],
                    label=say("Products"),
                ).props("dense outlined").mark("try-size")  # fmt: skip
                sizes = self._size.options
                self._size.set_value(sizes[min(1, len(sizes) - 1)])
                self._asking = Asking(frame, say("Ask the model"), self._ask)
                self._size.on_value_change(self._expect)
            self._answers = ui.element("div").classes("scroll").mark("answers")
        self._load()

    @property
    def _parent(self) -> TemplateFile:
        return find_template(self._version.value)

    @property
    def _examples(self) -> Examples:
        count = self._count.value
        return Examples(
            strategy=self._strategy.value or Strategy.SIMILAR,
            count=None if count is None else int(count),
            pinned=tuple(self._pinned.value or ()),
        )

    @property
    def _draft(self) -> TemplateFile:
        header = self._parent.header.model_copy(update={"examples": self._examples})
        return self._workspace.draft(self._parent, header.text() + (self._code.value or ""))

    @property
    def _differs(self) -> bool:
        parent = self._parent
        return self._code.value != parent.body or self._examples != parent.header.examples

    def _load(self) -> None:
        """Show the chosen version, or the draft that was begun from it."""
        parent = self._parent
        draft = self._workspace.shelf.draft(parent.name, self._tab)
        self._put(TemplateFile(parent.name, draft.text) if draft else parent)

    def _put(self, shown: TemplateFile) -> None:
        examples = shown.header.examples
        self._drawing += 1
        self._strategy.set_value(examples.strategy)
        self._count.set_value(examples.count)
        self._pinned.set_value(list(examples.pinned))
        self._code.set_value(shown.body)
        self._drawing -= 1
        self._show_form(shown.body, open_tab=True)
        self._tell()
        ui.timer(0, self._render, once=True)

    def _show_form(self, source: str, *, open_tab: bool) -> None:
        """The fields of a source; where it has none, the Jinja tab says why."""
        form = read_form(source)
        say, mapped = self._frame.say, isinstance(form, Form)
        if isinstance(form, Form):
            self._fields.show(form)
            self._why_jinja.text = ""
        else:
            self._fields.clear()
            self._why_jinja.text = say(
                "This template cannot be shown as plain fields: line {line} has {what}",
                line=form.line,
                what=form.what,
            )
        self._why_jinja.set_visibility(not mapped)
        if not mapped:
            self._tabs.set_value("jinja")
        elif open_tab:
            self._tabs.set_value("rules")

    async def _edited(self, source: str) -> None:
        """A field has changed the source."""
        self._from_fields = True
        self._code.set_value(source)

    def _go(self, step: int) -> None:
        self._at = (self._at + step) % max(len(self._products), 1)
        ui.timer(0, self._render, once=True)

    async def _changed(self) -> None:
        if self._drawing:
            return
        if not self._from_fields:
            self._show_form(self._code.value or "", open_tab=False)
        self._from_fields = False
        shelf = self._workspace.shelf
        try:
            if self._differs:
                shelf.keep_draft(self._parent.name, self._tab, self._draft.source)
            else:
                shelf.drop_draft(self._parent.name, self._tab)
        except LlmtaggerError as error:
            self._say_fault(error)
            return
        self._tell()
        await self._render()

    def _tell(self) -> None:
        say = self._frame.say
        self._state.text = (
            say("Draft of {version}, changed and kept", version=self._parent.name)
            if self._differs
            else say("{version}, unchanged", version=self._parent.name)
        )
        self._discard.set_enabled(self._differs)
        self._expect()

    def _expect(self) -> None:
        self._asking.expect(self._columns())

    def _columns(self) -> list[Column]:
        products = self._products[: self._size.value]
        both = [self._parent, self._draft] if self._differs else [self._parent]
        known = {each.name: self._workspace.known(each, products) for each in both}
        return [Column(each, products, known[each.name]) for each in both]

    async def _render(self) -> None:
        """Render in a thread; what was typed since makes the result of no use."""
        self._drawing_of = mine = object()
        if not self._products:
            self._title.text = self._frame.say("No product matches.")
            return
        product = self._products[self._at]
        later = (*self._products[self._at + 1 :], *self._products[: self._at])
        other = next((each for each in later if each.lang == product.lang), product)
        self._title.text = f"{self._at + 1} / {len(self._products)} · {product.title}"
        if not self._facts.text:  # the first time, the model's tokenizer may have to be made ready
            self._facts.text = self._frame.say("Filling in the prompt …")
        try:
            template = self._draft
            found = await run.io_bound(self._workspace.render, template, product, other)
        except LlmtaggerError as error:
            if self._drawing_of is mine:
                self._say_fault(error)
            return
        if self._drawing_of is mine and found is not None:
            self._show(found)

    def _say_fault(self, error: LlmtaggerError) -> None:
        self._fault.text = self._frame.explain(error)
        self._fault.set_visibility(True)
        self._asking.enable(False)

    def _show(self, rendered: Rendered) -> None:
        say = self._frame.say
        self._fault.set_visibility(False)
        self._asking.enable(True)
        share = rendered.shared / max(rendered.tokens, 1)
        facts = [
            say("{count} tokens", count=f"{rendered.tokens:,}"),
            say("{share} shared with other products", share=f"{share:.0%}"),
        ]
        if rendered.truncated:
            facts.append(say("cut short: {fields}", fields=", ".join(rendered.truncated)))
        self._facts.text = " · ".join(facts)
        self._shown.clear()
        with self._shown:
            for role, text in rendered.messages:
                ui.label(say(role.capitalize())).classes("role")
                ui.label(text).classes("rendered").mark(f"rendered-{role}")

    async def _ask(self) -> None:
        """Ask with the draft, and with the version it came from, about some products."""
        columns = self._columns()
        self._cells = {each.template.name: each.cells for each in columns}
        self._draw_answers()
        await self._asking.fill(columns, self._draw_answers)

    def _draw_answers(self) -> None:
        self._answers.clear()
        products = self._products[: self._size.value]
        names = list(self._cells)
        if not any(self._cells.values()):
            return
        with self._answers:
            draw_silence(self._frame, [c for cells in self._cells.values() for c in cells.values()])
        with self._answers, ui.element("table").classes("figures w-full"):
            with ui.element("tr"):
                for name in (self._frame.say("Product"), *names):
                    text("th", name)
            for product in products:
                cells = [self._cells[name].get(product.id) for name in names]
                if any(cells):
                    with ui.element("tr"):
                        text("td", product.title[:120]).props("dir=auto")
                        for cell in cells:
                            with ui.element("td"):
                                self._draw_cell(cell)

    def _draw_cell(self, cell: Cell | None) -> None:
        if cell is None:
            ui.label(self._frame.say("not asked yet")).classes("empty")
            return
        if cell.problem:
            ui.label(self._frame.problem(cell.problem)).classes("problem")
        for tag in cell.tags:
            look = shown_tag(tag, self._workspace, cell.product.lang, self._frame.why)
            draw_chip(look).tooltip(f"{look['score']} {look['why']}".strip() or "–")
        if not cell.tags and not cell.problem:
            ui.label(self._frame.say("no tag")).classes("empty")
        ui.label(
            self._frame.say(
                "{seconds} s · {tokens} tokens",
                seconds=f"{cell.seconds:.2f}",
                tokens=f"{cell.prompt_tokens:,}",
            )
        ).classes("cost")

    async def _drop(self) -> None:
        say = self._frame.say
        if not await self._frame.confirmed(
            say("Discard the draft?"),
            say("What was changed since {version} is lost.", version=self._parent.name),
            say("Discard draft"),
        ):
            return
        self._workspace.shelf.drop_draft(self._parent.name, self._tab)
        self._put(self._parent)

    def _save_sheet(self) -> None:
        say = self._frame.say
        with ui.dialog() as sheet, ui.card().classes("sheet"):
            text("h1", say("Save as a version"))
            note = ui.textarea(say("Why is there a new version?")).props("outlined autofocus")
            note.classes("w-full").mark("note")
            author = ui.input(say("Author"), value=login()).props("dense outlined")
            author.mark("author")

            def save() -> None:
                try:
                    made = self._workspace.save(
                        self._parent, self._draft.body, note=note.value or "",
                        author=author.value or "", examples=self._examples,
                    )  # fmt: skip
                except LlmtaggerError as error:
                    self._frame.complain(error)
                    return
                self._workspace.shelf.drop_draft(self._parent.name, self._tab)
                sheet.close()
                ui.navigate.to(f"/edit?version={made.name}")

            with ui.row().classes("w-full justify-end"):
                ui.button(say("Close"), on_click=sheet.close).props("flat no-caps")
                ui.button(say("Save"), on_click=save).props("unelevated no-caps").mark("save-it")
        sheet.on("hide", sheet.delete)
        sheet.open()
