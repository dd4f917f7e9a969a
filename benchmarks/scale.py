"""How time, memory and disk grow with the catalogue and the vocabulary.

    python benchmarks/scale.py [--most 10000] [--new 300] [-o eval/results/scale]

Synthetic products (a dozen words out of 20,000, as frequent as words are) with four tags each, in
vocabularies of 100, 10,000 and 70,000; the encoder that counts words, so that what is measured is
llmtagger's own; a server that answers at once. Each command runs as a process of its own, as a
user's does. Prints a table, writes figures.json and scale.png (with matplotlib, if it is there).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from instant_server import instant

WORDS, SYLLABLES = 20_000, ("ba", "do", "ki", "lu", "me", "no", "pa", "ri", "sa", "tu")
TAGS_EACH = 4
TICKS = (1, 2, 5, 10, 20)
SIZES = ((100, 100), (1_000, 100), (10_000, 100), (10_000, 10_000), (10_000, 70_000))


@dataclass(frozen=True)
class Cost:
    """Of one process: seconds by the wall, seconds of CPU, and the most memory it held, in MB."""

    seconds: float
    cpu: float
    memory: float


@dataclass(frozen=True)
class Row:
    """One size: building the index, tagging a single product, and what each further one takes."""

    products: int
    tags: int
    build: Cost
    first: Cost
    tag: Cost
    new: int
    disk: float

    @property
    def rate(self) -> float:
        """Products a second, without what a run of one takes."""
        return (self.new - 1) / max(self.tag.seconds - self.first.seconds, 1e-9)

    @property
    def cpu_each(self) -> float:
        """Milliseconds."""
        return 1000 * (self.tag.cpu - self.first.cpu) / (self.new - 1)


def word(number: int) -> str:
    """The same for the same number, and sayable."""
    return "".join(SYLLABLES[int(digit)] for digit in f"{number:05d}")


def texts(dice: np.random.Generator, count: int) -> Iterator[str]:
    """Titles whose words are as unevenly frequent as a language's."""
    share = 1 / np.arange(1, WORDS + 1)
    drawn = dice.choice(WORDS, (count, 12), p=share / share.sum())
    return (" ".join(map(word, row)) for row in drawn.tolist())


def write(folder: Path, products: int, tags: int, new: int) -> None:
    dice = np.random.default_rng((products, tags))
    names = [f"{word(number % WORDS)} {word(number // WORDS)}" for number in range(tags)]
    with (folder / "catalogue.jsonl").open("w", encoding="utf-8") as file:
        for number, title in enumerate(texts(dice, products)):
            carried = [names[at] for at in dice.integers(0, tags, TAGS_EACH).tolist()]
            record = {"id": f"p{number}", "title": title, "tags": carried}
            file.write(json.dumps(record) + "\n")
    (folder / "vocabulary.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    for name, count in (("one", 1), ("new", new)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for number, title in enumerate(texts(dice, count)):
                file.write(json.dumps({"id": f"n{number}", "title": title}) + "\n")


def cost(*arguments: str) -> Cost:
    """What a command of llmtagger takes, its own processes included."""
    begun = time.monotonic()
    line = [sys.executable, "-m", "llmtagger", *arguments]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(line, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"llmtagger {' '.join(arguments)}: {said.read().decode()}")
    cpu = used.ru_utime + used.ru_stime
    return Cost(time.monotonic() - begun, cpu, used.ru_maxrss / 1024)


def measure(products: int, tags: int, new: int, url: str) -> Row:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, products, tags, new)
        index = str(folder / "index")
        vocabulary = str(folder / "vocabulary.txt")
        catalogue = str(folder / "catalogue.jsonl")
        build = cost(
            *("index", "build", catalogue, "-o", index),
            *("--encoder", "hashing", "--vocabulary", vocabulary),
        )
        disk = sum(path.stat().st_size for path in Path(index).rglob("*") if path.is_file())
        tagged = [
            cost(
                *("tag", str(folder / f"{some}.jsonl"), "-i", index, "--endpoint", url),
                *("-o", str(folder / f"{some}.tagged.jsonl"), "--show", "0"),
            )
            for some in ("one", "new")
        ]
        return Row(products, tags, build, tagged[0], tagged[1], new, disk / 1e6)


def table(rows: list[Row]) -> str:
    lines = [
        "| products | tags | build, s | memory, MB | disk, MB | first product, s "
        "| products/s after it | CPU each, ms | memory, MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.products:,} | {row.tags:,} | {row.build.seconds:.1f} | {row.build.memory:.0f} "
        f"| {row.disk:.1f} | {row.first.seconds:.1f} | {row.rate:.0f} | {row.cpu_each:.1f} "
        f"| {row.tag.memory:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)


def draw(rows: list[Row], path: Path) -> None:
    try:
        from matplotlib import pyplot
    except ImportError:
        sys.stderr.write("no plot: matplotlib is not installed\n")
        return
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(9, 3.4), layout="constrained", sharey=True
    )
    smallest = min(row.tags for row in rows)
    largest = max(row.products for row in rows)
    by_products = [row for row in rows if row.tags == smallest]
    by_tags = [row for row in rows if row.products == largest]
    for axes, chosen, size, label in (
        (left, by_products, "products", f"products in the index, {smallest:,} tags"),
        (right, by_tags, "tags", f"tags, {largest:,} products"),
    ):
        sizes = [getattr(row, size) for row in chosen]
        axes.plot(sizes, [row.build.seconds for row in chosen], "o-", label="index build, s")
        axes.plot(sizes, [row.first.seconds for row in chosen], "s-", label="first product, s")
        axes.plot(sizes, [row.cpu_each for row in chosen], "^-", label="each further, ms of CPU")
        axes.set(xscale="log", yscale="log", xlabel=label)
        axes.set_xticks(sizes, [f"{each:,}" for each in sizes])
        axes.set_yticks(TICKS, [str(each) for each in TICKS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--most", type=int, default=10_000, help="products in the index")
    parser.add_argument("--new", type=int, default=300)
    parser.add_argument("-o", "--output", type=Path, default=Path("eval/results/scale"))
    chosen = parser.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    rows = []
    with instant() as url:
        for products, tags in SIZES:
            if products <= chosen.most:
                sys.stderr.write(f"{products:,} products, {tags:,} tags\n")
                rows.append(measure(products, tags, chosen.new, url))
    sys.stdout.write(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores\n")
    sys.stdout.write(table(rows) + "\n")
    figures = json.dumps([asdict(row) for row in rows], indent=1)
    (chosen.output / "figures.json").write_text(figures + "\n", encoding="utf-8")
    draw(rows, chosen.output / "scale.png")


if __name__ == "__main__":
    main()
