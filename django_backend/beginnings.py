"""Which aliases may be in a transaction in this thread, known without asking for their wrappers.

Looking up ``connections[alias]`` takes some microseconds, and the router is asked for every query. What is noted here
when a transaction begins is only ever too much: whoever finds an alias here looks at its wrapper.
"""

from __future__ import annotations

import threading

__all__ = ["forget_beginning", "may_have_begun", "note_beginning", "note_sharing"]


class _Begun(threading.local):
    """By thread."""

    def __init__(self) -> None:
        self.aliases: set[str] = set()


_begun = _Begun()
# Aliases whose wrappers several threads use: then what another thread began counts too.
_shared: set[str] = set()


def note_beginning(alias: str) -> None:
    """Note that a transaction begins."""
    _begun.aliases.add(alias)


def note_sharing(alias: str) -> None:
    """Note that a wrapper may be used by other threads than the one that begins its transactions."""
    _shared.add(alias)


def may_have_begun(alias: str) -> bool:
    """Return whether there may be a transaction; False only if there is none."""
    return alias in _begun.aliases or alias in _shared


def forget_beginning(alias: str) -> None:
    """Note that somebody has looked, and there is no transaction."""
    _begun.aliases.discard(alias)
