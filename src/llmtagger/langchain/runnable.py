"""A tagger as a step of a LangChain chain."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.callbacks import CallbackManagerForChainRun
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import run_in_executor

from llmtagger.catalog import CatalogOptions
from llmtagger.catalog.products import SYNONYMS, Columns, build
from llmtagger.catalog.rows import RowFault
from llmtagger.datatypes import Product
from llmtagger.errors import CatalogError
from llmtagger.output import Cut, output_record
from llmtagger.pipeline import Tagger

Input = Mapping[str, Any] | Product | str


class TaggerRunnable(Runnable[Input, dict[str, Any]]):
    """Tags what it is given: an input record, a `Product`, or a bare title.

    The answer is an output record, with `run` (which model, prompt and index) as handed in. A
    product without an id gets one that is made of what it says.
    """

    def __init__(self, tagger: Tagger, cut: Cut, run: Mapping[str, str]) -> None:
        self._tagger = tagger
        self._cut = cut
        self._run = run
        self._columns = Columns(CatalogOptions(), SYNONYMS)

    def invoke(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The output record of one product; `CatalogError` if the input is none."""
        return self._call_with_config(self._one, input, config)

    def batch(
        self,
        inputs: list[Input],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[dict[str, Any]]:
        """One output record an input, in order; all are tagged together, which is fastest.

        The generator's `concurrency` says how many are asked at once. A smaller `max_concurrency`
        also holds, at the price of waiting for the slowest of each such group.
        """

        def tag(
            inputs: list[Input],
            run_manager: list[CallbackManagerForChainRun],
            config: list[RunnableConfig],
        ) -> list[Exception | dict[str, Any]]:
            return self._many(inputs, config[0].get("max_concurrency"), return_exceptions)

        return self._batch_with_config(tag, inputs, config, return_exceptions=return_exceptions)

    async def abatch(
        self,
        inputs: list[Input],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[dict[str, Any]]:
        """As `batch`, in a thread of its own."""
        return await run_in_executor(
            None, self.batch, inputs, config, return_exceptions=return_exceptions
        )

    def _one(self, input: Input) -> dict[str, Any]:
        (record,) = self._records([self._product(input)])
        return record

    def _many(
        self, inputs: list[Input], most: int | None, keep_going: bool
    ) -> list[Exception | dict[str, Any]]:
        """A record or its error for each input; without `keep_going` the first error is raised."""
        results: dict[int, Exception | dict[str, Any]] = {}
        products: dict[int, Product] = {}
        for place, input in enumerate(inputs):
            try:
                products[place] = self._product(input)
            except CatalogError as error:
                if not keep_going:
                    raise
                results[place] = error
        places = list(products)
        for start in range(0, len(places), step := most or max(1, len(places))):
            group = places[start : start + step]
            try:
                records = self._records([products[place] for place in group])
                results.update(zip(group, records, strict=True))
            except Exception as error:
                if not keep_going:
                    raise
                results.update(dict.fromkeys(group, error))
        return [results[place] for place in range(len(inputs))]

    def _records(self, products: Sequence[Product]) -> list[dict[str, Any]]:
        tagged = self._tagger.tag_all(products)
        return [output_record(each, self._cut, self._run) for each in tagged]

    def _product(self, input: Input) -> Product:
        if isinstance(input, Product):
            return replace(input)  # one of its own, should the same stand in a batch twice
        record = {"title": input} if isinstance(input, str) else input
        if not isinstance(record, Mapping):
            raise CatalogError(
                f"{type(input).__name__} is no product",
                hint="pass a record with a title, a Product, or the title alone",
            )
        layout = self._columns.layout(tuple(map(str, record)))
        column = layout.fields.get("id", "id")
        if record.get(column) in (None, ""):
            rest = {name: value for name, value in record.items() if name != column}
            record = {column: _made_up_id(rest)} | rest
            layout = self._columns.layout(tuple(map(str, record)))
        try:
            return build(record, layout, cells=False)
        except RowFault as fault:
            raise CatalogError(
                f"the record is no product: {fault}", hint="a product needs a title"
            ) from fault


def _made_up_id(record: Mapping[str, Any]) -> str:
    """The same for the same record, so that a run can be told from another by its ids."""
    said = json.dumps(record, sort_keys=True, default=str)
    return f"product-{hashlib.sha256(said.encode()).hexdigest()[:12]}"
