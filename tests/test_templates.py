"""Versions of prompts on disk: their headers, their numbers, and which is live."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmtagger.backends.fakes import HashingEncoder
from llmtagger.backends.index_folder import open_index
from llmtagger.backends.index_writer import build
from llmtagger.config import LiveSettings, PromptSettings, Settings, load_settings
from llmtagger.datatypes import Product, Shortlist, Strategy, TagKind
from llmtagger.errors import ConfigError, PromptError
from llmtagger.locking import sole
from llmtagger.stages.prompting import PromptRenderer
from llmtagger.tagging import TagJob, choose_template
from llmtagger.templates import (
    Examples,
    Header,
    TemplateFile,
    default_template,
    difference,
    find_template,
    list_templates,
    live_template,
    make_live,
    save_version,
    tuning_template,
)
from llmtagger.versions import make_version, promote_version

BODY = "{% block system %}Rules.{% endblock %}\n{% block user %}{{ product.title }}{% endblock %}\n"
PARENT = TemplateFile("tag.v1", BODY)
PACKAGED = ["free.v1", "free.v2", "span.v1", "span.v2", "tag.v1", "tag.v2"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder; what is saved goes to its `prompts`."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(folder: Path, name: str, text: str = BODY) -> Path:
    path = folder / "prompts" / f"{name}.jinja"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def said(template: TemplateFile) -> tuple[tuple[str, str], ...]:
    renderer = PromptRenderer(template, PromptSettings(), max_tags=10)
    return renderer.render(Product("1", "Mug"), Shortlist((), ())).messages


AWKWARD = [
    "#}",
    "---#}\n---#}\n{% block user %}",
    "\"\"\"\n''' \\",
    "\\#}\\u007d",
    "{#--- {{ 1 / 0 }} {% raw %}",
    "a\r\nb\rc\td\x00\x1f\x7f\x85\u2028",
    "杯子 😀",
]
TEXTS = st.one_of(st.sampled_from(AWKWARD), st.text(max_size=40))


@given(
    note=TEXTS, author=TEXTS, pinned=st.lists(TEXTS, max_size=3), strategy=st.sampled_from(Strategy)
)
@example(note="", author="", pinned=[], strategy=Strategy.SIMILAR)
def test_a_header_says_the_same_when_read_again(
    note: str, author: str, pinned: list[str], strategy: Strategy
) -> None:
    header = Header(
        note=note, author=author, examples=Examples(strategy=strategy, pinned=tuple(pinned))
    )
    template = TemplateFile("tag.v9", header.text() + BODY)
    assert template.header == header
    assert template.body == BODY
    assert said(template) == said(PARENT)


@pytest.mark.parametrize("note", AWKWARD)
def test_a_saved_header_says_the_same_when_read_again(here: Path, note: str) -> None:
    examples = Examples(strategy=Strategy.COVERING, count=0, pinned=("w1", note))
    saved = save_version(PARENT, BODY, Header(note=note, author=note, examples=examples))
    found = find_template(saved.name)
    assert (found, found.hash, found.body) == (saved, saved.hash, BODY)
    assert (found.header.note, found.header.author) == (note, note)
    assert found.header.examples == examples
    assert found.header.parent == "tag.v1"
    assert found.header.date is not None
    assert timedelta(0) <= datetime.now(UTC) - found.header.date < timedelta(minutes=5)
    assert said(found) == said(PARENT)


def test_without_a_header_nothing_is_said() -> None:
    assert PARENT.header == Header()
    assert Header().text() == ""
    assert PARENT.body == BODY
    later = TemplateFile("tag.v9", f"{BODY}{{#---\nnote = 'x'\n---#}}\n")
    assert (later.header, later.body) == (Header(), later.source)  # only at the very top


def test_a_header_from_windows_is_read(here: Path) -> None:
    path = here / "tag.v7.jinja"
    path.write_bytes(b"\xef\xbb\xbf" + ('{#---\nnote = "x"\n---#}\n' + BODY).encode())
    found = find_template(str(path))
    assert (found.header.note, found.body) == ("x", BODY)
    crlf = TemplateFile("tag.v7", '{#---\r\nnote = "x"\r\n---#}\r\ntext')
    assert (crlf.header.note, crlf.body) == ("x", "text")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        pytest.param("note = ", "Invalid value", id="syntax"),
        pytest.param("a fewer rules", "Expected '='", id="prose"),
        pytest.param('notes = "x"', "notes", id="unknown-key"),
        pytest.param(
            '[examples]\nstrategie = "diverse"', "examples.strategie", id="unknown-inside"
        ),
        pytest.param('[examples]\nstrategy = "best"', "examples.strategy", id="strategy"),
        pytest.param("[examples]\ncount = 51", "examples.count", id="too-many"),
        pytest.param("[examples]\ncount = -1", "examples.count", id="negative"),
        pytest.param('date = "yesterday"', "date", id="date"),
        pytest.param("note = 1", "note", id="type"),
    ],
)
def test_a_damaged_header_is_refused(header: str, message: str) -> None:
    template = TemplateFile("tag.v9", f"{{#---\n{header}\n---#}}\n{BODY}")
    with pytest.raises(PromptError) as caught:
        _ = template.header
    assert message in caught.value.message
    assert "tag.v9" in caught.value.message
    assert "prompts/README.md" in caught.value.hint


def test_what_comes_with_llmtagger(here: Path) -> None:
    assert list_templates() == PACKAGED
    for kind in TagKind:
        assert find_template(default_template(kind)).kind is kind
        assert find_template(tuning_template(kind)).kind is kind


def test_versions_are_in_the_order_of_their_numbers(here: Path) -> None:
    for name in ("tag.v10", "tag.v9", "tag.v03", "tag.v0", "summary.v1", "tag", "tag.v1.old"):
        put(here, name)
    (here / "prompts" / "tag.v12.txt").write_text(BODY)
    assert list_templates() == [*PACKAGED, "tag.v9", "tag.v10"]
    assert save_version(PARENT, BODY, Header()).name == "tag.v11"
    assert save_version(TemplateFile("span.v1", BODY), BODY, Header()).name == "span.v3"


def test_the_next_number_counts_all_folders(here: Path) -> None:
    """Of the packaged prompts, those here, and those where it is saved."""
    other = here / "other"
    assert save_version(PARENT, BODY, Header(), other).name == "tag.v3"
    assert save_version(PARENT, BODY, Header(), other).name == "tag.v4"
    assert save_version(PARENT, BODY, Header()).name == "tag.v3"
    put(here, "tag.v40")
    assert save_version(PARENT, BODY, Header(), other).name == "tag.v41"


def test_the_working_folder_comes_before_what_is_packaged(here: Path) -> None:
    packaged = find_template("tag.v1")
    put(here, "tag.v1")
    assert find_template("tag.v1") == TemplateFile("tag.v1", BODY) != packaged
    assert list_templates() == PACKAGED


def test_those_who_save_at_once_get_different_numbers(here: Path) -> None:
    together = threading.Barrier(8)

    def save(number: int) -> TemplateFile:
        together.wait()
        return save_version(PARENT, f"{BODY}{number}\n", Header(note=str(number)))

    with ThreadPoolExecutor(8) as pool:
        saved = list(pool.map(save, range(8)))
    assert {each.name for each in saved} == {f"tag.v{number}" for number in range(3, 11)}
    for number, each in enumerate(saved):
        assert find_template(each.name) == each
        assert each.body == f"{BODY}{number}\n"
    names = {path.name for path in (here / "prompts").iterdir()}
    assert names == {f"{each.name}.jinja" for each in saved}


def test_a_version_is_never_overwritten(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where someone takes the number between looking and writing."""
    from llmtagger import templates

    looked, numbers = templates._next, iter(["tag.v3", "tag.v3"])
    monkeypatch.setattr(templates, "_next", lambda *a: next(numbers, None) or looked(*a))
    first = save_version(PARENT, "first", Header())
    second = save_version(PARENT, "second", Header())
    assert (first.name, second.name) == ("tag.v3", "tag.v4")
    assert find_template("tag.v3").body == "first"


