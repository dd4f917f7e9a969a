"""What is learnt from labelled products, each against another way of computing it."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from llmtagger.backends.fakes import HashingEncoder
from llmtagger.backends.vectors import unit
from llmtagger.datatypes import Extraction, Opinion, Product, Span, Tag, TagKind
from llmtagger.experts import extraction, linear
from llmtagger.experts.extraction import Extractor
from llmtagger.experts.mentions import MentionRates, Seen
from llmtagger.experts.panel import LeftOut, Panel, best, features
from llmtagger.experts.places import Place, find_mentions
from llmtagger.experts.sketch import DIMENSION, Sketch
from llmtagger.normalise import normalise
from llmtagger.protocols import Vectors
from llmtagger.vocabulary import Vocabulary

Taught = tuple[Vectors, csr_matrix, list[int]]


@pytest.fixture(params=[(60, 8), (20, 50)], ids=["primal", "dual"])
def taught(request: pytest.FixtureRequest) -> Taught:
    """Unit rows, five tags and groups of one to six; tag 3 has one carrier, tag 4 none."""
    rows, dimension = request.param
    random = np.random.default_rng(1)
    vectors = unit(random.normal(size=(rows, dimension)))
    labels = random.random((rows, 5)) < 0.3
    labels[:, 0] = vectors[:, 0] > 0
    labels[:, 3] = np.arange(rows) == 17
    labels[:, 4] = False
    groups = random.integers(0, rows // 3, rows).tolist()
    return vectors, csr_matrix(labels), groups


def ridge_solution(
    vectors: NDArray[Any], target: NDArray[Any], ridge: float
) -> NDArray[np.float64]:
    """The penalty written as further rows of data, solved by another routine."""
    dimension = vectors.shape[1]
    rows = np.vstack([vectors.astype(float), math.sqrt(ridge) * np.eye(dimension)])
    wanted = np.vstack([target.astype(float), np.zeros((dimension, target.shape[1]))])
    solution: NDArray[np.float64] = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    return solution


@pytest.mark.parametrize("ridge", [0.01, 0.1, 30.0])
def test_weights_are_the_penalised_least_squares_solution(ridge: float, taught: Taught) -> None:
    vectors, labels, _ = taught
    expert = linear.fit(vectors, labels, ridge=ridge)
    target = labels.toarray()[:, :3].astype(float)
    wanted = ridge_solution(vectors, target - target.mean(axis=0), ridge)
    assert expert.weights.dtype == np.float32
    np.testing.assert_allclose(expert.weights, wanted.T, atol=2e-4)
    np.testing.assert_allclose(expert.shares, target.mean(axis=0), atol=1e-6)
    estimates = np.clip(vectors @ wanted + target.mean(axis=0), 0, 1)
    np.testing.assert_allclose(expert.estimate(vectors), estimates, atol=2e-4)


@pytest.mark.parametrize("ridge", [0.1, 1.0])
def test_left_out_is_what_fitting_without_the_group_gives(ridge: float, taught: Taught) -> None:
    vectors, labels, groups = taught
    tags, estimates = linear.left_out(vectors, labels, groups, ridge=ridge)
    assert tags.tolist() == [0, 1, 2]
    target = labels.toarray()[:, :3].astype(float)
    shares = target.mean(axis=0)
    for group in set(groups):
        own = np.array(groups) == group
        weights = ridge_solution(vectors[~own], target[~own] - shares, ridge)
        wanted = np.clip(vectors[own] @ weights + shares, 0, 1)
        np.testing.assert_allclose(estimates[own], wanted, atol=5e-4)


def test_left_out_a_tag_that_too_few_others_carry_is_not_estimated() -> None:
    vectors = unit(np.random.default_rng(2).normal(size=(6, 3)))
    labels = np.array([[1, 1], [1, 1], [0, 1], [0, 1], [1, 0], [0, 0]], dtype=bool)
    _, estimates = linear.left_out(vectors + 1, csr_matrix(labels), [7, 7, 8, 8, 9, 9])
    # without the group 7, tag 0 has one carrier; without any group, tag 1 has two
    assert estimates[:2, 0].tolist() == [0, 0]
    assert estimates[2:4, 0].any()
    assert estimates[:2, 1].any()


def test_a_tag_with_one_carrier_or_none_is_not_taught(taught: Taught) -> None:
    expert = linear.fit(*taught[:2])
    assert expert.tags.tolist() == [0, 1, 2]
    assert expert.weights.shape == (3, taught[0].shape[1])


def test_estimates_stay_within_0_and_1_and_tell_the_tag(taught: Taught) -> None:
    vectors, labels, _ = taught
    estimates = linear.fit(vectors, labels, ridge=0.01).estimate(vectors)
    assert estimates.min() == 0.0
    assert estimates.max() <= 1.0
    carries = labels.toarray()[:, 0]
    assert estimates[carries, 0].mean() > estimates[~carries, 0].mean() + 0.4


def test_at_most_5000_tags_are_taught_the_most_frequent_first() -> None:
    labels = np.ones((3, 5004), dtype=bool)
    labels[0, [0, 17, 5003]] = False
    expert = linear.fit(np.eye(3, dtype=np.float32), csr_matrix(labels))
    assert expert.tags.tolist() == [tag for tag in range(5003) if tag not in (0, 17)][:5000]


@pytest.mark.parametrize("tags", [0, 3])
def test_without_products_there_is_nothing_to_learn(tags: int) -> None:
    nothing = np.zeros((0, 4), np.float32), csr_matrix((0, tags), dtype=bool)
    assert linear.fit(*nothing).estimate(np.ones((2, 4), np.float32)).shape == (2, 0)
    assert linear.left_out(*nothing, [])[1].shape == (0, 0)


TITLES = [
    "Red leather wallet with coin pocket",
    "Blue leather wallet, 8 card slots",
    "Leather belt, brown",
    "Waterproof hiking backpack 30 l",
    "Backpack with padded laptop sleeve",
    "Stainless steel travel mug 350 ml",
    "无线降噪耳机 蓝牙",
    "蓝牙运动耳机 防水防汗",
    "a",
]


def exact_cosines(texts: Sequence[str]) -> NDArray[np.float64]:
    """Cosines of the TF-IDF vectors of all n-grams of 1 to 4 characters, nothing hashed."""

    def ngrams(text: str) -> Counter[str]:
        padded = f" {normalise(text)} "
        ends = itertools.product(range(len(padded)), range(1, 5))
        return Counter(padded[at : at + n] for at, n in ends if at + n <= len(padded))

    counts = [ngrams(text) for text in texts]
    known = {gram: at for at, gram in enumerate(dict.fromkeys(itertools.chain(*counts)))}
    matrix = np.zeros((len(texts), len(known)))
    for row, count in enumerate(counts):
        for gram, times in count.items():
            holders = sum(gram in other for other in counts)
            idf = math.log((1 + len(texts)) / (1 + holders)) + 1
            matrix[row, known[gram]] = (1 + math.log(times)) * idf
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.asarray(matrix @ matrix.T)


def test_sketches_estimate_the_cosines_of_tf_idf() -> None:
    sketches = Sketch.fit(TITLES).encode(TITLES)
    assert sketches.shape == (len(TITLES), DIMENSION)
    exact = exact_cosines(TITLES)
    assert exact[0, 1] > 0.3 > 0.1 > exact[0, 6]
    # random signs: the standard deviation is 1/sqrt(4096) = .016 at the most
    np.testing.assert_allclose(sketches @ sketches.T, exact, atol=0.05)


def test_long_texts_that_share_nothing_are_not_alike() -> None:
    """Without random signs, 1,000 n-grams each in 4,096 places would seem alike by about 1/4."""
    random = np.random.default_rng(3)
    texts = ["".join(random.choice(list(of), 400)) for of in ("abcdefgh", "stuvwxyz")]
    one, other = Sketch.fit(texts).encode(texts)
    assert abs(one @ other - exact_cosines(texts)[0, 1]) < 0.07


def test_sketches_have_unit_length_and_an_empty_text_none() -> None:
    texts = [*TITLES, "", " \u200b", "\ud800", "x" * 5000]
    lengths = np.linalg.norm(Sketch.fit(TITLES).encode(texts), axis=1)
    np.testing.assert_allclose(lengths, [1.0] * len(TITLES) + [0, 0, 1, 1], atol=1e-6)


def test_texts_that_normalise_alike_have_equal_sketches() -> None:
    one, other, different = Sketch.fit(TITLES).encode(["Ｒed  MUG\t", "red mug", "red mugs"])
    np.testing.assert_array_equal(one, other)
    assert (one != different).any()


def test_what_is_rare_weighs_more() -> None:
    sketch = Sketch.fit(["ab"] * 9 + ["cd"])
    assert sketch.idf.max() == pytest.approx(math.log(11) + 1)  # in no text
    common, rare = sketch.encode(["ab", "cd"])
    both = sketch.encode(["ab cd"])[0]
    assert both @ rare > both @ common + 0.2


def test_sketches_are_the_same_in_every_process() -> None:
    code = (
        "import hashlib; from llmtagger.experts.sketch import Sketch\n"
        f"titles = {TITLES!r}\n"
        "print(hashlib.sha256(Sketch.fit(titles).encode(titles).tobytes()).hexdigest())"
    )
    own = hashlib.sha256(Sketch.fit(TITLES).encode(TITLES).tobytes()).hexdigest()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONUTF8": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, env=environment
        )
        assert done.stdout.decode().strip() == own


KEYED = Vocabulary(
    [
        Tag("Color=Red", "1", key="Color", kind=TagKind.SPAN),
        Tag("Color=Blue", "2", key="Color", kind=TagKind.SPAN),
        Tag("wallet", "3"),
        Tag("mug", "4"),
    ]
)
TITLE = Place.TITLE
SEEN: list[Seen] = [
    ({0: TITLE}, {0, 2}),  # a red one that says so
    ({0: TITLE, 1: TITLE}, {1}),
    ({0: TITLE, 1: TITLE}, {1}),
    ({0: TITLE, 2: TITLE}, {2}),
]


def test_mention_rates_are_pulled_towards_their_keys() -> None:
    rates = MentionRates.fit(KEYED, SEEN)
    assert rates.counts.tolist() == [[4, 1], [2, 2], [1, 1], [0, 0]]
    found = rates.rates(dict.fromkeys([0, 1, 2, 3], TITLE))
    # Color: 3 of 6 mentions are right, (3 + .5) / (6 + 1) = 1/2; no key: (1 + .5) / (1 + 1) = 3/4
    moved = in_titles(rates)
    assert found == pytest.approx(
        {
            0: moved((1 + 2 * 1 / 2) / (4 + 2)),
            1: moved((2 + 2 * 1 / 2) / (2 + 2)),
            2: moved((1 + 2 * 3 / 4) / (1 + 2)),
            3: moved(3 / 4),
        }
    )
    kept = MentionRates.of(KEYED, rates.counts, rates.places)
    assert kept.rates({1: TITLE}) == {1: found[1]}
    assert rates.rates({}) == {}


def in_titles(rates: MentionRates) -> Callable[[float], float]:
    """What a share becomes in a title, where all mentions stand there."""
    named, right = map(float, rates.places[0])
    assert rates.places[1:].sum() == 0
    usual = (right + 0.5) / (named + 1)
    title = (right + 20 * usual * (right + 1) / (right + 1 + 0.02 * right)) / (named + 20)
    by = (title / (1 - title)) / (usual / (1 - usual))

    def moved(share: float) -> float:
        odds = share / (1 - share) * by
        return odds / (1 + odds)

    return moved


def test_mention_rates_without_some_products() -> None:
    rates = MentionRates.fit(KEYED, SEEN)
    rest = rates.without(SEEN[:2])
    assert rest.counts.tolist() == MentionRates.fit(KEYED, SEEN[2:]).counts.tolist()
    # Color: 1 of 3, (1 + .5) / (3 + 1) = 3/8
    assert rest.rates({0: TITLE}) == pytest.approx({0: in_titles(rest)((0 + 2 * 3 / 8) / (2 + 2))})
    assert rates.counts.tolist() == [[4, 1], [2, 2], [1, 1], [0, 0]]


COLOURS = ("red", "blue", "green", "black", "white", "dark red", "sea green", "grey")
THINGS = ("wallet", "mug", "belt", "lamp")


def coloured(count: int) -> list[Product]:
    """Product 5 is "Belt 5 in DARK RED for travel", tagged Color=dark red; two make a group."""
    made = []
    for n in range(count):
        colour, thing = COLOURS[n % len(COLOURS)], THINGS[n // 3 % len(THINGS)]
        title = f"{thing.title()} {n} in {colour.upper()} for travel"
        tags = (f"Color={colour}", thing)
        made.append(Product(f"p{n}", title, tags=tags, group=f"g{n // 2}"))
    return made


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return extraction.fit(coloured(80))


def labellings(chances: NDArray[Any]) -> Iterator[tuple[float, tuple[int, ...]]]:
    """All labellings in which I-key (an even number) follows only its own B or I."""
    count, labels = chances.shape
    for path in itertools.product(range(labels), repeat=count):
        before = (0, *path)
        if all(
            label == 0 or label % 2 or before[at] in (label - 1, label)
            for at, label in enumerate(path)
        ):
            yield math.prod(chances[at, label] for at, label in enumerate(path)), path


def stretches(path: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    """(start, end, key) of each value of a valid labelling."""
    for start, label in enumerate(path):
        if label % 2:
            end = start + 1
            while end < len(path) and path[end] == label + 1:
                end += 1
            yield start, end, label // 2


@pytest.mark.parametrize(("tokens", "keys"), [(1, 1), (2, 3), (4, 2), (6, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_the_probabilities_of_stretches_sum_over_all_labellings(
    tokens: int, keys: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(seed)
    chances = random.dirichlet([0.5] * (1 + 2 * keys), tokens).astype(np.float32)
    wanted: defaultdict[tuple[int, int, int], float] = defaultdict(float)
    total = 0.0
    for weight, path in labellings(chances.astype(float)):
        total += weight
        for stretch in stretches(path):
            wanted[stretch] += weight
    monkeypatch.setattr(extraction, "_LEAST_PROBABILITY", 0.0)
    found = {(start, end, key): p for p, start, end, key in extraction._stretches(chances)}
    assert found == pytest.approx(
        {stretch: weight / total for stretch, weight in wanted.items()}, rel=1e-5
    )


def test_only_likely_stretches_of_twelve_tokens_at_most_are_found() -> None:
    chances = np.full((30, 3), [0.02, 0.08, 0.9], dtype=np.float32)
    chances[0] = [0.1, 0.9, 0.0]
    found = list(extraction._stretches(chances))
    assert found
    assert min(p for p, *_ in found) >= 0.05
    assert max(end - start for _, start, end, _ in found) <= 12


def test_labellings_of_no_weight_give_no_stretch() -> None:
    """A title that begins with what only goes on: no valid labelling has any weight left."""
    chances = np.array([[0, 0, 1], [0, 1, 0]], dtype=np.float32)
    assert list(extraction._stretches(chances)) == []


def test_known_values_are_read_as_they_are_written(extractor: Extractor) -> None:
    (found,) = extractor.extract(Product("x", "Lamp 7 in Dark RED for travel"))
    assert (found.key, found.span) == ("Color", Span("title", "Dark RED"))
    assert 0.5 < found.probability <= 1


@pytest.mark.parametrize("value", ["Magenta", "OCHRE", "teal", "紫"])
def test_a_value_never_seen_is_learnt_from_its_surroundings(
    value: str, extractor: Extractor
) -> None:
    assert normalise(value) not in extractor.gazetteer
    (found,) = extractor.extract(Product("x", f"Belt 12 in {value} for travel"))
    assert (found.key, found.span) == ("Color", Span("title", value))
    assert found.probability > 0.3


def test_a_key_needs_five_values_in_titles() -> None:
    assert extraction.fit(coloured(4)).keys == ()
    assert extraction.fit(coloured(5)).keys == ("Color",)
    absent = [replace(product, title="something else") for product in coloured(20)]
    assert extraction.fit(absent).extract(coloured(1)[0]) == ()


def test_fitting_twice_gives_the_same(extractor: Extractor) -> None:
    again = extraction.fit(coloured(80))
    np.testing.assert_array_equal(again.weights, extractor.weights)
    assert (again.keys, again.gazetteer) == (extractor.keys, extractor.gazetteer)


def test_a_value_only_this_product_has_is_no_known_value_to_it() -> None:
    tokens = extraction._tokens("in teal")
    gazetteer = {"teal": Counter({"Color": 1, "Paint": 2})}
    own = {("teal", "Color"): None, ("teal", "Paint"): None}
    assert extraction._known(tokens, gazetteer, {})[1] == ["B Color 1", "B Paint 1"]
    assert extraction._known(tokens, gazetteer, own)[1] == ["B Paint 1"]


def is_literal(found: Sequence[Extraction], title: str) -> bool:
    """Whether every value stands in the title as it is given."""
    return all(e.span.text and e.span.text in title and e.span.field == "title" for e in found)


@given(st.lists(st.sampled_from([*COLOURS, *THINGS, "in", "for", "teal", "7"]), max_size=20))
def test_stretches_are_literal_and_likely(words: list[str]) -> None:
    title = " ".join(words)
    found = FLAVOURED.extract(Product("x", title))
    assert is_literal(found, title)
    assert all(0.05 <= each.probability <= 1 + 1e-6 for each in found)


FLAVOURED = extraction.fit(
    [
        replace(product, tags=(*(product.tags or ()), "Part=red" if n % 2 else "Part=travel"))
        for n, product in enumerate(coloured(40))
    ]
)
ANY_CHARACTER = st.one_of(st.characters(), st.sampled_from("\ud800\udfff红色👍\u0301\u200b½ﷺ_'’ "))


@given(title=st.text(ANY_CHARACTER, max_size=60))
@example(title="")
@example(title="\ud800")
@example(title="👍🏽👩‍👩‍👧")
@example(title="\u200b \n")
@example(title="红色皮革钱包，男士" * 30)
@example(title="x" * 5000)
@example(title="red " * 1250)
@example(title="in red " * 700)
def test_any_title_is_read(title: str) -> None:
    assert is_literal(FLAVOURED.extract(Product("x", title, category=title[:9])), title)


@given(
    title=st.text(ANY_CHARACTER, max_size=30),
    tags=st.lists(st.text(ANY_CHARACTER, max_size=8).map(lambda text: f"k={text}"), max_size=3),
)
@example(title="\ud800 red", tags=["k=\ud800"])
@example(title="", tags=["=", "k=", "k=\u200b", "k=a=b"])
def test_any_labelled_product_can_be_learnt_from(title: str, tags: list[str]) -> None:
    product = Product("x", title, tags=tuple(tags))
    fitted = extraction.fit([product] * 5)
    assert is_literal(fitted.extract(product), title)


World = tuple[list[Product], Vectors, csr_matrix, Vocabulary]


def world(products: Sequence[Product], vocabulary: Vocabulary | None = None) -> World:
    """Products with their vectors and labels, as an index holds them."""
    vocabulary = vocabulary or Vocabulary.from_products(products)
    labels = np.zeros((len(products), len(vocabulary)), dtype=bool)
    for row, product in enumerate(products):
        for name in product.tags or ():
            tag = vocabulary.resolve(name)
            assert tag is not None
            labels[row, vocabulary.position(tag)] = True
    vectors = HashingEncoder().encode([product.text() for product in products])
    return list(products), vectors, csr_matrix(labels), vocabulary


def groups_of(products: Sequence[Product]) -> list[int]:
    names = dict.fromkeys(product.group for product in products)
    numbers = {name: number for number, name in enumerate(names)}
    return [numbers[product.group] for product in products]


def left_out(made: World, *, given: bool = False) -> list[Opinion]:
    products, vectors, labels, _ = made
    panel = Panel.fit(*made, given=given)
    experts = LeftOut(panel, products, vectors, labels, groups_of(products), given=given)
    return experts.judge(products, vectors)


@pytest.fixture(scope="module")
def colours() -> World:
    return world(coloured(40))


def test_the_panel_asks_every_expert(colours: World) -> None:
    vocabulary = colours[3]
    panel = Panel.fit(*colours, given=False)
    assert panel.sketch
    assert panel.linear
    assert panel.mentions
    assert panel.extractor
    new = [Product("x", "Mug in teal for travel"), Product("y", "Red lamp")]
    vectors = HashingEncoder().encode([product.text() for product in new])
    mug, lamp = panel.judge(new, vectors)
    estimates = panel.linear.estimate(features(panel.sketch, new, vectors))
    for opinion, row in zip((mug, lamp), estimates, strict=True):
        assert opinion.linear == pytest.approx(best(panel.linear.tags, row), abs=1e-6)
        assert set(opinion.trust) == set(opinion.mentioned)
        assert opinion.unknown == frozenset()
    assert max(mug.linear, key=lambda tag: mug.linear[tag]) == position(vocabulary, "mug")
    assert [each.span.text for each in mug.extracted] == ["teal"]
    assert lamp.mentioned == {
        position(vocabulary, "Color=red"): (Span("title", "Red"),),
        position(vocabulary, "lamp"): (Span("title", "lamp"),),
    }
    assert lamp.extracted == panel.extractor.extract(new[1])
    assert panel.judge([], vectors[:0]) == []


def position(vocabulary: Vocabulary, name: str) -> int:
    tag = vocabulary.resolve(name)
    assert tag is not None
    return vocabulary.position(tag)


def test_without_labelled_products_only_mentions_are_found() -> None:
    none = csr_matrix((0, 4), dtype=bool)
    panel = Panel.fit([], np.zeros((0, 256), np.float32), none, KEYED, given=True)
    assert panel == Panel(KEYED)
    product = Product("x", "Blue wallet")
    (opinion,) = panel.judge([product], np.zeros((1, 256), np.float32))
    assert opinion == Opinion({}, KEYED.mentions(product), {}, {1: 1.0, 2: 1.0})
    assert set(opinion.mentioned) == {1, 2}


def test_nothing_is_extracted_where_no_value_is_read_off_the_text() -> None:
    products, vectors, labels, vocabulary = world(coloured(20))
    closed = Vocabulary(replace(tag, kind=TagKind.CLOSED) for tag in vocabulary)
    assert Panel.fit(products, vectors, labels, vocabulary, given=True).extractor is not None
    assert Panel.fit(products, vectors, labels, closed, given=True).extractor is None


def test_features_have_unit_length_half_vector_half_words(colours: World) -> None:
    products, vectors, *_ = colours
    rows = features(Sketch.fit(TITLES), products, vectors)
    assert rows.shape == (len(products), 256 + DIMENSION)
    np.testing.assert_allclose((rows[:, :256] ** 2).sum(axis=1), 0.5, atol=1e-5)
    np.testing.assert_allclose((rows[:, 256:] ** 2).sum(axis=1), 0.5, atol=1e-5)


def test_the_best_estimates_are_those_above_0_and_24_at_most() -> None:
    few = best(np.array([4, 7, 9]), np.array([0.5, 0.0, 0.25]))
    assert few == {4: 0.5, 9: 0.25}
    many = best(np.arange(100, 140), np.linspace(1, 0, 40))
    assert set(many) == set(range(100, 124))
    assert best(np.zeros(0, np.int64), np.zeros(0)) == {}


ALONE = Product("a1", "Lamp zanzibar in red", tags=("Color=red", "zanzibar"), group="alone")
TWIN = Product("a2", "Zanzibar lamp, red", tags=("Color=red", "zanzibar"), group="alone")


@pytest.mark.parametrize("given", [False, True])
def test_a_tag_that_only_the_own_group_carries_is_unknown_unless_given(given: bool) -> None:
    made = world([*coloured(20), ALONE, TWIN])
    secret = position(made[3], "zanzibar")
    opinions = left_out(made, given=given)
    for product, opinion in zip(made[0], opinions, strict=True):
        own = product.group == "alone"
        assert (secret in opinion.unknown) is (own and not given)
        assert (secret in opinion.mentioned) is (own and given)
        if own:
            assert secret not in opinion.linear
            assert opinion.unknown == (frozenset() if given else {secret})
            assert opinion.own == {position(made[3], "Color=red"): 2, secret: 2}


@pytest.mark.parametrize("given", [False, True])
def test_a_name_that_only_one_product_brought_hides_no_shorter_one(given: bool) -> None:
    """`coin pocket` in the title of its only carrier is `coin` to all who do not know it."""
    products = [
        Product("1", "Wallet with coin pocket", tags=("coin", "coin pocket"), group="1"),
        Product("2", "Gold coin", tags=("coin",), group="2"),
    ]
    made = world(products)
    coin, pocket = position(made[3], "coin"), position(made[3], "coin pocket")
    mentions = Panel.fit(*made, given=given).mentions
    assert mentions
    assert mentions.counts[coin].tolist() == ([1, 1] if given else [2, 2])
    assert mentions.counts[pocket].tolist() == [1, 1]
    wallet, gold = left_out(made, given=given)
    assert set(wallet.mentioned) == ({pocket} if given else {coin})
    assert set(gold.mentioned) == {coin}
    assert wallet.own == {coin: 1, pocket: 1}
    # no key: without the wallet 1 mention of 1 is right, (1 + .5) / (1 + 1) = 3/4
    moved = in_titles(MentionRates.fit(made[3], [({coin: TITLE}, {coin})]))
    share = {pocket: 3 / 4} if given else {coin: (1 + 3 / 2) / 3}
    assert wallet.trust == pytest.approx({tag: moved(each) for tag, each in share.items()})


def places_in(vocabulary: Vocabulary, product: Product) -> dict[int, Place]:
    return {tag: found.place for tag, found in find_mentions(vocabulary, product).items()}


def test_trust_and_estimates_count_only_other_groups(colours: World) -> None:
    products, vectors, labels, vocabulary = colours
    groups = np.array(groups_of(products))
    panel = Panel.fit(*colours, given=False)
    assert panel.sketch
    for row, opinion in enumerate(left_out(colours)):
        others = np.flatnonzero(groups != groups[row])
        rest = MentionRates.fit(
            vocabulary,
            [(places_in(vocabulary, products[at]), set(labels[at].indices)) for at in others],
        )
        own = places_in(vocabulary, products[row])
        assert opinion.trust == pytest.approx(rest.rates(own))
        shared = panel.mentions.rates(own) if panel.mentions else {}
        assert opinion.trust != pytest.approx(shared), "its own group would have counted"
    rows = features(panel.sketch, products, vectors)
    tags, estimates = linear.left_out(rows, labels, groups.tolist())
    for opinion, estimate in zip(left_out(colours), estimates, strict=True):
        assert opinion.linear == best(tags, estimate)


def test_what_a_group_is_labelled_with_makes_no_difference_to_it(colours: World) -> None:
    """The labels of two siblings swapped: how often each tag occurs stays the same."""
    products = list(colours[0])
    one, other = 10, 11
    assert products[one].group == products[other].group
    swapped = list(products)
    swapped[one] = replace(products[one], tags=products[other].tags)
    swapped[other] = replace(products[other], tags=products[one].tags)
    assert products[one].tags != products[other].tags
    vocabulary = colours[3]
    before, after = left_out(colours), left_out(world(swapped, vocabulary))
    for row in (one, other):
        assert after[row].linear == pytest.approx(before[row].linear, abs=1e-3)
        assert replace(after[row], linear={}) == replace(before[row], linear={})
    assert any(
        replace(after[row], linear={}) != replace(before[row], linear={}) for row in range(40)
    )


def test_values_are_extracted_by_what_other_groups_taught() -> None:
    """Of 30 products of one group with a colour each, none teaches another."""
    together = [replace(product, group="one") for product in coloured(30)]
    assert all(opinion.extracted == () for opinion in left_out(world(together)))
    assert all(opinion.extracted for opinion in left_out(world(coloured(30))))


def test_opinions_are_given_by_product_in_the_order_asked(colours: World) -> None:
    products, vectors, labels, _ = colours
    panel = Panel.fit(*colours, given=False)
    experts = LeftOut(panel, products, vectors, labels, groups_of(products), given=False)
    one, other = experts.judge([products[3], products[0]], vectors[[3, 0]])
    assert [one] == experts.judge([products[3]], vectors[3:4])
    assert [other] == experts.judge([products[0]], vectors[:1])
    assert one != other


def test_left_out_of_a_panel_that_learnt_nothing_finds_mentions() -> None:
    products = [Product("x", "Blue wallet"), Product("y", "mug")]
    vectors = np.zeros((2, 256), np.float32)
    panel = Panel(KEYED)
    experts = LeftOut(panel, products, vectors, csr_matrix((2, 4)), [0, 1], given=False)
    assert experts.judge(products[1:], vectors[1:]) == panel.judge(products[1:], vectors[1:])
