"""`llmtagger prompt` from the outside: versions made, tried, compared and promoted."""

from __future__ import annotations

import csv
import getpass
import json
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, Self

import pytest
from typer.testing import CliRunner, Result

from llmtagger.backends.fakes import FakeGenerator, HashingEncoder
from llmtagger.backends.index_writer import build
from llmtagger.catalog import read_catalog
from llmtagger.cli import app
from llmtagger.config import load_settings
from llmtagger.datatypes import Constraint, Product, Prompt, Strategy
from llmtagger.errors import CatalogError, ConfigError, LlmtaggerError, PromptError
from llmtagger.evaluation import answers
from llmtagger.templates import Examples, find_template, list_templates

EXAMPLES = Path(__file__).parents[1] / "examples"
PACKAGED = ["free.v1", "free.v2", "span.v1", "span.v2", "tag.v1", "tag.v2"]
BODY = (
    "{% block system %}Be brief.{% endblock %}\n{% block user %}{{ product.title }}{% endblock %}\n"
)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["prompt", *(str(each) for each in arguments)])


def done(*arguments: str | Path) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.exception
    return result


def refused(error: type[LlmtaggerError], *arguments: str | Path) -> LlmtaggerError:
    result = run(*arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, error)
    assert result.exception.hint
    return result.exception


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, at a wide terminal, in which `ann` works."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(getpass, "getuser", lambda: "ann")
    return tmp_path


def edited(text: str = BODY, name: str = "edited.jinja") -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def own() -> list[str]:
    """What is in prompts/."""
    return sorted(path.name for path in Path("prompts").glob("*"))


def test_new_makes_the_next_version_of_a_text() -> None:
    result = done("new", "tag.v1", edited(), "--note", "fewer rules [sic]")
    assert result.stdout == "tag.v3\n"
    assert "Wrote prompts/tag.v3.jinja." in result.stderr
    assert own() == ["tag.v3.jinja"]
    made = find_template("tag.v3")
    header = made.header
    assert (made.body, header.parent, header.note) == (BODY, "tag.v1", "fewer rules [sic]")
    assert (header.author, header.examples) == ("ann", Examples())
    assert done("new", "tag.v3", edited(f"{BODY}\n"), "--author", "bo").stdout == "tag.v4\n"
    assert find_template("tag.v4").header.author == "bo"
    assert find_template("tag.v3") == made


def test_new_with_a_strategy_needs_no_text() -> None:
    options = ("--strategy", "diverse", "--count", "4", "--pin", "w1", "--pin", "w2")
    done("new", "tag.v1", *options)
    made, parent = find_template("tag.v3"), find_template("tag.v1")
    expected = Examples(strategy=Strategy.DIVERSE, count=4, pinned=("w1", "w2"))
    assert (made.body, made.header.examples) == (parent.body, expected)
    done("new", "tag.v3", "--count", "0")  # 0 is a wish as well, and the rest is the parent's
    assert find_template("tag.v4").header.examples == expected.model_copy(update={"count": 0})


def test_new_opens_an_editor(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = find_template("tag.v1")
    script = edited(
        "import shutil, sys\nfrom pathlib import Path\n"
        "shutil.copy(sys.argv[-1], 'shown')\nPath(sys.argv[-1]).write_text(sys.argv[1])",
        "editor.py",
    )
    monkeypatch.setenv("EDITOR", shlex.join([sys.executable, script, BODY]))
    done("new", "tag.v1")
    assert Path("shown").read_text("utf-8") == parent.body
    assert find_template("tag.v3").body == BODY
    monkeypatch.setenv("VISUAL", "true")  # comes first, and changes nothing
    assert "nothing was changed" in refused(PromptError, "new", "tag.v1").message
    for broken in ("false", "no-such-editor", '"'):
        monkeypatch.setenv("VISUAL", broken)
        assert "EDITOR" in refused(ConfigError, "new", "tag.v1").hint
    assert own() == ["tag.v3.jinja"]


def test_what_is_no_new_version_is_refused() -> None:
    same = edited(find_template("tag.v1").body, "same.jinja")
    assert "nothing was changed" in refused(PromptError, "new", "tag.v1", same).message
    assert "nothing" in refused(PromptError, "new", "tag.v1", "--strategy", "similar").message
    broken = edited("{% block system %}", "broken.jinja")
    assert "not valid" in refused(PromptError, "new", "tag.v1", broken).message
    wrong = edited(BODY.replace("title", "titel"), "wrong.jinja")
    assert "does not render" in refused(PromptError, "new", "tag.v1", wrong).message
    assert "cannot read" in refused(ConfigError, "new", "tag.v1", "nowhere.jinja").message
    assert "no prompt" in refused(PromptError, "new", "tag.v9", same).message
    assert run("new", "tag.v1", "--count", "51").exit_code == 2
    assert not Path("prompts").exists()


def test_a_user_without_a_name_makes_versions_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> NoReturn:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr(getpass, "getuser", nobody)
    done("new", "tag.v1", edited())
    done("promote", "tag.v3")
    assert find_template("tag.v3").header.author == "unknown"


def test_list_shows_every_version_and_what_is_live() -> None:
    assert [line.split()[:2] for line in done("list").stdout.splitlines()[1:]] == [
        [name, "live"] if name.endswith("v1") else [name] for name in PACKAGED
    ]
    done("new", "tag.v1", edited(), "--note", "fewer [rules] :key:", "--author", "[ann]")
    done("promote", "tag.v3")
    text = done("list").stdout
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines()[1:]}
    date = find_template("tag.v3").header.date
    assert date is not None
    assert lines["tag.v3"] == [
        *("live", "tag.v1", "[ann]", f"{date:%Y-%m-%d}", "fewer", "[rules]", ":key:")
    ]
    assert lines["tag.v1"] == []
    assert lines["span.v1"] == ["live"]