def test_a_failed_save_leaves_nothing(here: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        save_version(PARENT, "\ud800", Header())
    assert list((here / "prompts").iterdir()) == []


def test_a_template_may_lie_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "span.v7.jinja"
    path.write_text("text", encoding="utf-8")
    found = find_template(str(path))
    assert found == TemplateFile("span.v7", "text")
    assert (found.task, found.kind) == ("span", TagKind.SPAN)


def test_the_hash_follows_the_text() -> None:
    assert TemplateFile("tag.v1", "a").hash != TemplateFile("tag.v1", "b").hash
    assert TemplateFile("tag.v1", "a").hash == TemplateFile("tag.v2", "a").hash
    one, other = TemplateFile("tag.v1", "a"), TemplateFile("tag.v2", "a")
    assert one.identity == f"tag.v1@{one.hash}" != other.identity


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tag.v99", "known are free.v1, free.v2, span.v1, span.v2, tag.v1, tag.v2"),
        ("summary.v1", "tasks are tag, span, free"),
        ("/nowhere/tag.v1.jinja", "known are"),
        ("../prompts/secret", "tasks are"),
    ],
)
def test_an_unknown_template_is_refused(name: str, said: str) -> None:
    with pytest.raises(PromptError) as caught:
        find_template(name)
    assert said in caught.value.hint


