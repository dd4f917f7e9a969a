"""How vLLM's server is started here: flags, environment, and the memory that it will take."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmtagger.backends import hardware
from llmtagger.backends.api_key import api_key
from llmtagger.backends.models import Model, weight_files
from llmtagger.errors import EngineStartError

MAX_LENGTH = 8192  # tokens; a prompt of ours is far shorter, and the cache must hold one whole
KV_CACHE = 2  # GiB on a CPU, where the model does not ask for more
LIBRARIES = 1.8  # GiB that vLLM's processes take before any weights
PACKING = 1.4  # times the weights: vLLM keeps copies of matrices in an order that suits the CPU
FEW_CORES = 4  # up to here vLLM's habit of leaving a core free costs too much
GIB = 1 << 30
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM has kernels for
GRAMMAR = {"backend": "xgrammar", "disable_any_whitespace": True}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a server will be run as, and what it takes; bytes and GiB."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    weights: int
    kv_cache: int

    def needed(self) -> int:
        """Bytes of memory that the server takes on a CPU."""
        return _total(self.weights, self.kv_cache)


def plan_server(model: Model, port: int, scratch: Path) -> Plan:
    """The command and environment that serve `model` at `port`, fit to this machine."""
    if importlib.util.find_spec("vllm") is None:
        raise EngineStartError(
            "vLLM is not installed.",
            hint="On a CPU: make install. On a CUDA machine: pip install 'llmtagger[gpu]'.",
        )
    config = _read_config(model)
    length = min(int(_get(config, "max_position_embeddings", MAX_LENGTH)), MAX_LENGTH)
    flags = ["--model", model.source, *_names(model)]
    flags += ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(length)]
    flags += ["--structured-outputs-config", json.dumps(GRAMMAR), "--load-format", "safetensors"]
    flags += ["--disable-uvicorn-access-log"]
    environment = _environment(model, scratch)
    if hardware.has_cuda():
        return Plan(_command(flags), environment, 0, 0)
    fast = hardware.has_fast_bfloat16(hardware.cpu_flags())
    flags += ["--enforce-eager", "--dtype", "auto" if fast else "float32"]
    weights = _weights(model, config, fast)
    least = max(1, math.ceil(_cache_bytes(config, 2 if fast else 4) * length / GIB))
    kv_cache = _choose_cache(weights, least)
    environment |= _cpu_environment(kv_cache)
    return Plan(_command(flags), environment, weights, kv_cache)


def check_memory(plan: Plan, model: Model) -> None:
    """Refuses what would not fit, before minutes are spent on finding out."""
    free = hardware.available_memory()
    if plan.needed() <= free:
        return
    raise EngineStartError(
        f"Too little memory for {model.name}: {free / GIB:.1f} GiB are free, and it takes"
        f" {plan.needed() / GIB:.1f} GiB ({plan.weights * PACKING / GIB:.1f} of it for"
        f" weights, {plan.kv_cache} for the cache).",
        hint="End other programs, or choose a smaller model with --model (smollm2-135m is the"
        " smallest), or use a server elsewhere with --endpoint.",
    )


def _names(model: Model) -> list[str]:
    """Under which names the server knows its model, and the adapter if that is loaded apart."""
    if model.adapter is None:
        return ["--served-model-name", model.name]
    config = json.loads((model.adapter / "adapter_config.json").read_bytes())
    rank = next((most for most in LORA_RANKS if most >= config["r"]), LORA_RANKS[-1])
    flags = ["--served-model-name", f"{model.name}.base", "--enable-lora"]
    flags += ["--max-lora-rank", str(rank)]
    return [*flags, "--lora-modules", f"{model.name}={model.adapter}"]


def _command(flags: list[str]) -> tuple[str, ...]:
    return (sys.executable, "-m", "llmtagger.backends.vllm_main", *flags)


def _environment(model: Model, scratch: Path) -> dict[str, str]:
    """The key is the one that the client sends; bytecode is kept, which saves compiling vLLM."""
    dropped = ("PYTHONDONTWRITEBYTECODE", "VLLM_API_KEY")
    made = {key: value for key, value in os.environ.items() if key not in dropped}
    made |= {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "TMPDIR": str(scratch)}
    if model.folder is not None:
        made["HF_HUB_OFFLINE"] = "1"
    if key := api_key():
        made["VLLM_API_KEY"] = key
    return made


def _cpu_environment(kv_cache: int) -> dict[str, str]:
    """A bounded cache, and threads on every core of a small machine; what the user set stays.

    Without dynamo: vLLM would compile its log-probability ranking when the first answer is asked
    for, and again for other batch sizes, 10 to 20 s each time.
    """
    ours = {"VLLM_CPU_KVCACHE_SPACE": str(kv_cache), "TORCHDYNAMO_DISABLE": "1"}
    cores = hardware.usable_cores()
    if len(cores) <= FEW_CORES:
        ours["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores))
        ours["VLLM_CPU_NUM_OF_RESERVED_CPU"] = "0"
    return {key: os.environ.get(key, value) for key, value in ours.items()}


def _choose_cache(weights: int, least: int) -> int:
    """GiB: our default where there is room for it, else as little as one long prompt takes."""
    usual = max(KV_CACHE, least)
    return usual if _total(weights, usual) <= hardware.available_memory() else least


def _total(weights: int, kv_cache: int) -> int:
    return int(weights * PACKING + (kv_cache + LIBRARIES) * GIB)


def _read_config(model: Model) -> dict[str, Any]:
    if model.folder is None:
        return {}
    config: dict[str, Any] = json.loads((model.folder / "config.json").read_bytes())
    return config


def _get(config: Mapping[str, Any], key: str, default: Any) -> Any:
    """A setting of the language model, which multi-modal models keep one level down."""
    return config.get(key) or config.get("text_config", {}).get(key) or default


def _cache_bytes(config: Mapping[str, Any], width: int) -> int:
    """Bytes that the key-value cache takes for one token; 0 where the model does not say."""
    heads = _get(config, "num_attention_heads", 0)
    size = _get(config, "head_dim", 0) or _get(config, "hidden_size", 0) // max(1, heads)
    cached = _get(config, "num_key_value_heads", heads)
    return int(2 * _get(config, "num_hidden_layers", 0) * cached * size * width)


def _weights(model: Model, config: Mapping[str, Any], fast: bool) -> int:
    if model.folder is None:
        return 0
    stored = sum(path.stat().st_size for path in weight_files(model.folder))
    kind = _get(config, "dtype", None) or _get(config, "torch_dtype", "bfloat16")
    return stored * (1 if fast or kind == "float32" else 2)
