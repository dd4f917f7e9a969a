"""The HTML reports: everything is there, hostile text is inert, and plots stay in their frame."""

from __future__ import annotations

import copy
import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from selectolax.lexbor import LexborHTMLParser as HTMLParser
from selectolax.lexbor import LexborNode as Node

from llmtagger.evaluation import plots
from llmtagger.evaluation.glossary import SIGNALS
from llmtagger.evaluation.interval import Interval, points
from llmtagger.evaluation.plots import Line, Point, Row, Scale
from llmtagger.evaluation.report import (
    SYSTEMS,
    chance,
    kept,
    number,
    outcomes,
    percent,
    plain,
    worst,
    write_comparison,
    write_report,
)
from llmtagger.evaluation.verdicts import UNCLEAR
from llmtagger.stages.scoring import COLD, WARM

SCRIPT = '<script>alert("x")</script>'
BREAKOUT = '"><img onerror=alert(1)> \u202eevil\u0000'
SECTIONS = {
    *("headline", "curves", "reliability", "promises", "tags", "cost", "slices", "model"),
    *("weights", "examples", "confusions", "provenance"),
}
TAGS = [
    *("Color=black", "Color=white", "Material=cotton", "Material=leather", "Fit=slim", "防水"),
    *("Closure=zip", "Neckline=crew", "Season=winter", "Pattern=striped", "Sleeve=long", "纯棉"),
    *("Care=machine washable", "Occasion=everyday", "Style=casual", "Origin=handmade in Porto"),
    *("Heel=flat", "Lining=fleece", "Pocket=kangaroo", "可折叠", "Length=knee", SCRIPT, BREAKOUT),
    *(f"Feature=number {i}" for i in range(14)),
]


def measured(value: float, wide: float = 0.018) -> dict[str, float]:
    return {"value": value, "low": value - wide, "high": value + wide}


def system(f1: float, threshold: float | None = 0.5) -> dict[str, Any]:
    return {
        "products": 1200,
        "threshold": threshold,
        "micro_f1": measured(f1),
        "micro_precision": measured(f1 + 0.04),
        "micro_recall": measured(f1 - 0.035),
        "macro_f1": measured(f1 - 0.12, 0.027),
        "product_f1": measured(f1 - 0.01),
        "precision_at": {"1": 0.93, "3": 0.81, "5": 0.66},
        "rp_at": {"5": 0.84, "10": 0.87},
        "out_of_vocabulary": 0.012,
        "invalid": 0.003,
        "extractgpt": {"f1": f1, "precision": f1, "recall": f1},
    }


def curve(quality: float) -> list[dict[str, float]]:
    shares = [i / 40 for i in range(41)]
    return [
        {"threshold": 1 - s, "recall": s, "precision": 1 - (1 - quality) * s ** (4 * quality)}
        for s in shares
    ]


