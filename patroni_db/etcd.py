"""Patroni's leader key in etcd: read it, watch it from the next revision, and on any trouble do so again.

A read before every watch makes each new start whole, whatever ended the last one: a cancelled watch, a compaction, an
etcd that was restarted or restored from a backup, a silence that may be that of a frozen server.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import random
import time
from typing import TYPE_CHECKING, Final

from patroni_db.etcd_client import EtcdClient, EtcdError
from patroni_db.etcd_messages import NoticeKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from patroni_db.config import PatroniConfig
    from patroni_db.push import Stop

__all__ = ["EtcdWatch", "leader_key"]

logger = logging.getLogger("patroni_db.push")

# Patroni's heartbeats do not change the key, and etcd's own signs of life come every ten minutes: after so many seconds
# without a word the key is read, which a frozen etcd does not answer.
_SILENCE: Final = 10.0
# Seconds to the next try: after a first failure, and at most. Doubled from one to the next.
_FIRST_PAUSE: Final = 0.1
_LAST_PAUSE: Final = 5.0


def leader_key(namespace: str, scope: str) -> str:
    """Return the key that Patroni's leader holds; slashes are put as Patroni does."""
    return "/" + "/".join(filter(None, f"{namespace}/{scope}".split("/"))) + "/leader"


class _State(enum.Enum):
    NEW = enum.auto()
    WATCHING = enum.auto()
    LOST = enum.auto()
    FAILING = enum.auto()


class EtcdWatch:
    """Learns from etcd who leads, see :class:`~patroni_db.push.LeaderWatch`.

    :param config: endpoints, TLS, authentication and Patroni's namespace
    :param scope: the cluster's name
    :param rng: spreads the tries of many processes
    :param silence: seconds without a word after which the key is read again
    """

    def __init__(
        self, config: PatroniConfig, scope: str, *, rng: random.Random | None = None, silence: float = _SILENCE
    ) -> None:
        self._config = config
        self._key = leader_key(config.namespace, scope)
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._silence = silence
        self._state = _State.NEW

    def run(self, changed: Callable[[str | None], None], stop: Stop) -> None:
        """Tell of every change of the leader until stopped."""
        client = EtcdClient(self._config, stop)
        urls = list(self._config.etcd)
        self._rng.shuffle(urls)
        failures = 0
        while not stop.is_set():
            began = time.monotonic()
            try:
                self._follow(client, urls[0], changed)
            except EtcdError as exc:
                if stop.is_set():
                    return
                self._note_failure(exc)
                failures = 0 if time.monotonic() > began + _LAST_PAUSE else failures
                stop.wait(min(_LAST_PAUSE, _FIRST_PAUSE * 2**failures) * self._rng.uniform(0.5, 1.0))
                failures = min(failures + 1, 16)
                urls.append(urls.pop(0))
            except TimeoutError:
                self._note_well(urls[0])
                failures = 0

    def _follow(self, client: EtcdClient, url: str, changed: Callable[[str | None], None]) -> None:
        """Read and watch at one endpoint, as long as that goes well.

        :raises TimeoutError: nothing was heard for a while
        :raises EtcdError: the endpoint did not answer, or not to the purpose, or ended the watch
        """
        token = client.token(url)
        leader = client.leader(url, self._key, token)
        changed(leader.owner)
        with contextlib.closing(client.watch(url, self._key, leader.revision + 1, self._silence, token)) as notices:
            for notice in notices:
                if notice.kind is NoticeKind.OPENED and self._state is not _State.FAILING:
                    self._note_well(url)
                elif notice.kind is NoticeKind.CHANGED:
                    self._note_well(url)
                    changed(notice.owner)
                elif notice.kind is NoticeKind.ENDED:
                    raise EtcdError(url, notice.reason)

    def _note_well(self, url: str) -> None:
        """Log that watching works; after a failure only what a watch told, or its long silence, is a proof of that."""
        if self._state is not _State.WATCHING:
            level = logging.DEBUG if self._state is _State.LOST else logging.INFO
            logger.log(level, "watching %s at %s", self._key, url)
        self._state = _State.WATCHING

    def _note_failure(self, failure: EtcdError) -> None:
        """Log once that watching does not work; a watch that ended is no news where the next try makes another one."""
        if self._state is _State.WATCHING:
            self._state = _State.LOST
            logger.debug("the watch ended: %s", failure)
        elif self._state is not _State.FAILING:
            self._state = _State.FAILING
            logger.warning("etcd cannot be watched, Patroni's APIs are polled as ever: %s", failure)