def test_a_difference_leaves_headers_aside() -> None:
    old = TemplateFile("tag.v3", Header(note="one").text() + "a\nb\n")
    new = TemplateFile("tag.v4", Header(note="other").text() + "a\nc\n")
    assert difference(old, new) == [
        *("--- tag.v3", "+++ tag.v4", "@@ -1,2 +1,2 @@", " a", "-b", "+c")
    ]
    assert difference(old, TemplateFile("tag.v5", "a\nb\n")) == []


EDITED = BODY.replace("Rules.", "Fewer rules.")


def test_a_version_is_made_from_a_text(here: Path) -> None:
    made = make_version(PARENT, EDITED, note="fewer", author="ann")
    assert find_template(made.name) == made
    assert (made.name, made.body) == ("tag.v3", EDITED)
    header = made.header.model_copy(update={"date": None})
    assert header == Header(parent="tag.v1", note="fewer", author="ann")


def test_line_ends_are_no_change(here: Path) -> None:
    """A browser sends CRLF; the hash of what was saved is the hash of what is read."""
    made = make_version(PARENT, EDITED.replace("\n", "\r\n"), note="", author="")
    assert (made, made.hash) == (find_template(made.name), find_template(made.name).hash)
    assert made.body == EDITED
    with pytest.raises(PromptError, match="nothing was changed"):
        make_version(made, EDITED.replace("\n", "\r\n"), note="", author="")


def test_which_examples_a_version_shows(here: Path) -> None:
    """Those given, else those of a header in the text, else the parent's."""
    own, given_ = Examples(strategy=Strategy.DIVERSE), Examples(count=7)
    parent = save_version(PARENT, BODY, Header(examples=own))
    assert make_version(parent, EDITED, note="", author="").header.examples == own
    text = Header(examples=Examples(pinned=("w1",)), note="old").text() + EDITED
    made = make_version(parent, text, note="new", author="")
    assert (made.header.examples.pinned, made.header.note) == (("w1",), "new")
    assert (made.header.parent, made.body) == (parent.name, EDITED)
    both = make_version(parent, text, note="", author="", examples=given_)
    assert both.header.examples == given_
    alone = make_version(parent, parent.source, note="", author="", examples=given_)
    assert (alone.header.examples, alone.body) == (given_, BODY)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BODY, "nothing was changed"),
        (Header(note="only the note").text() + BODY, "nothing was changed"),
        ("{% block system %}", "not valid"),
        (EDITED.replace("title", "titel"), "does not render"),
        (f"{{#---\nnotes = 1\n---#}}\n{EDITED}", "notes"),
    ],
    ids=["same", "same-with-header", "syntax", "attribute", "header"],
)
def test_what_is_no_version_is_not_written(here: Path, text: str, message: str) -> None:
    with pytest.raises(PromptError, match=message) as caught:
        make_version(PARENT, text, note="", author="")
    assert caught.value.hint
    assert not (here / "prompts").exists()


@pytest.mark.parametrize("kind", TagKind)
def test_the_live_template_is_the_one_that_settings_name(kind: TagKind) -> None:
    assert live_template(kind, LiveSettings()) == default_template(kind)
    live = LiveSettings(tag="tag.v7", span="span.v8", free="free.v9")
    wanted = {TagKind.CLOSED: "tag.v7", TagKind.SPAN: "span.v8", TagKind.FREE: "free.v9"}
    assert live_template(kind, live) == wanted[kind]


