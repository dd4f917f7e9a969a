"""Every pattern of the source, and what uses it on foreign text, takes linear time.

The patterns are found in the source, so a new one is tried as well. Each text is an atom repeated
up to 100,000 characters, and a tail that keeps a match from ending there. Here stand the texts that
were slow once; tests/torture/test_time.py draws others, and with --torture tries them all.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from llmtagger.backends.lexical import words_of
from llmtagger.catalog import cells, profiles, shops, tables, tagcells
from llmtagger.catalog.jsonl import check_values
from llmtagger.catalog.products import SEPARATORS
from llmtagger.catalog.rows import CatalogOptions, Row
from llmtagger.catalog.tables import guard, restore
from llmtagger.catalog.text import guess_language, html_to_text, mend
from llmtagger.config import AnswerSettings
from llmtagger.datatypes import Completion, Product, Shortlist, TagKind, TokenLogprob
from llmtagger.experts.extraction import _tokens
from llmtagger.injection import guard_product, instructions
from llmtagger.normalise import FoldedText, loosen, normalise, unescaped
from llmtagger.redaction import redact
from llmtagger.stages.parsing import answer_format
from llmtagger.vocabulary import Vocabulary
from llmtagger.wording import neutralise

SOURCE = Path(__file__).parents[1] / "src"
LENGTH = 100_000  # characters
DEAREST_PATTERN = 40  # times the baseline; what is quadratic takes thousands
DEAREST_FUNCTION = 400

# A character of each Unicode category.
CATEGORIES = [
    *("A", "a", "ǅ", "ʰ", "中", "\u0301", "\u0903", "\u20dd", "1", "Ⅷ", "²", "_", "-", "("),
    *(")", "«", "»", "!", "+", "$", "^", "©", " ", "\u2028", "\u2029", "\n", "\u200b", "\ud800"),
    *("\ue000", "\u0378"),
]
# What some pattern, or something below it, might go over again and again.
AWKWARD = [
    *("0", "9.", "x", "'", '"', "\\", '\\"', '"\\', ",", ";", ":", "?", ".", ". ", "@", "#", "%"),
    *("&", "*", "/", "<", "=", ">", "[", "]", "`", "{", "|", "}", "~", "\t", "\r", "\r\n", "\0"),
    *("<|", "<!--", "-->", "<!", "</", "<a", "<a ", "<a b=", "<p>", "</p>", "<script", "</script "),
    *("<script>", "&#", "&#9", "&#x", "&a", "&amp", "&lt;", "%4", "%41", "%e4", "\\u", "\\x"),
    *(
        "a_",
        "_a",
        "a ",
        " a",
        "a.",
        "a-",
        "a@",
        "@a.",
        "a_b ",
        "i.",
        "1 ",
        "1-",
        "+1",
        "(02) ",
        "tel:",
    ),
    *('["', '["a"', '"]', "'=", "' ", "= ", "\u0301\u0316", "a\u0301\u0316", "\uff9e\u0301"),
    *("\u0f73", "\u0344\u0316", "\u1100", "\u1161", "가", "\u11a8", "\u0cc6", "\u0cc2", "ﬀ", "ß"),
    *(
        "İ",
        "ſ",
        "ﷺ",
        "㎒",
        "Ａ",
        "ａ　",
        "а",
        "aа",
        "α",
        "\u200d",
        "\u00ad",
        "\ufe0f",
        "\U000e0041",
    ),
    *(
        "\U0001f3f4",
        "👍🏽",
        "🅰",
        "🇬",
        "ᴀ",
        "①",
        "。",
        "，",
        "“",
        "「",
        "：",
        "忽略",
        "标签",
        "Ã©",
        "â€™",
    ),
    *("QUJD", "aGkg", "=", "==", "_-", "a\n", "\na", "a:\n", "{\n", "name{\n", "name{a} 1\n"),
]
TAILS = ["", "!", "Size chart 5", "\n\u0301x"]
METHODS = {"search", "match", "fullmatch", "findall", "finditer", "sub", "split"}
_WORDS = re.compile(r"[A-Za-z]{2,}|[^\x00-\x7f\W]+")  # the literals of a pattern


@dataclass(frozen=True)
class Found:
    """A pattern of the source, and the methods by which it is used there."""

    where: str
    pattern: Any
    methods: frozenset[str]

    @property
    def literals(self) -> set[str]:
        return set(_WORDS.findall(_written(self.pattern)))

    def over(self, text: str) -> None:
        """Use it as the source does, to the end of the text."""
        for method in self.methods or {"search"}:
            if method == "sub":
                self.pattern.sub(" ", _for(self.pattern, text))
            elif method == "finditer":
                for _ in self.pattern.finditer(_for(self.pattern, text)):
                    pass
            else:
                getattr(self.pattern, method)(_for(self.pattern, text))


def _written(pattern: Any) -> str:
    said = pattern.pattern
    return said.decode("latin-1") if isinstance(said, bytes) else said


def _for(pattern: Any, text: str) -> str | bytes:
    """The text as the pattern takes it; re2 takes no halves of surrogate pairs."""
    if isinstance(pattern.pattern, bytes):
        return text.encode("utf-8", "replace")
    return text if isinstance(pattern, re.Pattern) else text.encode("utf-8", "replace").decode()


def is_pattern(value: Any) -> bool:
    return isinstance(value, re.Pattern) or type(value).__module__ == "re2"


def within(value: Any) -> Iterator[Any]:
    """All patterns in a value, through tuples, lists, mappings and records."""
    if is_pattern(value):
        yield value
    elif isinstance(value, tuple | list | frozenset | set):
        for each in value:
            yield from within(each)
    elif isinstance(value, Mapping):
        yield from within([*value.keys(), *value.values()])
    elif is_dataclass(value) and not isinstance(value, type):
        yield from within([getattr(value, field.name) for field in fields(value)])


@cache
def trees() -> Mapping[str, ast.Module]:
    """The source of each module that uses re or re2, by the module's name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if re.search(r"^\s*import re2?$", text, re.MULTILINE):
            parts = path.relative_to(SOURCE).with_suffix("").parts
            found[".".join(part for part in parts if part != "__init__")] = ast.parse(text)
    return found


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    """All calls of functions of re and re2."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id in ("re", "re2")
            and node.func.attr not in ("escape", "Options")
        ):
            yield node


def functions(tree: ast.AST) -> Iterator[tuple[ast.FunctionDef, list[ast.Call]]]:
    """The functions that call re or re2, with these calls."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and (found := list(calls(node))):
            yield node, found


