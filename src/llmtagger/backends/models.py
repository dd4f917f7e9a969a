"""Finds the language model that a name means, and brings it into a form that vLLM loads."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from llmtagger.backends import embedded_model
from llmtagger.backends.hardware import has_cuda
from llmtagger.errors import ModelMissing

AUTO = "auto"
GPU_DEFAULT = "Qwen/Qwen3-4B-Instruct-2507"
POSSIBLE = (
    f"Name a folder in Hugging Face format (config.json, tokenizer.json, *.safetensors), a Hugging "
    f"Face id such as {GPU_DEFAULT}, or one of: {AUTO}, {embedded_model.ALIAS}."
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]  # no pickled weights
_SAMPLES, _SAMPLE_BYTES = 16, 1 << 16


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can be served. `folder` holds its tokenizer; `source` is what vLLM is given.

    An `adapter` that is not merged into the weights is loaded by vLLM, under the model's name.
    """

    name: str
    source: str
    folder: Path | None
    fingerprint: str
    adapter: Path | None = None


def resolve_model(name: str = AUTO) -> Model:
    """The model called `name`, downloaded or converted if need be.

    >>> resolve_model("auto").name        # where there is no CUDA device
    'SmolLM2-135M-Instruct'
    """
    if name == AUTO:
        name = GPU_DEFAULT if has_cuda() else embedded_model.ALIAS
    if name in (embedded_model.ALIAS, embedded_model.NAME):
        return _embedded()
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _from_folder(folder.resolve())
    if folder.is_absolute() or name.startswith((".", "~")) or not _HUB_ID.fullmatch(name):
        raise ModelMissing(f"There is no model called {name!r}.", hint=POSSIBLE)
    return _from_hub(name)


def count_tokens(model: Model) -> Callable[[str], int] | None:
    """Counts a text's tokens as the model sees them; None where its tokenizer is not at hand."""
    if model.folder is None or not (model.folder / "tokenizer.json").is_file():
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model.folder / "tokenizer.json"))
    tokenizer.no_truncation()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the model's weights, in a stable order."""
    return sorted(folder.glob("*.safetensors"))


def _embedded() -> Model:
    folder = embedded_model.ensure()
    return Model(
        embedded_model.NAME, str(folder), folder, f"gguf:{embedded_model.GGUF_SHA256[:16]}"
    )


def _from_folder(folder: Path) -> Model:
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except FileNotFoundError:
        raise ModelMissing(
            f"{folder} is not a model: it has no config.json.", hint=POSSIBLE
        ) from None
    except (OSError, ValueError) as error:
        raise ModelMissing(
            f"{folder}/config.json cannot be read: {error}", hint=POSSIBLE
        ) from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise ModelMissing(f"{folder}/config.json does not describe a model.", hint=POSSIBLE)
    if not weight_files(folder):
        raise ModelMissing(
            f"{folder} holds no weights in safetensors format.",
            hint="Convert the model with transformers: model.save_pretrained(FOLDER).",
        )
    return Model(folder.name, str(folder), folder, f"folder:{_digest(folder)}")


def _digest(folder: Path) -> str:
    """Identifies weights without reading all of them: a tuned copy has other bytes everywhere."""
    digest = hashlib.sha256()
    for part in _identity(folder):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def _identity(folder: Path) -> Iterator[bytes]:
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "tokenizer_config.json"):
        path = folder / name
        yield path.read_bytes() if path.is_file() else b""
    for path in weight_files(folder):
        size = path.stat().st_size
        yield f"{path.name} {size}".encode()
        with path.open("rb") as file:
            for sample in range(_SAMPLES):
                file.seek(max(0, size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
                yield file.read(_SAMPLE_BYTES)


def _from_hub(name: str) -> Model:
    folder = _cached_snapshot(name) or _download(name)
    return Model(name, str(folder), folder, f"hub:{name}@{folder.name}")


def _cached_snapshot(name: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(name, allow_patterns=_HUB_FILES, local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    snapshot = Path(folder)
    return snapshot if weight_files(snapshot) and (snapshot / "config.json").is_file() else None


def _download(name: str) -> Path:
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    offline = (LocalEntryNotFoundError, httpx.HTTPError, OSError)
    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelMissing(
            f"Hugging Face does not give out {name!r}: {reason}",
            hint=f"Check the id's spelling; for a gated model, set HF_TOKEN. {POSSIBLE}",
        ) from error
    except offline as error:
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        raise ModelMissing(
            f"The model {name!r} is not on this machine, and {endpoint} cannot be reached.",
            hint=f"Download it where there is a network and give its folder to --model. {POSSIBLE}",
        ) from error
