"""A template's rules as plain fields: what is not edited stays as it is, byte for byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtagger.errors import PromptError
from llmtagger.studio.form import Form, Unmapped, read_form
from llmtagger.templates import find_template

MAPPED = ("tag.v1", "span.v1", "free.v1")
RULES = "{% block system %}\nRules:\n1. Be brief.\n2. Be right.\n{% endblock %}\n{% block user %}\n"
LINES = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=40)
JINJA = st.lists(st.sampled_from(["{", "}", "%", "#", "-", "{%", "%}", "{{", "}}", " x ", "1. "]))


def form_of(source: str) -> Form:
    form = read_form(source)
    assert isinstance(form, Form), form
    return form


def lines(form: Form, lang: str) -> list[tuple[int | None, str]]:
    return [(form.fields[at].number, form.fields[at].text) for at in form.of(lang)]


@pytest.mark.parametrize("name", MAPPED)
def test_the_prompts_that_come_with_llmtagger_have_fields(name: str) -> None:
    form = form_of(find_template(name).body)
    assert form.languages == ("en", "zh")
    for lang in form.languages:
        numbers = [number for number, _ in lines(form, lang) if number]
        assert numbers == list(range(1, len(numbers) + 1))
    source = form.source
    for field in form.fields:
        assert source[field.start : field.end] == field.text
        assert "\n" not in field.text


def test_each_language_has_its_own_lines() -> None:
    form = form_of(find_template("tag.v1").body)
    assert lines(form, "en")[2] == (
        1,
        'Choose only from "Possible tags", copied exactly; never make one up.',
    )
    assert lines(form, "zh")[1] == (None, "规则：")
    assert "{{ max_tags }}" in dict(lines(form, "en"))[5]


def test_lines_outside_of_the_languages_are_for_both() -> None:
    form = form_of(
        "{% block system %}\nYou tag.\n{% if lang == 'en' %}\n1. Yes.\n{% else %}\n1. 是。\n"
        "{% endif %}\nAnswer.\n{% endblock %}"
    )
    assert lines(form, "en") == [(None, "You tag."), (1, "Yes."), (None, "Answer.")]
    assert lines(form, "zh") == [(None, "You tag."), (1, "是。"), (None, "Answer.")]


@pytest.mark.parametrize(
    ("system", "line", "what"),
    [
        ("{% for tag in candidates %}x{% endfor %}", 2, "{% for tag in candidates %}"),
        ('{{ "A" if lang == "zh" else "B" }}', 2, '{{ "A" if lang == "zh" else "B" }}'),
        ("Rules\n{% if max_tags %}\nx\n{% endif %}", 3, "{% if max_tags %}"),
        ("{% raw %}{{ x }}{% endraw %}", 2, "{% raw %}"),
        ("x {{ a\n}}", 2, "{{ a\n}}"),
        ("x {%- if lang == 'zh' %}y{% endif %}", 1, "-%}"),
        ("x {% endfor", 4, "unexpected"),
        ("", 1, "{% block system %}"),
    ],
)
def test_what_has_no_field_is_named(system: str, line: int, what: str) -> None:
    found = read_form(f"{{% block system %}}\n{system}\n{{% endblock %}}\n{{% block user %}}")
    assert isinstance(found, Unmapped)
    if what != "unexpected":
        assert (found.line, found.what) == (line, what)


def test_the_short_prompt_has_no_fields() -> None:
    found = read_form(find_template("tag.v2").body)
    assert isinstance(found, Unmapped)
    assert found.line == 2


def test_a_rule_is_changed_added_and_taken_out() -> None:
    form = form_of(RULES)
    assert form.with_text(2, " Be wrong. ").source == RULES.replace("Be right.", "Be wrong.")
    more = form.with_rule("en", "Be kind.")
    assert more.source == RULES.replace("right.\n", "right.\n3. Be kind.\n")
    assert more.without(1).source == (
        RULES.replace("1. Be brief.\n", "").replace("2. Be right.", "1. Be right.\n2. Be kind.")
    )


def test_a_rule_of_one_language_leaves_the_numbers_of_the_other() -> None:
    source = find_template("tag.v1").body
    form = form_of(source)
    first = next(at for at in form.of("zh") if form.fields[at].number == 1)
    after = form.without(first)
    assert lines(after, "en") == lines(form, "en")
    assert [number for number, _ in lines(after, "zh") if number] == [1, 2, 3, 4]
    assert after.source.endswith(source[source.index("{% else %}") :])


@pytest.mark.parametrize("name", MAPPED)
@given(data=st.data(), text=LINES | JINJA.map("".join))
def test_a_change_touches_nothing_else(name: str, data: st.DataObject, text: str) -> None:
    """Or is refused. What was typed is what is there, and the rest is the same bytes."""
    form = form_of(find_template(name).body)
    at = data.draw(st.integers(0, len(form.fields) - 1))
    field = form.fields[at]
    try:
        changed = form.with_text(at, text)
    except PromptError:
        return
    assert changed.fields[at].text == text.strip()
    assert changed.source == form.source[: field.start] + text.strip() + form.source[field.end :]
    assert [f.text for n, f in enumerate(changed.fields) if n != at] == [
        f.text for n, f in enumerate(form.fields) if n != at
    ]
    assert changed.with_text(at, field.text).source == form.source


@given(rules=st.lists(LINES.filter(str.strip), max_size=4), lang=st.sampled_from(["en", "zh"]))
def test_what_is_added_is_taken_out_again(rules: list[str], lang: str) -> None:
    form = first = form_of(find_template("tag.v1").body)
    added = 0
    for rule in rules:
        try:
            form = form.with_rule(lang, rule)
        except PromptError:
            continue
        added += 1
    for _ in range(added):
        form = form.without(max(at for at in form.of(lang) if form.fields[at].number))
    assert form.source == first.source


@pytest.mark.parametrize("text", ["{{ product.title }}", "{% if x %}", "{# note", "a\nb", "", "{%"])
def test_a_field_takes_plain_text_only(text: str) -> None:
    with pytest.raises(PromptError, match="one line of plain text"):
        form_of(RULES).with_text(1, text)


def test_a_field_may_hold_the_number_of_tags() -> None:
    changed = form_of(RULES).with_text(1, "At most {{ max_tags }} tags.")
    assert changed.fields[1].text == "At most {{ max_tags }} tags."
