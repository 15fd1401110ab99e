"""The course of a transaction over its attempts: what an end of one means for the next. Does no I/O.

Shared by threads and coroutines, so that both decide alike.
"""

from __future__ import annotations

import logging
import math
import random
import time
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from sqlalchemy.exc import ArgumentError, DBAPIError

from patroni_db.faults import sqlstate_of
from patroni_db.markers import RENEW_AFTER, check_key, fingerprint_of, new_key
from patroni_db.transaction import Reruns
from sqlalchemy_dialect.attempt import Attempt

if TYPE_CHECKING:
    from sqlalchemy_dialect.errors import CommitOutcomeUnknown
    from sqlalchemy_dialect.events import PatroniEvents

__all__ = ["Course"]

logger = logging.getLogger("patroni_db.sqlalchemy")

T = TypeVar("T")

# A server that was promoted this moment may say so in the very answer with which it refused to write.
_REFUSALS_THAT_COUNT: Final = 2
# How often what a replica's damaged data did not let happen is tried elsewhere: all may have copied the damage.
_READS_SENT_AGAIN: Final = 2


class Course(Generic[T]):
    """One call of ``run_transaction``.

    :param events: the engine's
    :param exactly_once: whether a marker decides what became of a COMMIT
    :param key: the caller's own
    :param fingerprint: of the work that `key` stands for
    :param if_applied: what to return when `key` is taken
    :param deadline: seconds for everything together; None for the engine's ``patroni_failover_timeout``
    :raises ArgumentError: the key could not be stored, or the engine is not for writing
    """

    def __init__(
        self,
        events: PatroniEvents,
        *,
        exactly_once: bool,
        key: str | None,
        fingerprint: str | bytes | None,
        if_applied: Any,
        deadline: float | None,
    ) -> None:
        rng = random.SystemRandom()
        self._events = events
        self._shared = key is not None
        self.key = _checked(key) if key is not None else new_key(rng, time.time()) if exactly_once else None
        if fingerprint is not None and not self._shared:
            raise ArgumentError("a fingerprint is one of the work that a key stands for: give run_transaction() a key")
        self.fingerprint = fingerprint_of(fingerprint)
        """What is stored with the key, and compared where that was taken before; None for nothing."""
        self._marked_at = math.inf
        if self.key is not None and not events.config.target.writes:
            raise ArgumentError(
                f"commit markers are written on the primary, and the engine has target {events.config.target}: "
                "without exactly_once and key, run_transaction() reads from it"
            )
        self._reruns = Reruns(events.config.failover_timeout if deadline is None else deadline, rng)
        self._attempt = Attempt()
        self._refusals = 0
        self._damages = 0
        self._doubt: CommitOutcomeUnknown | None = None
        self._value: Any = None
        self.applied_value: Any = if_applied
        """What to return when the marker shows that the work is done: the value of the attempt that did it."""

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, at least 0."""
        return self._reruns.remaining

    @property
    def patience(self) -> float | None:
        """Seconds that the marker may wait for another transaction with its key; None when nobody else has it."""
        return self.remaining if self._shared or self._doubt is not None else None

    def next_attempt(self) -> Attempt:
        """Return what is to be known of the attempt that begins now."""
        self._attempt = Attempt()
        return self._attempt

    def marked(self, collisions: int) -> bool:
        """Take in what the marker returned; return whether the work is done already."""
        self._marked_at = time.monotonic()
        if not collisions:
            self._doubt = None  # what was in doubt has not happened, and never will
        elif self._doubt is None:
            logger.info("the key %r has been applied by an earlier call: its work is not run again", self.key)
        return bool(collisions)

    @property
    def is_old(self) -> bool:
        """Whether the marker was inserted so long ago that its age must begin anew."""
        return time.monotonic() - self._marked_at >= RENEW_AFTER

    def finishing(self, value: T) -> None:
        """Take in what the callable returned, before COMMIT is sent."""
        self._value = value
        self._attempt.check_that_it_can_commit()
        self._attempt.finishing = True

    def pause_after(self, exc: Exception) -> float | None:
        """Return the seconds to wait before the next attempt; None when `exc` is to be raised.

        :param exc: what the attempt ended with
        :raises CommitOutcomeUnknown: an earlier attempt is in doubt, and this one could not clear it up
        """
        attempt = self._attempt
        if attempt.sent:
            return None  # it was committed: what failed came after
        invalidated = isinstance(exc, DBAPIError) and exc.connection_invalidated
        if not attempt.began and not invalidated and sqlstate_of(exc) is None:
            # It was connecting, which waits and tries again by itself, that was given up.
            self._given_up(exc)
            return None
        doubt = attempt.doubt  # also when an application's own handler has put another error in its place
        if doubt is not None:
            self._doubt = doubt
            self.applied_value = self._value
        self._refusals = self._refusals + 1 if attempt.read_only else 0
        self._damages += attempt.elsewhere
        decidable = doubt is not None and self.key is not None
        pause = self._reruns.pause_after(
            exc if doubt is None else doubt,
            lost=attempt.lost or invalidated,
            decidable=decidable,
            elsewhere=attempt.elsewhere and self._damages <= _READS_SENT_AGAIN,
        )
        if self._refusals >= _REFUSALS_THAT_COUNT:
            pause = None
        if pause is not None:
            logger.info("a transaction runs again: %s", exc)
            return pause
        self._given_up(exc)
        return None

    def _given_up(self, exc: Exception) -> None:
        """Note with the last error how many attempts there were.

        :raises CommitOutcomeUnknown: an earlier attempt is in doubt, and the last one could not clear it up
        """
        if self._doubt is not None and self._doubt is not self._attempt.doubt:
            self._doubt.add_note(f"what became of it could not be found out: {exc}")
            self._reruns.note(self._doubt)
            raise self._doubt from self._doubt.__cause__
        if self._reruns.attempts > 1 and not getattr(exc, "__notes__", None):
            self._reruns.note(exc)


def _checked(key: str) -> str:
    if not isinstance(key, str):
        raise ArgumentError(f"key takes a string, not {type(key).__name__}")
    try:
        return check_key(key)
    except ValueError as exc:
        raise ArgumentError(str(exc)) from exc
