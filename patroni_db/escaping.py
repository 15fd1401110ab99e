"""How text that others wrote is shown: in logs, errors and terminals. Pure.

Names, states, URLs and error messages come from the network, and values of settings may hold a password in the wrong
place. Values are kept as they are, so that names compare equal; only what is shown goes through here.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["plain", "quoted"]

# A password may be before an "@", after a colon that is no port's or scheme's, in a query, or a key's PEM block.
_MAY_HOLD_SECRET: Final = re.compile(
    "[@\uff20\ufe6b?#&\\r\\n]|%40|pass|pwd|secret|token|BEGIN|:(?!//|[0-9]{0,5}(?:[/,=\\]']|$))", re.IGNORECASE
)
_MAX_QUOTED: Final = 200
_HIDDEN: Final = "'***'"


def plain(text: str) -> str:
    """Return `text` with what a terminal or a log would obey made visible instead.

    These are escape sequences, line ends of all kinds, and what changes the direction of writing.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(value: object) -> str:
    """Return the value of a setting for an error message, or ``'***'`` where it may hold a password."""
    text = repr(value)
    return _HIDDEN if len(text) > _MAX_QUOTED or _MAY_HOLD_SECRET.search(text) else text
