"""Adapters to LangChain: a tagger in a chain, a retriever, any chat model, any embeddings.

Built on `langchain_core` alone. Nothing else in llmtagger imports this package.
"""

try:
    import langchain_core.runnables  # noqa: F401
except ImportError as error:
    raise ImportError(
        "llmtagger.langchain needs langchain-core: pip install 'llmtagger[langchain]'"
    ) from error

from llmtagger.backends.encoders import LangChainEncoder
from llmtagger.langchain.chat_model import ChatModelGenerator, vllm_arguments
from llmtagger.langchain.retriever import ProductRetriever
from llmtagger.langchain.runnable import TaggerRunnable

__all__ = [
    "ChatModelGenerator",
    "LangChainEncoder",
    "ProductRetriever",
    "TaggerRunnable",
    "vllm_arguments",
]
