"""A base model with an adapter merged into its weights, for servers on a CPU.

There vLLM serves a separate adapter at an eighth of the speed. Run as a program, `python -m
llmtagger.backends.tuned_model BASE ADAPTER FOLDER` merges, so that torch has a process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from filelock import FileLock

from llmtagger.adapters import WEIGHTS
from llmtagger.backends.folders import cache_dir
from llmtagger.backends.hardware import has_cuda
from llmtagger.backends.models import Model
from llmtagger.errors import TuningError
from llmtagger.hashing import sha256

_CHECKSUMS = "checksums.json"  # of all other files in a merged model's folder
_KEPT = 4  # merged models in the cache; the one that was not used for longest goes first


def with_adapter(base: Model, name: str, adapter: Path, weights: str) -> Model:
    """The base model with the adapter that lies in a folder; `weights` is its SHA-256.

    On a CUDA device vLLM loads the adapter itself; elsewhere a merged copy is made in the cache,
    in about half a minute for 135M parameters. A damaged one is made again.
    """
    fingerprint = f"{base.fingerprint}+{weights[:16]}"
    if has_cuda():
        return Model(name, base.source, base.folder, fingerprint, adapter)
    folder = cache_dir() / "models" / "tuned" / fingerprint.replace(":", "-").replace("/", "-")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not _is_whole(folder):
                shutil.rmtree(folder, ignore_errors=True)
                _make(base, adapter, folder)
                (folder / _CHECKSUMS).write_text(json.dumps(_checksums(folder)), encoding="utf-8")
            os.utime(folder)
    except OSError as error:
        raise TuningError(
            f"the model {base.name} with {name} cannot be written to {folder}: {error.strerror}",
            hint="make room there and try again, or name another folder: LLMTAGGER_CACHE_DIR",
        ) from error
    _forget(folder.parent)
    return Model(name, str(folder), folder, fingerprint)


def _checksums(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.iterdir() if path.name != _CHECKSUMS)
    return {path.name: sha256(path) for path in paths}


def _is_whole(folder: Path) -> bool:
    """Whether every file is the one that was written; none was added."""
    try:
        stated = json.loads((folder / _CHECKSUMS).read_bytes())
        return bool(stated == _checksums(folder))
    except (OSError, ValueError, RecursionError):
        return False


def _make(base: Model, adapter: Path, folder: Path) -> None:
    if base.folder is None:
        raise TuningError(
            f"{base.name} is served elsewhere and cannot be merged with an adapter",
            hint="give the adapter to that server, and its name to --adapter",
        )
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".merging-") as temporary:
        done = Path(temporary) / "done"
        command = [sys.executable, "-m", __name__, str(base.folder), str(adapter), str(done)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if run.returncode:
            last = (run.stderr.strip().splitlines() or ["no message"])[-1]
            raise TuningError(
                f"the adapter in {adapter} could not be merged with {base.name}: {last}",
                hint="it takes torch, transformers and peft (make install), and free disk space",
            )
        done.rename(folder)


def _forget(folder: Path) -> None:
    merged = [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
    for path in sorted(merged, key=lambda path: path.stat().st_mtime)[:-_KEPT]:
        shutil.rmtree(path, ignore_errors=True)


def merge(base: Path, adapter: Path, out: Path) -> None:
    """Writes the merged model to `out` in Hugging Face format, as bfloat16 safetensors."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not (adapter / WEIGHTS).is_file():  # peft would unpickle an adapter_model.bin instead
        raise TuningError(f"{adapter} holds no {WEIGHTS}", hint="tune again: llmtagger tune")
    model: Any = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, use_safetensors=True
    )
    merged: Any = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    merged.to(torch.bfloat16).save_pretrained(out)
    AutoTokenizer.from_pretrained(base).save_pretrained(out)


if __name__ == "__main__":
    merge(*map(Path, sys.argv[1:4]))
