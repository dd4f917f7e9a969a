"""Makes foreign text safe to print on a terminal."""

from __future__ import annotations

import re

# C0 and C1 controls (ESC and CSI among them), line separators, marks that reorder a line, and
# halves of surrogate pairs, which no stream can encode. Newline and tab are layout.
_ACTIVE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff"
    "\ufeff\ufff9-\ufffb]"
)
_BREAKS = re.compile("[\n\t]")


def harmless(text: str) -> str:
    r"""Text in which each character that a terminal would act on is spelt out.

    The spelling is JSON's, so harmless JSON still says the same.

    >>> harmless("\x1b[31mred \u202edesrever")
    '\\u001b[31mred \\u202edesrever'
    """
    return _ACTIVE.sub(_spelt, text)


def one_line(text: str) -> str:
    r"""Harmless text that also cannot start a line of its own.

    >>> one_line("Mug\nError: none")
    'Mug\\u000aError: none'
    """
    return _BREAKS.sub(_spelt, harmless(text))


def _spelt(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