@cache
def methods(module: str) -> Mapping[str, frozenset[str]]:
    """By a variable's name, the methods of patterns that a module calls of it."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(trees()[module]):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.attr in METHODS
        ):
            found.setdefault(node.value.id, set()).add(node.attr)
    return {name: frozenset(each) for name, each in found.items()}


def _in_functions(module: ModuleType, tree: ast.AST) -> Iterator[Found]:
    """Patterns written where they are used, and those that a function without arguments makes."""
    for function, made in functions(tree):
        if made_elsewhere(function, made):  # out of arguments: `out_of_arguments`
            if not function.args.args:
                for each in within(getattr(module, function.name)()):
                    yield Found(f"{module.__name__}.{function.name}()", each, frozenset({"search"}))
            continue
        for call in made:
            assert isinstance(call.func, ast.Attribute)
            pattern = re.compile(ast.literal_eval(call.args[0]))
            yield Found(f"{module.__name__}:{call.lineno}", pattern, frozenset({call.func.attr}))


def made_elsewhere(function: ast.FunctionDef, made: Sequence[ast.Call]) -> bool:
    """Whether a function uses patterns that do not stand in it."""
    return not all(isinstance(call.args[0], ast.Constant) for call in made)


class _Noting:
    """Stands in for `re`: notes each pattern and who uses it, and lets every whole text match."""

    def __init__(self, module: str, found: list[Found]) -> None:
        self._module, self._found = module, found

    def __getattr__(self, method: str) -> Any:
        real = getattr(re, method)
        if method not in {*METHODS, "compile"}:
            return real

        def noted(pattern: str, *text: Any, **options: Any) -> Any:
            caller = sys._getframe(1)
            while caller.f_code.co_name.startswith("<") and caller.f_back is not None:
                caller = caller.f_back
            flags = text[-1] if isinstance(text[-1:] and text[-1], re.RegexFlag) else 0
            used = frozenset({"match" if method == "compile" else method})
            where = f"{self._module}.{caller.f_code.co_name}"
            self._found.append(Found(where, re.compile(pattern, flags), used))
            anything = re.fullmatch(r"(?P<name>.)", "a")
            return anything if method == "fullmatch" else real(pattern, *text, **options)

        return noted


@cache
def out_of_arguments() -> Sequence[Found]:
    """The patterns that functions make of their arguments: of every profile and delimiter."""
    found: list[Found] = []
    with pytest.MonkeyPatch.context() as patch:
        for module in (cells, profiles, shops, tagcells):
            patch.setattr(module, "re", _Noting(module.__name__, found))
        for delimiter in tables._DELIMITERS:
            cells._cell.__wrapped__(delimiter)
        for separator in SEPARATORS:
            tagcells.tag_cells(None, [f"a{separator}b"])
        for profile in profiles.PROFILES:
            _use(profile)
    return found


def _use(profile: profiles.Profile) -> None:
    for signature in profile.signatures:
        replace(profile, signatures=(signature,)).recognises(["a"])
    profile.synonyms(["a"])
    tagcells.tag_cells(profile, ["a"])
    shops.split_cell("a", profile)
    variants = profile.variants
    shop = shops.Shop(profile, ("a", variants.where, variants.children), CatalogOptions())
    shop.is_variant(Row(1, {variants.where: "a"}, "a"))
    shops._Families(shop).note(Row(1, {"a": "a"}, "a"))


@cache
def patterns() -> Sequence[Found]:
    """Every pattern of the source."""
    found = [*out_of_arguments()]
    for name, tree in trees().items():
        module = importlib.import_module(name)
        for variable, value in vars(module).items():
            used = methods(name).get(variable, frozenset())
            found += [Found(f"{name}.{variable}", each, used) for each in within(value)]
        found += _in_functions(module, tree)
    unique = {(each.pattern.pattern, each.methods): each for each in found}
    return list(unique.values())


def _parse(text: str) -> None:
    """An answer with hostile words around it, whose tokens have probabilities."""
    said = f'["mug"] {text}'
    logprobs = (TokenLogprob(said.encode(errors="surrogatepass"), -1.0),)
    answer_format(TagKind.FREE, Vocabulary([]), AnswerSettings()).parse(
        Completion(said, "stop", "fake", logprobs=logprobs), Product("1", text), Shortlist((), ())
    )


FUNCTIONS: dict[str, Callable[[str], object]] = {
    "instructions": instructions,
    "guard_product": lambda text: guard_product(Product("1", text, description=text)),
    "redact": redact,
    "normalise": normalise,
    "loosen": loosen,
    "unescaped": unescaped,
    "FoldedText": FoldedText,
    "html_to_text": html_to_text,
    "html_to_text, with a tag": lambda text: html_to_text(f"<p>{text}"),
    "neutralise": neutralise,
    "mend": mend,
    "guess_language": guess_language,
    "restore": lambda text: restore(guard(text)),
    "check_values": lambda text: check_values({"a": text}, text),
    "words_of": lambda text: list(words_of(text)),
    "tokens of a title": _tokens,
    "parse": _parse,
}


def atoms() -> list[str]:
    """What texts are made of: at least one character of each category, and each literal."""
    literals = sorted({word for each in patterns() for word in each.literals})
    return list(dict.fromkeys([*CATEGORIES, *AWKWARD, *literals]))


def text_of(atom: str, tail: str, length: int = LENGTH) -> str:
    return (atom * (length // len(atom)))[:length] + tail


def seconds(run: Callable[[str], object], text: str) -> float:
    begun = time.process_time()
    run(text)
    return time.process_time() - begun


@cache
def baseline() -> float:
    """Seconds of this process for one plain pass over a text of the full length."""
    text = text_of("a 中", "")
    return min(seconds(lambda text: [char.isalnum() for char in text], text) for _ in range(5))


Tried = tuple[str, Callable[[str], object], int]  # a name, what runs, times the baseline


def everything() -> list[Tried]:
    found: list[Tried] = [(each.where, each.over, DEAREST_PATTERN) for each in patterns()]
    return found + [(name, run, DEAREST_FUNCTION) for name, run in FUNCTIONS.items()]


def dear(texts: Iterable[str], tried: Sequence[Tried] = ()) -> list[str]:
    """What takes too long on some of the texts, said with the text's beginning and the time."""
    found = []
    for text in texts:
        for where, run, most in tried or everything():
            spent = seconds(run, text) / baseline()
            if spent > most:
                found.append(f"{where} on {text[:12]!r}…{text[-12:]!r}: {spent:.0f} x")
    return found


