"""Running a callable in a transaction again: after which errors, how soon, and until when. Knows no framework.

What was lost before COMMIT was sent, was refused because the server is read-only, or was rolled back by the server
itself has left nothing behind, so the whole callable may run again. What was lost during COMMIT may not, unless a
commit marker decides what became of it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from patroni_db.durations import checked
from patroni_db.errors import CommitOutcomeUnknown, NoServerError
from patroni_db.faults import READING_FAULTS, Fault, chain, classify

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

__all__ = ["Reruns"]

# Seconds. Waiting for a server is done where connections are made; this keeps those apart that met the same fault,
# or that keep running into each other (40001, 40P01).
_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 1.0
_AGAIN: Final = frozenset({Fault.UNAVAILABLE, Fault.NOT_WRITABLE, Fault.TRANSIENT})
# Whose errors speak of the database. A callable may meet others: a web service that refuses connections, a cache.
_DATABASE: Final = ("asyncpg", "psycopg", "psycopg2", "psycopg_pool", "sqlalchemy", "django.db")


class Reruns:
    """The attempts at one transaction.

    :param seconds: how long after now the last attempt may begin
    :param rng: for the pauses
    :param clock: in seconds, monotonic
    :raises ValueError: `seconds` are not between zero and a day
    """

    def __init__(self, seconds: float, rng: random.Random, clock: Callable[[], float] = time.monotonic) -> None:
        self._rng = rng
        self._clock = clock
        self._began = clock()
        self._deadline = self._began + checked(seconds, "deadline")
        self.attempts = 0

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, at least 0."""
        return max(0.0, self._deadline - self._clock())

    def pause_after(
        self, exc: BaseException, *, lost: bool, decidable: bool = False, elsewhere: bool = False
    ) -> float | None:
        """Count a failed attempt and return the seconds to wait before the next; None when `exc` must be raised.

        An error that only the deadline keeps from another attempt gets a note that tells how many there were.

        :param exc: what the attempt ended with
        :param lost: whether its connection is closed or broken now
        :param decidable: whether a commit marker decides what became of a COMMIT that was not answered
        :param elsewhere: whether a replica failed to read, and another server may not
        """
        self.attempts += 1
        if not _may_run_again(exc, lost=lost, decidable=decidable, elsewhere=elsewhere):
            return None
        remaining = self._deadline - self._clock()
        if remaining <= 0:
            self.note(exc)
            return None
        longest: float = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self.attempts - 1, 10))
        return min(remaining, self._rng.uniform(0.0, longest))  # full jitter

    def note(self, exc: BaseException) -> None:
        """Tell with `exc` how many attempts there were."""
        times = "once" if self.attempts == 1 else f"{self.attempts} times"
        exc.add_note(f"the transaction was tried {times} in {self._clock() - self._began:.1f} s")


def _may_run_again(exc: BaseException, *, lost: bool, decidable: bool, elsewhere: bool) -> bool:
    if not isinstance(exc, Exception):
        return False  # Ctrl-C, a cancelled task
    links = list(chain(exc))
    if any(isinstance(link, CommitOutcomeUnknown) for link in links):
        return decidable
    if any(isinstance(link, NoServerError) for link in links):
        return False  # the deadline was waited out for a connection
    if not any(map(_is_of_database, links)):
        # asyncpg lets the operating system's errors through.
        return lost and isinstance(exc, OSError)
    fault = classify(exc, closed=lost or None)
    return fault in _AGAIN or (elsewhere and fault in READING_FAULTS)


def _is_of_database(exc: BaseException) -> bool:
    return any(f"{cls.__module__}.".startswith(f"{name}.") for cls in type(exc).__mro__ for name in _DATABASE)
