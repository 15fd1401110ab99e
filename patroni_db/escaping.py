"""How text that others wrote is shown: in logs, errors and terminals. Pure.

Names, states, URLs and error messages come from the network, and values of settings may hold a password in the wrong
place. Values are kept as they are, so that names compare equal; only what is shown goes through here. Nobody needs to
remember that: the loggers of the library escape what they are given from when this module is imported, and
:mod:`~patroni_db.errors`, which everything imports, escapes the texts of exceptions.
"""

from __future__ import annotations

import logging
import re
import traceback
from typing import Any, Final

__all__ = ["LOGGERS", "plain", "plain_cause", "quoted", "without_passwords"]

#: The names of the loggers that the library writes to.
LOGGERS: Final = (
    "patroni_db.connections",
    "patroni_db.discovery",
    "patroni_db.django",
    "patroni_db.push",
    "patroni_db.sqlalchemy",
    "patroni_db.threads",
)

# A password may be before an "@", after a colon that is no port's or scheme's, in a query, or a key's PEM block.
_MAY_HOLD_SECRET: Final = re.compile(
    "[@\uff20\ufe6b?#&\\r\\n]|%40|pass|pwd|secret|token|BEGIN|:(?!//|[0-9]{0,5}(?:[/,=\\]']|$))", re.IGNORECASE
)
_WITH_PASSWORD: Final = re.compile("\\S*(?:[@\uff20\ufe6b]|%40|://[^\\s/]*:(?![0-9]))\\S*", re.IGNORECASE)
_MAX_QUOTED: Final = 200
_MAX_LOGGED: Final = 4000
_MAX_TRACEBACK: Final = 20_000
_HIDDEN: Final = "'***'"


def plain(text: str) -> str:
    """Return `text` with what a terminal or a log would obey made visible instead.

    These are escape sequences, line ends of all kinds, and what changes the direction of writing. The lines in which
    libpq goes on (they begin with a tab) are joined.
    """
    if text.isprintable():
        return text
    joined = text.replace("\n\t", " ")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in joined)


def quoted(value: object) -> str:
    """Return the value of a setting for an error message, or ``'***'`` where it may hold a password or is long."""
    try:
        text = repr(value)
    except ValueError:  # Python does not write integers of thousands of digits
        return _HIDDEN
    return _HIDDEN if len(text) > _MAX_QUOTED or _MAY_HOLD_SECRET.search(text) else text


def without_passwords(message: str) -> str:
    """Return a message without the words in it that may be a URL with a password."""
    return _WITH_PASSWORD.sub("***", message)


def plain_cause(error: BaseException) -> BaseException | None:
    """Return `error` to raise another from; None where a traceback would show text that is not :func:`plain`.

    Libraries of HTTP put what a server sent into their errors as it is. The other error tells what they say anyhow.
    """
    link: BaseException | None = error
    while link is not None:
        if not str(link).isprintable():
            return None
        link = link.__cause__ or link.__context__
    return error


class _EscapingFilter(logging.Filter):
    """Escapes what the records of a logger are given, and cuts what would fill a disk. Lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        arguments: Any = record.args
        if isinstance(arguments, dict):
            record.args = {name: _logged(value) for name, value in arguments.items()}
        elif arguments:
            record.args = tuple(map(_logged, arguments))
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = _traceback(record.exc_info[1])  # what formatters show instead of their own
        return True


def _traceback(error: BaseException) -> str:
    """Return a traceback each line of which is escaped, and indented: none can pass for a record of its own."""
    text = "".join(traceback.format_exception(error))[:_MAX_TRACEBACK].rstrip("\n")
    return "\n".join(f"  {plain(line)}" for line in text.split("\n"))


def _logged(value: object) -> object:
    """Return `value` itself where its text does no harm, so that handlers can tell numbers and errors apart."""
    if isinstance(value, (int, float)):
        return value
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - an object's own bug must not end what is logged about it
        return f"<{type(value).__name__}>"
    if text.isprintable() and len(text) <= _MAX_LOGGED:
        return value
    shown = plain(text[:_MAX_LOGGED].rstrip("\n"))  # with which psycopg2 ends its messages
    return shown if len(text) <= _MAX_LOGGED else f"{shown}... ({len(text)} characters)"


for _name in LOGGERS:
    logging.getLogger(_name).addFilter(_EscapingFilter())