def test_list_as_json() -> None:
    done("new", "tag.v1", edited(), "--note", "更短", "--strategy", "covering")
    records = json.loads(done("list", "--json").stdout)
    assert [record["name"] for record in records] == list_templates() == [*PACKAGED, "tag.v3"]
    assert [r["name"] for r in records if r["live"]] == ["free.v1", "span.v1", "tag.v1"]
    made = records[-1]
    assert datetime.fromisoformat(made.pop("date")) == find_template("tag.v3").header.date
    assert made == {
        "name": "tag.v3",
        "live": False,
        "hash": find_template("tag.v3").hash,
        "parent": "tag.v1",
        "author": "ann",
        "note": "更短",
        "examples": {"strategy": "covering", "count": None, "pinned": []},
    }


def test_a_damaged_header_is_named_beside_the_others() -> None:
    Path("prompts").mkdir()
    edited("{#---\nnotes = 1\n---#}\n" + BODY, "prompts/tag.v3.jinja")
    by_name = {record["name"]: record for record in json.loads(done("list", "--json").stdout)}
    assert "tag.v3 cannot be read" in by_name["tag.v3"]["problem"]
    assert by_name["tag.v1"]["live"]
    assert "tag.v3 cannot be read" in " ".join(done("list").stdout.split())


def test_diff_shows_what_was_changed() -> None:
    done("new", "tag.v1", edited())
    done("new", "tag.v3", edited(BODY.replace("brief", "brief [/] :key:" + " and so on" * 30)))
    lines = done("diff", "tag.v3", "tag.v4").stdout.splitlines()
    assert lines[:2] == ["--- tag.v3", "+++ tag.v4"]
    assert lines[3] == "-{% block system %}Be brief.{% endblock %}"
    assert lines[4].startswith("+{% block system %}Be brief [/] :key: and so on")
    assert lines[4].endswith(" and so on.{% endblock %}")
    assert lines[5:] == [" {% block user %}{{ product.title }}{% endblock %}"]
    assert done("diff", "tag.v3", "tag.v3").stdout == ""


