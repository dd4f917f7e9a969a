"""Whether one adapter, tuned once on data that may be shipped, serves catalogues it never saw.

    python benchmarks/general_adapter.py FOLDER SET... [--each 300] [--products 80] [--epochs 1]

The model learns to choose among offered tags from the example catalogue, Debtags and OA-Mine (its
values as plain tags); FOLDER keeps indexes and adapter, so that a second run trains nothing. For
each SET of eval/results, cold with 0 and with 50 labelled products, it is asked about labelled
products of the whole set: the system without a model, with the untuned one (prompt `tag.v1`), and
with the tuned one (`tag.v2`). Prints F1 of what is kept and of what the model alone says, and the
paired differences of tuned to untuned, and to no model, with their intervals. With `--ship`, the
adapter is first made smaller (its best rank-8 approximation, in bfloat16), and written to the
package with a record; the figures are then those of what is shipped.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import os
import random
import sys
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from simulation import points

from llmtagger import adapters
from llmtagger.adapters import Adapter, Tuned
from llmtagger.backends.encoders import load_encoder
from llmtagger.backends.folders import cache_dir
from llmtagger.backends.index_folder import CatalogueIndex, open_index
from llmtagger.backends.index_writer import build
from llmtagger.backends.models import resolve_model
from llmtagger.catalog import read_catalog
from llmtagger.config import Settings
from llmtagger.datatypes import Product
from llmtagger.evaluation.answers import kept_answers
from llmtagger.evaluation.remembering import known_index
from llmtagger.evaluation.trials import Bench, Cell, compare
from llmtagger.hashing import sha256
from llmtagger.recipe import Recipe
from llmtagger.templates import find_template
from llmtagger.tuning.examples import Example, make_examples
from llmtagger.tuning.training import Trainer
from llmtagger.vocabulary import split_key

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("LLMTAGGER_GOLD", ROOT))
SOURCES = {
    "examples": ROOT / "examples" / "catalogue.jsonl",
    "debtags": DATA / "registry" / "debtags_en_zh.jsonl",
    "oa_mine": DATA / "examples" / "oa_mine_en.jsonl",
}
BASE = "smollm2-135m"
LONGEST = 640  # tokens of an example
TUNED, PLAIN = find_template("tag.v2"), find_template("tag.v1")


def show(stage: str, done: int, total: int) -> None:
    if done == total and total:
        sys.stderr.write(f"  {stage} {done}\n")


def plain(product: Product) -> Product:
    """With the values of `key=value` tags as tags, so that they can be chosen from a list."""
    names = (split_key(tag)[1] if "=" in tag else tag for tag in product.tags or ())
    return replace(product, tags=tuple(dict.fromkeys(names)))


def examples(folder: Path, each: int) -> tuple[list[Example], list[Example]]:
    """What is learnt from all sources, and what the training is watched by."""
    learnt: list[Example] = []
    watch: list[Example] = []
    for name, path in SOURCES.items():
        index = folder / name
        if not index.exists():
            rows = read_catalog(str(path), rejected=lambda row: None)
            build([plain(product) for product in rows], index, load_encoder("multilingual"))
        made = make_examples(
            known_index(open_index(index)), TUNED, Settings(), limit=each, progress=show
        )
        sys.stderr.write(f"  {name}: {made.counts()}\n")
        learnt += made.train
        watch += made.watch
    random.Random(0).shuffle(watch)
    return learnt, watch


def adapter(folder: Path, each: int, epochs: int) -> Tuned:
    """The adapter in `folder`, trained if it is not there."""
    made = folder / "adapter"
    if not (made / "done.json").exists():
        learnt, watch = examples(folder, each)
        base = resolve_model(BASE).folder
        assert base is not None
        made.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(base, made, Recipe(epochs=epochs, longest=LONGEST))

        def step(at: object) -> None:
            sys.stderr.write(f"\r  {at}"[:150])

        losses, seconds = trainer.train(learnt, watch, step)
        record = {
            "epochs": epochs,
            "examples": len(learnt),
            "seconds": seconds,
            "held_out": losses.held_out,
        }
        (made / "done.json").write_text(json.dumps(record))
        del trainer
        gc.collect()
    return Tuned("general", made, sha256(made / adapters.WEIGHTS))


def shipped(tuned: Tuned, rank: int = 8) -> Tuned:
    """The adapter as it comes with llmtagger: of each layer's change the largest directions."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(tuned.folder / adapters.WEIGHTS)
    small = {}
    for name in (each.removesuffix(".lora_A.weight") for each in tensors if "lora_A" in each):
        a, b = (tensors[f"{name}.lora_{side}.weight"].float() for side in "AB")
        left, strength, right = torch.linalg.svd(b @ a, full_matrices=False)
        root = strength[:rank].sqrt()
        half = torch.bfloat16
        small[f"{name}.lora_A.weight"] = (root[:, None] * right[:rank]).to(half).contiguous()
        small[f"{name}.lora_B.weight"] = (left[:, :rank] * root).to(half).contiguous()
    config = json.loads((tuned.folder / adapters.CONFIG).read_text("utf-8"))
    scale = config["lora_alpha"] / config["r"]
    config |= {"r": rank, "lora_alpha": int(scale * rank), "base_model_name_or_path": BASE}
    config["target_modules"].sort()
    folder = adapters.folder_of(Path(), adapters.GENERAL)
    folder.mkdir(exist_ok=True)
    save_file(small, folder / adapters.WEIGHTS, metadata={"format": "pt"})
    (folder / adapters.WEIGHTS).chmod(0o644)
    (folder / adapters.CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    made = json.loads((tuned.folder / "done.json").read_text("utf-8"))
    base = resolve_model(BASE)
    record = Adapter(
        name=adapters.GENERAL,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        source=BASE,
        base=base.name,
        base_fingerprint=base.fingerprint,
        prompt=TUNED.name,
        template=TUNED.identity,
        vocabulary="",
        index="",
        settings=Settings().fingerprint,
        recipe=Recipe(epochs=made["epochs"], longest=LONGEST),
        versions={name: importlib.metadata.version(name) for name in ("torch", "peft")},
        counts={"train": made["examples"]},
        learnt=(),
        held_out=(),
        weights=sha256(folder / adapters.WEIGHTS),
        config=sha256(folder / adapters.CONFIG),
        seconds=made["seconds"],
        losses={"held_out": made["held_out"]},
    )
    adapters.write_adapter(Path(), record)
    return Tuned(adapters.GENERAL, folder, record.weights)


def unseen(whole: CatalogueIndex, cold: CatalogueIndex, count: int) -> list[Product]:
    """Labelled products of the whole set that the cold index has no labels of."""
    found = [whole.product(row) for row in whole.labelled.nonzero()[0].tolist()]
    known = {cold.product(row).id for row in cold.labelled.nonzero()[0].tolist()}
    return random.Random(1).sample([each for each in found if each.id not in known], count)


def measure(name: str, labels: int, tuned: Tuned, count: int) -> str:
    """One row of the table."""
    results = ROOT / "eval" / "results"
    cold = known_index(open_index(results / f"{name}.cold{labels}" / "index"))
    products = unseen(open_index(results / name / "index"), cold, count)
    settings, cache = Settings(), cache_dir() / "evaluation"
    bench = Bench(cold, settings)

    def asked(template: str, adapter: Tuned | None) -> list[Cell]:
        with kept_answers(BASE, (), settings.engine, cache, lambda m, s: None, adapter) as answers:
            return ordered(bench.cells(find_template(template), products, answers))

    def ordered(cells: Iterable[Cell]) -> list[Cell]:
        by_id = {cell.product.id: cell for cell in cells}
        return [by_id[product.id] for product in products]

    without = ordered(bench.cells(PLAIN, products, None))
    untuned, with_it = asked("tag.v1", None), asked("tag.v2", tuned)
    both, added = compare(untuned, with_it), compare(without, with_it)
    figure = [both[side]["micro_f1"] for side in ("model", "system")]
    cells = [
        f"{name}, {labels} labels",
        *(f"{each[which]['value']:.3f}" for each in figure[:1] for which in ("a", "b")),
        points(figure[0]["difference"]),
        f"{added['system']['micro_f1']['a']['value']:.3f}",
        *(f"{figure[1][which]['value']:.3f}" for which in ("a", "b")),
        points(figure[1]["difference"]),
        points(added["system"]["micro_f1"]["difference"]),
    ]
    return f"| {' | '.join(cells)} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--each", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--products", type=int, default=80)
    parser.add_argument("--ship", action="store_true")
    chosen = parser.parse_args()
    tuned = adapter(chosen.folder, chosen.each, chosen.epochs)
    if chosen.ship:
        tuned = shipped(tuned)
    sys.stdout.write(
        "| catalogue | alone: untuned | tuned | difference | kept: no model | untuned | tuned "
        "| tuned less untuned | tuned less no model |\n|---|---|---|---|---|---|---|---|---|\n"
    )
    for name in chosen.sets:
        for labels in (0, 50):
            sys.stdout.write(measure(name, labels, tuned, chosen.products))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
