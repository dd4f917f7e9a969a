"""Disks that are full or cannot be written, indexes that change, and many products."""

from __future__ import annotations

import csv
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.torture.conftest import Command, Silent, write_products
from tests.torture.fake_server import FakeServer

from llmtagger import tagging
from llmtagger.backends.index_writer import add, remove
from llmtagger.datatypes import Product
from llmtagger.errors import CatalogError
from llmtagger.tagging import TagJob

PRODUCTS = 60
LIMIT = 40_000  # bytes: less than an output of those, more than a journal takes to be opened
OWN_MOUNTS = ["unshare", "--mount"]

needs_mounts = pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*OWN_MOUNTS, "true"], capture_output=True, check=False).returncode != 0,
    reason="mounting takes root",
)

# Runs the command on a small disk, then again when it has grown; DISK is gone when the shell ends.
SMALL_DISK = """
set -u
mount -t tmpfs -o size=$SIZE tmpfs "$DISK" && cp "$FROM"/* "$DISK"
"$@" > "$SAID/first" 2>&1
echo $? > "$SAID/code"
ls -A "$DISK" > "$SAID/left"
mount -o remount,size=100m "$DISK"
"$@" > "$SAID/second" 2> "$SAID/told" && cp "$DISK"/tagged.jsonl "$SAID"
ls -A "$DISK" > "$SAID/files"
"""

READ_ONLY = """
set -u
mount -t tmpfs -o size=100m tmpfs "$DISK" && cp -r "$FROM"/* "$DISK" && mount -o remount,ro "$DISK"
exec "$@"
"""


def _line(folder: Path, index: Path, url: str, output: Path) -> list[str]:
    start = [sys.executable, "-m", "llmtagger", "tag", str(folder / "new.jsonl"), "-i", str(index)]
    return [
        *start,
        "-o",
        str(output),
        "--endpoint",
        url,
        "--llm",
        "always",
        "--show",
        "0",
        "--json",
    ]