def test_promote_writes_the_settings_and_why() -> None:
    done("new", "tag.v1", edited())
    Path("llmtagger.toml").write_text("# ours\n[prompt]\nexamples = 2\n", "utf-8")
    said = done("promote", "tag.v3", "--note", "更好").stderr
    assert "tag.v3 is live in llmtagger.toml." in said
    assert "llmtagger calibrate" in said
    said = done("promote", "tag.v1", "--author", "bo").stderr
    assert "tag.v1 is live in llmtagger.toml; it replaces tag.v3." in said
    text = Path("llmtagger.toml").read_text("utf-8")
    assert text == '# ours\n[prompt]\nexamples = 2\n\n[live]\ntag = "tag.v1"\n'
    assert load_settings().live.tag == "tag.v1"
    lines = Path("prompts/promotions.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    dates = [datetime.fromisoformat(record.pop("date")) for record in records]
    assert dates == sorted(dates)
    assert records == [
        {"version": "tag.v3", "before": None, "author": "ann", "note": "更好"},
        {"version": "tag.v1", "before": "tag.v3", "author": "bo", "note": ""},
    ]


def test_a_promotion_goes_where_config_says() -> None:
    done("promote", "tag.v2", "--config", "other.toml")
    assert load_settings(Path("other.toml")).live.tag == "tag.v2"
    assert not Path("llmtagger.toml").exists()
    records = json.loads(done("list", "--json", "--config", "other.toml").stdout)
    assert [record["name"] for record in records if record["live"]] == [
        "free.v1",
        "span.v1",
        "tag.v2",
    ]


def test_a_file_or_a_broken_config_is_not_promoted() -> None:
    assert "prompt new" in refused(PromptError, "promote", edited(name="tag.v3.jinja")).hint
    Path("llmtagger.toml").write_text("[live\n", "utf-8")
    refused(ConfigError, "promote", "tag.v2")
    assert Path("llmtagger.toml").read_text("utf-8") == "[live\n"
    assert not Path("prompts").exists()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    lines = (EXAMPLES / "catalogue.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "shop.jsonl").write_text("".join(lines[:40]), "utf-8")
    (folder / "more.jsonl").write_text("".join(lines[40:60]), "utf-8")
    products = read_catalog(folder / "shop.jsonl", rejected=lambda row: pytest.fail(row.reason))
    build(products, folder / "index", HashingEncoder())
    return folder


class Answers(FakeGenerator):
    """Is open while `with` lasts; says nothing where it is told to be brief, else the first tag."""

    def __init__(self) -> None:
        super().__init__(self._say)
        self.wanted: list[tuple[str, tuple[str, ...]]] = []
        self.open = False

    def _say(self, prompt: Prompt, constraint: Constraint) -> str:
        assert self.open
        brief = "Be brief." in prompt.messages[0][1]
        return json.dumps(constraint.schema["items"]["enum"][: 0 if brief else 1])

    def __enter__(self) -> Self:
        self.open = True
        return self

    def __exit__(self, *error: object) -> None:
        self.open = False


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """The model that commands ask."""
    found = Answers()

    def kept(name: str, endpoints: list[str], *rest: Any) -> Answers:
        found.wanted.append((name, tuple(endpoints)))
        return found

    monkeypatch.setattr(answers, "kept_answers", kept)
    return found


def test_try_shows_versions_side_by_side(shop: Path, model: Answers) -> None:
    done("new", "tag.v1", edited())
    arguments = ("try", "tag.v1", "tag.v3", "tag.v1", shop / "more.jsonl", "-i", shop / "index")
    result = done(*arguments, "--limit", "3", "--model", "m", "--endpoint", "http://127.0.0.1:1/v1")
    products = list(read_catalog(shop / "more.jsonl", rejected=print))[:3]
    starts = [line.strip().split()[0] for line in result.stdout.splitlines() if line.strip()]
    rows = [start for start in starts if start in {"tag.v1", "tag.v3", *(p.id for p in products)}]
    assert rows == [name for p in products for name in (p.id, "tag.v1", "tag.v3")]
    assert all(product.title[:60] in result.stdout for product in products)
    assert result.stdout.count("ᵐ") >= 3  # what the model said of each, asked with tag.v1
    assert model.wanted == [("m", ("http://127.0.0.1:1/v1",))]
    assert len(model.asked) == 6  # a version that is named twice is tried once
    assert not model.open


def test_try_as_json(shop: Path, model: Answers) -> None:
    done("new", "tag.v1", edited())
    arguments = ("try", "tag.v1", "tag.v3", shop / "more.jsonl", "-i", shop / "index")
    text = done(*arguments, "--limit", "2", "--json").stdout
    records = [json.loads(line) for line in text.splitlines()]
    products = list(read_catalog(shop / "more.jsonl", rejected=print))[:2]
    assert [(r["version"], r["product"]) for r in records] == [
        (version, product.id) for version in ("tag.v1", "tag.v3") for product in products
    ]
    for record in records:
        said = [tag["tag"] for tag in record["tags"] if tag["chosen"]]
        assert len(said) == (record["version"] == "tag.v1")
        assert record["problem"] is None
        assert record["prompt_tokens"] > 0
        outcomes = {tag["outcome"] for tag in record["tags"]}
        assert "missed" in outcomes  # these are labelled
        assert outcomes <= {"right", "wrong", "missed"}


def test_try_tells_of_rows_that_are_no_products(shop: Path, model: Answers) -> None:
    Path("new.jsonl").write_text('{"id": "1", "title": "leather [wallet]"}\n{"id": "2"}\n', "utf-8")
    result = done("try", "tag.v1", "new.jsonl", "-i", shop / "index")
    assert "Rows skipped because they are not products: 1." in result.stderr
    assert "leather [wallet]" in result.stdout
    assert "?" in result.stdout  # nobody has judged it


def test_what_cannot_be_tried_is_refused(shop: Path, model: Answers) -> None:
    index = ("-i", shop / "index")
    assert "no version" in refused(ConfigError, "try", shop / "more.jsonl", *index).message
    refused(PromptError, "try", "tag.v9", shop / "more.jsonl", *index)
    refused(CatalogError, "try", "tag.v1", "nowhere.csv", *index)
    assert model.asked == []
    assert not model.open


def test_compare_asks_about_the_labelled_products_of_the_index(shop: Path, model: Answers) -> None:
    done("new", "tag.v1", edited())
    arguments = ("compare", "tag.v3", "tag.v1", "-i", shop / "index")
    found = json.loads(done(*arguments, "--json", "--limit", "30").stdout)
    assert (found["a"], found["b"]) == ("tag.v3", "tag.v1")
    assert len(model.asked) == 60
    assert found["model"]["products"] == found["system"]["products"] == 30
    recall = found["model"]["micro_recall"]
    assert recall["a"]["value"] == 0 < recall["b"]["value"]
    assert recall["verdict"] == "b is better"
    cost = found["cost"]
    assert cost["a"]["prompt_tokens"] < cost["b"]["prompt_tokens"]
    again = json.loads(done(*arguments, "--json", "--limit", "30").stdout)
    assert again == found  # the same products are drawn


def test_compare_in_words(shop: Path, model: Answers) -> None:
    done("new", "tag.v1", edited())
    text = done("compare", "tag.v3", "tag.v1", "-i", shop / "index").stderr
    assert "40 products in" in text
    lines = [line.split() for line in text.splitlines()]
    alone = next(at for at, line in enumerate(lines) if line[:3] == ["the", "model", "alone,"])
    said = next(line for line in lines[alone:] if line[:1] == ["recall"])
    assert said[1:3] == ["0.000", "→"]
    assert " ".join(said).endswith("b is better")
    assert len([line for line in lines if line[:2] == ["cost", "of"]]) == 2


def test_compare_says_in_a_sentence_that_nothing_differs(shop: Path, model: Answers) -> None:
    text = done("compare", "tag.v1", "tag.v1", "-i", shop / "index").stderr
    assert "No difference: same tags on all 40 products." in text
    assert "points" not in text


def test_compare_on_products_of_a_file(shop: Path, model: Answers) -> None:
    arguments = ("compare", "tag.v1", "tag.v2", "-i", shop / "index", "--json", "--on")
    found = json.loads(done(*arguments, shop / "more.jsonl").stdout)
    labelled = [p for p in read_catalog(shop / "more.jsonl", rejected=print) if p.tags is not None]
    assert found["system"]["products"] == len(labelled) > 10
    Path("new.jsonl").write_text('{"id": "1", "title": "leather wallet"}\n', "utf-8")
    assert "no labelled product was tried" in refused(ConfigError, *arguments, "new.jsonl").message


def odd_columns(shop: Path) -> tuple[Path, list[Product]]:
    """Products in a file whose columns only `MAPPED` explains."""
    products = [p for p in read_catalog(shop / "more.jsonl", rejected=print) if p.tags][:12]
    with Path("odd.csv").open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["What", "It is called", "Has"])
        writer.writerows([p.id, p.title, "|".join(p.tags or ())] for p in products)
    return Path("odd.csv"), products


MAPPED = ("--map", "id=What", "--map", "title=It is called", "--map", "tags=Has")


def test_render_and_try_read_mapped_columns(shop: Path, model: Answers) -> None:
    odd, products = odd_columns(shop)
    index = ("-i", shop / "index")
    assert "--map" in refused(CatalogError, "render", "tag.v1", odd, *index).hint
    text = done("render", "tag.v1", odd, *index, *MAPPED, "--limit", "2").stdout
    assert [line[4:] for line in text.splitlines() if line.startswith("=== ")] == [
        product.id for product in products[:2]
    ]
    tried = done("try", "tag.v1", odd, *index, *MAPPED, "--limit", "2", "--json").stdout
    assert [json.loads(line)["product"] for line in tried.splitlines()] == [
        product.id for product in products[:2]
    ]


def test_compare_reads_mapped_columns(shop: Path, model: Answers) -> None:
    odd, products = odd_columns(shop)
    arguments = ("compare", "tag.v1", "tag.v2", "-i", shop / "index", "--json", "--on", odd)
    assert "--map" in refused(CatalogError, *arguments).hint
    assert json.loads(done(*arguments, *MAPPED).stdout)["system"]["products"] == len(products)
