"""Members that failed rest: they are tried last for a while, which grows when they fail again. Knows no server.

Two kinds of failure differ in what proves a member. One that could not be connected to is proved by a connection.
One whose reads failed (its data is damaged, or its recovery keeps ending queries) takes connections all the same:
only having served for as long as it had rested lets the next rest be short again.
"""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Final

from cachetools import TLRUCache

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

__all__ = ["Quarantine"]

# Seconds of the first rest. A recovery conflict is over in a moment; a server that is down takes longer to come back.
# Damaged data stays: each return costs somebody a failed read, so that rests grow.
_FIRST_OF_FAILED_READS: Final = 1.0
_FIRST_OF_UNREACHED: Final = 5.0
_LONGEST: Final = 60.0
_GROWTH: Final = 2.0
# So that the processes of an application do not all come back at once.
_JITTER: Final = 0.25
_MANY: Final = 1024


@dataclasses.dataclass(frozen=True, slots=True)
class _Rest:
    """How a member rests, or rested last.

    :param until: in seconds of the clock
    :param seconds: its length before jitter, and for how long the member is on probation afterwards
    :param reads_failed: whether it was connected to, and failed to read
    """

    until: float
    seconds: float
    reads_failed: bool


class Quarantine:
    """The members of one cluster that rest. All methods may be called from any thread.

    :param clock: seconds, monotonic
    :param rng: jitters
    """

    def __init__(self, clock: Callable[[], float], rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng
        self._lock = threading.Lock()
        # A rest is forgotten, and with it how long it was, when as much time has passed after it.
        self._rests: TLRUCache[str, _Rest] = TLRUCache(_MANY, ttu=_end_of_probation, timer=clock)

    def rest(self, name: str, *, reads_failed: bool) -> float | None:
        """Let a member rest that failed.

        :param name: the member's
        :param reads_failed: whether it was connected to, and failed to read
        :returns: for how many seconds; None when it rests already: failures of one moment count once
        """
        with self._lock:
            now, last = self._clock(), self._rests.get(name)
            if last is not None and now < last.until and (last.reads_failed or not reads_failed):
                return None
            first = _FIRST_OF_FAILED_READS if reads_failed else _FIRST_OF_UNREACHED
            seconds = min(last.seconds * _GROWTH, _LONGEST) if last is not None else first
            jittered = seconds * self._rng.uniform(1 - _JITTER, 1 + _JITTER)
            self._rests[name] = _Rest(now + jittered, seconds, reads_failed)
            return jittered

    def reached(self, name: str) -> None:
        """End the rest of a member that could not be connected to, and was now. It stays on probation."""
        with self._lock:
            last, now = self._rests.get(name), self._clock()
            if last is not None and not last.reads_failed and now < last.until:
                self._rests[name] = dataclasses.replace(last, until=now)

    def forgive(self, name: str) -> None:
        """Forget that a member could not be connected to: it has been started again."""
        with self._lock:
            last = self._rests.get(name)
            if last is not None and not last.reads_failed:
                self._rests.pop(name, None)

    def resting(self) -> frozenset[str]:
        """Return the names of the members that rest."""
        return self._names(lambda _: True)

    def failing(self) -> frozenset[str]:
        """Return the names of those that rest because reads failed: open connections to them are no good either."""
        return self._names(lambda rest: rest.reads_failed)

    def _names(self, wanted: Callable[[_Rest], bool]) -> frozenset[str]:
        with self._lock:
            now = self._clock()
            rests = [(name, self._rests.get(name)) for name in self._rests]
        return frozenset(name for name, rest in rests if rest is not None and now < rest.until and wanted(rest))


def _end_of_probation(_name: str, rest: _Rest, _now: float) -> float:
    return rest.until + rest.seconds
