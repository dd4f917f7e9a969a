"""Writes what an evaluation measured as one HTML page that needs no network and no script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from llmtagger.evaluation import plots
from llmtagger.evaluation.glossary import SIGNALS
from llmtagger.evaluation.interval import Interval, finite, points
from llmtagger.evaluation.metrics import LEAST_GROUPS
from llmtagger.evaluation.plots import Line, Point, Row
from llmtagger.evaluation.verdicts import in_english, sentences

# In the order of all tables and legends; the place is the number of the colour.
SYSTEMS = {
    "system": "llmtagger",
    "knn_vote": "Neighbour vote",
    "tfidf_linear": "TF-IDF + linear",
    "embedding_linear": "Embedding + linear",
    "lookup": "Name look-up",
    "llm_only": "Model alone",
}
METRICS = {
    "micro_f1": "Micro F1",
    "micro_precision": "Precision",
    "micro_recall": "Recall",
}
SLICES = {
    "language": "Language",
    "category": "Category",
    "text_length": "Length of the text, characters",
    "tag_frequency": "Training products with the tag",
}
# What a run may not have measured.
_OPTIONAL = (
    *("llm_only", "best_baseline", "model", "candidate_recall", "ancestor_micro_f1", "per_tag"),
    *("slices", "calibration", "promises", "curves", "confusions", "weights", "cost", "seconds"),
    *("leaks", "config", "fingerprints"),
)
_SHOWN_TAGS = 30  # in plots of tags
_SHOWN_SAMPLES = 20
_SHOWN_PARTS = 4  # contributions shown of one score
OUTCOMES = {"right": "✓", "wrong": "+", "missed": "−", "unjudged": "?"}

JSON = Mapping[str, Any]


def write_report(results: JSON, samples: Sequence[JSON], path: Path) -> None:
    """The report of one run: `results` as in results.json, `samples` as in samples.jsonl."""
    results = {**dict.fromkeys(_OPTIONAL), **results}
    systems = [_system(key, results) for key in SYSTEMS if results.get(key)]
    tags = sorted(results.get("per_tag") or [], key=lambda each: -each["support"])
    context = {
        "results": results,
        "run": results["run"],
        "systems": systems,
        "verdict": _verdict(results.get("best_baseline")),
        "headline_plot": _headline_plot(systems),
        "curves_plot": _curves_plot(results),
        "reliability_plot": _reliability_plot(results.get("calibration")),
        "tags": tags,
        "tag_plots": _tag_plots(tags[:_SHOWN_TAGS]),
        "cost_plot": _cost_plot(results),
        "slices": _slices(results.get("slices") or {}),
        "weight_plots": _weight_plots(results.get("weights") or {}),
        "glossary": _glossary(results.get("weights") or {}, samples),
        "samples": [_sample(each) for each in worst(samples, _SHOWN_SAMPLES)],
        "config": list(flatten(results.get("config") or {})),
    }
    write_page("report.html.jinja", context, path)


def write_comparison(comparison: JSON, path: Path) -> None:
    """The report of two runs on the same products: which is better, where, and by how much."""
    names = {side: comparison[side]["name"] for side in ("a", "b")}
    tags = sorted(comparison.get("per_tag") or [], key=_size_of_change)
    context = {
        "comparison": comparison,
        "names": names,
        "verdict": in_english(sentences(comparison, names["a"], names["b"])),
        "metrics": {key: name for key, name in METRICS.items() if comparison.get(key)},
        "difference_plot": _difference_plot(comparison),
        "tags": tags,
        "tag_plots": _change_plots([_change_row(each) for each in tags[:_SHOWN_TAGS]]),
        "changed": {
            "won": [_pair(each) for each in comparison.get("won") or []],
            "lost": [_pair(each) for each in comparison.get("lost") or []],
        },
        "runs": _settings_of_both(comparison),
        "costs": _both(comparison.get("cost")),
    }
    write_page("comparison.html.jinja", context, path)


def name_of(key: str) -> str:
    """How a system is called on the page."""
    return SYSTEMS.get(key, key)


def errors_of(sample: JSON) -> int:
    """How many of the system's tags are wrong or missed; tags that nobody judged do not count."""
    return sum(outcome in ("wrong", "missed") for outcome in outcomes(sample, "system").values())


