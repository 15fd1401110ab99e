"""Asking a cluster's REST APIs: one after the other while all is well, all at once in an alarm.

An API that hangs keeps its own request waiting and nothing else: it is not asked again before that ends.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from typing import TYPE_CHECKING, Final

from cachetools import TTLCache

from patroni_db.errors import DiscoveryError
from patroni_db.forking import note_end
from patroni_db.views import View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from patroni_db.client import NodeStatus, PatroniClient
    from patroni_db.config import PatroniConfig

__all__ = ["Apis"]

logger = logging.getLogger("patroni_db.discovery")

# An API that failed is asked after the others for this many seconds.
_REST: Final = 5.0
_MANY: Final = 1024


class Apis:
    """The endpoints of one cluster, and what became of asking them.

    :param config: seeds, and how to ask
    :param clock: seconds, monotonic
    :param make_client: makes one client for each endpoint
    """

    def __init__(
        self,
        config: PatroniConfig,
        clock: Callable[[], float],
        make_client: Callable[[PatroniConfig], PatroniClient],
    ) -> None:
        self._config = config
        self._clock = clock
        self._make_client = make_client
        self._lock = threading.Lock()
        self._clients: dict[str, PatroniClient] = {}
        self._resting: TTLCache[str, bool] = TTLCache(_MANY, _REST, timer=clock)
        self._failing: set[str] = set()
        self._flying: set[str] = set()
        self._turn = 0

    def in_turn(self, learned: Iterable[str], first: str | None = None) -> tuple[str, ...]:
        """Return every endpoint, in the order to ask them now.

        :param learned: the members' endpoints, which come before the seeds
        :param first: the leader's, which is asked first: its silence is the earliest sign of trouble
        """
        urls = tuple(dict.fromkeys((*learned, *self._config.urls)))
        turn = self._turn % len(urls)
        self._turn += 1
        with self._lock:
            resting = set(self._resting)
        return tuple(sorted((*urls[turn:], *urls[:turn]), key=lambda url: (url in resting, url != first)))

    def ask(self, url: str) -> View:
        """Return what the API at `url` says of the cluster.

        :raises DiscoveryError: it gave no usable answer
        """
        at = self._clock()
        return View(url, self._client(url).cluster(url), None, at)

    def ask_node(self, url: str) -> NodeStatus:
        """Return what the API at `url` says of its own node.

        :raises DiscoveryError: it gave no usable answer
        """
        return self._client(url).node(url)

    def ask_history(self, url: str) -> Mapping[int, int]:
        """Return where each earlier timeline was left, as the API at `url` knows it.

        :raises DiscoveryError: it gave no usable answer
        """
        return self._client(url).history(url)

    def ask_all(
        self,
        urls: Iterable[str],
        names_itself: Callable[[View], bool],
        landed: Callable[[str, View | DiscoveryError], None],
    ) -> list[threading.Thread]:
        """Ask all `urls` at once, except those whose last request has not ended yet.

        :param names_itself: tells whether the leader that a view names is the node that gave it: only such a node
            is asked for its own state too
        :param landed: called with each answer, in a thread of its own, whenever it comes
        :returns: the threads that were started
        """
        flights = []
        for url in urls:
            with self._lock:
                if url in self._flying:
                    continue
                self._flying.add(url)
            flight = threading.Thread(
                target=self._fly, args=(url, names_itself, landed), name="patroni-db look", daemon=True
            )
            flight.start()
            flights.append(flight)
        return flights

    def note(self, url: str, failure: DiscoveryError | None) -> bool:
        """Let an API that failed rest, and log when it begins or ends to fail.

        :returns: whether it failed now and did not before
        """
        with self._lock:
            was_failing = url in self._failing
            if failure is None:
                self._resting.pop(url, None)
                self._failing.discard(url)
            else:
                self._resting[url] = True
                self._failing.add(url)
        if failure is None and was_failing:
            logger.info("%s answers again", url)
        elif failure is not None and not was_failing:
            # As text: a handler that keeps records would keep the traceback, and all that its frames hold.
            logger.warning("Patroni API failed: %s", str(failure))
        return failure is not None and not was_failing

    def close(self) -> None:
        """Close pooled HTTP connections. The endpoints can still be asked."""
        with self._lock:
            clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()

    def _fly(
        self,
        url: str,
        names_itself: Callable[[View], bool],
        landed: Callable[[str, View | DiscoveryError], None],
    ) -> None:
        answer: View | DiscoveryError
        try:
            answer = self.ask(url)
            if names_itself(answer):
                answer = dataclasses.replace(answer, status=self._status(url))
        except DiscoveryError as exc:
            answer = exc.with_traceback(None)
        finally:
            with self._lock:
                self._flying.discard(url)
        landed(url, answer)
        note_end()

    def _status(self, url: str) -> NodeStatus | None:
        try:
            return self.ask_node(url)
        except DiscoveryError:
            return None  # it told of the cluster, that is enough; its next answer tells whether it fails

    def _client(self, url: str) -> PatroniClient:
        with self._lock:
            client = self._clients.get(url)
            if client is None:
                client = self._clients[url] = self._make_client(self._config)
            return client