def tag_row(i: int, tag: str) -> dict[str, Any]:
    f1 = max(0.0, 0.93 - 0.021 * i)
    counts = {"support": 400 // (i + 1), "kept": 380 // (i + 1), "right": 300 // (i + 1)}
    return {"tag": tag, **counts, "precision": f1, "recall": f1, "f1": f1}


def sliced(*names: str) -> list[dict[str, Any]]:
    return [
        {"slice": name, "products": 640 // (i + 1), "micro_f1": measured(0.81 - 0.05 * i, 0.03)}
        for i, name in enumerate(names)
    ]


def results() -> dict[str, Any]:
    """What a realistic run measured."""
    return {
        "run": {
            "name": "apparel-warm-400",
            "dataset": "apparel",
            "kind": "closed",
            "seed": 7,
            "title": "Apparel, warm 服装",
            "regime": "warm",
            "labelled": 400,
            "llm": "auto",
            "date": "2026-11-21",
            "commit": "ff3d2d7",
            "llmtagger": "0.1.0",
        },
        "config": {"retrieval": {"neighbours": 8, "fields": ["title", "text"]}, "x": {"y": None}},
        "fingerprints": {"dataset": "3f9a1c0d55e2", "index": "9bb210aa71f4", "model": "smollm2"},
        "products": {"train": 4800, "test": 1200, "train_groups": 4100, "test_groups": 1020},
        "system": system(0.812),
        "knn_vote": system(0.779, 0.41),
        "tfidf_linear": system(0.787, 0.38),
        "embedding_linear": system(0.742, 0.35),
        "lookup": system(0.412, None),
        "llm_only": system(0.523, None),
        "best_baseline": {"name": "tfidf_linear", "difference": measured(0.025, 0.012)},
        "model": {
            "added": measured(0.006, 0.004),
            "products": 1200,
            "share_asked": 0.31,
            "f1_kept": measured(0.997, 0.002),
            "seconds_saved": 1434.0,
            "note": "The model was asked where the best score was between 0.2 and 0.8.",
        },
        "candidate_recall": {"all": 0.991, "offered": 0.972},
        "ancestor_micro_f1": measured(0.846),
        "per_tag": [tag_row(i, tag) for i, tag in enumerate(TAGS)],
        "slices": {
            "language": sliced("en", "zh"),
            "category": sliced("Shoes", "服装 / 外套", SCRIPT, "Bags & accessories of all kinds"),
            "text_length": sliced("under 20 words", "20 to 80 words", "over 80 words"),
            "tag_frequency": [
                {"slice": "1 to 5 times", "support": 210, "recall": 0.41, "precision": 0.66},
                {"slice": "over 100 times", "support": 5120, "recall": 0.86, "precision": 0.88},
            ],
        },
        "calibration": {
            "ece": 0.024,
            "bins": [
                {
                    "low": i / 10,
                    "high": (i + 1) / 10,
                    "mean_score": i / 10 + 0.05,
                    "right": (i / 10 + 0.05) ** 1.25,
                    "count": [21000, 3100, 940][min(i, 2)],
                }
                for i in range(10)
            ],
        },
        "promises": [
            {
                "precision": 0.9,
                "kept": 2410,
                "right": 2236,
                "share": 0.71,
                "seen": 0.928,
                "wilson_low": 0.917,
                "threshold": 0.71,
            },
            {
                "precision": 0.95,
                "kept": 1802,
                "right": 1709,
                "share": 0.543,
                "seen": 0.948,
                "wilson_low": 0.937,
            },
            {"precision": 0.99, "kept": 0, "right": 0, "share": 0.0, "seen": 0.0, "wilson_low": 0},
        ],
        "curves": {
            "system": curve(0.62),
            "knn_vote": curve(0.5),
            "tfidf_linear": curve(0.54),
            "embedding_linear": curve(0.45),
        },
        "confusions": [
            {"gold": "Material=leather", "predicted": "Material=faux leather", "count": 17},
            {"gold": "纯棉", "predicted": SCRIPT, "count": 4},
        ],
        "weights": {
            "warm": {"bias": -5.0, "vote": 2.1, "linear": 5.1, "literal": 1.9, "prior": -0.2},
            "cold": {"bias": -4.4, "name_similarity": 1.7, "literal": 2.5},
        },
        "cost": {
            "prompt_tokens": 1240.4,
            "completion_tokens": 18.2,
            "model_seconds": 1.731,
            "own_seconds": 0.021,
        },
        "seconds": {"total": 900.4, "retrieve": 12.3, "model": 840.0},
        "leaks": {"compared": 1200, "found": 0},
    }


TITLES = [
    "Men's waxed cotton jacket with corduroy collar, olive",
    "女士加绒连帽卫衣 秋冬新款 宽松显瘦",
    SCRIPT,
    f"Mug {BREAKOUT}",
    "Broken half \ud83d of a smile",
    "Superlongwordwithoutanyspace" * 20,
]


def sample(i: int) -> dict[str, Any]:
    gold, kept = TAGS[i : i + 4], TAGS[i + 2 : i + 6]
    signals = {"linear": 3.2, "vote": 1.4, "name_lexical": -0.6, "prior": 0.01, "literal": 0.9}
    return {
        "id": f"p-{i}",
        "group": f"g-{i}",
        "lang": "zh" if i % 2 else "en",
        "category": "Apparel / Jackets",
        "title": TITLES[i % len(TITLES)],
        "gold": gold,
        "unjudged": kept[-1:],
        "kept": {"system": kept, "knn_vote": gold},
        "scores": {"system": dict.fromkeys(kept, 0.81)},
        "signals": {},
        "contributions": dict.fromkeys(kept, signals),
        "neighbours": ["p-8", BREAKOUT],
        "asked": bool(i % 2),
        "prompt_hash": "abc",
    }


def between(a: float, b: float, verdict: str) -> dict[str, Any]:
    difference = measured(b - a, 0.011)
    return {"a": measured(a), "b": measured(b), "difference": difference, "verdict": verdict}


def compared_tag(i: int, tag: str) -> dict[str, Any]:
    change = ((-1) ** i) * (0.2 - 0.005 * i)
    return {
        "tag": tag,
        "support": 300 // (i + 1),
        "a": 0.7,
        "b": 0.7 + change,
        "p": 0.01 * i,
        "difference": measured(change, 0.09),
        "adjusted": min(1.0, 0.05 * i),
        "verdict": ["b is better", "a is better"][i % 2] if i < 6 else UNCLEAR,
    }


def changed(i: int, change: float) -> dict[str, Any]:
    return {
        "id": f"p-{i}",
        "title": TITLES[i % len(TITLES)],
        "gold": TAGS[i : i + 3],
        "a": TAGS[i + 2 : i + 5],
        "b": TAGS[i : i + 4],
        "change": change,
    }


def comparison() -> dict[str, Any]:
    """What a realistic comparison of two runs found."""
    run = results()["run"]
    cost = results()["cost"]
    return {
        "a": {"name": "default", "run": run},
        "b": {"name": "more neighbours", "run": {**run, "seed": 8, "title": SCRIPT}},
        "products": 1200,
        "groups": 1020,
        "changed": 410,
        "micro_f1": between(0.792, 0.812, "b is better"),
        "micro_precision": between(0.85, 0.846, UNCLEAR),
        "micro_recall": between(0.741, 0.779, "b is better"),
        "per_tag": [compared_tag(i, tag) for i, tag in enumerate(TAGS)],
        "won": [changed(i, 0.42) for i in range(7)],
        "lost": [changed(i, -0.2) for i in range(3)],
        "cost": {"a": cost, "b": {**cost, "prompt_tokens": 1890.0}},
        "warnings": ["The two runs used different seeds.", SCRIPT],
    }


def report_of(tmp_path: Path, measured: dict[str, Any], samples: list[dict[str, Any]]) -> str:
    write_report(measured, samples, tmp_path / "report.html")
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def comparison_of(tmp_path: Path, found: dict[str, Any]) -> str:
    write_comparison(found, tmp_path / "comparison.html")
    return (tmp_path / "comparison.html").read_text(encoding="utf-8")


@pytest.fixture(params=["report", "comparison"])
def page(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "report":
        return report_of(tmp_path, results(), [sample(i) for i in range(25)])
    return comparison_of(tmp_path, comparison())


def sections(page: str) -> set[str]:
    return {node.attributes["id"] or "" for node in HTMLParser(page).css("section")}


def numbers_of(node: Node) -> list[float]:
    """All coordinates that an SVG element has."""
    names = ("x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r", "width", "height", "points")
    given = " ".join(node.attributes.get(name) or "" for name in names)
    return [float(each) for each in re.split(r"[ ,]+", given.strip()) if each]


def assert_inside(svg: str) -> None:
    [root] = HTMLParser(svg).css("svg.plot")
    box = root.attributes.get("viewbox") or root.attributes.get("viewBox") or ""
    _, _, width, height = map(float, box.split())
    for node in root.css("line, circle, rect, polyline, text"):
        numbers = numbers_of(node)
        assert all(0 <= each <= max(width, height) for each in numbers), node.html
        for name in ("y", "y1", "y2", "cy"):
            assert float(node.attributes.get(name) or 0) <= height, node.html


# Escaping and independence


def test_hostile_text_is_shown_and_inert(page: str) -> None:
    tree = HTMLParser(page)
    assert tree.css("script, img, iframe, object, link, form") == []
    assert SCRIPT in tree.text()
    for node in tree.css("*"):
        assert not [name for name in node.attributes if name.startswith("on")]


def test_nothing_is_loaded(page: str) -> None:
    for trace in ("http://", "https://", "src=", "@import", "url(", "<script"):
        assert trace not in page
    links = [node.attributes["href"] or "" for node in HTMLParser(page).css("[href]")]
    assert links
    assert all(link.startswith("#") for link in links)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page


def test_links_lead_to_sections(page: str) -> None:
    links = {node.attributes["href"] for node in HTMLParser(page).css("nav a")}
    assert links == {f"#{name}" for name in sections(page)}


def test_plots_stay_in_their_frame(page: str) -> None:
    found = HTMLParser(page).css("svg.plot")
    assert len(found) >= 3
    for svg in found:
        assert_inside(svg.html or "")


def test_templates_come_with_the_package() -> None:
    names = {each.name for each in resources.files("llmtagger.evaluation").iterdir()}
    assert {"report.html.jinja", "comparison.html.jinja", "page.html.jinja"} <= names


# The report


def test_report_has_all_sections(tmp_path: Path) -> None:
    page = report_of(tmp_path, results(), [sample(0)])
    assert sections(page) == SECTIONS
    assert "Not measured" not in page
    assert "服装" in page
    for name in SYSTEMS.values():
        assert name in page


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (
            measured(0.025, 0.012),
            "Better than the best baseline, TF-IDF + linear: F1 +2.5 points (95% interval +1.3 to "
            "+3.7).",
        ),
        (
            measured(-0.02, 0.01),
            "Worse than the best baseline, TF-IDF + linear: F1 −2.0 points (95% interval −3.0 to "
            "−1.0).",
        ),
        (
            measured(0.004, 0.01),
            "Too close to call: F1 +0.4 points against the best baseline, TF-IDF + linear",
        ),
        (
            {"value": 0.2, "low": None, "high": None},
            "Too few products for a verdict: F1 +20.0 points against the best baseline, TF-IDF + "
            "linear. At least 10 different products are needed.",
        ),
    ],
    ids=["above", "below", "no difference", "few products"],
)
def test_verdict_in_words(tmp_path: Path, difference: dict[str, Any], words: str) -> None:
    found = {**results(), "best_baseline": {"name": "tfidf_linear", "difference": difference}}
    assert words in HTMLParser(report_of(tmp_path, found, [])).text()


def test_best_baseline_is_marked(tmp_path: Path) -> None:
    tree = HTMLParser(report_of(tmp_path, results(), []))
    [row] = [each for each in tree.css("#headline tr") if "best baseline" in each.text()]
    assert "TF-IDF + linear" in row.text()


OPTIONAL = [
    *("llm_only", "best_baseline", "model", "candidate_recall", "ancestor_micro_f1", "per_tag"),
    *("slices", "calibration", "promises", "curves", "confusions", "weights", "cost", "seconds"),
    *("leaks", "config", "fingerprints"),
]


@pytest.mark.parametrize("part", OPTIONAL)
@pytest.mark.parametrize("way", ["null", "missing", "empty"])
def test_any_optional_part_may_be_absent(tmp_path: Path, part: str, way: str) -> None:
    found = results()
    if way == "missing":
        del found[part]
    else:
        found[part] = None if way == "null" else type(found[part])()
    assert sections(report_of(tmp_path, found, [])) == SECTIONS


def test_all_optional_parts_may_be_absent(tmp_path: Path) -> None:
    found = {key: value for key, value in results().items() if key not in OPTIONAL}
    page = report_of(tmp_path, found, [])
    assert sections(page) == SECTIONS
    assert page.count("Not measured in this run.") == 10


def test_numbers_that_are_none_do_not_break_plots(tmp_path: Path) -> None:
    found = copy.deepcopy(results())
    found["per_tag"][0]["f1"] = None
    found["per_tag"][1]["f1"] = float("nan")
    found["curves"]["system"][0]["precision"] = None
    found["calibration"]["bins"][0] |= {"mean_score": None, "right": None, "count": 0}
    found["model"] |= {"added": None, "f1_kept": None}
    found["cost"]["model_seconds"] = None
    page = report_of(tmp_path, found, [])
    assert "nan" not in " ".join(node.html or "" for node in HTMLParser(page).css("svg")).lower()


def test_leaks_are_told_at_the_top(tmp_path: Path) -> None:
    found = {**results(), "leaks": {"compared": 1200, "found": 3}}
    [warning] = HTMLParser(report_of(tmp_path, found, [])).css("header .warning")
    assert "3 test products" in warning.text()


def test_examples_mark_each_tag(tmp_path: Path) -> None:
    page = HTMLParser(report_of(tmp_path, results(), [sample(0)]))
    [product] = page.css(".product")
    chips = {node.text(): node.attributes["class"] for node in product.css(".chip")}
    assert chips == {
        "✓Material=cotton": "chip right",
        "✓Material=leather": "chip right",
        "+Fit=slim": "chip wrong",
        "?防水": "chip unjudged",
        "−Color=black": "chip missed",
        "−Color=white": "chip missed",
    }
    assert "linear +3.2 · vote +1.4 · literal +0.9 · name lexical −0.6" in product.text()


def test_examples_show_the_score_of_each_tag(tmp_path: Path) -> None:
    """In the form in which an evaluation writes its samples: by system."""
    page = HTMLParser(report_of(tmp_path, results(), [sample(0)]))
    rows = page.css(".evidence tbody tr")
    shown = {row.css(".chip")[0].text(): row.css(".num")[0].text() for row in rows}
    assert shown["✓Material=cotton"] == shown["+Fit=slim"] == "0.81"
    assert shown["−Color=black"] == "–"


def test_each_signal_on_the_page_is_explained(tmp_path: Path) -> None:
    page = HTMLParser(report_of(tmp_path, results(), [sample(0)]))
    terms = [node.text() for node in page.css(".terms dt")]
    assert {"bias", "linear", "vote", "name lexical", "prior", "literal"} <= set(terms)
    assert all(node.text().strip() for node in page.css(".terms dd"))


def test_the_glossary_knows_every_signal() -> None:
    assert {*WARM.of, *COLD.of, "bias", "tag", "bend"} == set(SIGNALS)


def test_one_group_has_a_figure_without_an_interval(tmp_path: Path) -> None:
    found = results()
    found["slices"]["category"][0]["micro_f1"] = {"value": 0.4321, "low": None, "high": None}
    assert Interval.of({"value": 0.5, "low": None, "high": None}) == Interval(0.5, 0.5, 0.5)
    assert "43.2" in report_of(tmp_path, found, [])


def test_what_is_not_known_is_a_dash(tmp_path: Path) -> None:
    """No range of few products, no precision of a tag that was never kept."""
    found = results()
    found["system"]["micro_f1"] = {"value": 1.0, "low": None, "high": None}
    found["model"]["added"] = {"value": 0.25, "low": None, "high": None}
    found["per_tag"][0] |= {"kept": 0, "right": 0, "precision": None, "recall": 0.0}
    tree = HTMLParser(report_of(tmp_path, found, []))
    shown = tree.css_first("#headline tr.ours td.est")
    assert shown is not None
    assert shown.text(separator=" ").split() == ["100.0", "–"]
    added = tree.css_first("#model td.est")
    assert added is not None
    assert added.text(separator=" ").split() == ["+25.0", "–"]
    tag = tree.css_first("#tags tbody tr")
    assert tag is not None
    assert [cell.text() for cell in tag.css("td")][1:5] == ["0", "0", "–", "0.0"]
    headline = tree.css_first("#headline")
    assert headline is not None
    assert "A dash in place of a range" in headline.text()


def test_worst_first_and_no_flawless_ones() -> None:
    flawless = {**sample(0), "kept": {"system": sample(0)["gold"]}}
    bad = {**sample(1), "kept": {"system": TAGS[20:26]}, "unjudged": []}
    assert [each["id"] for each in worst([flawless, sample(2), bad], 5)] == ["p-1", "p-2"]
    assert len(worst([sample(i) for i in range(25)], 20)) == 20


def test_tags_that_nobody_judged_are_no_errors() -> None:
    each = {"gold": ["a", "b"], "unjudged": ["d"], "kept": {"system": ["a", "c", "d"]}}
    found = {"a": "right", "c": "wrong", "d": "unjudged", "b": "missed"}
    assert outcomes(each, "system") == found
    assert outcomes(each, "lookup") == {"a": "missed", "b": "missed"}


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (percent(0.7434), "74.3"),
        (percent(None), "–"),
        (percent(float("nan")), "–"),
        (points(-0.0123), "−1.2"),
        (points(0.02), "+2.0"),
        (points(-0.0001), "+0.0"),
        (number(12345), "12\u202f345"),
        (number(0.5, 2), "0.50"),
        (chance(0.0001), "<0.001"),
        (chance(0.04), "0.040"),
        (kept(0.9714), "97.1%"),
        (kept(1.001), "all of it"),
        (kept(None), "–"),
        (plain(None), "–"),
        (plain(["a", 1]), "a, 1"),
    ],
)
def test_numbers_as_text(shown: str, text: str) -> None:
    assert shown == text