def _mounted(
    script: str, line: Sequence[str], **places: Path | str
) -> subprocess.CompletedProcess[str]:
    """A shell script with mounts that nobody else sees, and that end with it."""
    return subprocess.run(
        [*OWN_MOUNTS, "sh", "-c", script, "sh", *line],
        env=dict(os.environ) | {name: str(place) for name, place in places.items()},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


@needs_mounts
def test_a_full_disk_is_named_and_the_run_goes_on(tmp_path: Path, index: Path) -> None:
    places = {name: tmp_path / name.lower() for name in ("DISK", "FROM", "SAID")}
    for place in places.values():
        place.mkdir()
    write_products(places["FROM"] / "new.jsonl", PRODUCTS)
    with FakeServer() as server:
        whole = Command(tmp_path / "from", index, [server.url], PRODUCTS)
        whole.run()
        expected = whole.content()
        for path in (whole.output, Path(f"{whole.output}.journal"), whole.folder / "settings.toml"):
            path.unlink()
        (whole.folder / "tmp").rmdir()
        line = _line(places["DISK"], index, server.url, places["DISK"] / "tagged.jsonl")
        _mounted(SMALL_DISK, line, SIZE="64k", **places)
    said = {path.name: path.read_text("utf-8") for path in places["SAID"].iterdir()}
    assert said["code"] == "1\n", said
    assert "the journal" in said["first"]
    assert "free disk space" in " ".join(said["first"].split())
    assert "Traceback" not in said["first"]
    assert not [name for name in said["left"].split() if name.endswith(".tmp")]
    assert "tagged.jsonl\n" not in said["left"]
    assert json.loads(said["second"])["products"] == PRODUCTS
    whole.output.write_bytes((places["SAID"] / "tagged.jsonl").read_bytes())
    assert whole.content() == expected
    assert set(said["files"].split()) == {"new.jsonl", "tagged.jsonl", "tagged.jsonl.journal"}


# Tags without a server, then once more without the output, first with 96 KB of room, then with all.
FULL_AT_THE_END = """
set -u
mount -t tmpfs -o size=20m tmpfs "$DISK" && cp "$FROM"/* "$DISK"
"$@" > "$SAID/before" 2>&1 && mv "$DISK"/tagged.jsonl "$SAID/expected"
room=$(($(df -k "$DISK" | awk 'END { print $4 }') - 96))
dd if=/dev/zero of="$DISK/filler" bs=1k count=$room 2> /dev/null
"$@" > "$SAID/first" 2>&1
echo $? > "$SAID/code"
rm "$DISK/filler"
ls -A "$DISK" > "$SAID/left"
"$@" > "$SAID/second" 2>&1 && cp "$DISK"/tagged.jsonl "$SAID"
"""


@needs_mounts
def test_a_disk_that_is_full_when_the_output_is_written(tmp_path: Path, index: Path) -> None:
    places = {name: tmp_path / name.lower() for name in ("DISK", "FROM", "SAID")}
    for place in places.values():
        place.mkdir()
    write_products(places["FROM"] / "new.jsonl", PRODUCTS)
    line = _line(places["DISK"], index, "http://127.0.0.1:9/v1", places["DISK"] / "tagged.jsonl")
    _mounted(FULL_AT_THE_END, [*line, "--llm", "never"], **places)
    said = {path.name: path.read_text("utf-8") for path in places["SAID"].iterdir()}
    assert said["code"] == "1\n", said
    told = " ".join(said["first"].split())
    assert "tagged.jsonl: No space left on device" in told
    assert "has room, then try again" in told
    assert "Traceback" not in told
    assert set(said["left"].split()) == {"new.jsonl", "tagged.jsonl.journal"}
    assert f"Resuming after {PRODUCTS} of {PRODUCTS} products" in said["second"]
    assert said["tagged.jsonl"] == said["expected"]


@contextmanager
def _no_file_longer_than(size: int) -> Iterator[None]:
    """What a quota is to a program, and a full disk at some point of a file."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def _shop(folder: Path, source: Path) -> Path:
    """The products as a Shopify export."""
    path = folder / "shop.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Handle", "Title", "Body (HTML)", "Vendor", "Tags", "Published"])
        for line in source.read_text("utf-8").splitlines():
            record = json.loads(line)
            writer.writerow([record["id"], record["title"], "x" * 1000, "", "", "TRUE"])
    return path


def _lengthen(source: Path) -> None:
    """A note for each product: tables hold no evidence, and would not reach the limit."""
    dice = random.Random(0)
    records = [json.loads(line) for line in source.read_text("utf-8").splitlines()]
    noted = [record | {"note": dice.randbytes(500).hex()} for record in records]
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in noted)
    source.write_text("".join(lines), encoding="utf-8")


@pytest.mark.parametrize("old", [False, True], ids=["new", "replaced"])
@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.tsv", "out.parquet", "shop"])
def test_an_output_without_room_appears_whole_or_not_at_all(
    tmp_path: Path, index: Path, name: str, old: bool
) -> None:
    source = tmp_path / "new.jsonl"
    write_products(source, PRODUCTS)
    _lengthen(source)
    if name == "shop":
        source, name = _shop(tmp_path, source), "out.csv"
    output = tmp_path / "out" / name
    job = TagJob(str(source), index, str(output), llm="never")
    tagging.run(job, Silent())
    expected, files = output.read_bytes(), {path.name for path in output.parent.iterdir()}
    assert len(expected) > LIMIT
    if not old:
        output.unlink()
    with _no_file_longer_than(LIMIT), pytest.raises(CatalogError) as refused:
        tagging.run(job, Silent())
    assert "File too large" in refused.value.message
    assert str(output) in refused.value.message or tempfile.gettempdir() in refused.value.message
    assert "make room" in refused.value.hint or "has room" in refused.value.hint
    assert output.exists() is old
    assert {path.name for path in output.parent.iterdir()} == files - (set() if old else {name})
    assert tagging.run(job, Silent()).resumed == PRODUCTS
    assert output.read_bytes() == expected


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.parquet"])
def test_every_format_names_a_full_device(tmp_path: Path, index: Path, name: str) -> None:
    write_products(tmp_path / "new.jsonl", 20)
    output = tmp_path / name
    output.symlink_to("/dev/full")
    job = TagJob(str(tmp_path / "new.jsonl"), index, str(output), llm="never")
    with pytest.raises(CatalogError, match="No space left on device") as refused:
        tagging.run(job, Silent())
    assert "/dev/full" in refused.value.message
    output.unlink()
    assert tagging.run(job, Silent()).resumed == 20
    assert output.is_file()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_standard_output_without_room_is_told_of(tmp_path: Path, index: Path) -> None:
    write_products(tmp_path / "new.jsonl", PRODUCTS)
    line = _line(tmp_path, index, "http://127.0.0.1:9/v1", Path("-"))
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*line, "--llm", "never"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=250,
        )
    said = " ".join(done.stderr.split())
    assert done.returncode == 1, said
    assert "cannot write to the standard output: No space left on device" in said
    assert "then try again" in said
    assert "Traceback" not in said
    assert "Exception ignored" not in said


def test_a_quota_is_named_and_the_run_goes_on(tmp_path: Path, index: Path) -> None:
    """Files that may not grow: what a quota and most full file systems look like to a program."""
    with FakeServer() as server:
        command = Command(tmp_path, index, [server.url], PRODUCTS)
        line = _line(tmp_path, index, server.url, command.output)
        done = subprocess.run(
            ["sh", "-c", 'ulimit -f 60; exec "$@"', "sh", *line],  # of 512 bytes each
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )
        assert done.returncode == 1, done.stderr
        assert "free disk space" in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr
        command.run("--fresh")
        assert len(command.records()) == PRODUCTS
        assert command.files() == {"tagged.jsonl", "tagged.jsonl.journal"}


@needs_mounts
def test_an_output_in_a_folder_that_cannot_be_written(tmp_path: Path, index: Path) -> None:
    disk, source = tmp_path / "disk", tmp_path / "from"
    disk.mkdir()
    source.mkdir()
    write_products(source / "new.jsonl", 3)
    with FakeServer() as server:
        line = _line(source, index, server.url, disk / "tagged.jsonl")
        done = _mounted(READ_ONLY, line, DISK=disk, FROM=source)
        assert server.requests == []
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert "Read-only file system" in said
    assert "a folder that may be written to" in said


@needs_mounts
def test_an_index_in_a_folder_that_cannot_be_written_is_used(tmp_path: Path, index: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with FakeServer() as server:
        command = Command(tmp_path, index, [server.url], 10)
        line = _line(tmp_path, disk, server.url, command.output)
        done = _mounted(READ_ONLY, line, DISK=disk, FROM=index)
    assert done.returncode == 0, done.stderr
    assert len(command.records()) == 10


def test_an_index_that_is_replaced_during_a_run_changes_nothing(
    tmp_path: Path, index: Path
) -> None:
    """Twice, so that the files of the one that the run has opened are gone."""
    own = shutil.copytree(index, tmp_path / "index")
    swapped: list[Path] = []

    def swap(number: int) -> None:
        if number == 20:
            for name in ("intruder-1", "intruder-2"):
                add(own, [Product(name, "a leather mug", tags=("wallet",))])
                swapped.append(own)

    folder = tmp_path / "run"
    folder.mkdir()
    with FakeServer() as server:
        command = Command(folder, own, [server.url], PRODUCTS)
        command.run()
        expected = command.content()
        server.requests.clear()
        server.watch = swap
        command.run("--fresh")
        server.watch = lambda number: None
        assert swapped == [own, own]
        assert command.content() == expected
        with command.start() as process:
            _, said = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "another index" in " ".join(said.split())
        remove(own, ["intruder-1", "intruder-2"])
        assert command.run()["resumed"] == PRODUCTS


# A run with everything but retrieval, encoder and server; says its peak in MB.
STREAMED = """
import sys
from pathlib import Path
from llmtagger import tagging
from llmtagger.datatypes import Evidence, ScoredTag, ScoredTags, Tag, TaggedProduct

EVIDENCE = Evidence(neighbours=(("p", 0.5),), signals={"vote": 0.1})
ITEMS = tuple(ScoredTag(Tag(f"tag {n}", str(n)), 0.5, EVIDENCE) for n in range(24))

class Tagger:
    def tag(self, products, wanted):
        return (TaggedProduct(each, ScoredTags(ITEMS)) for each in products if wanted(each))

class Silent:
    def started(self, total, done): pass
    def understood(self, understood): pass
    def finished_one(self, tagged): pass

tagging.build_tagger = lambda *_, **__: Tagger()
job = tagging.TagJob(sys.argv[1], Path(sys.argv[2]), sys.argv[3], llm="never")
assert tagging.run(job, Silent()).products == int(sys.argv[4])
for line in open("/proc/self/status"):
    if line.startswith("VmHWM"):
        print(int(line.split()[1]) / 1024, file=sys.stderr)
"""


def _peak(folder: Path, index: Path, count: int, output: str) -> float:
    path = folder / f"{count}.jsonl"
    if not path.exists():
        write_products(path, count)
    name = output if output == "-" else str(folder / f"{count}-{output}")
    line = [sys.executable, "-c", STREAMED, str(path), str(index), name, str(count)]
    done = subprocess.run(
        line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return float(done.stderr.split()[-1])


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("output", ["tagged.jsonl", "tagged.csv", "-"])
def test_memory_does_not_grow_with_the_products(
    request: pytest.FixtureRequest, tmp_path: Path, index: Path, output: str
) -> None:
    """A product's id, by which a second one of that id is noticed, is all that stays: 200 bytes."""
    is_long = request.config.getoption("--torture")
    if output != "tagged.jsonl" and not is_long:
        pytest.skip("in the long form only")
    few, many = (10_000, 100_000) if is_long else (200, 2_000)
    if is_long and output == "tagged.jsonl":
        many = 1_000_000
    least, most = (_peak(tmp_path, index, count, output) for count in (few, many))
    grown = (most - least) * 1024 * 1024 / (many - few)  # bytes a product
    assert most - least < 3 or grown < 300
    assert most < 1000, f"{most:.0f} MB"
