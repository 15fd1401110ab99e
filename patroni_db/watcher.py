"""Who looks at the cluster: one background thread that looks, sleeps, looks again.

It holds no strong reference to the discovery it serves, so it ends when the last user lets go of that. Where no thread
can be started, those who wait for a look make it.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final, Protocol

from patroni_db.daemons import start_daemon

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TICK", "Watcher"]

logger = logging.getLogger("patroni_db.discovery")

_AFTER_BUG: Final = 1.0
# Between two looks the connections in use are looked at this often, in seconds.
TICK: Final = 0.25
# Who waits while another thread starts the watcher, or looks in its place, comes back after so many seconds.
_SOON: Final = 0.01


class Watched(Protocol):
    """What a watcher serves."""

    def look(self) -> float:
        """Look once; return for how many seconds to sleep, unless woken, before the next look."""

    def tick(self) -> bool:
        """Do what is due more often than looks; return whether there is something of that kind at all."""


class Watcher:
    """Calls ``look`` again and again, as late as each call's result says, in a daemon thread where one can be started.

    :param watched: held weakly; its collection ends the thread
    :param name: the thread's name
    """

    def __init__(self, watched: Watched, name: str) -> None:
        self._watched = weakref.ref(watched)
        self._name = name
        self._starting = threading.Lock()
        # SimpleQueue.put is documented as reentrant: it may be called from a finalizer in the middle of anything.
        self._wakes: queue.SimpleQueue[bool] | None = None
        self._is_running = False
        # One look at a time: a thread may start while somebody looks in its place.
        self._turn = threading.Lock()
        # When the next look without a thread is due.
        self._due = -math.inf

    @property
    def is_running(self) -> bool:
        """Whether there is a thread that looks."""
        return self._is_running

    def start(self) -> bool:
        """Start the thread unless it runs; return whether it does, or another caller is about to start it."""
        if self._is_running:
            return True
        if not self._starting.acquire(blocking=False):
            return True
        try:
            watched = self._watched()
            if self._wakes is not None or watched is None:  # another caller has started it meanwhile
                return True
            wakes: queue.SimpleQueue[bool] = queue.SimpleQueue()
            self._wakes = wakes  # before it starts: with gevent the first look is over when start() returns
            if start_daemon(self._name, self._run, wakes) is None:
                self._wakes = None
                return False
            weakref.finalize(watched, wakes.put, False).atexit = False
            self._is_running = True
            return True
        finally:
            self._starting.release()

    def keep(self) -> float:
        """Have looks made: start the thread, or where none can be started look in place when a look is due.

        :returns: the seconds after which somebody who waits has to call this again; infinite where a thread looks
        """
        if self.start():
            return math.inf if self._is_running else _SOON
        if time.monotonic() >= self._due and self._turn.acquire(blocking=False):
            try:
                self._due = math.inf
                pause = _look(self._watched)
                # Not if somebody asked for another one meanwhile.
                self._due = min(self._due, math.inf if pause is None else time.monotonic() + pause)
            finally:
                self._turn.release()
        return min(max(self._due - time.monotonic(), _SOON), TICK)

    def wake(self) -> None:
        """Have it look now, or once more right after the look that is under way. Starts no thread."""
        self._due = -math.inf
        wakes = self._wakes
        if wakes is not None:
            wakes.put(True)

    def stop(self) -> None:
        """Let the thread end after the look it is in. It can be started again."""
        wakes, self._wakes, self._is_running = self._wakes, None, False
        if wakes is not None:
            wakes.put(False)

    def _run(self, wakes: queue.SimpleQueue[bool]) -> None:
        try:
            while True:
                with self._turn:
                    pause = _look(self._watched)
                if pause is None or not _sleep(self._watched, wakes, pause):
                    return
        finally:
            if self._wakes is wakes:  # nobody told it to end
                self._wakes, self._is_running = None, False


def _look(ref: Callable[[], Watched | None]) -> float | None:
    watched = ref()
    if watched is None:
        return None
    try:
        return watched.look()
    except Exception:  # a bug must show, but not leave everybody waiting for ever
        logger.exception("looking at the cluster failed")
        return _AFTER_BUG


def _sleep(ref: Callable[[], Watched | None], wakes: queue.SimpleQueue[bool], seconds: float) -> bool:
    """Sleep until woken or time is up, ticking meanwhile; return False when told to end."""
    end = time.monotonic() + seconds
    ticking = True
    while True:
        remaining = end - time.monotonic()
        if remaining <= 0:
            return True
        try:
            go_on = wakes.get(timeout=min(remaining, TICK) if ticking else remaining)
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
