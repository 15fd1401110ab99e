"""Being told of a new leader instead of asking for one: the thread that waits for it, and what it waits with.

The REST APIs are asked every ``patroni_refresh``; a process that is idle, or only reads, learns of a new leader that
late. A :class:`LeaderWatch` learns of it when it happens, from where Patroni keeps its leader key, and only ever says
"look now": what is then believed still comes from the APIs, and from the servers. So it may fail, lie or be away, and
costs nothing but its own earliness.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import socket
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final, Protocol

from patroni_db.daemons import start_daemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patroni_db.discovery import Discovery

__all__ = ["LeaderPush", "LeaderWatch", "Stop", "push_for"]

logger = logging.getLogger("patroni_db.push")

_AFTER_BUG: Final = 5.0
# Looking after a hint takes less than this, unless no API answers.
_SETTLED: Final = 5.0

_stops: weakref.WeakSet[Stop] = weakref.WeakSet()


class Stop:
    """Tells a thread to end, also while it sleeps or waits for a socket. Of one thread, in one process.

    :meth:`set` may be called from a finalizer in the middle of anything.
    """

    def __init__(self) -> None:
        # Both reentrant, for the finalizer: a SimpleQueue's put is documented to be.
        self._lock = threading.RLock()
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._socket: socket.socket | None = None
        self._is_set = False
        self._owner = os.getpid()
        _stops.add(self)

    def is_set(self) -> bool:
        """Return whether the thread is to end."""
        return self._is_set

    def set(self) -> None:
        """Let the thread end; what it sleeps on or reads from is interrupted."""
        if os.getpid() != self._owner:  # a forked child's copy: thread, lock and connection are the parent's
            return
        with self._lock:
            self._is_set = True
            self._shut_down()
        self._wakes.put(None)

    def wait(self, seconds: float) -> bool:
        """Sleep, at most until told to end; return whether it was told."""
        deadline = time.monotonic() + seconds
        while not self._is_set and (remaining := deadline - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                self._wakes.get(timeout=remaining)
        return self._is_set

    @contextlib.contextmanager
    def interrupting(self, sock: socket.socket) -> Iterator[None]:
        """Inside the block `sock` is shut down when the thread is to end: its reads then end at once.

        :param sock: connected; the block must not close it
        """
        with self._lock:
            self._socket = sock
            if self._is_set:
                self._shut_down()
        try:
            yield
        finally:
            with self._lock:
                self._socket = None

    def _shut_down(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # the peer was quicker
                # Not SSLSocket's own, which takes away what the reading thread is using.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _leave_to_parent(self) -> None:
        """In a forked child: close our copy of the descriptor, without a word to the peer."""
        if self._socket is not None:
            descriptor = self._socket.detach()
            if descriptor >= 0:
                os.close(descriptor)
            self._socket = None


class LeaderWatch(Protocol):
    """Learns who holds Patroni's leader key. The place to plug in Consul, Kubernetes or a message bus."""

    def run(self, changed: Callable[[str | None], None], stop: Stop) -> None:
        """Tell of leaders until stopped. Called in a thread of its own, again after it returned or raised.

        :param changed: to be called with the name of the member that holds the leader key, None when nobody does: once
            when that is known, and whenever it may have changed. Calls that tell nothing new cost nothing
        :param stop: says when to end; sleep with ``stop.wait(seconds)``, and read from a socket inside
            ``with stop.interrupting(sock)`` or with a timeout
        """


class LeaderPush:
    """A daemon thread that runs a watch and tells a discovery to look. It ends with the discovery.

    :param discovery: held weakly
    :param watch: where leaders are learned
    """

    def __init__(self, discovery: Discovery, watch: LeaderWatch) -> None:
        self._discovery = weakref.ref(discovery)
        self._watch = watch
        self._stop = Stop()

    def start(self) -> bool:
        """Start the thread; return whether it could be started."""
        discovery = self._discovery()
        if discovery is None:
            return False
        if start_daemon("patroni-db push", _run, _Hints(discovery), self._watch, self._stop) is None:
            return False
        weakref.finalize(discovery, self._stop.set).atexit = False
        return True

    def stop(self) -> None:
        """Let the thread end. Does not wait for it."""
        self._stop.set()


def push_for(discovery: Discovery, scope: str) -> LeaderPush:
    """Return a push from Patroni's etcd, which the discovery's config names.

    :param scope: the cluster's name
    """
    from patroni_db.etcd import EtcdWatch  # noqa: PLC0415 - loaded only where it is used

    return LeaderPush(discovery, EtcdWatch(discovery.config, scope))


class _Hints:
    """Turns what a watch tells into hints for a discovery: one for each disagreement.

    :param discovery: held weakly
    """

    def __init__(self, discovery: Discovery) -> None:
        self._discovery = weakref.ref(discovery)
        self._disagreement: tuple[str | None, str | None] | None = None
        self._since = 0.0
        self._has_warned = False

    def __call__(self, owner: str | None) -> None:
        discovery = self._discovery()
        snapshot = discovery.snapshot if discovery is not None else None
        if discovery is None or snapshot is None:
            return
        known = snapshot.topology.leader
        disagreement = (owner, known.name if known else None)
        if disagreement[0] == disagreement[1]:
            self._disagreement = None
        elif disagreement != self._disagreement:
            self._disagreement, self._since = disagreement, time.monotonic()
            logger.debug("leader key: %s, known leader: %s", *disagreement)
            discovery.hint()
        elif not self._has_warned and time.monotonic() > self._since + _SETTLED and discovery.failure is None:
            # Told again, and looked in between: one of the two speaks of another cluster.
            self._has_warned = True
            logger.warning(
                "the leader key names %s, Patroni's API %s: are the key's place and the cluster's scope right?",
                *(name or "nobody" for name in disagreement),
            )


def _run(changed: Callable[[str | None], None], watch: LeaderWatch, stop: Stop) -> None:
    while not stop.is_set():
        try:
            watch.run(changed, stop)
        except Exception:  # a bug must show, but polling goes on, and so may the watch
            logger.exception("watching the leader key failed")
        stop.wait(_AFTER_BUG)


def _after_fork_in_child() -> None:
    for stop in list(_stops):
        stop._leave_to_parent()  # noqa: SLF001 - the same concept


os.register_at_fork(after_in_child=_after_fork_in_child)