def test_a_promise_that_keeps_nothing_has_no_figures(tmp_path: Path) -> None:
    nothing = {"precision": 0.98, "threshold": None, "kept": 0, "right": 0, "share": 0.0}
    nothing |= {"seen": 0.0, "wilson_low": 0.0}
    page = HTMLParser(report_of(tmp_path, {**results(), "promises": [nothing]}, [sample(0)]))
    (row,) = page.css("#promises tbody tr")
    assert row.text(separator=" ", strip=True) == (
        "98 No score is this reliable: all tags go to review."
    )


def test_a_run_without_the_model_shows_no_costs_of_the_model(tmp_path: Path) -> None:
    spent = {"prompt_tokens": 0.0, "completion_tokens": 0.0, "model_seconds": 0.0}
    cost = {**spent, "own_seconds": 0.04}
    text = HTMLParser(report_of(tmp_path, {**results(), "cost": cost}, [sample(0)])).text()
    assert "Tokens read" not in text
    assert "This run did not ask the model." in text
    assert "Seconds without the model, each product tagged0.040" in text


def test_the_header_names_the_data_set_once_and_the_day(tmp_path: Path) -> None:
    found = results()
    found["run"] |= {"title": "shop_en", "dataset": "shop_en", "name": "shop_en warm"}
    found["run"]["date"] = "2026-11-30T19:24:02+00:00"
    page = HTMLParser(report_of(tmp_path, found, [sample(0)]))
    (header,) = page.css("header")
    assert header.text().count("shop_en") == 1
    assert "2026-11-30" in header.text()
    assert "19:24" not in header.text()


