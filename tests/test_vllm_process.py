"""Servers' lives and deaths, with a stand-in that is as stubborn as vLLM and starts at once."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from llmtagger.backends import hardware, vllm_process, vllm_state
from llmtagger.backends.hardware import available_memory, cpu_flags, has_fast_bfloat16
from llmtagger.backends.models import Model
from llmtagger.backends.vllm_command import Plan, check_memory, plan_server
from llmtagger.backends.vllm_log import explain, phase
from llmtagger.backends.vllm_supervisor import POLL, REVIVALS, is_healthy
from llmtagger.errors import EngineStartError, ModelMissing

# A server of three generations, of which the younger two ignore every polite signal.
STAND_IN = """
import os, runpy, signal, subprocess, sys, threading, time
from http.server import BaseHTTPRequestHandler, HTTPServer
from llmtagger.backends.vllm_main import PARENT, die_with_parent

generation, port, pids = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
die_with_parent(int(os.environ[PARENT]) if generation == 0 else os.getppid())
with open(pids, "a") as file:
    file.write(f"{os.getpid()}\\n")
if generation < 2:
    subprocess.Popen([sys.executable, __file__, str(generation + 1), *sys.argv[2:]])
if generation > 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    time.sleep(300)

class Health(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

HTTPServer(("127.0.0.1", port), Health).serve_forever()
"""

# A llmtagger that serves, says so, and waits for its end.
PARENT = """
import os, signal, sys, time
# What runs the tests may ignore these (a background job, nohup), and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from llmtagger.backends import vllm_process
from llmtagger.backends.models import Model
from llmtagger.backends.vllm_command import Plan

script, pids = sys.argv[1:]
vllm_process.plan_server = lambda model, port, scratch: Plan(
    (sys.executable, script, "0", str(port), pids), dict(os.environ), 0, 0)
model = Model("tiny", "/tiny", None, "fingerprint")
with vllm_process.serving(model, progress=lambda message, seconds: None) as info:
    print(info.pid, info.port, info.scratch, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    path = tmp_path / "stand_in.py"
    path.write_text(textwrap.dedent(STAND_IN), encoding="utf-8")
    return path


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Path]:
    """The file in which every process of a stand-in notes itself; none is left after a test."""
    path = tmp_path / "pids"
    path.touch()
    yield path
    for process in alive(path):
        process.kill()


@pytest.fixture
def served(
    stand_in: Path, pids: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], list[psutil.Process]]:
    """Makes every server in this test a stand-in; returns what of it is alive."""

    def plan(model: Model, port: int, scratch: Path) -> Plan:
        command = (sys.executable, str(stand_in), "0", str(port), str(pids))
        return Plan(command, dict(os.environ), 0, 0)

    monkeypatch.setattr(vllm_process, "plan_server", plan)
    return lambda: alive(pids)


