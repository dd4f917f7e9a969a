"""The adapters to LangChain, with its own fakes."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelInvalidRequestError,
    ModelRateLimitError,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import (
    FakeListChatModel,
    GenericFakeChatModel,
)
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda

from llmtagger.config import RetrievalSettings, Settings
from llmtagger.datatypes import Completion, Constraint, Product, Prompt, TokenLogprob
from llmtagger.errors import CatalogError, EngineError, EngineUnreachable, RequestRefused
from llmtagger.langchain import (
    ChatModelGenerator,
    LangChainEncoder,
    ProductRetriever,
    TaggerRunnable,
    vllm_arguments,
)
from llmtagger.langchain.runnable import Input
from llmtagger.output import Cut, output_record
from llmtagger.pipeline import Tagger, build_tagger
from llmtagger.stages.retrieval import Catalogue, CatalogueRetriever
from llmtagger.templates import find_template

PROMPT = Prompt((("system", "Choose tags."), ("user", "Title: 皮夹 wallet")), "tag.v1", "0")
CONSTRAINT = Constraint({"type": "array", "items": {"enum": ["wallet"]}}, 32)
RUN = {"id": "r1", "model": "fake", "prompt": "tag.v1@0", "index": "i1"}
CUT = Cut(0.5, 0.2)


class Recorder(BaseChatModel):
    """Answers with one message, or raises, and keeps what it was asked."""

    answer: AIMessage = AIMessage("[]")
    error: Exception | None = None
    asked: list[tuple[list[BaseMessage], dict[str, Any]]] = []  # noqa: RUF012  # pydantic copies it

    @property
    def _llm_type(self) -> str:
        return "recorder"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        self.asked.append((messages, kwargs))
        if self.error:
            raise self.error
        return ChatResult(generations=[ChatGeneration(message=self.answer)])


class Gauge:
    """A generator that counts how many answers are in the making at once."""

    model = "gauge"
    concurrency = 8

    def __init__(self, expected: int = 1, fail_on: str | None = None) -> None:
        self._lock = threading.Lock()
        self._expected = expected
        self._fail_on = fail_on
        self.now = self.most = 0
        self._full = threading.Event()

    def complete(self, prompt: Prompt, constraint: Constraint) -> Completion:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
            if self.now >= self._expected:
                self._full.set()
        self._full.wait(5)
        time.sleep(0.02)  # for one too many to come in
        with self._lock:
            self.now -= 1
        if self._fail_on and self._fail_on in prompt.messages[1][1]:
            raise EngineUnreachable("gone", hint="wait")
        return Completion("[]", "stop", self.model)


def make_tagger(catalogue: Catalogue, generator: Any = None) -> Tagger:
    return build_tagger(catalogue, find_template("tag.v1"), Settings(), generator)


# --- ChatModelGenerator


def test_messages_are_handed_over_by_role() -> None:
    model = Recorder()
    ChatModelGenerator(model).complete(PROMPT, CONSTRAINT)
    ((messages, arguments),) = model.asked
    assert messages == [SystemMessage("Choose tags."), HumanMessage("Title: 皮夹 wallet")]
    assert arguments == {}


def test_the_constraint_goes_through_the_arguments_callable() -> None:
    model = Recorder()
    ChatModelGenerator(model, arguments=vllm_arguments).complete(PROMPT, CONSTRAINT)
    ((_, arguments),) = model.asked
    assert arguments == {
        "max_tokens": 32,
        "extra_body": {"structured_outputs": {"json": CONSTRAINT.schema}},
    }


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(FakeListChatModel(responses=['["wallet"]', "[]"]), id="list"),
        pytest.param(GenericFakeChatModel(messages=iter(['["wallet"]', "[]"])), id="generic"),
    ],
)
def test_a_model_that_says_nothing_but_text_is_a_generator(model: BaseChatModel) -> None:
    generator = ChatModelGenerator(model)
    answers = [generator.complete(PROMPT, CONSTRAINT) for _ in range(2)]
    assert [answer.text for answer in answers] == ['["wallet"]', "[]"]
    assert all(type(answer.text) is str for answer in answers)
    for answer in answers:
        assert (answer.finish_reason, answer.model) == ("stop", generator.model)
        assert (answer.prompt_tokens, answer.completion_tokens, answer.logprobs) == (0, 0, ())
    assert generator.model == type(model).__name__
    assert generator.concurrency >= 1


def test_tokens_and_text_blocks_are_read() -> None:
    answer = AIMessage(
        [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": '["钱包"]'}],
        usage_metadata={"input_tokens": 40, "output_tokens": 7, "total_tokens": 47},
    )
    completion = ChatModelGenerator(Recorder(answer=answer)).complete(PROMPT, CONSTRAINT)
    assert (completion.text, completion.prompt_tokens, completion.completion_tokens) == (
        '["钱包"]',
        40,
        7,
    )


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        pytest.param({"finish_reason": "length"}, "length", id="openai-cut"),
        pytest.param({"finish_reason": "stop"}, "stop", id="openai-ended"),
        pytest.param({"finish_reason": "content_filter"}, "content_filter", id="openai-filtered"),
        pytest.param({"stop_reason": "max_tokens"}, "length", id="anthropic-cut"),
        pytest.param({"stop_reason": "end_turn"}, "stop", id="anthropic-ended"),
        pytest.param({"finish_reason": "MAX_TOKENS"}, "length", id="google-cut"),
        pytest.param({"done_reason": "length"}, "length", id="ollama-cut"),
        pytest.param(
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            "length",
            id="openai-responses-cut",
        ),
        pytest.param({"finish_reason": None}, "stop", id="none-said"),
    ],
)
def test_why_the_model_stopped(metadata: dict[str, Any], reason: str) -> None:
    model = Recorder(answer=AIMessage("[", response_metadata=metadata))
    assert ChatModelGenerator(model).complete(PROMPT, CONSTRAINT).finish_reason == reason


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(
            {
                "content": [
                    {"token": '["', "bytes": [91, 34], "logprob": -0.25},
                    {"token": "\ufffd", "bytes": [0xE9], "logprob": -1},
                    {"token": "包", "bytes": None, "logprob": -0.5},
                ]
            },
            (
                TokenLogprob(b'["', -0.25),
                TokenLogprob(b"\xe9", -1.0),
                TokenLogprob("包".encode(), -0.5),
            ),
            id="openai",
        ),
        pytest.param({"content": None}, (), id="empty"),
        pytest.param([-0.1, -0.2], (), id="another-shape"),
        pytest.param(None, (), id="none"),
    ],
)
def test_logprobs(given: Any, expected: tuple[TokenLogprob, ...]) -> None:
    model = Recorder(answer=AIMessage("[]", response_metadata={"logprobs": given}))
    assert ChatModelGenerator(model).complete(PROMPT, CONSTRAINT).logprobs == expected


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        pytest.param(ModelConnectionError("refused"), EngineUnreachable, id="no-connection"),
        pytest.param(ModelRateLimitError("slow down"), EngineUnreachable, id="rate-limit"),
        pytest.param(ConnectionRefusedError("no"), EngineUnreachable, id="socket"),
        pytest.param(TimeoutError(), EngineUnreachable, id="timeout"),
        pytest.param(ContextOverflowError("too long"), RequestRefused, id="too-long"),
        pytest.param(ModelInvalidRequestError("bad"), RequestRefused, id="bad-request"),
        pytest.param(ModelAuthenticationError("key"), EngineError, id="no-key"),
        pytest.param(ValueError("odd"), EngineError, id="anything-else"),
    ],
)
def test_failures_keep_their_cause(error: Exception, kind: type[EngineError]) -> None:
    with pytest.raises(EngineError) as caught:
        ChatModelGenerator(Recorder(error=error), model="shop").complete(PROMPT, CONSTRAINT)
    assert type(caught.value) is kind
    assert caught.value.__cause__ is error
    assert caught.value.message == f"shop: {str(error) or 'TimeoutError'}"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "Named"), ({"model_name": "qwen"}, "qwen"), ({"model": "phi"}, "phi")],
    ids=["class", "model_name", "model"],
)
def test_the_model_is_named(given: dict[str, str], expected: str) -> None:
    class Named(Recorder):
        model: str = ""
        model_name: str = ""

    assert ChatModelGenerator(Named(**given)).model == expected


# --- TaggerRunnable


def test_a_chain_tags_a_record(catalogue: Catalogue) -> None:
    model = FakeListChatModel(responses=['["leather wallet", "submarine"]'])
    tagger = make_tagger(catalogue, ChatModelGenerator(model))

    def names(record: dict[str, Any]) -> list[str]:
        return [tag["tag"] for tag in record["tags"]]

    chain = TaggerRunnable(tagger, CUT, RUN) | RunnableLambda(names)
    record = {"id": "n1", "title": "Brown leather wallet, zippered", "price": 9}
    assert "leather wallet" in chain.invoke(record)
    (answer,) = TaggerRunnable(tagger, CUT, RUN).batch([record])
    assert answer["price"] == 9
    assert answer["run"] == RUN
    assert answer["rejected"] == [{"text": "submarine", "reason": "not_in_vocabulary"}]
    chosen = next(tag for tag in answer["tags"] if tag["tag"] == "leather wallet")
    assert chosen["evidence"]["model"]["chosen"] is True


def test_record_product_and_title_give_the_same_as_the_tagger(catalogue: Catalogue) -> None:
    tagger = make_tagger(catalogue)
    product = Product("n1", "Brown leather wallet, zippered", lang="en")
    (tagged,) = tagger.tag_all([product])
    expected = output_record(tagged, CUT, RUN)
    runnable = TaggerRunnable(tagger, CUT, RUN)
    assert runnable.invoke(product) == expected
    assert runnable.invoke({"id": "n1", "title": product.title}) == expected
    assert runnable.invoke({"SKU": "n1", "Title": product.title}) == expected
    named_by_us = runnable.invoke(product.title)
    assert named_by_us | {"id": "n1"} == expected
    for nameless in ({"title": product.title, "id": ""}, {"sku": None, "title": product.title}):
        assert runnable.invoke(nameless) == named_by_us


def test_made_up_ids_are_told_apart_and_stay(catalogue: Catalogue) -> None:
    runnable = TaggerRunnable(make_tagger(catalogue), CUT, RUN)
    one, other, again = runnable.batch(["Red mug", "Blue mug", "Red mug"])
    assert one["id"] == again["id"] != other["id"]
    assert one == again


def test_a_batch_keeps_its_order_and_repeats(catalogue: Catalogue) -> None:
    runnable = TaggerRunnable(make_tagger(catalogue, Gauge()), CUT, RUN)
    mug, bag = Product("1", "Travel mug"), Product("2", "City backpack")
    inputs: list[Input] = [mug, bag, mug, {"id": "3", "title": "Cotton T-shirt"}, bag]
    assert [record["id"] for record in runnable.batch(inputs)] == ["1", "2", "1", "3", "2"]
    assert asyncio.run(runnable.abatch(inputs)) == runnable.batch(inputs)
    assert runnable.batch([]) == []


@pytest.mark.parametrize(("most", "seen"), [(None, 8), (3, 3), (1, 1)])
def test_a_batch_is_asked_together(catalogue: Catalogue, most: int | None, seen: int) -> None:
    gauge = Gauge(expected=seen)
    runnable = TaggerRunnable(make_tagger(catalogue, gauge), CUT, RUN)
    inputs: list[Input] = [{"id": str(n), "title": f"Leather wallet {n}"} for n in range(9)]
    records = runnable.batch(inputs, {"max_concurrency": most} if most else None)
    assert [record["id"] for record in records] == [str(n) for n in range(9)]
    assert gauge.most == seen


NO_PRODUCTS = [
    pytest.param({"id": "1"}, id="no-title"),
    pytest.param({"id": "1", "title": ""}, id="empty-title"),
    pytest.param({"id": "1", "title": "Mug", "tags": "a|b"}, id="tags-no-list"),
    pytest.param("", id="empty-text"),
    pytest.param(7, id="number"),
    pytest.param(["Mug"], id="list"),
]


@pytest.mark.parametrize("bad", NO_PRODUCTS)
def test_what_is_no_product_is_refused(catalogue: Catalogue, bad: Any) -> None:
    runnable = TaggerRunnable(make_tagger(catalogue), CUT, RUN)
    with pytest.raises(CatalogError, match="no product"):
        runnable.invoke(bad)
    with pytest.raises(CatalogError, match="no product"):
        runnable.batch(["Travel mug", bad])
    results: list[Any] = runnable.batch(["Travel mug", bad, "Backpack"], return_exceptions=True)
    mug, fault, bag = results
    assert isinstance(fault, CatalogError)
    assert (mug["title"], bag["title"]) == ("Travel mug", "Backpack")


def test_a_dead_model_is_raised_or_returned(catalogue: Catalogue) -> None:
    runnable = TaggerRunnable(make_tagger(catalogue, Gauge(fail_on="Backpack")), CUT, RUN)
    with pytest.raises(EngineUnreachable):
        runnable.batch(["Travel mug", "Backpack"])
    results: list[Any] = runnable.batch(
        ["Travel mug", "Backpack"], {"max_concurrency": 1}, return_exceptions=True
    )
    kept, lost = results
    assert kept["title"] == "Travel mug"
    assert isinstance(lost, EngineUnreachable)


def test_a_refused_request_is_the_problem_of_one_record(catalogue: Catalogue) -> None:
    model = Recorder(error=ContextOverflowError("9000 tokens"))
    runnable = TaggerRunnable(make_tagger(catalogue, ChatModelGenerator(model)), CUT, RUN)
    record = runnable.invoke("Brown leather wallet")
    assert record["tags"] == []
    assert record["problem"] == {"code": "request_refused", "message": "Recorder: 9000 tokens"}


def test_a_cut_answer_is_a_problem(catalogue: Catalogue) -> None:
    model = Recorder(answer=AIMessage('["leat', response_metadata={"stop_reason": "max_tokens"}))
    runnable = TaggerRunnable(make_tagger(catalogue, ChatModelGenerator(model)), CUT, RUN)
    assert runnable.invoke("Brown leather wallet")["problem"]["code"] == "answer_truncated"


# --- ProductRetriever


@pytest.mark.parametrize("query", ["leather wallet with zip", "防水耳机", "", "hiking"])
@pytest.mark.parametrize("k", [1, 4, 50])
def test_documents_are_what_the_index_finds(catalogue: Catalogue, query: str, k: int) -> None:
    finder = CatalogueRetriever(catalogue, RetrievalSettings(neighbours=k))
    (shortlist,) = finder.retrieve([Product("?", query)])
    documents = ProductRetriever(index=catalogue, k=k).invoke(query)
    assert len(documents) == min(k, 10)  # all labelled ones
    assert [(d.id, d.page_content, d.metadata) for d in documents] == [
        (
            near.product.id,
            near.product.text(),
            {
                "id": near.product.id,
                "title": near.product.title,
                "tags": list(near.product.tags or ()),
                "similarity": near.similarity,
            },
        )
        for near in shortlist.neighbours
    ]


def test_a_retriever_feeds_a_chain(catalogue: Catalogue) -> None:
    def first(documents: list[Document]) -> str:
        return str(documents[0].metadata["id"])

    chain = ProductRetriever(index=catalogue, k=2) | RunnableLambda(first)
    assert chain.invoke("hiking backpack waterproof") == "b1"
    assert chain.batch(["4K 电视", "mug"]) == ["z3", "m1"]


@pytest.mark.parametrize("k", [0, -1, 201])
def test_k_has_bounds(catalogue: Catalogue, k: int) -> None:
    with pytest.raises(ValueError, match="k"):
        ProductRetriever(index=catalogue, k=k)


# --- LangChainEncoder, as far as an index of it goes


def test_langchain_embeddings_carry_the_retriever(
    make_catalogue: Callable[..., Catalogue],
    products: Sequence[Product],
    vocabulary: Any,
) -> None:
    embeddings = DeterministicFakeEmbedding(size=16)
    index = make_catalogue(products, vocabulary, encoder=LangChainEncoder(embeddings))
    text = products[0].title
    raw = np.array(embeddings.embed_documents([text, *(p.text() for p in products)]))
    cosines = raw[1:] @ raw[0] / np.linalg.norm(raw[1:], axis=1) / np.linalg.norm(raw[0])
    expected = {product.id: cosine for product, cosine in zip(products, cosines, strict=True)}
    documents = ProductRetriever(index=index, k=10).invoke(text)
    found = {document.metadata["id"]: document.metadata["similarity"] for document in documents}
    assert found == pytest.approx({id: expected[id] for id in found}, abs=1e-5)
    assert len(found) == 10


# --- the package


def test_a_missing_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("llmtagger.langchain")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "langchain_core.runnables", None)
    with pytest.raises(ImportError, match=r"pip install 'llmtagger\[langchain\]'"):
        __import__("llmtagger.langchain")


def test_output_records_are_plain_json(catalogue: Catalogue) -> None:
    record = TaggerRunnable(make_tagger(catalogue), CUT, RUN).invoke("Brown leather wallet")
    assert json.loads(json.dumps(record)) == record


def test_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[1]
    (tmp_path / "examples").symlink_to(root / "examples")
    (tmp_path / "indexes").mkdir()
    monkeypatch.chdir(tmp_path)
    text = (root / "docs" / "langchain.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        exec(compile(block, "docs/langchain.md", "exec"), names)
    assert len(names["retriever"].invoke("leather wallet")) == 3
    record = names["tags"].invoke("Brown leather wallet with eight card slots")
    chosen = {tag["tag"] for tag in record["tags"] if tag["evidence"]["model"]["chosen"]}
    assert chosen == {"leather wallet", "card slots"}
