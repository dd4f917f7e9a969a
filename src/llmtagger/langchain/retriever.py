"""An index's similar products as LangChain documents."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field, PrivateAttr, SkipValidation

from llmtagger.config import RetrievalSettings
from llmtagger.datatypes import Neighbour, Product
from llmtagger.stages.retrieval import Catalogue, CatalogueRetriever


class ProductRetriever(BaseRetriever):
    """The `k` labelled products most like a text, nearest first, by meaning and by words.

    `index` is an opened index: `ProductRetriever(index=open_index(folder), k=5)`.
    """

    model_config = ConfigDict(frozen=True)

    index: SkipValidation[Catalogue]
    k: int = Field(4, ge=1, le=200)
    settings: RetrievalSettings = RetrievalSettings()
    _retriever: CatalogueRetriever = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Make the retriever that does the work."""
        settings = self.settings.model_copy(update={"neighbours": self.k})
        self._retriever = CatalogueRetriever(self.index, settings)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        (shortlist,) = self._retriever.retrieve([Product(id="", title=query)])
        return [_document(neighbour) for neighbour in shortlist.neighbours]


def _document(neighbour: Neighbour) -> Document:
    product = neighbour.product
    return Document(
        id=product.id,
        page_content=product.text(),
        metadata={
            "id": product.id,
            "title": product.title,
            "tags": list(product.tags or ()),
            "similarity": neighbour.similarity,
        },
    )
