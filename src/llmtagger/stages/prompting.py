"""Renders a prompt template for one product; product text stays inside its own line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llmtagger.config import PromptSettings
from llmtagger.datatypes import Candidate, Neighbour, Product, Prompt, Shortlist, Tag, TagKind
from llmtagger.errors import PromptError
from llmtagger.vocabulary import split_key
from llmtagger.wording import cut, neutralise, offered_labels

_SHOWN_TAGS = 12  # tags shown of one example product
_SHOWN_VALUES = 24  # `key=value` tags shown of one example product
_SHOWN_ATTRIBUTES = 40  # attributes shown of the product itself
_ROLES = ("system", "user")
_PACKAGED = Path(__file__).parent.parent / "prompts"
_CHECKOUT = Path(__file__).parents[3] / "prompts"
_SAMPLE = Product(
    "1", "Mug", "A mug.", "Acme", "Kitchen", {"Color": "red"}, tags=("Color=red",), lang="en"
)
_SAMPLE_SHORTLIST = Shortlist(
    (Neighbour(_SAMPLE, 0.9),), (Candidate(Tag("Color=red", "1", key="Color")),), keys=("Color",)
)
_TASKS = {"tag": TagKind.CLOSED, "span": TagKind.SPAN, "free": TagKind.FREE}


@dataclass(frozen=True, slots=True)
class TemplateFile:
    """A prompt template on disk; `name` is like `tag.v1` and says the task and the version."""

    name: str
    source: str

    @property
    def hash(self) -> str:
        """Identifies the template's text."""
        return hashlib.sha256(self.source.encode()).hexdigest()[:16]

    @property
    def identity(self) -> str:
        """Tells this template, and this text of it, from others."""
        return f"{self.name}@{self.hash}"

    @property
    def kind(self) -> TagKind:
        """The kind of tags that the template asks for, from the first part of its name."""
        return _TASKS[self.name.split(".")[0]]


def list_templates() -> list[str]:
    """The names of the templates that come with llmtagger."""
    return sorted(path.stem for path in _folder().glob("*.jinja"))


