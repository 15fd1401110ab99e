"""Connections that stay in pools do not see who has come: some are moved, a few at a time. Does no I/O.

A replica that starts, or comes back from a fault, gets no connection while pools are full of others. At each look a
bounded share of the connections to members that have more than their share is given up when it is next handed out;
the connection that replaces it is made as any other, by :func:`~patroni_db.selection.candidates`.
"""

from __future__ import annotations

import collections
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Balance", "moves"]

# At most this part of the connections is moved in one look, and at least one.
_SHARE: Final = 0.1


def moves(
    loads: Mapping[str, int], weights: Mapping[str, float], *, returning: bool = False
) -> collections.Counter[str]:
    """Return how many connections to give up now, by the member they lead to.

    One is moved where that makes the fuller of two members still the fuller one, or their equal, by weight: so none
    goes to and fro.

    :param loads: the open connections by member
    :param weights: of the members among which they are to be shared, all more than 0; connections to other
        members are to go
    :param returning: a member has just joined: one more connection is drawn again where that changes nothing on
        average. Otherwise processes with one connection each would never use it
    """
    left = collections.Counter({name: load for name, load in loads.items() if load > 0})
    taken: collections.Counter[str] = collections.Counter()
    budget = max(1, int(left.total() * _SHARE))

    def fullness(name: str) -> float:
        weight = weights.get(name, 0.0)
        return left[name] / weight if weight else float("inf")

    while left and weights and taken.total() < budget:
        fullest = max(left, key=fullness)
        emptiest = min(weights, key=lambda name: (left[name] + 1) / weights[name])
        after = (left[emptiest] + 1) / weights[emptiest]
        if fullness(fullest) < after or (fullness(fullest) == after and not returning):
            break
        returning = returning and fullness(fullest) > after
        left[fullest] -= 1
        left[emptiest] += 1
        left += collections.Counter()  # without those that have none left
        taken[fullest] += 1
    return taken


class Balance:
    """Of the connections for one purpose, which are to be given up. Its methods may be called from any thread.

    :param clock: seconds, monotonic
    :param period: seconds between two looks
    """

    def __init__(self, clock: Callable[[], float], period: float) -> None:
        self._clock = clock
        self._period = period
        self._lock = threading.Lock()
        self._due = clock()
        self._members: frozenset[str] | None = None
        self._moves: collections.Counter[str] = collections.Counter()

    def takes(self, name: str, survey: Callable[[], tuple[Mapping[str, int], Mapping[str, float]]]) -> bool:
        """Return whether the idle connection at hand, which leads to the member `name`, is to be given up.

        :param survey: returns loads and weights as :func:`moves` takes them; called once a look
        """
        if not self._moves and self._clock() < self._due:
            return False
        with self._lock:
            if self._clock() >= self._due:
                self._look(survey)
            if not self._moves[name]:
                return False
            self._moves[name] -= 1
            self._moves += collections.Counter()  # without those that are done
            return True

    def _look(self, survey: Callable[[], tuple[Mapping[str, int], Mapping[str, float]]]) -> None:
        loads, weights = survey()
        members = frozenset(weights)
        returning = self._members is not None and not members <= self._members
        self._moves = moves(loads, weights, returning=returning)
        self._members = members
        self._due = self._clock() + self._period
