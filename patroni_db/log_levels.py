"""How loud a log tells of something that happens to many connections at once: the first at INFO, the others at DEBUG.

A failover ends all connections to a server, and each of them is found on its own. The log is to tell that once.
"""

from __future__ import annotations

import logging
import threading
import weakref
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from patroni_db.connections import Stamp
    from patroni_db.discovery import Discovery

__all__ = ["level_of_replacement"]

# So many different messages are remembered until routing moves; then, or when there are more, all are told anew.
_LIMIT: Final = 100

_lock: Final = threading.Lock()
_told: weakref.WeakKeyDictionary[Discovery, tuple[int, set[tuple[str, str]]]] = weakref.WeakKeyDictionary()


def level_of_replacement(discovery: Discovery, stamp: Stamp, why: str) -> int:
    """Return the level at which to log that a connection is replaced.

    :param discovery: the view of the cluster, whose users in this process share one log
    :param stamp: where the connection leads
    :param why: the reason that is logged
    """
    snapshot = discovery.snapshot
    generation = 0 if snapshot is None else snapshot.generation
    message = (str(stamp), why)
    with _lock:
        known, messages = _told.get(discovery, (generation, set()))
        if known != generation or len(messages) >= _LIMIT:
            messages = set()
        is_first = message not in messages
        _told[discovery] = generation, messages | {message}
    return logging.INFO if is_first else logging.DEBUG
