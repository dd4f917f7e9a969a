"""A studio for the browser tests: a small index, and a stand-in for the model.

python tests/studio_app.py FOLDER PORT [SECONDS]: the model takes that long to start.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from llmtagger.backends.fakes import FakeGenerator, HashingEncoder
from llmtagger.backends.index_writer import build
from llmtagger.datatypes import Completion, Constraint, Product, Prompt
from llmtagger.studio import workspace as studio_workspace
from llmtagger.studio.server import serve
from llmtagger.studio.workspace import Workspace
from llmtagger.wording import estimate_tokens


class StandIn(FakeGenerator):
    """Says the first tag on offer, once its server has started."""

    def __init__(self, waiting: Any, seconds: float) -> None:
        super().__init__()
        self._waiting, self._until = waiting, time.monotonic() + seconds

    def __exit__(self, *error: object) -> None:
        pass

    def complete(self, prompt: Prompt, constraint: Constraint) -> Completion:
        while time.monotonic() < self._until:
            self._waiting("loading", 1.0)
            time.sleep(0.2)
        return super().complete(prompt, constraint)


def _say(address: str) -> None:
    sys.stderr.write(f"ready {address}\n")


def main(folder: Path, port: int, seconds: float) -> None:
    os.chdir(folder)
    products = [
        Product(f"p{n}", f"{kind} number {n}", tags=(kind, "Gift idea"), lang="en", category="Home")
        for n, kind in enumerate(("Red Mug", "Wallet", "Lamp") * 4)
    ]
    build(products, folder / "shop", HashingEncoder())
    setattr(studio_workspace, "kept_answers", lambda *what: StandIn(what[-1], seconds))  # noqa: B010 - what it imports itself
    Workspace.count = staticmethod(estimate_tokens)  # type: ignore[assignment]
    with Workspace(folder / "shop", cache=folder) as workspace:
        serve(
            workspace, host="127.0.0.1", port=port, browser=False,
            ready=_say,
        )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
