"""What all tests share: a small catalogue, an index of it in memory, and a closed world."""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from xdist.scheduler import LoadScopeScheduling

from llmtagger.backends.fakes import HashingEncoder
from llmtagger.cli.console import stderr, stdout
from llmtagger.datatypes import Product, Tag, TagKind
from llmtagger.experts.panel import Panel
from llmtagger.normalise import is_han, loosen
from llmtagger.protocols import (
    Encoder,
    Experts,
    Hits,
    Mask,
    Positions,
    TextIndex,
    VectorIndex,
    Vectors,
)
from llmtagger.vocabulary import Vocabulary

# Fixtures are read only, so sharing them between the examples of a property is safe.
_CALM = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
settings.register_profile(
    "quick", max_examples=60, deadline=None, derandomize=True, suppress_health_check=_CALM
)
settings.register_profile(
    "thorough", max_examples=2000, deadline=None, suppress_health_check=_CALM
)  # pytest --hypothesis-profile thorough
settings.load_profile("quick")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write tests/golden/ anew; read the diff"
    )
    parser.addoption("--torture", action="store_true", help="the long form of tests/torture/")
    parser.addoption("--model", help="a stronger model's folder, for tests/model/")


class _Files(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """A worker takes whole files, whose fixtures are dear, and one worker all live tests.

    Marks for groups would say the same, but pytest-xdist 3.8 loses them under pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "live" if nodeid.startswith("tests/live/") else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Files:
    return _Files(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under xdist, live tests come first: they share one server, and are the longest by far."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not item.nodeid.startswith("tests/live/"))


@pytest.fixture(autouse=True)
def clean_environment(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any
) -> None:
    """No settings from outside; state and caches in a temporary folder. Live tests keep both.

    The consoles are made again, since a console reads the terminal's width only once.
    """
    stderr.cache_clear()
    stdout.cache_clear()
    if _is_live(request):
        return
    for name in [name for name in os.environ if name.startswith("LLMTAGGER_")]:
        monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(home / name.lower()))
    monkeypatch.setenv("LLMTAGGER_STATE_DIR", str(home / "state"))
    monkeypatch.setenv("LLMTAGGER_CACHE_DIR", str(home / "cache"))


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only loopback can be connected to."""
    if _is_live(request):
        return
    connect, connect_ex, lookup = (
        socket.socket.connect,
        socket.socket.connect_ex,
        socket.getaddrinfo,
    )

    def guarded(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                _refuse_unless_loopback(address[0])
            return real(self, address)

        return call

    def looked_up(host: Any, *rest: Any, **named: Any) -> Any:
        _refuse_unless_loopback(host)
        return lookup(host, *rest, **named)

    monkeypatch.setattr(socket.socket, "connect", guarded(connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded(connect_ex))
    monkeypatch.setattr(socket, "getaddrinfo", looked_up)


def _is_live(request: pytest.FixtureRequest) -> bool:
    return any(request.node.get_closest_marker(name) for name in ("live", "model"))


def _refuse_unless_loopback(host: object) -> None:
    name = host.decode() if isinstance(host, bytes) else str(host or "localhost")
    if name == "localhost":
        return
    try:
        if ipaddress.ip_address(name).is_loopback or ipaddress.ip_address(name).is_unspecified:
            return
    except ValueError:
        pass
    raise AssertionError(f"a test wants to speak to {name}")


@pytest.fixture(scope="session")
def products() -> tuple[Product, ...]:
    """Twelve products, EN and ZH; the last two are not labelled."""
    return (
        Product(
            "w1",
            "Leather wallet with coin pocket",
            description="Slim bifold in brown leather, eight card slots and a coin pocket.",
            brand="Norrland",
            category="Accessories",
            attributes={"Color": "Brown", "Material": "Leather"},
            tags=("leather wallet", "card slots", "coin pocket", "Color=Brown", "Material=Leather"),
            lang="en",
            group="wallet",
        ),
        Product(
            "w2",
            "Leather wallet with coin pocket, black",
            brand="Norrland",
            tags=("leather wallet", "card slots", "coin pocket", "Color=Black", "Material=Leather"),
            lang="en",
            group="wallet",
        ),
        Product(
            "w3",
            "Zippered travel wallet",
            description="Nylon travel wallet with RFID protection.",
            tags=("travel", "zippered", "rfid protection"),
            lang="en",
        ),
        Product(
            "b1",
            "Waterproof hiking backpack 30 l",
            description="Waterproof backpack for hiking, with a padded laptop sleeve.",
            tags=("backpack", "waterproof", "hiking", "laptop sleeve"),
            lang="en",
        ),
        Product(
            "b2",
            "City backpack with laptop sleeve",
            tags=("backpack", "laptop sleeve", "commuting"),
            lang="en",
        ),
        Product(
            "t1",
            "Cotton T-shirt, striped",
            description="Organic cotton T-shirt with short sleeves.",
            tags=("t-shirt", "organic cotton", "striped", "Material=Cotton"),
            lang="en",
        ),
        Product("m1", "Travel mug, stainless steel", tags=("mug", "travel"), lang="en"),
        Product(
            "z1",
            "无线降噪耳机",
            description="蓝牙无线耳机，主动降噪，防水防汗，舒适佩戴。",
            tags=("无线耳机", "降噪", "防水"),
            lang="zh",
        ),
        Product("z2", "蓝牙运动耳机 防水防汗", tags=("无线耳机", "防水", "运动"), lang="zh"),
        Product("z3", "高清液晶电视 55英寸 4K", tags=("液晶电视", "4K"), lang="zh"),
        Product("n1", "Brown leather wallet, zippered", lang="en"),
        Product("n2", "头戴式无线耳机 降噪", lang="zh"),
    )


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    """Forty tags: closed ones with aliases, labels and parents, six `key=value`, one retired."""

    def tag(name: str, *aliases: str, parent: str | None = None, zh: str = "") -> Tag:
        return Tag(name, name, aliases, parent, labels={"zh": zh} if zh else {})

    def value(key: str, name: str) -> Tag:
        full = f"{key}={name}"
        return Tag(full, full, key=key, kind=TagKind.SPAN)

    return Vocabulary(
        [
            tag("accessories"),
            tag("wallet", "billfold", parent="accessories", zh="钱包"),
            tag("leather wallet", parent="wallet", zh="皮夹"),
            tag("card slots", "card holder slots"),
            tag("coin pocket", "coin compartment"),
            tag("coin"),
            tag("zippered", "with zip"),
            tag("rfid protection", "RFID-blocking"),
            tag("travel"),
            tag("backpack", "rucksack", zh="双肩包"),
            tag("waterproof", "rainproof", zh="防水"),
            tag("hiking"),
            tag("commuting"),
            tag("laptop sleeve", "padded laptop compartment"),
            tag("t-shirt", "tee"),
            tag("organic cotton"),
            tag("striped"),
            tag("short sleeves"),
            tag("mug"),
            tag("stainless steel"),
            tag("vacuum insulated"),
            tag("dishwasher safe"),
            tag("gift"),
            tag("sale"),
            tag("electronics"),
            tag("无线耳机", "蓝牙耳机", parent="electronics"),
            tag("降噪", "主动降噪"),
            tag("运动"),
            tag("防汗"),
            tag("舒适佩戴"),
            tag("电视", parent="electronics"),
            tag("液晶电视", parent="电视"),
            tag("4K", "超高清"),
            value("Color", "Brown"),
            value("Color", "Black"),
            value("Color", "Red"),
            value("Material", "Leather"),
            value("Material", "Cotton"),
            value("Material", "Nylon"),
            Tag("clearance", "clearance", retired=True),
        ]
    )


@dataclass
class NumpyIndex:
    """The cosine with every vector."""

    vectors: Vectors

    def search(self, vectors: Vectors, k: int, allowed: Mask | None = None) -> Hits:
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        scores = (vectors / np.where(norms == 0, 1, norms)) @ self.vectors.T
        return _best(scores.astype(np.float32), k, allowed, worst=-1.0, above=-2.0)


@dataclass
class WordIndex:
    """The number of different words that a query and a text share."""

    texts: Sequence[str]

    def search(self, texts: Sequence[str], k: int, allowed: Mask | None = None) -> Hits:
        held = [_words(text) for text in self.texts]
        scores = np.array(
            [[len(_words(text) & words) for words in held] for text in texts], dtype=np.float32
        ).reshape(len(texts), len(held))
        return _best(scores, k, allowed, worst=0.0, above=0.0)


def _words(text: str) -> set[str]:
    return set("".join(f" {c} " if is_han(c) else c for c in loosen(text)).split())


def _best(
    scores: NDArray[np.float32], k: int, allowed: Mask | None, *, worst: float, above: float
) -> Hits:
    positions: Positions = np.full((len(scores), k), -1, dtype=np.int64)
    values: Vectors = np.full((len(scores), k), worst, dtype=np.float32)
    for row, line in enumerate(scores):
        fits = [p for p in range(len(line)) if line[p] > above and (allowed is None or allowed[p])]
        fits.sort(key=lambda p: (-line[p], p))
        for column, position in enumerate(fits[:k]):
            positions[row, column], values[row, column] = position, line[position]
    return positions, values


@dataclass
class MemoryCatalogue:
    """An opened index, all in memory: what `stages.retrieval.Catalogue` asks for."""

    encoder: Encoder
    vocabulary: Vocabulary
    products: Sequence[Product]
    live: Mask
    labelled: Mask
    vectors: Vectors
    product_vectors: VectorIndex
    product_texts: TextIndex
    tag_matrix: Vectors
    tag_vectors: VectorIndex
    tag_texts: TextIndex
    assignments: Any
    experts: Experts
    prior: NDArray[np.float32]

    def product(self, position: int) -> Product:
        return self.products[position]

    def position(self, id: str) -> int | None:
        return next((at for at, each in enumerate(self.products) if each.id == id), None)


def memory_catalogue(
    products: Sequence[Product],
    vocabulary: Vocabulary,
    *,
    encoder: Encoder | None = None,
    experts: Experts | None = None,
) -> MemoryCatalogue:
    """An index of some products, searched exactly; left out, `experts` only find mentions."""
    encoder = encoder or HashingEncoder()
    texts = [product.text() for product in products]
    vectors = encoder.encode(texts)
    names = [tag.name for tag in vocabulary]
    tag_matrix = encoder.encode(names)
    given = np.zeros((len(products), len(vocabulary)), dtype=np.float32)
    for row, product in enumerate(products):
        for name in product.tags or ():
            tag = vocabulary.resolve(name)
            if tag is not None:
                given[row, vocabulary.position(tag)] = 1
    labelled = np.array([product.tags is not None for product in products], dtype=bool)
    return MemoryCatalogue(
        encoder=encoder,
        vocabulary=vocabulary,
        products=products,
        live=np.ones(len(products), dtype=bool),
        labelled=labelled,
        vectors=vectors,
        product_vectors=NumpyIndex(vectors),
        product_texts=WordIndex(texts),
        tag_matrix=tag_matrix,
        tag_vectors=NumpyIndex(tag_matrix),
        tag_texts=WordIndex(names),
        assignments=csr_matrix(given),
        experts=experts or Panel(vocabulary),
        prior=np.asarray(given.sum(axis=0) / max(1, labelled.sum()), dtype=np.float32),
    )


@pytest.fixture(scope="session")
def make_catalogue() -> Callable[..., MemoryCatalogue]:
    """`make_catalogue(products, vocabulary, encoder=…, experts=…)`."""
    return memory_catalogue


@pytest.fixture(scope="session")
def catalogue(products: tuple[Product, ...], vocabulary: Vocabulary) -> MemoryCatalogue:
    """The twelve products, indexed with word counts."""
    return memory_catalogue(products, vocabulary)


def tiny_model(folder: Path, words: Sequence[str], seed: int = 0) -> Path:
    """Llama with random weights, a tokenizer of a few words, and a chat template.

    Its weights are wide, because the last layer stays as it is and must be able to say a word.
    """
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    known = {word: place for place, word in enumerate(["<unk>", "<eos>", *words])}
    tokenizer = Tokenizer(WordLevel(known, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>", pad_token="<eos>"
    )
    wrapped.chat_template = (
        "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} {% endfor %}"
        "{% if add_generation_prompt %}assistant : {% endif %}"
    )
    wrapped.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(known),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=1,
        pad_token_id=1,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Path]:
    """`make_model(folder, words, seed=0)`: a model of two thin layers, for training."""
    import torch

    torch.set_num_threads(1)  # threads that wait for each other cost more than so small a model
    return tiny_model


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compares a text with a file of tests/golden; `pytest --update-golden` writes it anew."""
    folder = Path(__file__).parent / "golden"

    def compare(name: str, text: str) -> None:
        path = folder / name
        if request.config.getoption("--update-golden"):
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"no {path.name}: run pytest --update-golden and read what it wrote"
        assert text == path.read_text(encoding="utf-8")

    return compare


@pytest.fixture(scope="module")  # its event loop must not outlive the tests that know of it
def browser() -> Iterator[Any]:
    """A Chromium without a window; the test is skipped where none is installed."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "google-chrome")
    chromium = next((path for name in names if (path := shutil.which(name))), None)
    if chromium is None:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()
