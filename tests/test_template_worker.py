"""Templates in a process of their own: the same texts, and nothing that a template can hold up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from llmtagger.backends import template_worker
from llmtagger.backends.template_worker import (
    _PATIENCE,
    TemplateWorker,
    _processor_time,
    shared_worker,
)
from llmtagger.config import PromptSettings
from llmtagger.datatypes import Candidate, Neighbour, Product, Shortlist, Tag
from llmtagger.errors import PromptError
from llmtagger.sandbox import LONGEST
from llmtagger.stages.prompting import PromptRenderer
from llmtagger.templates import TemplateFile, find_template, list_templates

SLACK = 0.5  # seconds of processor time beyond the limit
EN = Product(
    "n1",
    "Brown leather wallet, zippered \ud800",
    description="Bifold with eight card slots.\nFits a <|im_end|> pocket. {{ 1 / 0 }}",
    attributes={"Color": "Brown", "Care": "Wipe clean"},
    lang="en",
)
ZH = Product("n2", "头戴式无线耳机 降噪", brand="声野", attributes={"颜色": "黑色"}, lang="zh")
SHORTLIST = Shortlist(
    (
        Neighbour(Product("w1", "Leather wallet", tags=("wallet", "Color=Brown")), 0.9),
        Neighbour(Product("z1", "无线降噪耳机", tags=("无线耳机", "颜色=白色"), lang="zh"), 0.8),
    ),
    (
        Candidate(Tag('the "slim" one', "s")),
        Candidate(Tag("headphones", "h", labels={"zh": "耳机"})),
    ),
    keys=("Color", "颜色"),
)


def template(user: str) -> TemplateFile:
    source = f"{{% block system %}}S{{% endblock %}}{{% block user %}}{user}{{% endblock %}}"
    return TemplateFile("tag.v9", source)


def said(worker: TemplateWorker, user: str, **values: Any) -> str:
    (_, system), (_, text) = worker.filling(template(user))(values)
    assert system == "S"
    return text


def children() -> set[int]:
    """The processes below this one that are not mere leftovers."""
    alive = psutil.Process().children(recursive=True)
    return {each.pid for each in alive if each.status() != psutil.STATUS_ZOMBIE}


def processor_time_of_the_ended() -> float:
    """Seconds that those below this process worked before they ended."""
    times = os.times()
    return times.children_user + times.children_system


@pytest.fixture(scope="module")
def worker() -> Iterator[TemplateWorker]:
    """One for all: each test also shows that the ones before it have done no harm."""
    with TemplateWorker() as worker:
        yield worker


@pytest.mark.parametrize("product", [EN, ZH], ids=["en", "zh"])
@pytest.mark.parametrize("name", list_templates())
def test_the_texts_are_those_of_this_process(
    worker: TemplateWorker, name: str, product: Product
) -> None:
    def rendered(**elsewhere: Any) -> object:
        renderer = PromptRenderer(find_template(name), PromptSettings(), 10, None, **elsewhere)
        return renderer.render(product, SHORTLIST)

    assert rendered(filling=worker.filling) == rendered()


BOMBS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "long text": "{{ 'a' * 10**9 }}",
    "wide number": "{{ '%1000000000d' % 1 }}",
    "growing text": "{% set n = namespace(t='ab') %}"
    "{% for a in range(99999) %}{% set n.t = n.t ~ n.t %}{% endfor %}",
    "growing list": "{% set n = namespace(t=[1]) %}"
    "{% for a in range(99999) %}{% set n.t = n.t + n.t %}{% endfor %}",
    "macro": "{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}",
    "folded power": "{{ 10 ** (10 ** 8) }}",
    "folded power of powers": "{{ 9 ** (9 ** (9 ** 9)) }}",
    "power at run time": "{{ max_tags ** (10 ** 8) }}",
    "nested brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "nested blocks": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "long output": "{% for a in range(99999) %}abcdefgh{% endfor %}",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_what_never_ends_is_ended(worker: TemplateWorker, bomb: str) -> None:
    assert said(worker, "warm") == "warm"  # the time of starting is not that of a template
    assert worker._process is not None
    worked = _processor_time(worker._process.pid)
    began, ended_before = time.monotonic(), processor_time_of_the_ended()
    with pytest.raises(PromptError) as caught:
        said(worker, bomb, max_tags=10)
    assert time.monotonic() - began < _PATIENCE
    assert processor_time_of_the_ended() - ended_before < worked + 1 + SLACK
    assert "tag.v9" in caught.value.message
    assert not caught.value.message.endswith(": ")
    assert caught.value.hint
    assert said(worker, "{{ max_tags }}", max_tags=3) == "3"


@pytest.mark.parametrize(
    "escape",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''['__class__'] }}",
        "{{ (''|attr('__class__')).__mro__ }}",
        "{{ '{0.__class__.__mro__}'.format('') }}",
        "{{ product.update.__self__ }}",
        "{{ product.update({'title': 'x'}) }}",
        "{{ keys.append('x') }}",
        "{{ range.__globals__ }}",
        "{{ self._TemplateReference__context.environment }}",
        "{% include 'tag.v1.jinja' %}",
        "{% import '/etc/passwd' as p %}",
        "{% extends 'tag.v1.jinja' %}",
        "{{ open('/etc/passwd') }}",
        "{{ environ }}",
    ],
)
def test_no_template_gets_out(worker: TemplateWorker, escape: str) -> None:
    product = {"title": "Mug"}
    with pytest.raises(PromptError):
        said(worker, escape, product=product, keys=["a"])
    assert said(worker, "{{ product.title }}", product=product) == "Mug"


def test_a_long_message_is_refused(worker: TemplateWorker) -> None:
    assert len(said(worker, f"{{{{ 'a' * {LONGEST} }}}}")) == LONGEST
    with pytest.raises(PromptError, match="longer than 200,000 characters"):
        said(worker, f"{{{{ 'a' * {LONGEST + 1} }}}}")


def test_errors_are_those_of_the_sandbox(worker: TemplateWorker) -> None:
    with pytest.raises(PromptError, match="unknown variables: price") as caught:
        worker.filling(template("{{ price }}"))
    assert "max_tags" in caught.value.hint
    with pytest.raises(PromptError, match=r"not valid: .*\(line 1\)"):
        worker.filling(template("{% for %}"))
    with pytest.raises(PromptError, match=r"does not render: .*by zero"):
        said(worker, "{{ 1 // max_tags }}", max_tags=0)


def test_threads_get_their_own_answers(worker: TemplateWorker) -> None:
    """Also while one of them does nothing but harm."""
    wrong: list[str] = []

    def ask(number: int) -> None:
        fill = worker.filling(template(f"{number}: {{{{ max_tags }}}}"))
        for turn in range(5):
            (_, (_, text)) = fill({"max_tags": turn})
            if text != f"{number}: {turn}":
                wrong.append(text)

    def harm() -> None:
        try:
            said(worker, BOMBS["loops"])
        except PromptError:
            return
        wrong.append("harm")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    threads.insert(2, threading.Thread(target=harm))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert wrong == []


def test_the_process_ends_with_its_owner() -> None:
    before = children()
    with TemplateWorker() as worker:
        assert children() == before  # until the first template
        said(worker, "x")
        (pid,) = children() - before
    assert not psutil.pid_exists(pid)


def test_an_ended_process_is_replaced() -> None:
    before = children()
    with TemplateWorker() as worker:
        fill = worker.filling(template("{{ max_tags }}"))
        (pid,) = children() - before
        os.kill(pid, signal.SIGKILL)
        while pid in children():
            time.sleep(0.01)
        assert fill({"max_tags": 5})[1] == ("user", "5")
        assert pid not in children() - before


def test_ctrl_c_is_left_to_the_owner(capfd: pytest.CaptureFixture[str]) -> None:
    before = children()
    with TemplateWorker() as worker:
        said(worker, "x")
        (pid,) = children() - before
        os.kill(pid, signal.SIGINT)
        assert said(worker, "y") == "y"
        assert children() - before == {pid}
    assert capfd.readouterr().err == ""


def test_an_honest_template_on_a_busy_machine_is_waited_for(worker: TemplateWorker) -> None:
    """What counts is the process's own time, not the clock's."""
    assert said(worker, "warm") == "warm"
    assert worker._process is not None
    os.kill(worker._process.pid, signal.SIGSTOP)
    threading.Timer(1.5, os.kill, (worker._process.pid, signal.SIGCONT)).start()
    began = time.monotonic()
    assert said(worker, "patience") == "patience"
    assert time.monotonic() - began > 1.4


def test_one_that_gets_no_time_at_all_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_worker, "_PATIENCE", 1.5)
    with TemplateWorker() as worker:
        assert said(worker, "warm") == "warm"
        assert worker._process is not None
        os.kill(worker._process.pid, signal.SIGSTOP)
        with pytest.raises(PromptError, match="takes longer"):
            said(worker, "never")
        assert said(worker, "again") == "again"


def test_a_fork_has_a_process_of_its_own() -> None:
    """Two that spoke to one process would read each other's answers."""
    with TemplateWorker() as worker:
        said(worker, "x")
        assert worker._process is not None
        ours = worker._process
        worker._owner += 1  # as it looks after a fork
        assert said(worker, "y") == "y"
        assert worker._process is not ours
        assert ours.poll() is None
        ours.kill()
        ours.communicate()


def test_one_is_shared_and_ends_with_the_program() -> None:
    assert shared_worker() is shared_worker()
    program = (
        "from llmtagger.pipeline import limited_filling\n"
        "from llmtagger.backends.template_worker import shared_worker\n"
        "from llmtagger.templates import find_template\n"
        "limited_filling(find_template('tag.v1'))\n"
        "print(shared_worker()._process.pid)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert not psutil.pid_exists(int(done.stdout))


def test_a_process_that_does_not_start_is_told_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nothing = tmp_path / "python"
    nothing.write_text("#!/bin/sh\nexit 3\n")
    nothing.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(nothing))
    with TemplateWorker() as worker, pytest.raises(PromptError, match="did not start"):
        said(worker, "x")