def test_the_walk_finds_every_pattern() -> None:
    """As many as there are calls that make or use one; `patterns` fails where it cannot tell."""
    assert len(trees()) >= 20
    assert len(patterns()) >= 60
    for name, tree in trees().items():
        in_functions = {call for _, made in functions(tree) for call in made}
        in_module = len({*calls(tree)} - in_functions)
        found = [each for value in vars(sys.modules[name]).values() for each in within(value)]
        assert len(found) >= in_module, name


def test_patterns_out_of_arguments_are_tried() -> None:
    """In every function that makes them, and each that a profile holds."""
    making = {
        f"{name}.{function.name}"
        for name, tree in trees().items()
        for function, made in functions(tree)
        if made_elsewhere(function, made) and function.args.args
    }
    assert {each.where for each in out_of_arguments()} == making
    tried = {each.pattern.pattern for each in patterns()}
    for profile in profiles.PROFILES:
        held = {*chain(*profile.signatures, *profile.fields.values(), profile.pairs or ())}
        held |= {profile.attributes, profile.variants.value, profile.variants.child} - {""}
        assert held <= tried, profile.name


def test_the_walk_looks_into_tuples_and_records() -> None:
    one, two = re.compile("a"), re.compile("b")
    assert list(within([{"x": (one,)}, Found("", two, frozenset()), 1])) == [one, two]


def test_there_are_atoms_of_every_kind() -> None:
    kinds = {unicodedata.category(chr(code)) for code in range(sys.maxunicode + 1)}
    assert {unicodedata.category(atom) for atom in CATEGORIES} == kinds
    assert len(atoms()) >= 100
    assert len(TAILS) >= 4
    assert {"previous", "忽略", "SYS", "script"} <= {*atoms()}


@pytest.mark.parametrize("atom", ["_", "\u0301\u0316", '\\"', "name{\n"])
def test_what_was_slow_is_read_in_linear_time(atom: str) -> None:
    assert dear([text_of(atom, "Features: zipper")]) == []


def test_too_slow_is_found() -> None:
    text = text_of("ab", "")
    fine = ("linear", str.upper, 5)
    slow = ("quadratic", lambda text: [text[at:] for at in range(0, len(text), 20)], 5)
    assert [found.split(" on ")[0] for found in dear([text], [fine, slow])] == ["quadratic"]
