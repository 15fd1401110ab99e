"""The one background thread of a discovery: looks, sleeps, looks again.

It holds no strong reference to the discovery it serves, so it ends when the last user lets go of that.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Watcher"]

logger = logging.getLogger("patroni_db.discovery")

_AFTER_BUG: Final = 1.0
# Between two looks the connections in use are looked at this often, in seconds.
_TICK: Final = 0.25


class Watched(Protocol):
    """What a watcher serves."""

    def look(self) -> float:
        """Look once; return for how many seconds to sleep, unless woken, before the next look."""

    def tick(self) -> bool:
        """Do what is due more often than looks; return whether there is something of that kind at all."""


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
        if not _sleep(ref, wakes, pause):
            return


def _sleep(ref: Callable[[], Watched | None], wakes: queue.SimpleQueue[bool], seconds: float) -> bool:
    """Sleep until woken or time is up, ticking meanwhile; return False when told to end."""
    end = time.monotonic() + seconds
    ticking = True
    while True:
        remaining = end - time.monotonic()
        if remaining <= 0:
            return True
        try:
            go_on = wakes.get(timeout=min(remaining, _TICK) if ticking else remaining)
        except queue.Empty:
            ticking = ticking and _tick(ref)
            continue
        return go_on and _drain(wakes)


def _drain(wakes: queue.SimpleQueue[bool]) -> bool:
    """Take all wakes that piled up, which count once; return False when one says to end."""
    try:
        while wakes.get_nowait():
            pass
    except queue.Empty:
        return True
    return False


def _tick(ref: Callable[[], Watched | None]) -> bool:
    watched = ref()
    if watched is None:
        return False
    try:
        return watched.tick()
    except Exception:  # as with a look
        logger.exception("looking at the connections failed")
        return False
