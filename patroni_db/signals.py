"""A signal that threads and coroutines wait for together.

:class:`threading.Condition` has no place for event loops and :class:`asyncio.Condition` none for threads;
here a waiter is a callback, so that one :meth:`Signal.notify_all` wakes both kinds.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Signal", "Waiter"]


class Waiter:
    """One place in a signal's queue, taken before the condition is checked and slept on afterwards.

    Enter it first, then look at the state, then wait: a notification in between is not lost.
    """

    __slots__ = ("_signal", "_wake", "woken")

    def __init__(self, signal: Signal) -> None:
        self._signal = signal
        self._wake: Callable[[], None] | None = None
        self.woken = False

    def wait(self, timeout: float | None) -> bool:
        """Sleep until notified or `timeout` seconds passed; return whether notified.

        An interrupted sleep (Ctrl-C) passes a notification that was meant for it on to the next waiter.
        """
        event = threading.Event()
        completed = False
        try:
            if self._arm(event.set):
                event.wait(None if timeout is None else min(timeout, threading.TIMEOUT_MAX))
            completed = True
        finally:
            self._leave(pass_on=not completed)
        return self.woken

    async def wait_async(self, timeout: float | None) -> bool:
        """Do the same as :meth:`wait` without blocking the event loop; a cancelled wait passes on likewise."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def resolve() -> None:
            if not future.done():
                future.set_result(None)

        def wake() -> None:
            loop.call_soon_threadsafe(resolve)

        completed = False
        try:
            if self._arm(wake):
                await asyncio.wait([future], timeout=timeout)
            completed = True
        finally:
            future.cancel()
            self._leave(pass_on=not completed)
        return self.woken

    def _arm(self, wake: Callable[[], None]) -> bool:
        with self._signal._lock:  # noqa: SLF001 - two halves of one concept
            if not self.woken:
                self._wake = wake
            return not self.woken

    def _leave(self, *, pass_on: bool) -> None:
        with self._signal._lock:  # noqa: SLF001
            if not self.woken:
                self._signal._waiters.remove(self)  # noqa: SLF001
                return
        if pass_on:
            self._signal.notify_one()

    def cancel(self) -> None:
        """Give the place up without having waited."""
        self._leave(pass_on=True)

    def _notify(self) -> bool:
        """Wake the sleeper (called with the lock held); return False when there is nobody to wake any more."""
        self.woken = True
        if self._wake is not None:
            try:
                self._wake()
            except RuntimeError:  # its event loop was closed
                return False
        return True


class Signal:
    """Wakes waiting threads and coroutines, all or one at a time, in the order they came."""

    __slots__ = ("_lock", "_waiters")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: deque[Waiter] = deque()

    def enter(self) -> Waiter:
        """Take a place in the queue. Either wait on it or cancel it."""
        waiter = Waiter(self)
        with self._lock:
            self._waiters.append(waiter)
        return waiter

    def notify_all(self) -> None:
        """Wake every waiter."""
        with self._lock:
            while self._waiters:
                self._waiters.popleft()._notify()  # noqa: SLF001

    def notify_one(self) -> None:
        """Wake the waiter that came first."""
        with self._lock:
            while self._waiters:
                if self._waiters.popleft()._notify():  # noqa: SLF001
                    return
