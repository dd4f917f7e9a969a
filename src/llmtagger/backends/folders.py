"""Where llmtagger keeps what it makes outside a project: state of servers, converted models."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def state_dir() -> Path:
    """Servers' state and logs; `LLMTAGGER_STATE_DIR` overrides it."""
    return _folder("LLMTAGGER_STATE_DIR", platformdirs.user_state_dir("llmtagger"))


def cache_dir() -> Path:
    """Converted models; `LLMTAGGER_CACHE_DIR` overrides it."""
    return _folder("LLMTAGGER_CACHE_DIR", platformdirs.user_cache_dir("llmtagger"))


def _folder(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or default).expanduser()
