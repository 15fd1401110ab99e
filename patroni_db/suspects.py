"""Members that may hang: each is asked until it answers, by a thread of its own.

A server that is frozen, or cut off, refuses nothing and closes nothing: TCP goes on, or goes silent without a word.
Only asking it tells.
"""

from __future__ import annotations

import logging
import threading
import weakref
from typing import TYPE_CHECKING, Final, Protocol

from cachetools import TTLCache

from patroni_db.daemons import start_daemon

if TYPE_CHECKING:
    from collections.abc import Callable

    from patroni_db.topology import Address

__all__ = ["Suspects"]

logger = logging.getLogger("patroni_db.discovery")

# A silent one is asked again after this many seconds.
_PAUSE: Final = 0.25
# Calls under way on a server that has been silent for so many seconds will not come back.
_HUNG: Final = 3.0
# One that has answered is above suspicion for so many seconds: a slow query asks for no more than that.
_CLEARED: Final = 1.0
_MANY: Final = 1024
# So many are asked at a time. The others are suspected again, for as long as there is a reason to.
_AT_ONCE: Final = 32


class Owner(Protocol):
    """Whom a change of silence concerns."""

    def silence_changed(self) -> None:
        """Take note that other members are silent now."""

    def is_hung(self, name: str) -> None:
        """Take note that `name` has been silent for long."""

    def has_member(self, name: str) -> bool:
        """Return whether `name` is (still) a member."""


class Suspects:
    """The members of one cluster that are suspected to hang.

    :param owner: held weakly; its collection ends the asking
    :param asks: tells whether a server is silent
    :param clock: seconds, monotonic
    """

    def __init__(self, owner: Owner, asks: Callable[[Address], bool], clock: Callable[[], float]) -> None:
        self._owner = weakref.ref(owner)
        self._asks = asks
        self._clock = clock
        self._lock = threading.Lock()
        self._asked: set[str] = set()
        self._cleared: TTLCache[str, bool] = TTLCache(_MANY, _CLEARED, timer=clock)
        self._stopped = threading.Event()
        self.silent: frozenset[str] = frozenset()

    def suspect(self, name: str, address: Address, *, times: int) -> None:
        """Ask the server at `address`, unless that is being done or was a moment ago.

        :param times: how often in a row it must have been silent to be called so
        """
        with self._lock:
            if name in self._asked or name in self._cleared or self._stopped.is_set() or len(self._asked) >= _AT_ONCE:
                return
            self._asked.add(name)
        if start_daemon("patroni-db suspicion", self._ask, name, address, times) is None:
            with self._lock:  # whoever still has a reason to suspect it does so again
                self._asked.discard(name)

    def stop(self) -> None:
        """Let the asking end after the question that is under way."""
        self._stopped.set()

    def _ask(self, name: str, address: Address, times: int) -> None:
        is_told = False
        try:
            is_told = self._ask_until_it_answers(name, address, times)
        except Exception:  # a bug must show, but not leave the server avoided for ever
            logger.exception("asking whether %s is silent failed", name)
            is_told = True
        self._set(name, silent=False)
        with self._lock:
            self._asked.discard(name)
            self._cleared[name] = True
        owner = self._owner()
        if owner is not None and is_told and not self._stopped.is_set():
            owner.silence_changed()

    def _ask_until_it_answers(self, name: str, address: Address, times: int) -> bool:
        """Ask until there is an answer, or nobody is there to be told; return whether its silence has been told."""
        asked, since, hung = 0, 0.0, False
        while not self._stopped.is_set() and self._asks(address):
            owner = self._owner()
            if owner is None or not owner.has_member(name):
                break
            asked += 1
            if asked == times:
                since = self._clock()
                self._set(name, silent=True)
                owner.silence_changed()
            elif asked > times and not hung and self._clock() - since >= _HUNG:
                hung = True
                owner.is_hung(name)
            del owner
            self._stopped.wait(_PAUSE)
        return asked >= times

    def _set(self, name: str, *, silent: bool) -> None:
        with self._lock:
            self.silent = self.silent | {name} if silent else self.silent - {name}