# The comparison


def test_comparison_has_all_sections(tmp_path: Path) -> None:
    page = comparison_of(tmp_path, comparison())
    assert sections(page) == {"headline", "tags", "won", "lost", "cost", "provenance"}
    text = HTMLParser(page).text()
    assert "more neighbours is better: F1 +2.0 points (95% interval +0.9 to +3.1)." in text
    assert "The two runs used different seeds." in text


def test_comparison_without_a_difference_says_so(tmp_path: Path) -> None:
    found = {**comparison(), "micro_f1": between(0.8, 0.801, UNCLEAR)}
    text = HTMLParser(comparison_of(tmp_path, found)).text()
    assert "Too close to call: from default to more neighbours F1 changes by +0.1 points" in text


def test_colours_follow_the_verdicts(tmp_path: Path) -> None:
    dots = HTMLParser(comparison_of(tmp_path, comparison())).css("#tags .dot")
    styles = [(dot.attributes["class"] or "").split()[-1] for dot in dots]
    assert styles == [*["for", "against"] * 3, *["open"] * 24]


@pytest.mark.parametrize("part", ["per_tag", "won", "lost", "cost", "warnings"])
def test_empty_parts_of_a_comparison(tmp_path: Path, part: str) -> None:
    found = comparison()
    found[part] = type(found[part])()
    assert len(sections(comparison_of(tmp_path, found))) == 6


