"""Text of products: broken encodings, HTML, language."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtagger.catalog.text import guess_language, html_to_text, mend


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param("PiquÃ© Polo", "Piqué Polo", id="utf-8 read as latin-1"),
        pytest.param("itâ€™s soft", "it’s soft", id="utf-8 read as cp1252"),
        pytest.param(
            "Ｗｉｄｅ ﬁt “quote”", "Ｗｉｄｅ ﬁt “quote”", id="width, ligature and quotes stay"
        ),
        pytest.param("a\u200bb\u202ec", "a\u200bb\u202ec", id="invisible characters stay"),
        pytest.param("AT&amp;T", "AT&amp;T", id="entities stay in plain text"),
        pytest.param("2022年新款无线耳机，通话清晰", "2022年新款无线耳机，通话清晰", id="chinese"),
    ],
)
def test_mend(source: str, expected: str) -> None:
    assert mend(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param("plain &amp; simple", "plain & simple", id="no tags"),
        pytest.param("<p>a <em>b</em>c</p><p>d</p>", "a bc\nd", id="blocks break, inline does not"),
        pytest.param("one<br>two<br/>three", "one\ntwo\nthree", id="br"),
        pytest.param("<ul><li>S<li>M &lt; L</ul>", "S\nM < L", id="unclosed items, entity"),
        pytest.param("<p>wrapped\n  by the\r\n editor</p>", "wrapped by the editor", id="spaces"),
        pytest.param("x<script>bad('<p>')</script>y<style>p{}</style>", "xy", id="unseen parts"),
        pytest.param("<meta charset='utf-8'><p>body</p>", "body", id="meta first"),
        pytest.param("<p>a&nbsp;&nbsp;b&#8217;s</p>", "a b’s", id="nbsp and numbers"),
        pytest.param("<table><tr><td>a<td>b</table>", "a\nb", id="cells"),
        pytest.param("<!-- note -->5 < 6", "5 < 6", id="comment and a bare sign"),
        pytest.param("", "", id="empty"),
    ],
)
def test_html_to_text(source: str, expected: str) -> None:
    assert html_to_text(source) == expected


def test_html_nested_200_000_levels_deep_is_read_in_linear_time() -> None:
    started = time.monotonic()
    assert html_to_text("<div>" * 200_000 + "x &amp; y<script>z</script>") == "x & y"
    assert time.monotonic() - started < 10


@given(st.text(alphabet="<>/&;ap \n'\"=script!-"))
def test_html_never_raises(source: str) -> None:
    assert "  " not in html_to_text(source)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Leather wallet", "en"),
        ("高清液晶电视，4K分辨率，HDR功能", "zh"),
        ("Café crème, très bon", "en"),
        ("Xbox Series X 手柄", "en"),
        ("iPhone手机壳", "zh"),
        ("12345 €", "en"),
        ("", "en"),
    ],
)
def test_guess_language(text: str, expected: str) -> None:
    assert guess_language(text) == expected
