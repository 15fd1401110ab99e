"""The live connections of this process, so that those to the wrong server can be ended from outside.

A session on a server that just stops answering hangs for ever, and one on a former primary that does not know
it yet would still be written to. Both are found here, and ended from another thread than the one that uses them: by
``shutdown`` on a duplicate of the socket that we own, so that a descriptor number the driver has closed and the
process has reused can never be hit. The user of the connection gets his driver's own "connection lost".
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import os
import socket
import struct
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from patroni_db.connections import driver_of, still_right

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from patroni_db.config import PatroniConfig
    from patroni_db.connections import Driver, Stamp
    from patroni_db.snapshot import Snapshot
    from patroni_db.topology import Address

__all__ = ["LiveConnections", "must_end", "purpose_of"]

logger = logging.getLogger("patroni_db.connections")

# struct tcp_info of linux/tcp.h up to tcpi_last_data_recv: of interest are tcpi_last_data_sent and that, in ms.
_TCP_INFO: Final = struct.Struct("44x I 4x I")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Live:
    """One of them.

    :param session: returns what lives as long as the session; None once that is collected
    :param socket: our duplicate; None where the driver shows no socket
    :param end: ends the session, from any thread
    """

    stamp: Stamp
    config: PatroniConfig
    driver: Driver
    session: Callable[[], Any]
    socket: socket.socket | None
    end: Callable[[], None]

    @property
    def is_open(self) -> bool:
        """Whether somebody may still use it."""
        session = self.session()
        return session is not None and not self.driver.is_over(session)

    def release(self) -> None:
        """Let go of the duplicate."""
        if self.socket is not None:
            self.socket.close()


class LiveConnections:
    """The connections that were acquired through one discovery and not collected yet."""

    def __init__(self) -> None:
        # Reentrant: a collected connection is forgotten by its finalizer, which may run in the middle of add().
        self._lock = threading.RLock()
        self._live: set[_Live] = set()

    def __len__(self) -> int:
        return len(self._live)

    def add(self, connection: Any, stamp: Stamp, config: PatroniConfig) -> None:
        """Keep an eye on `connection`, for as long as its session lives; held weakly."""
        driver = driver_of(connection)
        session = driver.session(connection)
        held = _held(session)
        live = _Live(stamp, config, driver, held, *_handle(driver, connection, held))
        with self._lock:
            self._live.add(live)
        if isinstance(held, weakref.ref):
            weakref.finalize(session, self._forget, live).atexit = False

    def loads(self, config: PatroniConfig) -> collections.Counter[str]:
        """Return how many connections are open to each member for the same purpose: target, restrictions.

        Open, not in use: where connections lead is decided when they are made, and what a pool keeps idle now will be
        used in its turn. Connections that may not go where these may say nothing about whose turn it is.
        """
        purpose = purpose_of(config)
        return collections.Counter(
            live.stamp.member
            for live in self._open()
            if live.stamp.member is not None and purpose_of(live.config) == purpose
        )

    def end_wrong(self, snapshot: Snapshot) -> int:
        """End every connection that `snapshot` says must not be used any more; return how many.

        :param snapshot: the current view
        """
        leader = snapshot.topology.leader
        moved = f"{leader.name} is the leader" if leader is not None else "it is no member any more"
        return self._end(
            (live, moved if live.config.target.writes else "it is no member any more")
            for live in self._open()
            if must_end(live.stamp, live.config, snapshot)
        )

    def end_reads(self, member: str) -> int:
        """End every connection to `member` that was made for a target that does not write; return how many."""
        return self._end(
            (live, "it does not answer")
            for live in self._open()
            if live.stamp.member == member and not live.config.target.writes
        )

    def unanswered(self, seconds: float) -> set[Stamp]:
        """Return servers from which an answer is outstanding, and nothing was heard, for so many seconds.

        The kernel tells when data was last sent and received on each connection (Linux's TCP_INFO). A server that
        has answered anybody in that time is not among them.
        """
        outstanding: dict[tuple[str | None, Address], Stamp] = {}
        heard = set()
        for live in self._open():
            idle = _idle_seconds(live.socket)
            if idle is None:
                continue
            sent, received = idle
            server = (live.stamp.member, live.stamp.address)
            if received < seconds:
                heard.add(server)
            elif seconds <= sent < received:
                outstanding[server] = live.stamp
        return {stamp for server, stamp in outstanding.items() if server not in heard}

    def _open(self) -> list[_Live]:
        """Return those that are open, and forget the others."""
        with self._lock:
            all_of_them = list(self._live)
        found = []
        for live in all_of_them:
            if live.is_open:
                found.append(live)
            else:
                self._forget(live)
        return found

    def _end(self, wrong: Iterable[tuple[_Live, str]]) -> int:
        """End connections, and forget them: whoever uses one closes it when it fails.

        :param wrong: each with the reason, for the log
        """
        ended: collections.Counter[tuple[str, str]] = collections.Counter()
        for live, why in wrong:
            live.end()
            self._forget(live)
            ended[str(live.stamp), why] += 1
        for (server, why), number in ended.items():
            logger.info("ended %d connection%s to %s: %s", number, "" if number == 1 else "s", server, why)
        return ended.total()

    def _forget(self, live: _Live) -> None:
        with self._lock:
            known = live in self._live
            self._live.discard(live)
        if known:
            live.release()


def purpose_of(config: PatroniConfig) -> Hashable:
    """Return what two configs must have in common for their connections to be shared among the same members."""
    if not config.tags:  # asked for each time that a connection is handed out
        return config.target, config.max_lag
    return config.target, config.max_lag, tuple(tuple(sorted(wanted.items())) for wanted in config.tags)


def must_end(stamp: Stamp, config: PatroniConfig, snapshot: Snapshot) -> bool:
    """Return whether a connection must not even finish what it is at.

    For a target that writes: as soon as another leader is known. What it does on the former one could be
    undone by the cluster without a word. For the others only once the server is no member any more: a query
    that reads may finish on a replica that was promoted, or that is no longer first choice.

    A fallback host may be the leader under another name. So the first view that is known ends nothing there; the next
    move of routing does.
    """
    if config.target.writes:
        if stamp.member is None and snapshot.generation <= stamp.generation + 1:
            return False
        return snapshot.topology.leader is not None and not still_right(stamp, config, snapshot)
    return stamp.member is not None and snapshot.topology.member(stamp.member) is None


def _held(session: Any) -> Callable[[], Any]:
    """Return a weak reference, or what stands for one with a proxy that has none and hides what is inside of it.

    Such a session is held until it is closed.
    """
    try:
        return weakref.ref(session)
    except TypeError:
        return lambda: session


def _handle(
    driver: Driver, connection: Any, session: Callable[[], Any]
) -> tuple[socket.socket | None, Callable[[], None]]:
    """Return a duplicate of its socket where the driver shows that, and how to end `connection` from any thread."""
    fileno = driver.fileno(connection)
    if fileno is None:  # asyncpg, whose loop must do it
        import asyncio  # noqa: PLC0415 - only with asyncpg, which has loaded it

        loop = asyncio.get_running_loop()

        def terminate() -> None:
            target = session()
            if target is not None:
                with contextlib.suppress(RuntimeError):  # the loop is closed, and the connection with it
                    loop.call_soon_threadsafe(target.terminate)

        return None, terminate
    duplicate = socket.socket(fileno=os.dup(fileno))

    def shut_down() -> None:
        with contextlib.suppress(OSError):  # it is down already
            duplicate.shutdown(socket.SHUT_RDWR)

    return duplicate, shut_down


def _idle_seconds(duplicate: socket.socket | None) -> tuple[float, float] | None:
    """Return for how long nothing was sent and nothing was received; None where the kernel does not tell."""
    if duplicate is None or sys.platform != "linux" or duplicate.family == socket.AF_UNIX:
        return None
    try:
        info = duplicate.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    except OSError:  # it was closed meanwhile
        return None
    if len(info) < _TCP_INFO.size:
        return None
    sent, received = _TCP_INFO.unpack(info)
    return sent / 1000, received / 1000