def find_template(name: str) -> TemplateFile:
    """A template by name (`tag.v1`) or by the path of a `.jinja` file."""
    path = Path(name) if name.endswith(".jinja") else _folder() / f"{name}.jinja"
    if path.stem.split(".")[0] not in _TASKS:
        raise PromptError(
            f"{path.name!r} does not say its task",
            hint=f"a prompt's file is named TASK.vN.jinja; tasks are {', '.join(_TASKS)}",
        )
    try:
        return TemplateFile(path.stem, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(
            f"no prompt {name!r} ({error})",
            hint=f"known are {', '.join(list_templates())}, or give the path of a .jinja file",
        ) from error


def default_template(kind: TagKind) -> str:
    """The name of the prompt that asks for tags of that kind."""
    return next(f"{task}.v1" for task, asked in _TASKS.items() if asked is kind)


def tuning_template(kind: TagKind) -> str:
    """The name of the short prompt for tuned models, which need no instructions and no examples."""
    return next(f"{task}.v2" for task, asked in _TASKS.items() if asked is kind)


class PromptRenderer:
    """Fills one template; the same product and shortlist always give the same prompt.

    A template has a block `system` (the same for all products, so that the server computes it
    once) and a block `user`. It runs in a sandbox, and a variable it does not know is an error.
    """

    def __init__(self, template: TemplateFile, settings: PromptSettings, max_tags: int) -> None:
        self.template = template
        self._settings = settings
        self._max_tags = max_tags
        self._compiled = _compile(template)
        for lang in ("en", "zh"):  # an attribute that does not exist shows only when filled in
            self.render(replace(_SAMPLE, lang=lang), _SAMPLE_SHORTLIST)

    def render(self, product: Product, shortlist: Shortlist) -> Prompt:
        """The prompt for one product. PromptError if the template cannot be filled."""
        values, truncated = self._values(product, shortlist)
        context = self._compiled.new_context(values)
        try:
            messages = tuple(
                (role, "".join(self._compiled.blocks[role](context)).strip()) for role in _ROLES
            )
        except Exception as error:  # a template is foreign code: 1/0 and worse
            raise PromptError(
                f"the prompt {self.template.name} does not render: {error}",
                hint="prompts/README.md lists the variables a template may use",
            ) from error
        return Prompt(messages, self.template.name, self.template.hash, truncated)

    def _values(
        self, product: Product, shortlist: Shortlist
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        settings = self._settings
        lang = "zh" if product.lang.lower().startswith("zh") else "en"
        truncated: list[str] = []

        def fit(name: str, text: str, budget: int) -> str:
            kept, was_cut = cut(neutralise(text), budget)
            if was_cut:
                truncated.append(name)
            return kept

        attributes = list(product.attributes.items())[:_SHOWN_ATTRIBUTES]
        if len(attributes) < len(product.attributes):
            truncated.append("attributes")
        shown = {
            "title": fit("title", product.title, settings.description_tokens),
            "brand": fit("brand", product.brand, settings.example_tokens),
            "category": fit("category", product.category, settings.example_tokens),
            "attributes": {
                cut(neutralise(key), settings.example_tokens)[0]: fit(
                    f"attributes.{key}", value, settings.example_tokens
                )
                for key, value in attributes
            },
            "description": fit("description", product.description, settings.description_tokens),
        }
        examples = [
            self._example(n.product, shortlist) for n in shortlist.neighbours[: settings.examples]
        ]
        values = {
            "lang": lang,
            "product": shown,
            "examples": examples,
            "candidates": list(offered_labels(product, shortlist)),
            "keys": [neutralise(key) for key in shortlist.keys],
            "max_tags": self._max_tags,
        }
        return values, tuple(truncated)

    def _example(self, product: Product, shortlist: Shortlist) -> dict[str, Any]:
        room = self._settings.example_tokens
        tags = [cut(neutralise(tag), room)[0] for tag in (product.tags or ())[:_SHOWN_VALUES]]
        return {
            "title": cut(neutralise(product.title), room)[0],
            "tags": tags[:_SHOWN_TAGS],
            "values": grouped(tags, shortlist.keys),
        }


def grouped(tags: Sequence[str], keys: Sequence[str]) -> dict[str, list[str]]:
    """`key=value` tags as an object of lists, as a span answer writes them."""
    values: dict[str, list[str]] = {}
    for tag in tags:
        key, value = split_key(tag)
        if key in keys and key is not None:
            values.setdefault(neutralise(key), []).append(neutralise(value))
    return values


def _folder() -> Path:
    """Prompts lie in the installed package; in a checkout, at its top."""
    return _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT


def _compile(template: TemplateFile) -> Template:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["json"] = _to_json
    try:
        compiled = environment.from_string(template.source)
        used = meta.find_undeclared_variables(environment.parse(template.source))
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        raise PromptError(
            f"the prompt {template.name} is not valid: {error}"
            + (f" (line {line})" if line else ""),
            hint="see prompts/README.md",
        ) from error
    known = {"lang", "product", "examples", "candidates", "keys", "max_tags"}
    if unknown := used - known:
        raise PromptError(
            f"the prompt {template.name} uses unknown variables: {', '.join(sorted(unknown))}",
            hint=f"known are {', '.join(sorted(known))}",
        )
    if missing := set(_ROLES) - set(compiled.blocks):
        raise PromptError(
            f"the prompt {template.name} lacks the block {', '.join(sorted(missing))}",
            hint="write {% block system %}…{% endblock %} and {% block user %}…{% endblock %}",
        )
    return compiled


def _to_json(value: Mapping[str, Any] | Sequence[Any] | str) -> str:
    return json.dumps(value, ensure_ascii=False)
