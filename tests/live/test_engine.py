"""The engine with a real vLLM and the embedded model."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from llmtagger.backends.vllm_client import VllmGenerator
from llmtagger.backends.vllm_process import ServerInfo
from llmtagger.backends.vllm_supervisor import family
from llmtagger.datatypes import Constraint, Prompt
from llmtagger.errors import ModelMissing, RequestRefused

pytestmark = [pytest.mark.live, pytest.mark.timeout(700)]

HELLO = Prompt((("system", "You tag products."), ("user", "真皮钱包，多卡位。Tags?")), "t", "h")

SERVE = """
import time
from llmtagger.backends.models import resolve_model
from llmtagger.backends.vllm_process import serving
with serving(resolve_model("smollm2-135m"), progress=lambda message, seconds: None):
    time.sleep(600)
"""


def test_the_server_honours_grammars(generator: VllmGenerator) -> None:
    generator.probe()


def test_a_chinese_answer_is_raw_utf8(generator: VllmGenerator) -> None:
    schema = {"type": "array", "items": {"enum": ["降噪🎧"]}, "minItems": 1, "maxItems": 1}
    answer = generator.complete(HELLO, Constraint(schema, 60))
    assert answer.text == '["降噪🎧"]'
    assert answer.finish_reason == "stop"
    assert b"".join(t.token for t in answer.logprobs).startswith(answer.text.encode())
    assert all(t.logprob <= 0 for t in answer.logprobs)
    assert answer.completion_tokens >= 5
    assert answer.prompt_tokens > 10


def test_a_hundred_choices_keep_the_answer_inside(generator: VllmGenerator) -> None:
    tags = [f"标签 {n} / tag-{n}" for n in range(100)]
    schema = {"type": "array", "items": {"enum": tags}, "minItems": 2, "maxItems": 3}
    chosen = json.loads(generator.complete(HELLO, Constraint(schema, 80)).text)
    assert 2 <= len(chosen) <= 3
    assert set(chosen) <= set(tags)


def test_a_cut_answer_says_so(generator: VllmGenerator) -> None:
    schema = {"enum": ["a very long tag that does not fit into four tokens at all"]}
    answer = generator.complete(HELLO, Constraint(schema, 4))
    assert answer.finish_reason == "length"
    assert answer.completion_tokens == 4


def test_answers_of_many_threads_belong_to_their_prompts(generator: VllmGenerator) -> None:
    words = [f"word{n}" for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(
            lambda w: generator.complete(HELLO, Constraint({"enum": [w]}, 20)).text, words
        )
        assert list(answers) == [f'"{word}"' for word in words]


def test_a_prompt_that_is_too_long_is_refused(generator: VllmGenerator) -> None:
    prompt = Prompt((("user", "wallet " * 20_000),), "t", "h")
    with pytest.raises(RequestRefused, match=r"context length|maximum"):
        generator.complete(prompt, Constraint({"enum": ["a"]}, 4))


def test_a_model_that_the_server_does_not_have(server: ServerInfo) -> None:
    wrong = VllmGenerator([server.url], model="no-such-model")
    try:
        with pytest.raises(ModelMissing, match="no-such-model"):
            wrong.complete(HELLO, Constraint({"enum": ["a"]}, 4))
    finally:
        wrong.close()


def test_the_prefix_cache_is_counted(generator: VllmGenerator) -> None:
    before = generator.metrics()
    prompt = Prompt((("system", "Rules. " * 200), ("user", "x")), "t", "h")
    for _ in range(2):
        generator.complete(prompt, Constraint({"enum": ["a"]}, 4))
    rate = generator.metrics().hit_rate(since=before)
    assert rate is not None
    assert 0.2 < rate < 1  # the second prompt's whole blocks, but not its end


def test_a_killed_llmtagger_leaves_no_vllm_process() -> None:
    with subprocess.Popen([sys.executable, "-c", SERVE], process_group=0) as parent:
        try:
            found = wait_for_engine(parent.pid)
        finally:
            parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 15
    while left := [process for process in found if is_alive(process)]:
        assert time.monotonic() < deadline, f"still alive: {left}"
        time.sleep(0.1)


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_for_engine(parent: int) -> list[psutil.Process]:
    """All processes under `parent` once vLLM's engine is among them."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        found = family(parent)
        if any(p.name().startswith("VLLM::Eng") for p in found if is_alive(p)):
            return found
        time.sleep(0.5)
    raise AssertionError("the engine did not start")