def outcomes(sample: JSON, system: str) -> dict[str, str]:
    """Each tag that is kept or true, and whether it is right, wrong, missed or unjudged."""
    return _outcomes(sample["gold"], sample["kept"].get(system) or [], sample.get("unjudged") or [])


def worst(samples: Sequence[JSON], count: int) -> list[JSON]:
    """The samples with the most errors; samples without errors are left out."""
    faulty = [each for each in samples if errors_of(each)]
    return sorted(faulty, key=lambda each: (-errors_of(each), str(each["id"])))[:count]


def flatten(config: JSON, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as `retrieval.neighbours` and its value."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def percent(value: object, digits: int = 1) -> str:
    """A share as a percentage without its sign: 0.743 is 74.3."""
    return f"{float(value) * 100:.{digits}f}" if finite(value) else "–"


def kept(value: object) -> str:
    """A share of a figure that was kept, in words where nothing was lost: 1.001 is all of it."""
    if finite(value) and value >= 0.9995:
        return "all of it"
    return f"{percent(value)}%" if finite(value) else "–"


def number(value: object, digits: int = 0) -> str:
    """A count or a measurement with thin groups of thousands."""
    return f"{float(value):,.{digits}f}".replace(",", "\u202f") if finite(value) else "–"


def chance(value: object) -> str:
    """A p-value; a very small one is only said to be so."""
    return "<0.001" if finite(value) and value < 0.0005 else number(value, 3)


def plain(value: object) -> str:
    """A setting as text; a null is a dash."""
    if isinstance(value, list | tuple):
        return ", ".join(plain(each) for each in value)
    return "–" if value is None or value == "" else str(value)


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def write_page(template: str, context: JSON, path: Path) -> None:
    """Renders one of this package's pages; broken characters become question marks."""
    path.write_bytes(page_of(template, context))


def page_of(template: str, context: JSON) -> bytes:
    """The same, as it would be written."""
    return _environment().get_template(template).render(context).encode("utf-8", "replace")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "points": points,
        "number": number,
        "chance": chance,
        "plain": plain,
        "kept": kept,
        "system": name_of,
        "interval": Interval.of,
        "has_ends": _has_ends,
    }
    environment.globals |= {"METRICS": METRICS, "MARKS": OUTCOMES, "LEAST_GROUPS": LEAST_GROUPS}
    return environment


