"""Calling something that cannot be interrupted, for no longer than a given time.

Resolving a name, libpq's least timeout of two seconds, a session on a server that was frozen in the middle of it:
none of them ends when its caller's deadline has come. So the call is made in a thread of its own, and left alone
when it takes too long. A waiting caller can be interrupted (Ctrl-C), which a call into C cannot.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

from patroni_db.daemons import start_daemon
from patroni_db.forking import note_end

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["call_within"]

logger = logging.getLogger("patroni_db.connections")

T = TypeVar("T")


class _Call(Generic[T]):
    def __init__(self, function: Callable[[], T], release: Callable[[T], None]) -> None:
        self._function = function
        self._release = release
        self._lock = threading.Lock()
        self._abandoned = False
        self.ended = threading.Event()
        self.result: list[T] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        late: list[T] = []
        try:
            result = self._function()
            with self._lock:
                (late if self._abandoned else self.result).append(result)
            del result
        except BaseException as exc:  # noqa: BLE001 - raised again where the call is waited for
            self.error = exc
        self.ended.set()
        self._let_go(late)
        note_end()

    def abandon(self) -> None:
        """Have the result released, now or when it comes."""
        with self._lock:
            self._abandoned = True
            late, self.result = self.result, []
        self._let_go(late)

    def _let_go(self, late: list[T]) -> None:
        for result in late:
            try:
                self._release(result)
            except Exception:  # nobody is there any more whom it would concern
                logger.debug("a late result could not be released", exc_info=True)


def call_within(seconds: float, function: Callable[[], T], release: Callable[[T], None]) -> T:
    """Return ``function()``, called in a thread of its own with the caller's context variables.

    Where no thread can be started it is called in place, and takes as long as it takes.

    :param seconds: how long to wait for it
    :param release: called with a result that came too late, or after an interrupted wait
    :raises TimeoutError: it has not returned within `seconds`; it goes on in its thread
    """
    call = _Call(function, release)
    context = contextvars.copy_context()
    if start_daemon("patroni-db connect", context.run, call.run) is None:
        return context.run(function)
    try:
        in_time = call.ended.wait(min(seconds, threading.TIMEOUT_MAX))
    except BaseException:  # Ctrl-C
        call.abandon()
        raise
    if not in_time:
        call.abandon()
        raise TimeoutError(f"no answer within {seconds:.3g} s")
    try:
        if call.error is not None:
            raise call.error
        return call.result.pop()
    finally:
        call.error = None  # its traceback holds this frame
