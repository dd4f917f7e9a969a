"""Who is at the keyboard."""

from __future__ import annotations

import getpass


def login() -> str:
    """The user's name on this machine; `unknown` where there is none, as in many containers."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):
        return "unknown"
