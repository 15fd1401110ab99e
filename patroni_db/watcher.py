"""The one background thread of a discovery: looks, sleeps, looks again.

It holds no strong reference to the discovery it serves, so it ends when the last user lets go of that.
"""

from __future__ import annotations

import logging
import queue
import threading
import weakref
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Watcher"]

logger = logging.getLogger("patroni_db.discovery")

_AFTER_BUG: Final = 1.0


class Watched(Protocol):
    """What a watcher serves."""

    def look(self) -> float:
        """Look once; return for how many seconds to sleep, unless woken, before the next look."""


class Watcher:
    """A daemon thread that calls ``look`` again and again, as late as each call's result says.

    :param watched: held weakly; its collection ends the thread
    :param name: the thread's name
    """

    def __init__(self, watched: Watched, name: str) -> None:
        # SimpleQueue.put is documented as reentrant: it may be called from a finalizer in the middle of anything.
        self._wakes: queue.SimpleQueue[bool] = queue.SimpleQueue()
        ref = weakref.ref(watched)
        weakref.finalize(watched, self._wakes.put, False).atexit = False
        self._thread = threading.Thread(target=_run, args=(ref, self._wakes), name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Make it look now, or once more right after the look it is in."""
        self._wakes.put(True)

    def stop(self) -> None:
        """Let the thread end after the look it is in."""
        self._wakes.put(False)


def _run(ref: Callable[[], Watched | None], wakes: queue.SimpleQueue[bool]) -> None:
    while True:
        watched = ref()
        if watched is None:
            return
        try:
            pause = watched.look()
        except Exception:  # a bug must show, but not leave everybody waiting for ever
            logger.exception("looking at the cluster failed")
            pause = _AFTER_BUG
        del watched
        if not _sleep(wakes, pause):
            return


def _sleep(wakes: queue.SimpleQueue[bool], seconds: float) -> bool:
    """Sleep until woken or time is up; return False when told to end. Wakes that piled up count once."""
    try:
        go_on = wakes.get(timeout=seconds)
        while go_on:
            go_on = wakes.get_nowait()
    except queue.Empty:
        return True
    return False