# Plots


@pytest.mark.parametrize(
    "svg",
    [
        plots.dots([], "nothing"),
        plots.dots([Row("same", Interval(5, 5, 5), "5")], "one value"),
        plots.bars(
            [Row("b", Interval(-2, -3, -1), "−2"), Row("c", Interval(1, 1, 1), "1")], "signs"
        ),
        plots.bars([Row("over", Interval(140, 90, 200), "140")], "too long", 100),
        plots.curves([Line("none", (), "s0")], "no points", "x", "y"),
        plots.curves(
            [Line("wild", ((float("nan"), 1), (-9, 400)), "s0", (1e9, -1))], "t", "x", "y"
        ),
        plots.scatter(
            [Point("a", 0, Interval(0, 0, 0)), Point("b", 9, Interval(1, 0, 2))], "t", "", ""
        ),
        plots.scatter([Point(str(i), 0.1, Interval(50, 49, 51)) for i in range(4)], "t", "x", "y"),
        plots.reliability([], "no bins"),
    ],
)
def test_odd_numbers_stay_in_the_frame(svg: str) -> None:
    assert_inside(svg)


def test_bars_are_where_their_values_are() -> None:
    rows = [Row("half", Interval(50, 50, 50), "50"), Row("full", Interval(100, 100, 100), "100")]
    half, full = HTMLParser(plots.bars(rows, "t", 100)).css("rect")
    assert float(full.attributes["width"] or 0) == 2 * float(half.attributes["width"] or 0)
    assert half.attributes["x"] == full.attributes["x"]


def test_scale_and_its_ticks() -> None:
    scale = Scale(0, 10, 100, 200)
    assert [scale.at(value) for value in (-5, 0, 5, 10, 99)] == [100, 100, 150, 200, 200]
    assert scale.ticks() == [0, 2, 4, 6, 8, 10]
    assert Scale(73.1, 81.9, 0, 1).ticks() == [74, 76, 78, 80]


@pytest.mark.parametrize(
    ("text", "shown"), [("short", "short"), ("纯棉纯棉", "纯棉…"), ("a long label", "a lon…")]
)
def test_labels_are_cut_to_their_room(text: str, shown: str) -> None:
    assert plots.fit(text, 47) == shown


def test_svg_text_and_attributes_are_escaped() -> None:
    assert plots.element("text", SCRIPT, class_='"') == (
        '<text class="&#34;">&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;</text>'
    )


@pytest.mark.parametrize(("count", "text"), [(940, "940"), (1234, "1.2k"), (34_000, "34k")])
def test_counts_are_short(count: int, text: str) -> None:
    assert plots.compact(count) == text