@pytest.mark.parametrize(
    ("before", "after", "replaced"),
    [
        pytest.param(None, '[live]\ntag = "tag.v2"\n', None, id="no-file"),
        pytest.param("", '[live]\ntag = "tag.v2"\n', None, id="empty"),
        pytest.param(
            "# ours\n[prompt]\nexamples = 2 # few\n",
            '# ours\n[prompt]\nexamples = 2 # few\n\n[live]\ntag = "tag.v2"\n',
            None,
            id="other-section",
        ),
        pytest.param(
            '[live] # which\nspan = "span.v2" # why\ntag = "tag.v1" # so\n\n[prompt]\nexamples=2\n',
            '[live] # which\nspan = "span.v2" # why\ntag = "tag.v2" # so\n\n[prompt]\nexamples=2\n',
            "tag.v1",
            id="comments",
        ),
        pytest.param('live.tag = "tag.v1"\n', 'live.tag = "tag.v2"\n', "tag.v1", id="dotted"),
        pytest.param('live = {tag = "tag.v1"}', 'live = {tag = "tag.v2"}', "tag.v1", id="inline"),
    ],
)
def test_making_live_leaves_the_rest_alone(
    here: Path, before: str | None, after: str, replaced: str | None
) -> None:
    config = here / "llmtagger.toml"
    if before is not None:
        config.write_text(before, encoding="utf-8")
    assert make_live("tag.v2") == replaced
    assert config.read_text(encoding="utf-8") == after
    assert load_settings().live.tag == "tag.v2"
    assert list(here.iterdir()) == [config]


@pytest.mark.parametrize(
    "text",
    [b"[live\n", b"[live]\ntag = 'a'\ntag = 'b'\n", b"live = 3\n", b"note = '\xff'\n"],
    ids=["syntax", "twice", "no-table", "no-utf-8"],
)
def test_settings_that_cannot_be_read_stay_as_they_are(here: Path, text: bytes) -> None:
    config = here / "llmtagger.toml"
    config.write_bytes(text)
    with pytest.raises(ConfigError, match=r"llmtagger\.toml") as caught:
        make_live("tag.v2")
    assert caught.value.hint
    assert config.read_bytes() == text


@pytest.mark.parametrize("name", ["span.v1", "tag.draft", "tag.v1.jinja", "tag.v0", ""])
def test_settings_name_a_version_of_the_task(here: Path, name: str) -> None:
    (here / "llmtagger.toml").write_text(f'[live]\ntag = "{name}"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"live\.tag"):
        load_settings()


def test_two_writers_of_the_settings_cannot_lose_each_other(here: Path) -> None:
    with (
        sole(here, ConfigError("held", hint="")),
        pytest.raises(ConfigError, match="is being written"),
    ):
        make_live("tag.v2")
    make_live("tag.v2")


def test_only_a_version_can_be_live(here: Path) -> None:
    path = here / "tag.v7.jinja"
    path.write_text(BODY, encoding="utf-8")
    for name in (str(path), str(path.with_suffix("")), "tag.v7.jinja"):
        with pytest.raises(PromptError) as caught:
            make_live(name)
        assert "prompt new" in caught.value.hint
    with pytest.raises(PromptError, match=r"no prompt 'tag\.v7'"):
        make_live("tag.v7")
    assert not (here / "llmtagger.toml").exists()


def test_a_promotion_that_fails_is_not_written_down(here: Path) -> None:
    with pytest.raises(PromptError):
        promote_version("tag.v7", here / "llmtagger.toml", note="", author="")
    assert not (here / "prompts").exists()


def test_what_is_live_is_no_part_of_the_fingerprint() -> None:
    """A run's identity names the prompt itself."""
    live = Settings(live=LiveSettings(tag="tag.v7"))
    assert live.fingerprint == Settings().fingerprint
    other = Settings(prompt=PromptSettings(examples=2))
    assert other.fingerprint != Settings().fingerprint


def test_tagging_takes_the_live_version(here: Path) -> None:
    build([Product("a", "red mug", tags=("mug",))], here / "index", HashingEncoder())
    index = open_index(here / "index")
    assert index.vocabulary.kind is TagKind.CLOSED

    def chosen(live: LiveSettings, prompt: str | None = None) -> str:
        job = TagJob("-", here / "index", "-", prompt=prompt, settings=Settings(live=live))
        return choose_template(job, index, None).name

    put(here, "tag.v7")
    assert chosen(LiveSettings()) == "tag.v1"
    assert chosen(LiveSettings(span="span.v2", free="free.v2")) == "tag.v1"
    assert chosen(LiveSettings(tag="tag.v7")) == "tag.v7"
    assert chosen(LiveSettings(tag="tag.v7"), "tag.v2") == "tag.v2"
    with pytest.raises(PromptError, match=r"tag\.v8"):
        chosen(LiveSettings(tag="tag.v8"))


@pytest.mark.parametrize("deep", ["[" * 9999, "{a=" * 9999], ids=["lists", "tables"])
def test_a_header_that_is_nested_too_deeply_is_refused(deep: str) -> None:
    template = TemplateFile("tag.v9", f"{{#---\nnote = {deep}\n---#}}\n{BODY}")
    with pytest.raises(PromptError, match="nested too deeply"):
        _ = template.header
