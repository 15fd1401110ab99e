"""Asking a cluster's REST APIs: one after the other while all is well, all at once in an alarm.

An API that hangs keeps its own request waiting and nothing else: it is not asked again before that ends.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import logging
import threading
import traceback
from typing import TYPE_CHECKING, Final

from cachetools import TTLCache

from patroni_db.daemons import start_daemon
from patroni_db.errors import DiscoveryError
from patroni_db.escaping import plain_cause
from patroni_db.forking import note_end
from patroni_db.views import View

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from patroni_db.client import NodeStatus, PatroniClient
    from patroni_db.config import PatroniConfig

__all__ = ["Apis", "Flight"]

logger = logging.getLogger("patroni_db.discovery")

# An API that failed is asked after the others for this many seconds.
_REST: Final = 5.0
_MANY: Final = 1024
# So many requests are under way at a time; in an alarm the others are made at the next looks.
_AT_ONCE: Final = 32

# What becomes of asking one API: why it gave no usable answer, or None.
Flight = concurrent.futures.Future["DiscoveryError | None"]


class Apis:
    """The endpoints of one cluster, and what became of asking them.

    :param config: seeds, and how to ask
    :param clock: seconds, monotonic
    :param make_client: makes the client, with the first request
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
        self._client: PatroniClient | None = None
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

    def keep(self, urls: Collection[str]) -> None:
        """Forget what became of asking any other endpoint."""
        with self._lock:
            self._failing.intersection_update(urls)

    def ask(self, url: str) -> View:
        """Return what the API at `url` says of the cluster.

        :raises DiscoveryError: it gave no usable answer
        """
        at = self._clock()
        with _told(url):
            return View(url, self._shared_client().cluster(url), None, at)

    def ask_node(self, url: str) -> NodeStatus:
        """Return what the API at `url` says of its own node.

        :raises DiscoveryError: it gave no usable answer
        """
        with _told(url):
            return self._shared_client().node(url)

    def ask_history(self, url: str) -> Mapping[int, int]:
        """Return where each earlier timeline was left, as the API at `url` knows it.

        :raises DiscoveryError: it gave no usable answer
        """
        with _told(url):
            return self._shared_client().history(url)

    def ask_with_status(self, url: str, names_itself: Callable[[View], bool]) -> View:
        """Do as :meth:`ask`, and ask a node that names itself as the leader for its own state too.

        :param names_itself: tells whether the leader that a view names is the node that gave it
        :raises DiscoveryError: it gave no usable answer
        """
        view = self.ask(url)
        if names_itself(view):
            # It told of the cluster, that is enough; its next answer tells whether it fails.
            with contextlib.suppress(DiscoveryError):
                return dataclasses.replace(view, status=self.ask_node(url))
        return view

    def start(self, url: str, ask: Callable[[str], DiscoveryError | None]) -> Flight | None:
        """Have ``ask(url)`` called in a thread of its own, or in place where none can be started.

        :param ask: asks the API at `url` and takes its answer; returns why that is of no use, or None
        :returns: what will be its result; None when it is not called, because the last call for `url` has not ended, or
            as many as may be are under way
        """
        with self._lock:
            if url in self._flying or len(self._flying) >= _AT_ONCE:
                return None
            self._flying.add(url)
        flight: Flight = concurrent.futures.Future()
        if start_daemon("patroni-db look", self._fly, url, ask, flight, note_end) is None:
            self._fly(url, ask, flight, lambda: None)
        return flight

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

    def _fly(
        self, url: str, ask: Callable[[str], DiscoveryError | None], flight: Flight, ended: Callable[[], None]
    ) -> None:
        result: DiscoveryError | None = None
        try:
            with _told(url):
                result = ask(url)
        except DiscoveryError as exc:
            result = exc.with_traceback(None)  # its frames would keep the discovery alive, and its thread
        finally:
            with self._lock:
                self._flying.discard(url)
            flight.set_result(result)
        ended()

    def _shared_client(self) -> PatroniClient:
        with self._lock:
            if self._client is None:
                self._client = self._make_client(self._config)
            return self._client


@contextlib.contextmanager
def _told(url: str) -> Iterator[None]:
    """Let anything unexpected be a failure of asking `url`, which users see and which the next look may mend."""
    try:
        yield
    except DiscoveryError:
        raise
    except Exception as exc:  # noqa: BLE001 - a bug, or a process that is short of memory or descriptors
        # Once a look, and as text: see note().
        for line in traceback.format_exc().splitlines():
            logger.debug("asking %s failed: %s", url, line)
        raise DiscoveryError(url, f"{type(exc).__name__}: {exc}", transient=True) from plain_cause(exc)
