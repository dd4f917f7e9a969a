"""Runs every evaluation of eval/runs and rewrites the table of eval/README.md.

    python tools/evaluate.py [--larger FOLDER] [--only NAME]...

The data root comes from LLMTAGGER_GOLD. `--larger` names a stronger model's folder; two sets are
then also run with it. Answers are kept between runs, so that a second run asks no model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RUNS, RESULTS, PAGE = ROOT / "eval" / "runs", ROOT / "eval" / "results", ROOT / "eval" / "README.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
SETS = (
    *("shopify_store_freetags_en", "wdc_pave_norm_en", "flipkart_cat_en"),
    *("oa_mine_en", "openbg_zh", "zh_ecommerce_ner"),
)
LARGER = ("openbg_zh", "flipkart_cat_en")
BASELINES = ("knn_vote", "tfidf_linear", "embedding_linear", "lookup", "llm_only")

Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--larger", type=Path)
    parser.add_argument("--only", action="append")
    chosen = parser.parse_args()
    wanted = [f"{name}{regime}" for regime in ("", ".cold50", ".cold0") for name in SETS]
    wanted.append("ae110k_en")
    for name in wanted:
        if chosen.only is None or name in chosen.only:
            run(RUNS / f"{name}.toml", RESULTS / name)
    if chosen.larger:
        for name in LARGER:
            source = RUNS / "larger" / f"{name}.toml"
            run(source, RESULTS / f"{name}.larger", "--model", str(chosen.larger))
    write()


def write() -> None:
    """Put the tables into the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{tables()}\n{END}{after}", encoding="utf-8")


def run(source: Path, folder: Path, *options: str) -> None:
    """One evaluation, as a user would run it."""
    sys.stderr.write(f"\n=== {folder.name}\n")
    command = [str(Path(sys.executable).parent / "llmtagger"), "eval", "run"]
    if "LLMTAGGER_GOLD" not in os.environ:
        raise SystemExit("set LLMTAGGER_GOLD to the folder that holds the gold sets' texts")
    subprocess.run([*command, str(source), "-o", str(folder), *options], check=True)


def tables() -> str:
    """Every table, from the results that there are."""
    parts = [f"Written {datetime.now(UTC):%Y-%m-%d} by `make eval`."]
    for title, suffix in (
        ("Warm: the whole train side is labelled", ""),
        ("Cold: 50 labelled products and the vocabulary", ".cold50"),
        ("Cold: nothing labelled, the vocabulary alone", ".cold0"),
        ("Warm, with the larger model", ".larger"),
    ):
        found = [r for name in SETS if (r := read(RESULTS / f"{name}{suffix}"))]
        if found:
            parts += [f"### {title}", headline(found), details(found)]
    return "\n\n".join(parts)


def read(folder: Path) -> Record | None:
    path = folder / "results.json"
    found: Record | None = json.loads(path.read_text("utf-8")) if path.is_file() else None
    return found


def headline(found: list[Record]) -> str:
    lines = [
        "| set | test | system | best baseline | difference | "
        + " | ".join(BASELINES).replace("_", " ")
        + " |",
        "|---|---|---|---|---|" + "---|" * len(BASELINES),
    ]
    for each in found:
        best = each["best_baseline"]
        cells = [
            each["run"]["dataset"],
            str(each["products"]["test"]),
            interval(each["system"]["micro_f1"]),
            best["name"].replace("_", " "),
            points(best["difference"]),
            *(figure(each[name]) for name in BASELINES),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def details(found: list[Record]) -> str:
    lines = [
        "| set | model adds | asked by auto | calibration error | kept at .95 | right of these "
        "(Wilson) | candidate recall | seconds | commit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in found:
        promise = next((p for p in each["promises"] if p["precision"] == 0.95), None)
        model = each["model"]
        cells = [
            each["run"]["dataset"],
            f"{points(model['added'])} on {model['products']}" if model else "not asked",
            f"{model['share_asked']:.0%}" if model else "–",
            f"{each['calibration']['ece']:.3f}",
            f"{promise['share']:.0%} of gold" if promise and promise["kept"] else "nothing",
            f"{promise['right']}/{promise['kept']} = {promise['seen']:.3f} "
            f"({promise['wilson_low']:.3f})"
            if promise and promise["kept"]
            else "–",
            f"{each['candidate_recall']['all']:.3f}",
            f"{each['seconds']['total']:.0f}",
            each["run"]["commit"],
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def figure(system: Record | None) -> str:
    return f"{system['micro_f1']['value']:.3f}" if system else "–"


def interval(value: Record) -> str:
    return f"**{value['value']:.3f}** [{value['low']:.3f}, {value['high']:.3f}]"


def points(value: Record) -> str:
    low, high = (f"{100 * value[end]:+.1f}" for end in ("low", "high"))
    return f"{100 * value['value']:+.1f} [{low}, {high}]"


if __name__ == "__main__":
    main()
