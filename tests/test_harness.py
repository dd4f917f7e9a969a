"""One evaluation from end to end, on the example shop: its figures can be recomputed by hand."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmtagger.backends.fakes import FakeGenerator, HashingEncoder
from llmtagger.calibration import Calibration
from llmtagger.config import ScoringSettings, Settings
from llmtagger.datatypes import Product
from llmtagger.errors import ConfigError, LeakFound
from llmtagger.evaluation import splitting
from llmtagger.evaluation.baselines import NAMES
from llmtagger.evaluation.harness import (
    Evaluation,
    Outcome,
    RunConfig,
    Side,
    check_leaks,
    read_config,
)
from llmtagger.evaluation.metrics import SHOWN
from llmtagger.evaluation.results import results_of
from llmtagger.evaluation.samples import samples_of, write_samples
from llmtagger.normalise import normalise
from llmtagger.stages.cold_start import HIGHEST

CARD = Path(__file__).parents[1] / "eval" / "datasets" / "examples"
ROWS, TESTED = 90, 30
FIGURES = ("micro_f1", "micro_precision", "micro_recall", "macro_f1")
Record = dict[str, Any]
Evaluate = Callable[..., Outcome]


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluate]:
    """Evaluates on some of the examples; words are counted, and the model is a fake."""
    cache = tmp_path_factory.mktemp("cache")

    def run(
        generator: FakeGenerator | None = None,
        *,
        card: Path = CARD,
        own_cache: bool = False,
        **config: Any,
    ) -> Outcome:
        folder = tmp_path_factory.mktemp("run")
        return Evaluation(
            RunConfig(dataset="by hand", **{"test": TESTED} | config),
            card,
            None,
            folder,
            folder / "cache" if own_cache else cache,
            generator,
            lambda name, done, total: None,
            limit=ROWS,
        ).run()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llmtagger.backends.encoders.load_encoder", lambda name: HashingEncoder())
        yield run


@pytest.fixture(scope="module")
def warm(evaluate: Evaluate) -> Outcome:
    """Everything there is: a calibrated index, and a model that is asked about every product."""
    return evaluate(FakeGenerator(), llm="always", ask_train=20, ask_test=10)


@pytest.fixture(scope="module")
def cold(evaluate: Evaluate) -> Outcome:
    """Nothing is labelled, and no model is there."""
    return evaluate(regime="cold", labelled=0, llm="never", ask_test=0)


@pytest.fixture(scope="module")
def few(evaluate: Evaluate) -> Outcome:
    """Some products are labelled, and the model is asked where that was found to help: nowhere."""
    generator = FakeGenerator(lambda *_: "[]")
    return evaluate(generator, regime="cold", labelled=50, ask_train=20, ask_test=10)


@pytest.fixture(scope="module")
def results(warm: Outcome) -> Record:
    """As they are read from results.json."""
    found: Record = json.loads(json.dumps(results_of(warm), ensure_ascii=False))
    return found


@pytest.fixture(scope="module")
def samples(warm: Outcome, tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """As they are read from samples.jsonl."""
    path = tmp_path_factory.mktemp("samples") / "samples.jsonl"
    write_samples(samples_of(warm), path)
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _f1(right: int, kept: int, gold: int) -> float:
    return 2 * right / (kept + gold) if kept + gold else 0.0


def _by_hand(samples: Sequence[Record], name: str) -> dict[str, float]:
    """Micro and macro figures, counted tag by tag."""
    right: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    gold: Counter[str] = Counter()
    for sample in samples:
        right.update(set(sample["kept"][name]) & set(sample["gold"]))
        kept.update(sample["kept"][name])
        gold.update(sample["gold"])
    tags = kept | gold
    return {
        "micro_f1": _f1(right.total(), kept.total(), gold.total()),
        "micro_precision": right.total() / max(kept.total(), 1),
        "micro_recall": right.total() / max(gold.total(), 1),
        "macro_f1": sum(_f1(right[tag], kept[tag], gold[tag]) for tag in tags) / len(tags),
    }


@pytest.mark.parametrize("name", ["system", *NAMES])
def test_every_figure_can_be_recomputed_from_the_samples(
    name: str, results: Record, samples: list[Record]
) -> None:
    on = [sample for sample in samples if name in sample["kept"]]
    assert len(on) == results[name]["products"] == (10 if name == "llm_only" else TESTED)
    for figure, value in _by_hand(on, name).items():
        found = results[name][figure]
        assert set(found) == {"value", "low", "high"}
        assert found["value"] == pytest.approx(value, abs=1e-12), figure
        assert 0 <= found["low"] <= found["high"] <= 1
        if figure != "macro_f1":  # draws of a macro figure miss rare tags
            assert found["low"] <= found["value"] <= found["high"]
    assert results[name]["micro_f1"]["value"] > 0


def test_an_evaluation_keeps_what_a_run_keeps(warm: Outcome, evaluate: Evaluate) -> None:
    """Up to `max_tags`, and nothing of the blocklist: in results, samples and promises."""
    blocked = Counter(tag for each in warm.kept["system"] for tag in each).most_common(1)[0][0]
    settings = Settings(scoring=ScoringSettings(max_tags=1, blocklist=[blocked]))
    limited = evaluate(FakeGenerator(), llm="always", ask_train=20, ask_test=10, settings=settings)
    assert max(map(len, warm.kept["system"])) > 1
    assert max(map(len, limited.kept["system"])) == 1
    for kept in (limited.kept["system"], limited.helped, limited.alone):
        assert kept
        assert not any(blocked in each for each in kept)
    assert all(len(sample["kept"]["system"]) <= 1 for sample in samples_of(limited))
    found = results_of(limited)
    assert found["system"]["micro_recall"]["value"] > 0
    assert all(each["kept"] <= TESTED for each in found["promises"])
    assert any(each["kept"] > TESTED for each in results_of(warm)["promises"])


def test_what_keeps_nothing_has_no_precision(evaluate: Evaluate) -> None:
    settings = Settings(scoring=ScoringSettings(threshold=1.0))
    outcome = evaluate(regime="cold", labelled=0, llm="never", ask_test=0, settings=settings)
    assert not any(outcome.kept["system"])
    found = results_of(outcome)["system"]
    assert found["micro_precision"] == {"value": None, "low": None, "high": None}
    assert (found["micro_recall"]["value"], found["micro_f1"]["value"]) == (0.0, 0.0)


def test_a_missed_tag_has_its_score_if_there_is_one(warm: Outcome) -> None:
    missed = low = 0
    for scores, sample in zip(warm.scores["system"], samples_of(warm), strict=True):
        for tag in set(sample["gold"]) - set(sample["kept"]["system"]):
            missed += 1
            low += scores.get(tag, 1.0) < SHOWN
            known = round(scores[tag], 4) if tag in scores else None
            assert sample["scores"]["system"].get(tag) == known
            assert (tag in sample["contributions"]) is (tag in scores)
    assert missed > low > 0


def test_the_run_says_what_it_was(warm: Outcome, results: Record, samples: list[Record]) -> None:
    assert results["run"]["name"] == "examples warm"
    assert results["run"]["model"] == "fake"
    assert results["products"] == {
        "train": ROWS - TESTED,
        "test": TESTED,
        "train_groups": len(set(warm.train.groups)),
        "test_groups": len(set(warm.test.groups)),
        "asked_train": 20,
        "asked_test": 10,
    }
    assert [sample["id"] for sample in samples] == [p.id for p in warm.test.products]
    assert all(set(warm.judge.gold(p)) == set(s["gold"]) for p, s in _pairs(warm, samples))
    assert results["config"]["ask_test"] == 10
    assert set(results["seconds"]) >= {"splitting", "calibrating", "total"}


def _pairs(outcome: Outcome, samples: Sequence[Record]) -> Iterator[tuple[Product, Record]]:
    return zip(outcome.test.products, samples, strict=True)


def test_nothing_is_learnt_from_a_test_product(warm: Outcome, few: Outcome) -> None:
    for outcome in (warm, few):
        tested = {product.id for product in outcome.test.products}
        assert not any(outcome.index.position(id) is not None for id in tested)
        assert not {p.id for p in outcome.train.products} & tested
        assert not set(outcome.train.groups) & set(outcome.test.groups)
        assert tested.isdisjoint(
            name
            for tagged in outcome.results
            for item in tagged.scored.items
            for name, _ in item.evidence.neighbours
        )


def test_whoever_tags_keeps_to_the_vocabulary(warm: Outcome, results: Record) -> None:
    known = {normalise(tag.name) for tag in warm.index.vocabulary}
    for name in ("system", *NAMES):
        assert results[name]["out_of_vocabulary"] == 0
        assert {item for kept in warm.kept[name] for item in kept} <= known


def test_what_is_kept_is_what_scores_enough(warm: Outcome, few: Outcome) -> None:
    for outcome, names in (
        (warm, set(NAMES) - {"llm_only"}),  # the system's answered products have their own cut
        (few, {"system", *NAMES} - {"llm_only"}),
    ):
        for name in names:
            cut = outcome.thresholds[name]
            assert outcome.kept[name] == [
                {item for item, score in scores.items() if score >= cut}
                for scores in outcome.scores[name]
            ]
    assert warm.calibration is not None
    assert warm.calibration.asked is not None
    assert warm.kept["system"] == [
        {item for item, score in scores.items() if score >= warm.calibration.asked.threshold}
        for scores in warm.scores["system"]
    ]


def test_the_best_baseline_is_the_one_of_the_highest_figure(results: Record) -> None:
    figures = {name: results[name]["micro_f1"]["value"] for name in NAMES if name != "llm_only"}
    best = results["best_baseline"]
    assert best["name"] == max(figures, key=lambda name: figures[name])
    gap = results["system"]["micro_f1"]["value"] - figures[best["name"]]
    assert best["difference"]["value"] == pytest.approx(gap, abs=1e-12)
    assert best["difference"]["low"] <= gap <= best["difference"]["high"]
    assert set(best["differences"]) == set(NAMES)


def test_the_models_share_is_paired(warm: Outcome, results: Record, samples: list[Record]) -> None:
    assert all(sample["asked"] for sample in samples)
    share = results["model"]
    assert (share["products"], share["share_asked"]) == (10, 1.0)
    gold = [warm.gold[row] for row in warm.asked]
    values = []
    for kept in (warm.helped, warm.alone):
        right = sum(len(k & g) for k, g in zip(kept, gold, strict=True))
        values.append(_f1(right, sum(map(len, kept)), sum(map(len, gold))))
    with_, without = values
    assert share["f1_with"]["value"] == pytest.approx(with_)
    assert share["f1_without"]["value"] == pytest.approx(without)
    assert share["added"]["value"] == pytest.approx(with_ - without)
    assert warm.helped == [warm.kept["system"][row] for row in warm.asked]


def test_what_the_model_alone_says_is_what_it_chose(warm: Outcome) -> None:
    for kept, tagged in zip(warm.kept["llm_only"], warm.answered, strict=True):
        chosen = {normalise(i.tag.name) for i in tagged.scored.items if i.evidence.chosen}
        assert kept == chosen
        assert len(chosen) == 1  # the fake names the first tag that it may
        assert chosen <= {normalise(name) for name in tagged.offered}


def test_candidate_recall_bounds_the_systems(results: Record) -> None:
    recall = results["candidate_recall"]
    assert results["system"]["micro_recall"]["value"] <= recall["all"]
    assert recall["offered"] <= recall["all"] < 1


def test_two_runs_find_the_same(few: Outcome, evaluate: Evaluate) -> None:
    again = evaluate(
        FakeGenerator(lambda *_: "[]"),
        own_cache=True,
        regime="cold",
        labelled=50,
        ask_train=20,
        ask_test=10,
    )

    def lasting(outcome: Outcome) -> Record:
        found = results_of(outcome)
        for name in ("seconds", "cost"):
            del found[name]
        del found["run"]["date"], found["run"]["commit"]
        return found

    assert lasting(again) == lasting(few)
    assert samples_of(again) == samples_of(few)

    def timeless(calibration: Calibration | None) -> Calibration:
        assert calibration is not None
        return calibration.model_copy(update={"created": ""})

    assert timeless(again.calibration) == timeless(few.calibration)


def test_another_seed_is_another_split(few: Outcome, evaluate: Evaluate) -> None:
    other = evaluate(regime="cold", seed=2, llm="never", ask_test=0)
    assert {p.id for p in other.test.products} != {p.id for p in few.test.products}
    assert {p.id for s in (other.train, other.test) for p in s.products} == {
        p.id for s in (few.train, few.test) for p in s.products
    }


def test_with_nothing_labelled_the_names_of_the_tags_are_all_there_is(cold: Outcome) -> None:
    found = results_of(cold)
    assert (found["run"]["name"], found["run"]["labelled"]) == ("examples cold 0", 0)
    assert (cold.calibration, cold.model, found["model"]) == (None, None, None)
    assert not cold.index.labelled.any()
    everything = (*cold.train.products, *cold.test.products)  # a closed set: its names are known
    names = {tag for product in everything for tag in product.tags or ()}
    assert {tag.name for tag in cold.index.vocabulary} == names
    assert 0 < cold.thresholds["system"] <= HIGHEST
    assert cold.index.live.sum() == len(cold.train.products)
    assert found["system"]["micro_f1"]["value"] > 0
    for name in ("knn_vote", "tfidf_linear", "embedding_linear"):  # have nothing to learn from
        assert found[name]["micro_f1"] == {"value": 0, "low": 0, "high": 0}
    assert (found["promises"], found["weights"]) == ([], {})


def test_where_no_model_is_asked_it_has_no_figures(cold: Outcome) -> None:
    found = results_of(cold)
    assert found["llm_only"] is None
    assert "llm_only" not in cold.kept
    assert all("llm_only" not in s["kept"] and not s["asked"] for s in samples_of(cold))
    assert found["products"]["asked_test"] == 0


def test_a_model_may_help_without_figures_of_its_own(evaluate: Evaluate) -> None:
    generator = FakeGenerator()
    outcome = evaluate(generator, regime="cold", llm="always", ask_test=0)
    found = results_of(outcome)
    assert (found["llm_only"], found["model"]) == (None, None)
    assert len(generator.asked) == TESTED
    assert all(sample["asked"] for sample in samples_of(outcome))


def test_few_labels_are_those_of_the_train_side(few: Outcome) -> None:
    found = results_of(few)
    assert (found["run"]["name"], found["run"]["labelled"]) == ("examples cold 50", 50)
    assert few.calibration is not None
    assert few.calibration.products == 50
    assert few.thresholds["system"] == few.calibration.unasked.threshold
    train = {product.id: product.tags for product in few.train.products}
    held = [few.index.product(row) for row in range(50)]
    assert all(train[product.id] == product.tags for product in held)
    for name in ("knn_vote", "tfidf_linear", "embedding_linear", "lookup"):
        assert found[name]["micro_f1"]["value"] > 0
        assert found[name]["threshold"] > 0


def test_where_asking_adds_nothing_auto_asks_only_to_measure(few: Outcome) -> None:
    found = results_of(few)
    assert few.calibration is not None
    assert few.calibration.ask is not None
    assert few.calibration.ask.margin == 0
    assert (found["model"]["share_asked"], found["model"]["products"]) == (0, 10)
    assert "`auto` does not ask" in found["model"]["note"]
    assert not any(sample["asked"] for sample in samples_of(few))
    assert [s["id"] for s in samples_of(few) if "llm_only" in s["kept"]] == [
        few.test.products[row].id for row in few.asked
    ]


def test_a_card_may_be_anyones(evaluate: Evaluate, tmp_path: Path) -> None:
    """Unjudged tags count neither for nor against."""
    lines = (CARD.parents[2] / "examples" / "catalogue.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines[:60]]
    for record in records:
        record["tags_unjudged"] = ["handmade"]
        record["tags"] = [tag for tag in record["tags"] if tag != "handmade"] + ["gift"]
    (tmp_path / "gold.jsonl").write_text("\n".join(map(json.dumps, records)), "utf-8")
    (tmp_path / "dataset.toml").write_text(
        'title = "T"\nlicence = "none"\nfile = "./gold.jsonl"\nkind = "closed"\n', "utf-8"
    )
    outcome = evaluate(card=tmp_path, llm="never", ask_test=0, regime="cold", test=20)
    assert results_of(outcome)["run"]["dataset"] == tmp_path.name
    for sample in samples_of(outcome):
        assert sample["unjudged"] == ["handmade"]
        assert "gift" in sample["gold"]
        assert "handmade" not in {item for kept in sample["kept"].values() for item in kept}


def _side(*products: Product) -> Side:
    vectors = HashingEncoder().encode([product.text() for product in products])
    return Side(products, vectors, tuple(range(len(products))))


@pytest.mark.parametrize(
    ("twin", "reason"),
    [
        pytest.param(Product("t", "Oak  LAMP with a shade"), "same_title", id="title"),
        pytest.param(Product("t", "Another lamp", group="lamps"), "same_group", id="group"),
        pytest.param(Product("a", "Another lamp"), "same_id", id="id"),
        pytest.param(Product("t", "with a lamp oak shade"), "near_duplicate_vector", id="words"),
        pytest.param(Product("t", "Oak lamp with a shade!"), "", id="any"),
    ],
)
def test_a_planted_twin_is_found(twin: Product, reason: str) -> None:
    train = _side(
        Product("a", "Oak lamp with a shade", group="lamps"), Product("b", "Blue suede shoe")
    )
    other = Product("x", "Something else altogether")
    check_leaks(train, _side(other), 0.95)
    with pytest.raises(LeakFound, match=f"1 test products .*{reason}") as found:
        check_leaks(train, _side(other, twin), 0.95)
    assert f"{twin.id!r}, resembles 'a'" in found.value.message
    assert "group" in found.value.hint


def test_a_split_that_leaks_stops_the_evaluation(
    evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if grouping failed altogether, the check sees it by itself."""
    monkeypatch.setattr(splitting, "groups", lambda products, *_, **__: range(len(products)))
    with pytest.raises(LeakFound, match="known from the train side"):
        evaluate(seed=_seed_that_parts_siblings(), llm="never", ask_test=0)


