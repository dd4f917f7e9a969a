"""Any LangChain chat model as a `Generator`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.exceptions import ContextOverflowError, ModelError, ModelInvalidRequestError
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage

from llmtagger.backends.completions import read_logprobs
from llmtagger.datatypes import Completion, Constraint, Prompt, TokenLogprob
from llmtagger.errors import EngineError, EngineUnreachable, RequestRefused

_REFUSALS = (ModelInvalidRequestError, ContextOverflowError)
_CUT = {"length", "max_tokens", "max_output_tokens", "model_length"}  # by any provider's name
_ENDED = {"stop", "end_turn", "stop_sequence", "completed"}

Arguments = Callable[[Constraint], Mapping[str, Any]]


class ChatModelGenerator:
    """Asks a LangChain chat model; `arguments` says how that model takes a constraint.

    LangChain has no common way to demand a JSON schema: `with_structured_output` calls a tool,
    whose arguments must be an object, and not every model has tools. So without `arguments` the
    model is only asked by the prompt, and its answer is read as strictly as any other.
    """

    def __init__(
        self,
        chat_model: BaseChatModel,
        *,
        arguments: Arguments | None = None,
        concurrency: int = 8,
        model: str | None = None,
    ) -> None:
        self._chat_model = chat_model
        self._arguments = arguments
        self.concurrency = concurrency
        self.model = model or _name(chat_model)

    def complete(self, prompt: Prompt, constraint: Constraint) -> Completion:
        """One answer. A request that the model refuses is `RequestRefused`, else `EngineError`."""
        arguments = self._arguments(constraint) if self._arguments else {}
        begun = time.monotonic()
        try:
            message = self._chat_model.invoke(list(prompt.messages), **arguments)
        except Exception as error:  # each provider has exceptions of its own
            raise _translated(error, self.model) from error
        usage: Mapping[str, Any] = message.usage_metadata or {}
        return Completion(
            text=str(message.text),
            finish_reason=_finish_reason(message.response_metadata),
            model=self.model,
            logprobs=_logprobs(message),
            prompt_tokens=usage.get("input_tokens", 0),
            completion_tokens=usage.get("output_tokens", 0),
            seconds=time.monotonic() - begun,
        )


def vllm_arguments(constraint: Constraint) -> dict[str, Any]:
    """How `langchain_openai.ChatOpenAI` hands a constraint to a vLLM server.

    >>> vllm_arguments(Constraint({"type": "array"}, 16))["max_tokens"]
    16
    """
    return {
        "max_tokens": constraint.max_tokens,
        "extra_body": {"structured_outputs": {"json": dict(constraint.schema)}},
    }


def _name(chat_model: BaseChatModel) -> str:
    names = (getattr(chat_model, key, None) for key in ("model_name", "model", "model_id"))
    given = (name for name in names if isinstance(name, str) and name)
    return next(given, type(chat_model).__name__)


def _translated(error: Exception, model: str) -> EngineError:
    said = f"{model}: {error}" if str(error) else f"{model}: {type(error).__name__}"
    if isinstance(error, _REFUSALS):
        return RequestRefused(said, hint="shorten the prompt, or correct what `arguments` returns")
    passing = isinstance(error, ModelError) and error.is_retryable
    if passing or isinstance(error, ConnectionError | TimeoutError):
        return EngineUnreachable(said, hint="is the model's server up? Then run it again")
    return EngineError(said, hint="call the chat model's `invoke` alone to see what it lacks")


def _finish_reason(metadata: Mapping[str, Any]) -> str:
    """Why the model stopped: `length` when it was cut off, by whatever name its provider has."""
    incomplete = metadata.get("incomplete_details")
    reasons = [incomplete.get("reason") if isinstance(incomplete, Mapping) else None]
    reasons += [metadata.get(key) for key in ("finish_reason", "stop_reason", "done_reason")]
    said = next((reason.lower() for reason in reasons if isinstance(reason, str)), "stop")
    if said in _CUT:
        return "length"
    return "stop" if said in _ENDED else said


def _logprobs(message: AIMessage) -> tuple[TokenLogprob, ...]:
    """The tokens' log-probabilities where the provider gives them as OpenAI does."""
    given = message.response_metadata.get("logprobs")
    return read_logprobs(given.get("content") if isinstance(given, Mapping) else None)
