"""Kept answers: asked once, read back to the last byte, and a server only where one is needed."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtagger.backends.fakes import FakeGenerator
from llmtagger.datatypes import Completion, Constraint, Prompt, TokenLogprob
from llmtagger.errors import EngineUnreachable
from llmtagger.evaluation.answers import KeptAnswers

LIST = Constraint({"type": "array", "items": {"enum": ["wallet", "防水"]}}, 64)
PROMPT = Prompt((("system", "Tag it."), ("user", "钱包")), "tag.v1", "abc")


class Server:
    """A generator that counts how often it was opened and closed."""

    def __init__(self, generator: FakeGenerator | None = None) -> None:
        self.generator = generator or FakeGenerator()
        self.opened = self.closed = 0

    def open(self, stack: ExitStack) -> FakeGenerator:
        @contextmanager
        def running() -> Iterator[FakeGenerator]:
            self.opened += 1
            yield self.generator
            self.closed += 1

        return stack.enter_context(running())


def _kept(folder: Path, server: Server, identity: str = "m@1") -> KeptAnswers:
    return KeptAnswers(folder / "cache" / "answers.sqlite", identity, 4, server.open)


def test_an_answer_is_asked_for_once(tmp_path: Path) -> None:
    server = Server()
    with _kept(tmp_path, server) as answers:
        assert (answers.model, answers.concurrency) == ("m@1", 4)
        assert server.opened == 0
        said = [answers.complete(PROMPT, LIST) for _ in range(3)]
        assert answers.asked == 1
    assert said[0].text == '["wallet"]'
    assert said[0] == said[1] == said[2]
    assert len(server.generator.asked) == 1
    assert (server.opened, server.closed) == (1, 1)


def test_the_next_process_needs_no_server(tmp_path: Path) -> None:
    with _kept(tmp_path, Server()) as answers:
        said = answers.complete(PROMPT, LIST)
    second = Server()
    with _kept(tmp_path, second) as answers:
        assert answers.complete(PROMPT, LIST) == said
        assert answers.asked == 0
    assert (second.opened, second.generator.asked) == (0, [])


@pytest.mark.parametrize(
    ("prompt", "constraint", "identity"),
    [
        pytest.param(PROMPT, LIST, "m@2", id="another-model"),
        pytest.param(
            replace(PROMPT, messages=(("system", "Tag it."), ("user", "钱包 "))),
            LIST,
            "m@1",
            id="another-text",
        ),
        pytest.param(
            replace(PROMPT, messages=(("system", "Tag it.钱包"), ("user", ""))),
            LIST,
            "m@1",
            id="the-same-text-split-elsewhere",
        ),
        pytest.param(
            replace(PROMPT, messages=(("user", "Tag it."), ("user", "钱包"))),
            LIST,
            "m@1",
            id="another-role",
        ),
        pytest.param(PROMPT, replace(LIST, max_tokens=65), "m@1", id="longer-answers"),
        pytest.param(
            PROMPT,
            Constraint({"type": "array", "items": {"enum": ["防水", "wallet"]}}, 64),
            "m@1",
            id="offered-in-another-order",
        ),
    ],
)
def test_another_question_is_asked_anew(
    tmp_path: Path, prompt: Prompt, constraint: Constraint, identity: str
) -> None:
    with _kept(tmp_path, Server()) as answers:
        answers.complete(PROMPT, LIST)
    server = Server()
    with _kept(tmp_path, server, identity) as answers:
        answers.complete(prompt, constraint)
        answers.complete(prompt, constraint)
        assert answers.asked == 1
    assert server.generator.asked == [(prompt, constraint)]


def test_which_template_made_the_messages_does_not_matter(tmp_path: Path) -> None:
    server = Server()
    with _kept(tmp_path, server) as answers:
        answers.complete(PROMPT, LIST)
        answers.complete(replace(PROMPT, template="tag.v2", template_hash="x"), LIST)
    assert len(server.generator.asked) == 1


COMPLETIONS = st.builds(
    Completion,
    text=st.text(st.characters(exclude_categories=["Cs"])),
    finish_reason=st.sampled_from(["stop", "length"]),
    model=st.just("m"),
    logprobs=st.lists(
        st.builds(TokenLogprob, st.binary(max_size=5), st.floats(-1e6, 0)), max_size=5
    ).map(tuple),
    prompt_tokens=st.integers(0, 9999),
    completion_tokens=st.integers(0, 99),
    seconds=st.floats(0, 1e4),
)


class Scripted(FakeGenerator):
    """Answers with one completion, as it is."""

    def __init__(self, said: Completion) -> None:
        super().__init__()
        self.said = said

    def complete(self, prompt: Prompt, constraint: Constraint) -> Completion:
        self.asked.append((prompt, constraint))
        return self.said


NUMBERS = itertools.count()


@given(COMPLETIONS)
def test_a_completion_is_read_back_as_it_was(tmp_path: Path, completion: Completion) -> None:
    """Bytes of a token need be no UTF-8: a token may be a part of a character."""
    prompt = replace(PROMPT, messages=(("user", f"question {next(NUMBERS)}"),))
    with _kept(tmp_path, Server(Scripted(completion))) as answers:
        assert answers.complete(prompt, LIST) == completion
    nobody = Server()
    with _kept(tmp_path, nobody) as answers:
        found = answers.complete(prompt, LIST)
    assert found == completion
    assert all(isinstance(each.token, bytes) for each in found.logprobs)
    assert nobody.opened == 0


def test_messages_that_are_no_utf8_can_be_kept(tmp_path: Path) -> None:
    prompt = replace(PROMPT, messages=(("user", "half \ud83d"),))
    server = Server()
    with _kept(tmp_path, server) as answers:
        assert answers.complete(prompt, LIST) == answers.complete(prompt, LIST)
    assert len(server.generator.asked) == 1


def _failing(times: int) -> Callable[[Prompt, Constraint], str]:
    left = [EngineUnreachable("no", hint="wait")] * times

    def answer(prompt: Prompt, constraint: Constraint) -> str:
        if left:
            raise left.pop()
        return "[]"

    return answer


def test_a_failure_is_not_kept(tmp_path: Path) -> None:
    server = Server(FakeGenerator(_failing(1)))
    with _kept(tmp_path, server) as answers:
        with pytest.raises(EngineUnreachable):
            answers.complete(PROMPT, LIST)
        assert answers.asked == 0
        assert answers.complete(PROMPT, LIST).text == "[]"
        assert answers.asked == 1
    assert server.opened == 1


def test_a_server_that_does_not_come_up_is_tried_again(tmp_path: Path) -> None:
    real, tries = FakeGenerator(), [EngineUnreachable("no", hint="wait")]

    def opened(stack: ExitStack) -> FakeGenerator:
        if tries:
            raise tries.pop()
        return real

    with KeptAnswers(tmp_path / "a.sqlite", "m", 1, opened) as answers:
        with pytest.raises(EngineUnreachable):
            answers.complete(PROMPT, LIST)
        assert answers.complete(PROMPT, LIST).text == '["wallet"]'


def test_the_server_is_closed_when_something_fails(tmp_path: Path) -> None:
    closed: list[str] = []

    def opened(stack: ExitStack) -> FakeGenerator:
        stack.callback(closed.append, "closed")
        return FakeGenerator()

    def fail() -> None:
        with KeptAnswers(tmp_path / "a.sqlite", "m", 1, opened) as answers:
            answers.complete(PROMPT, LIST)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert closed == ["closed"]


def test_many_threads_may_ask(tmp_path: Path) -> None:
    """Eight at once through one door: the server opens once, and they really do run at once."""
    together = threading.Barrier(8, timeout=30)

    def answer(prompt: Prompt, constraint: Constraint) -> str:
        together.wait()
        return f'["{prompt.messages[0][1]}"]'

    server = Server(FakeGenerator(answer))
    prompts = [Prompt((("user", str(n)),), "t", "h") for n in range(24)]
    with _kept(tmp_path, server) as answers, ThreadPoolExecutor(8) as pool:
        first = list(pool.map(lambda prompt: answers.complete(prompt, LIST), prompts))
        again = list(pool.map(lambda prompt: answers.complete(prompt, LIST), prompts))
        assert answers.asked == 24
    assert [each.text for each in first] == [f'["{n}"]' for n in range(24)]
    assert first == again
    assert server.opened == 1
    assert len(server.generator.asked) == 24
