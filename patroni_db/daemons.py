"""Starting daemon threads, also where none can be started.

:meth:`threading.Thread.start` fails when the process has as many threads as it may have (a container's ``pids.max``,
``RLIMIT_NPROC``), and from Python 3.12 on as soon as the main thread has ended: in ``atexit`` handlers, and in threads
that outlive it. The first passes, the second must not keep the last statements of a program from being carried out. So
callers are told, register nothing for a thread that did not start, and do the work in place where that is sensible.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["start_daemon"]

logger = logging.getLogger("patroni_db.threads")

_AT_THE_END = "interpreter shutdown"


class _Log:
    """Whether it has been told that no thread can be started; until one starts again, once is enough."""

    is_told = False


def start_daemon(name: str, target: Callable[..., object], *args: object) -> threading.Thread | None:
    """Start a daemon thread that calls ``target(*args)``.

    :param name: the thread's name
    :returns: the thread; None where none can be started now
    """
    thread = threading.Thread(target=target, args=args, name=name, daemon=True)
    try:
        thread.start()
    except (RuntimeError, MemoryError) as exc:
        if not _Log.is_told and _AT_THE_END not in str(exc):
            _Log.is_told = True
            logger.warning("no thread %r: %s", name, exc)
        return None
    _Log.is_told = False
    return thread