def _source(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _style(key: str) -> str:
    return f"s{list(SYSTEMS).index(key)}" if key in SYSTEMS else "s0"


def _system(key: str, results: JSON) -> dict[str, Any]:
    best = (results.get("best_baseline") or {}).get("name")
    name = name_of(key)
    return {
        "extractgpt": None,
        **results[key],
        "key": key,
        "name": name,
        "style": _style(key),
        "best": key == best,
    }


def _verdict(best: JSON | None) -> str | None:
    """The headline in words; an interval that holds zero shows no difference."""
    difference = Interval.of(best["difference"]) if best else None
    if best is None or difference is None:
        return None
    baseline = f"the best baseline, {name_of(best['name'])}"
    if not _has_ends(best["difference"]):
        return (
            f"Too few products for a verdict: F1 {points(difference.value)} points against "
            f"{baseline}. At least {LEAST_GROUPS} different products are needed."
        )
    value, low, high = map(points, (difference.value, difference.low, difference.high))
    interval = f"(95% interval {low} to {high})"
    if difference.low > 0:
        return f"Better than {baseline}: F1 {value} points {interval}."
    if difference.high < 0:
        return f"Worse than {baseline}: F1 {value} points {interval}."
    return f"Too close to call: F1 {value} points against {baseline} {interval}."


def _has_ends(raw: object) -> bool:
    """Whether a figure was measured on enough products for an interval."""
    return isinstance(raw, Mapping) and finite(raw["low"])


def _headline_plot(systems: Sequence[JSON]) -> Markup | None:
    rows = [
        Row(each["name"], value, f"{value.value:.1f}", each["style"])
        for each in systems
        if (value := Interval.of(each["micro_f1"], 100))
    ]
    return plots.dots(rows, "Micro F1 in percent, with 95% intervals") if rows else None


def _curves_plot(results: JSON) -> Markup | None:
    measured = results.get("curves") or {}
    lines = [_line(key, results, measured.get(key) or []) for key in SYSTEMS if results.get(key)]
    if not any(line.points for line in lines):
        return None
    return plots.curves(lines, "Precision against recall", "recall, %", "precision, %")


def _line(key: str, results: JSON, curve: Sequence[JSON]) -> Line:
    """A system's curve; the dot is where its threshold puts it."""
    recall = Interval.of(results[key]["micro_recall"], 100)
    precision = Interval.of(results[key]["micro_precision"], 100)
    marked = (recall.value, precision.value) if recall and precision else None
    known = [p for p in curve if finite(p["recall"]) and finite(p["precision"])]
    places = tuple((100 * p["recall"], 100 * p["precision"]) for p in known)
    return Line(name_of(key), places, _style(key), marked)


def _reliability_plot(calibration: JSON | None) -> Markup | None:
    bins = (calibration or {}).get("bins") or []
    return plots.reliability(bins, "Share of right tags for each score") if bins else None


def _tag_plots(tags: Sequence[JSON]) -> list[Markup]:
    rows = [
        Row(each["tag"], value, f"{value.value:.0f}")
        for each in tags
        if (value := Interval.of(each["f1"], 100))
    ]
    return _halves(rows, lambda half, title: plots.bars(half, f"F1 {title}", 100))


def _halves(rows: Sequence[Row], draw: Any) -> list[Markup]:
    """Two plots beside each other; one if there are few rows."""
    middle = len(rows) if len(rows) < 8 else (len(rows) + 1) // 2
    return [draw(half, "by tag, in percent") for half in (rows[:middle], rows[middle:]) if half]


def _cost_plot(results: JSON) -> Markup | None:
    """Seconds a product against micro F1: without the model, as run, and the model alone."""
    cost, model = results.get("cost"), results.get("model")
    found = list(_costs(results, cost, model)) if cost and model else []
    if len(found) < 2:
        return None
    return plots.scatter(found, "Cost against quality", "seconds a product", "micro F1, %")


def _costs(results: JSON, cost: JSON, model: JSON) -> Iterator[Point]:
    """What is known of cost; without the model only if its share was measured on all products."""
    own, asked, share = cost["own_seconds"], cost["model_seconds"], model["share_asked"]
    if not all(finite(each) for each in (own, asked, share)):
        return
    system = Interval.of(results["system"]["micro_f1"], 100)
    added = Interval.of(model.get("added"), 100)
    alone = Interval.of((results.get("llm_only") or {}).get("micro_f1"), 100)
    if system and added and model["products"] == results["system"]["products"]:
        without = system.value - added.value
        yield Point("without the model", own, Interval(without, without, without), "open")
    if system:
        yield Point(f"as run, {percent(share, 0)}% asked", own + share * asked, system)
    if alone:
        yield Point(name_of("llm_only").lower(), asked, alone, _style("llm_only"))


def _slices(slices: JSON) -> list[dict[str, Any]]:
    """A plot of products by slice, or a table where the slices are of tags."""
    return [
        {"title": title, "rows": rows, "plot": _slice_plot(rows, title)}
        for key, title in SLICES.items()
        if (rows := slices.get(key))
    ]


def _slice_plot(rows: Sequence[JSON], title: str) -> Markup | None:
    marks = [
        Row(str(each["slice"]), value, f"{value.value:.1f}", count=number(each["products"]))
        for each in rows
        if (value := Interval.of(each.get("micro_f1"), 100))
    ]
    return plots.bars(marks, f"Micro F1 by {title.lower()}, in percent", 100) if marks else None


def _weight_plots(weights: Mapping[str, Mapping[str, float]]) -> dict[str, Markup]:
    """For each set of weights its signed bars, the strongest first."""
    return {
        name: plots.bars([_weight(*each) for each in _strongest(of)], f"Weights, {name}")
        for name, of in weights.items()
    }


def _strongest(parts: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(parts.items(), key=lambda each: -abs(each[1]))


def _weight(signal: str, value: float) -> Row:
    style = "for" if value > 0 else "against"
    return Row(signal.replace("_", " "), Interval(value, value, value), _signed(value, 1), style)


def _glossary(
    weights: Mapping[str, Mapping[str, float]], samples: Sequence[JSON]
) -> dict[str, str]:
    """A sentence for each signal that the page names, in the glossary's order."""
    shown = {name for of in weights.values() for name in of}
    for sample in samples:
        for parts in (sample.get("contributions") or {}).values():
            shown.update(parts)
    return {name.replace("_", " "): said for name, said in SIGNALS.items() if name in shown}


def _sample(sample: JSON) -> dict[str, Any]:
    """A product with its judged tags, and why each has its score."""
    scores = (sample.get("scores") or {}).get("system") or {}
    parts = sample.get("contributions") or {}
    judged = sorted(
        outcomes(sample, "system").items(), key=lambda each: list(OUTCOMES).index(each[1])
    )
    rows = [
        {"tag": tag, "outcome": what, "score": scores.get(tag), "why": _why(parts.get(tag) or {})}
        for tag, what in judged
    ]
    return {**sample, "rows": rows, "errors": errors_of(sample)}


def _why(parts: Mapping[str, float]) -> str:
    """The strongest contributions: `linear +3.2 · vote +0.8`."""
    strong = [(name, value) for name, value in _strongest(parts) if abs(value) >= 0.05]
    return " · ".join(
        f"{name.replace('_', ' ')} {_signed(value, 1)}" for name, value in strong[:_SHOWN_PARTS]
    )


def _outcomes(
    gold: Sequence[str], kept: Sequence[str], unjudged: Sequence[str] = ()
) -> dict[str, str]:
    true, open_ = set(gold), set(unjudged)
    found = {
        tag: "right" if tag in true else "unjudged" if tag in open_ else "wrong" for tag in kept
    }
    return found | {tag: "missed" for tag in gold if tag not in found}


def _pair(product: JSON) -> dict[str, Any]:
    sides = {side: _outcomes(product["gold"], product[side]) for side in ("a", "b")}
    return {**product, "sides": sides}


def _size_of_change(tag: JSON) -> tuple[float, str]:
    difference = Interval.of(tag["difference"])
    return (-abs(difference.value) if difference else 0.0, tag["tag"])


def _change_row(tag: JSON) -> Row:
    difference = Interval.of(tag["difference"], 100) or Interval(0.0, 0.0, 0.0)
    return Row(tag["tag"], difference, _signed(difference.value, 1), _direction(tag["verdict"]))


def _change_plots(rows: Sequence[Row]) -> list[Markup]:
    return _halves(rows, lambda half, title: plots.dots(half, f"Change {title}", rows))


def _direction(verdict: str) -> str:
    """The colour of a difference, by its verdict."""
    return {"b is better": "for", "a is better": "against"}.get(verdict, "open")


def _difference_plot(comparison: JSON) -> Markup:
    rows = [
        Row(name, value, _signed(value.value, 1), _direction(comparison[key]["verdict"]))
        for key, name in METRICS.items()
        if comparison.get(key) and (value := Interval.of(comparison[key]["difference"], 100))
    ]
    return plots.dots(rows, "Difference in points, with 95% intervals")


def _both(pair: JSON | None) -> list[tuple[str, Any, Any]]:
    """Two flat records beside each other, key by key."""
    a, b = ((pair or {}).get(side) or {} for side in ("a", "b"))
    return [(key, a.get(key), b.get(key)) for key in dict.fromkeys([*a, *b])]


def _settings_of_both(comparison: JSON) -> list[tuple[str, Any, Any]]:
    return _both({side: dict(flatten(comparison[side].get("run") or {})) for side in ("a", "b")})
