"""Fills prompt templates, which are foreign code, in Jinja's sandbox."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2 import StrictUndefined, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llmtagger.errors import PromptError
from llmtagger.templates import TemplateFile

ROLES = ("system", "user")
KNOWN = frozenset({"lang", "product", "examples", "candidates", "keys", "max_tags", "votes"})
LONGEST = 200_000  # characters of a message; no model here reads as much

Messages = tuple[tuple[str, str], ...]  # role and text
Fill = Callable[[Mapping[str, Any]], Messages]  # from the values of `KNOWN`


def filling(template: TemplateFile) -> Fill:
    """How to fill a template; `PromptError` where it is not valid, and later where it fails."""
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
    if unknown := used - KNOWN:
        raise PromptError(
            f"the prompt {template.name} uses unknown variables: {', '.join(sorted(unknown))}",
            hint=f"known are {', '.join(sorted(KNOWN))}",
        )
    if missing := set(ROLES) - set(compiled.blocks):
        raise PromptError(
            f"the prompt {template.name} lacks the block {', '.join(sorted(missing))}",
            hint="write {% block system %}…{% endblock %} and {% block user %}…{% endblock %}",
        )

    def fill(values: Mapping[str, Any]) -> Messages:
        context = compiled.new_context(dict(values))
        try:
            messages = tuple(
                (role, "".join(compiled.blocks[role](context)).strip()) for role in ROLES
            )
        except Exception as error:  # a template is foreign code: 1/0 and worse
            raise PromptError(
                f"the prompt {template.name} does not render: {str(error) or type(error).__name__}",
                hint="prompts/README.md lists the variables a template may use",
            ) from error
        if any(len(text) > LONGEST for _, text in messages):
            raise PromptError(
                f"the prompt {template.name} is longer than {LONGEST:,} characters",
                hint="take out what repeats",
            )
        return messages

    return fill


def _to_json(value: Mapping[str, Any] | Sequence[Any] | str) -> str:
    return json.dumps(value, ensure_ascii=False)