def _seed_that_parts_siblings() -> int:
    from llmtagger.evaluation.gold import load_gold

    products = load_gold(CARD, None, limit=ROWS).products
    for seed in range(1, 50):
        parts = splitting.split(range(len(products)), test=TESTED, seed=seed)
        sides = [{products[row].group for row in rows} - {""} for rows in (parts.train, parts.test)]
        if sides[0] & sides[1]:
            return seed
    raise AssertionError("no siblings among the examples")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param('regime = "warm"', "dataset: Field required", id="no set"),
        pytest.param('dataset = "d"\nregime = "hot"', "regime: ", id="regime"),
        pytest.param('dataset = "d"\nlabeled = 5', "labeled: ", id="unknown key"),
        pytest.param('dataset = "d"\ntest = 0', "test: ", id="too small"),
        pytest.param('dataset = "d"\nask_test = "many"', "ask_test: ", id="type"),
        pytest.param('dataset = "d"\n[settings.scoring]\nthreshold = 3', "settings.scoring.thresh"),
        pytest.param('dataset = "d"\nlabelled = -1\nseed = 0.5', "labelled: .*; seed: ", id="two"),
        pytest.param("dataset = d", "not valid TOML", id="no TOML"),
        pytest.param('dataset = "d"\ndataset = "e"', "not valid TOML", id="twice"),
    ],
)
def test_a_fault_in_a_run_is_named(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=says) as refused:
        read_config(path)
    assert str(path) in refused.value.message
    assert refused.value.hint


def test_a_run_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the run .*no\.toml: No such file"):
        read_config(tmp_path / "no.toml")


def test_every_committed_run_can_be_read() -> None:
    for path in sorted((CARD.parents[1] / "runs").glob("*.toml")):
        config = read_config(path)
        assert (path.parent / config.dataset / "dataset.toml").is_file()


def test_a_side_is_row_by_row(warm: Outcome) -> None:
    texts = [product.text() for product in warm.test.products]
    assert np.allclose(warm.test.vectors, HashingEncoder().encode(texts))
    assert len(texts) == len(warm.test.groups) == TESTED