def alive(pids: Path) -> list[psutil.Process]:
    found = []
    for pid in pids.read_text().split():
        try:
            process = psutil.Process(int(pid))
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def wait_for(condition: Callable[[], Any], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


def quiet(message: str, seconds: float) -> None:
    pass


MODEL = Model("tiny", "/tiny", None, "fingerprint")


def test_a_server_lives_as_long_as_the_block(served: Callable[[], list[psutil.Process]]) -> None:
    said = []
    with vllm_process.serving(MODEL, progress=lambda m, s: said.append(m)) as info:
        wait_for(lambda: len(served()) == 3)
        assert [(s.port, s.persistent) for s in vllm_process.status()] == [(info.port, False)]
        assert os.getsid(info.pid) != os.getsid(0)
        assert info.scratch.is_dir()
    assert served() == []
    assert vllm_process.status() == []
    assert not info.scratch.exists()
    assert said[-1] == "ready"


def test_a_server_that_dies_is_started_again_until_it_has_died_too_often(
    served: Callable[[], list[psutil.Process]], pids: Path
) -> None:
    with vllm_process.serving(MODEL, progress=quiet) as info:
        for number in range(1, REVIVALS + 2):
            wait_for(lambda: len(served()) == 3)
            wait_for(lambda: is_healthy(info.url))
            time.sleep(2 * POLL)  # so that its supervisor has seen it up
            killed = served()
            min(killed, key=lambda process: process.create_time()).kill()
            wait_for(lambda: not set(killed) & set(served()))  # noqa: B023 - called at once
            if number <= REVIVALS:
                assert vllm_process.status() == [info]
        wait_for(lambda: vllm_process.status() == [])
        assert served() == []
    said = info.log.read_text()
    assert said.count("the server ended with -9; it is started again") == REVIVALS


def test_an_error_in_the_block_ends_the_server_too(
    served: Callable[[], list[psutil.Process]],
) -> None:
    def interrupted() -> None:
        with vllm_process.serving(MODEL, progress=quiet):
            wait_for(lambda: len(served()) == 3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert served() == []


@pytest.fixture
def parent(stand_in: Path, pids: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A llmtagger in a process group of its own with a server up, and the supervisor's number."""
    command = [sys.executable, "-c", textwrap.dedent(PARENT), str(stand_in), str(pids)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0)
    assert process.stdout is not None
    line = process.stdout.readline().split()
    wait_for(lambda: len(alive(pids)) == 3)
    yield process, int(line[0])
    process.kill()
    process.wait()
    process.stdout.close()
    wait_for(lambda: vllm_process.status() == [])  # sweeps up after a killed supervisor
    wait_for(lambda: not Path(line[2]).exists())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_when_llmtagger_is_killed_nothing_stays(
    parent: tuple[subprocess.Popen[str], int], pids: Path, number: signal.Signals
) -> None:
    process, supervisor = parent
    process.send_signal(number)
    wait_for(lambda: not alive(pids) and not psutil.pid_exists(supervisor))
    wait_for(lambda: vllm_process.status() == [])


def test_ctrl_c_reaches_llmtagger_alone(
    parent: tuple[subprocess.Popen[str], int], pids: Path
) -> None:
    process, supervisor = parent
    server = psutil.Process(supervisor).children()[0]
    assert os.getpgid(server.pid) != os.getpgid(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(15)
    assert alive(pids) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_supervisor_is_killed_nothing_stays(
    parent: tuple[subprocess.Popen[str], int], pids: Path, number: signal.Signals
) -> None:
    _, supervisor = parent
    os.kill(supervisor, number)
    wait_for(lambda: not alive(pids))


def test_when_all_of_llmtagger_is_killed_at_once_nothing_stays(
    parent: tuple[subprocess.Popen[str], int], pids: Path
) -> None:
    process, supervisor = parent
    process.send_signal(signal.SIGSTOP)  # so that neither can react to the other's end
    os.kill(supervisor, signal.SIGKILL)
    process.kill()
    wait_for(lambda: not alive(pids))


def test_a_server_that_was_started_by_wish_stays_and_is_stopped_whole(
    served: Callable[[], list[psutil.Process]],
) -> None:
    info = vllm_process.start(MODEL, progress=quiet)
    wait_for(lambda: len(served()) == 3)
    assert vllm_process.status() == [info]
    assert vllm_process.stop() == [info]
    assert served() == []
    assert vllm_process.stop() == []


def test_a_running_server_of_the_same_model_is_used(
    served: Callable[[], list[psutil.Process]],
) -> None:
    info = vllm_process.start(MODEL, progress=quiet)
    try:
        with vllm_process.serving(MODEL, progress=quiet) as again:
            assert again == info
        assert vllm_process.start(MODEL, progress=quiet) == info
        wait_for(lambda: len(served()) == 3)
        other = Model("tiny", "/tiny", None, "another fingerprint")
        with vllm_process.serving(other, progress=quiet) as second:
            assert second.port != info.port
    finally:
        vllm_process.stop()
    assert served() == []


def test_a_state_file_whose_process_is_another_by_now_kills_nobody(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
        path = vllm_state.state_file(7)
        path.parent.mkdir(parents=True)
        old = {
            "url": "http://127.0.0.1:7",
            "model": "tiny",
            "pid": bystander.pid,
            "port": 7,
            "started": psutil.Process(bystander.pid).create_time() - 1000,
            "log": str(tmp_path / "log"),
            "persistent": True,
            "fingerprint": "fingerprint",
            "scratch": str(tmp_path / "scratch"),
        }
        path.write_text(json.dumps(old), encoding="utf-8")
        assert vllm_process.stop() == []
        assert bystander.poll() is None
        assert not path.exists()
        bystander.communicate(b"\n")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', "\0"])
def test_a_damaged_state_file_is_no_server(content: str) -> None:
    path = vllm_state.state_file(9)
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="utf-8")
    assert vllm_process.status() == []


def test_a_port_in_use_is_one_clear_message() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(EngineStartError, match=f"Port {port} cannot be used") as caught,
            vllm_process.serving(MODEL, port=port, progress=quiet),
        ):
            pass
    assert "--port" in caught.value.hint


def test_sockets_fit_below_a_folder_with_a_long_name(
    served: Callable[[], list[psutil.Process]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("a" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with vllm_process.serving(MODEL, progress=quiet) as info:
        name = "34721a89-c876-4be3-801f-2aca1b60b1f9"
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(str(info.scratch / name))
    assert not info.scratch.exists()


def test_a_server_that_dies_at_once_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "raise MemoryError('cannot take 4 GiB')"
    plan = Plan((sys.executable, "-c", code), dict(os.environ), 0, 0)
    monkeypatch.setattr(vllm_process, "plan_server", lambda *_: plan)
    with (
        pytest.raises(EngineStartError, match="cannot take 4 GiB") as caught,
        vllm_process.serving(MODEL, progress=quiet),
    ):
        pass
    assert "smaller model" in caught.value.hint
    assert vllm_process.status() == []


def test_too_little_memory_is_said_before_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "available_memory", lambda: 3 << 30)
    plan = Plan((), {}, weights=8 << 30, kv_cache=2)
    with pytest.raises(EngineStartError, match=r"3.0 GiB are free, and it takes 15.0 GiB"):
        check_memory(plan, MODEL)
    check_memory(Plan((), {}, weights=0, kv_cache=1), MODEL)


def test_without_vllm_the_install_line_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineStartError, match="not installed") as caught:
        plan_server(MODEL, 1, tmp_path)
    assert "make install" in caught.value.hint
    assert "llmtagger[gpu]" in caught.value.hint


@pytest.fixture
def big_model(tmp_path: Path) -> Model:
    config = {
        "model_type": "qwen3",
        "dtype": "bfloat16",
        "max_position_embeddings": 262144,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    }
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 1000)
    return Model("big", str(tmp_path), tmp_path, "fingerprint")


@pytest.mark.parametrize(
    ("flags", "dtype", "weights", "cache"),
    [
        ({"avx2"}, "float32", 2000, 3),  # 2 * 36 layers * 8 heads * 128 * 4 bytes * 8192 tokens
        ({"avx2", "avx512f", "avx512_bf16"}, "auto", 1000, 2),
        ({"amx_bf16"}, "auto", 1000, 2),
    ],
    ids=["plain", "avx512_bf16", "amx"],
)
def test_the_number_format_fits_the_cpu(
    big_model: Model,
    monkeypatch: pytest.MonkeyPatch,
    flags: set[str],
    dtype: str,
    weights: int,
    cache: int,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(hardware, "has_cuda", lambda: False)
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr(hardware, "available_memory", lambda: 64 << 30)
    monkeypatch.setattr(hardware, "usable_cores", lambda: [2, 3])
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    plan = plan_server(big_model, 8123, Path("/scratch"))
    command = list(plan.command)
    assert command[command.index("--dtype") + 1] == dtype
    assert command[command.index("--max-model-len") + 1] == "8192"
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert "--trust-remote-code" not in command
    assert (plan.weights, plan.kv_cache) == (weights, cache)
    assert plan.environment["VLLM_CPU_KVCACHE_SPACE"] == str(cache)
    assert plan.environment["VLLM_CPU_OMP_THREADS_BIND"] == "2,3"
    assert plan.environment["HF_HUB_OFFLINE"] == "1"
    assert plan.environment["TMPDIR"] == "/scratch"


def test_where_memory_is_short_the_cache_shrinks_to_one_prompt(
    big_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(hardware, "has_cuda", lambda: False)
    config = json.loads((Path(big_model.source) / "config.json").read_text())
    small = {**config, "num_hidden_layers": 4}
    (Path(big_model.source) / "config.json").write_text(json.dumps(small))
    monkeypatch.setattr(hardware, "available_memory", lambda: 7 << 29)
    assert plan_server(big_model, 8123, Path("/scratch")).kv_cache == 1


def test_a_large_machine_keeps_the_threads_that_vllm_chooses(
    big_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(hardware, "has_cuda", lambda: False)
    monkeypatch.setattr(hardware, "usable_cores", lambda: list(range(64)))
    plan = plan_server(big_model, 8123, Path("/scratch"))
    assert "VLLM_CPU_OMP_THREADS_BIND" not in plan.environment


def test_our_key_guards_our_server(big_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setenv("VLLM_API_KEY", "unknown to the client")
    assert "VLLM_API_KEY" not in plan_server(big_model, 1, Path("/scratch")).environment
    monkeypatch.setenv("LLMTAGGER_API_KEY", "ours")
    assert plan_server(big_model, 1, Path("/scratch")).environment["VLLM_API_KEY"] == "ours"


def test_on_cuda_nothing_is_tuned_for_a_cpu(
    big_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(hardware, "has_cuda", lambda: True)
    plan = plan_server(big_model, 8123, Path("/scratch"))
    assert not [key for key in plan.environment if key.startswith("VLLM_CPU")]
    assert not {"--dtype", "--enforce-eager"} & set(plan.command)


def test_flags_of_the_first_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nFeatures\t: fp asimd bf16\n\nprocessor\t: 1\nFeatures\t: x\n")
    assert cpu_flags(path) == {"fp", "asimd", "bf16"}
    assert cpu_flags(tmp_path / "none") == frozenset()
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert has_fast_bfloat16(cpu_flags(path))


def test_a_container_may_have_less_memory_than_the_machine(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    assert available_memory(tmp_path) == 3000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(tmp_path) > 1 << 20


LOG = """\
(APIServer pid=1) INFO 11-21 05:16:07 [api_utils.py:286] non-default args: {'port': 8123}
(EngineCore pid=2) ERROR 11-21 05:16:19 [core.py:9] Traceback (most recent call last):
(EngineCore pid=2) ERROR 11-21 05:16:19 [core.py:9] ValueError: weights have another shape
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.
"""


@pytest.mark.parametrize(
    ("line", "kind", "says", "hint"),
    [
        ("", EngineStartError, "ValueError: weights have another shape", "whole log"),
        ("torch.OutOfMemoryError: CUDA out of memory.", EngineStartError, "CUDA", "smaller model"),
        ("OSError: [Errno 98] Address already in use", EngineStartError, "in use", "--port"),
        (
            "OSError: x/y is not a local folder and is not a valid model identifier",
            ModelMissing,
            "x/y",
            "--model",
        ),
    ],
    ids=["some error", "memory", "port", "model"],
)
def test_a_log_is_explained(
    tmp_path: Path, line: str, kind: type[Exception], says: str, hint: str
) -> None:
    log = tmp_path / "log"
    log.write_text(LOG + line, encoding="utf-8")
    error = explain(log, "tiny")
    assert type(error) is kind
    assert says in error.message
    assert hint in error.hint
    assert str(log) in error.hint
    assert phase(log) == "reading the model's configuration"


def test_a_silent_death_is_explained_too(tmp_path: Path) -> None:
    assert "it wrote nothing" in explain(tmp_path / "none", "tiny").message
    assert phase(tmp_path / "none") == "loading vLLM"
