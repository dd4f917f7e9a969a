"""Renders a prompt template for one product; product text stays inside its own line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from llmtagger.config import PromptSettings
from llmtagger.datatypes import Candidate, Product, Prompt, Shortlist, Tag
from llmtagger.redaction import redact
from llmtagger.sandbox import Fill, filling
from llmtagger.templates import TemplateFile
from llmtagger.vocabulary import split_key
from llmtagger.wording import cut, neutralise, offered_labels

_SHOWN_TAGS = 12  # tags shown of one example product
_SHOWN_VALUES = 24  # `key=value` tags shown of one example product
_SHOWN_ATTRIBUTES = 40  # attributes shown of the product itself
_SAMPLE = Product(
    "1", "Mug", "A mug.", "Acme", "Kitchen", {"Color": "red"}, tags=("Color=red",), lang="en"
)
_SAMPLE_SHORTLIST = Shortlist((), (Candidate(Tag("Color=red", "1", key="Color")),), keys=("Color",))


class ExampleChooser(Protocol):
    """Chooses the labelled products that are shown as examples."""

    def choose(self, product: Product, shortlist: Shortlist, count: int) -> Sequence[Product]: ...


class PromptRenderer:
    """Fills one template; the same product and shortlist always give the same prompt.

    Without `exemplars`, the nearest neighbours are the examples.

    A template has a block `system` (the same for all products, so that the server computes it
    once) and a block `user`. It runs in a sandbox, and a variable it does not know is an error.
    `filling` may run it elsewhere. Where the settings say `redact`, personal data is masked in
    the product and in the examples.
    """

    def __init__(
        self,
        template: TemplateFile,
        settings: PromptSettings,
        max_tags: int,
        exemplars: ExampleChooser | None = None,
        filling: Callable[[TemplateFile], Fill] = filling,
    ) -> None:
        self.template = template
        self._exemplars = exemplars
        count = template.header.examples.count
        self._count = settings.examples if count is None else count
        self._settings = settings
        self._max_tags = max_tags
        self._safe = _redacted if settings.redact else neutralise
        self._fill = filling(template)
        for lang in ("en", "zh"):  # an attribute that does not exist shows only when filled in
            self._fill(self._values(replace(_SAMPLE, lang=lang), _SAMPLE_SHORTLIST, [_SAMPLE])[0])

    def render(self, product: Product, shortlist: Shortlist) -> Prompt:
        """The prompt for one product. PromptError if the template cannot be filled."""
        examples: Sequence[Product] = [n.product for n in shortlist.neighbours[: self._count]]
        if self._exemplars is not None:
            examples = self._exemplars.choose(product, shortlist, self._count)
        values, truncated = self._values(product, shortlist, examples)
        messages = self._fill(values)
        return Prompt(messages, self.template.name, self.template.hash, truncated)

    def _values(
        self, product: Product, shortlist: Shortlist, examples: Sequence[Product]
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        settings = self._settings
        lang = "zh" if product.lang.lower().startswith("zh") else "en"
        truncated: list[str] = []

        def fit(name: str, text: str, budget: int) -> str:
            kept, was_cut = cut(self._safe(text), budget)
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
                cut(self._safe(key), settings.example_tokens)[0]: fit(
                    f"attributes.{key}", value, settings.example_tokens
                )
                for key, value in attributes
            },
            "description": fit("description", product.description, settings.description_tokens),
        }
        offered = offered_labels(product, shortlist)
        votes = {candidate.tag.id: len(candidate.votes) for candidate in shortlist.offer}
        values = {
            "lang": lang,
            "product": shown,
            "examples": [self._example(each, shortlist) for each in examples],
            "candidates": list(offered),
            "keys": [neutralise(key) for key in shortlist.keys],
            "max_tags": self._max_tags,
            "votes": {label: votes[tag.id] for label, tag in offered.items()},
        }
        return values, tuple(truncated)

    def _example(self, product: Product, shortlist: Shortlist) -> dict[str, Any]:
        room = self._settings.example_tokens
        tags = [cut(self._safe(tag), room)[0] for tag in (product.tags or ())[:_SHOWN_VALUES]]
        return {
            "title": cut(self._safe(product.title), room)[0],
            "tags": tags[:_SHOWN_TAGS],
            "values": grouped(tags, shortlist.keys),
        }


def _redacted(text: str) -> str:
    """Last of all, since a character that `neutralise` takes out may have broken up a number."""
    return redact(neutralise(text))


def grouped(tags: Sequence[str], keys: Sequence[str]) -> dict[str, list[str]]:
    """`key=value` tags as an object of lists, as a span answer writes them."""
    values: dict[str, list[str]] = {}
    for tag in tags:
        key, value = split_key(tag)
        if key in keys and key is not None:
            values.setdefault(neutralise(key), []).append(neutralise(value))
    return values
