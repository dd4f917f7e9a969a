"""Classifies texts with spacy-llm; `alternatives.py` runs it under an interpreter that has it.

    PYTHON benchmarks/with_spacy_llm.py ASKED.json SAID.json

spacy-llm 0.7.4 has no model of its own for other OpenAI-compatible servers. `spacy.GPT-4.v3` takes
any `name` and an `endpoint`, and sends its questions there; but when it is made it asks
api.openai.com, whatever the endpoint, whether the key is good and the name known there, and fails
if not. That one check is left out here; all else is as it comes. Questions are asked one after
another in each process.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any


def pipeline(asked: dict[str, Any]) -> Any:
    """A blank pipeline with the one component; `errors` are told once each."""
    import spacy
    from spacy_llm.models.rest.openai.model import OpenAI
    from spacy_llm.tasks.textcat.task import DEFAULT_TEXTCAT_TEMPLATE_V3

    OpenAI._verify_auth = lambda self: None
    task = {
        "@llm_tasks": "spacy.TextCat.v3",
        "labels": asked["labels"],
        "exclusive_classes": False,
        "template": f"[{asked['mark']}]\n{DEFAULT_TEXTCAT_TEMPLATE_V3}",
    }
    model = {
        "@llm_models": "spacy.GPT-4.v3",
        "name": asked["model"],
        "endpoint": asked["endpoint"],
        "max_request_time": asked["timeout"],
        "config": {"temperature": 0.0, "max_tokens": asked["max_tokens"], "seed": 0},
    }
    nlp = spacy.blank("xx")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Task supports sharding")  # labels cannot be
        nlp.add_pipe("llm", config={"task": task, "model": model, "save_io": True})
    told: set[str] = set()

    def note(name: str, component: Any, docs: Any, error: Exception) -> None:
        said = f"{type(error).__name__}: {error}"[:300]
        if said not in told:
            told.add(said)
            sys.stderr.write(f"  spacy-llm: {said}\n")

    nlp.set_error_handler(note)
    return nlp


def readable(response: str, named: list[str]) -> bool:
    """Whether a response names a label, or says that there is none."""
    return bool(named) or "==NONE==" in response.upper()


def main() -> None:
    asked = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    os.environ["OPENAI_API_KEY"] = asked["key"]
    nlp = pipeline(asked)
    numbered = [(text, row) for row, text in enumerate(asked["texts"])]
    said: list[dict[str, Any] | None] = [None] * len(numbered)
    begun = time.monotonic()
    # One product a batch: a batch is lost as a whole where one request fails.
    for doc, row in nlp.pipe(numbered, as_tuples=True, batch_size=1, n_process=asked["processes"]):
        named = [label for label, score in doc.cats.items() if score]
        response = "".join(doc.user_data["llm_io"]["llm"]["response"])
        said[row] = {"labels": named, "readable": readable(response, named)}
    found = {
        "seconds": time.monotonic() - begun,
        "said": said,
        "versions": {name: version(name) for name in ("spacy", "spacy-llm")},
    }
    Path(sys.argv[2]).write_text(json.dumps(found), "utf-8")


if __name__ == "__main__":
    main()
