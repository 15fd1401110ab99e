"""What the servers themselves say: every node is asked directly, over psycopg alone, whether it takes a write."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

import psycopg

from patroni_db.client import PatroniClient
from patroni_db.config import PatroniConfig
from patroni_db.demo.history import Probe, Sighting
from patroni_db.errors import DiscoveryError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from patroni_db.topology import Topology

__all__ = ["PACE", "LeaderWatch", "Oracle", "prepare"]

# Seconds between two probes of a node: what outages are known to within.
PACE = 0.02
# Seconds between two looks at the leader key, and at /cluster.
_LOOK = 0.05
_VIEW = 0.5
_JOIN_TIMEOUT = 3.0

_CREATE = "CREATE TABLE demo_oracle (beat bigint NOT NULL)"
_FILL = "INSERT INTO demo_oracle VALUES (0)"
# The first eight digits of a WAL file's name are the timeline that is written on.
_WRITE = """
    UPDATE demo_oracle SET beat = beat + 1
    RETURNING ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::integer
"""
_STANDS_BY = "SELECT pg_is_in_recovery()"


def prepare(conninfo: str) -> None:
    """Make the oracle's table.

    :param conninfo: a connection string of the primary
    """
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(_CREATE)
        connection.execute(_FILL)


class Oracle:
    """One thread for each node, trying to write without any regard to what the node is said to be.

    :param conninfos: connection strings by name of the node
    """

    def __init__(self, conninfos: Mapping[str, str]) -> None:
        self._stop = threading.Event()
        self._probes: dict[str, list[Probe]] = {node: [] for node in conninfos}
        self._threads = [
            threading.Thread(target=self._ask, args=(node, conninfo), name=f"oracle-{node}", daemon=True)
            for node, conninfo in conninfos.items()
        ]

    def __enter__(self) -> Self:
        """Begin asking."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop asking."""
        self.stop()

    def stop(self) -> None:
        """Stop asking. A write that the cluster holds back may outlast this; its thread ends with it."""
        self._stop.set()
        deadline = time.monotonic() + _JOIN_TIMEOUT
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def probes(self) -> tuple[Probe, ...]:
        """Return the answers so far."""
        return tuple(probe for answers in self._probes.values() for probe in answers.copy())

    def probes_of(self, node: str) -> tuple[Probe, ...]:
        """Return the answers of one node so far."""
        return tuple(self._probes[node].copy())

    def last_success(self) -> float | None:
        """Return when any node last took a write."""
        latest = (
            next((probe.ended for probe in reversed(answers.copy()) if probe.timeline is not None), None)
            for answers in self._probes.values()
        )
        return max((time for time in latest if time is not None), default=None)

    def _ask(self, node: str, conninfo: str) -> None:
        connection: psycopg.Connection[tuple[int]] | None = None
        try:
            while not self._stop.is_set():
                began = time.monotonic()
                timeline: int | None = None
                try:
                    if connection is None:
                        connection = psycopg.connect(conninfo, autocommit=True, connect_timeout=2)
                    timeline = _written(connection)
                except psycopg.Error:
                    # It says no in this way too; the next probe begins afresh.
                    _close(connection)
                    connection = None
                self._probes[node].append(Probe(node, began, time.monotonic(), timeline))
                self._stop.wait(PACE)
        finally:
            _close(connection)


def _written(connection: psycopg.Connection[tuple[int]]) -> int | None:
    """Write, and return the timeline it was committed on; None from a node that stands by."""
    # Asked first only to keep the replicas' logs free of thousands of errors.
    stands_by = connection.execute(_STANDS_BY).fetchone()
    if stands_by is None or stands_by[0]:
        return None
    row = connection.execute(_WRITE).fetchone()
    return None if row is None else row[0]


def _close(connection: psycopg.Connection[tuple[int]] | None) -> None:
    if connection is not None:
        connection.close()


class LeaderWatch:
    """Who holds the leader key, and how Patroni describes the cluster, as both change.

    :param leader: tells the holder of the leader key
    :param urls: Patroni's REST APIs
    """

    def __init__(self, leader: Callable[[], str | None], urls: Sequence[str]) -> None:
        self._leader = leader
        self._urls = list(urls)
        self._client = PatroniClient(PatroniConfig(urls=tuple(urls), timeout=0.5))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="leader-watch", daemon=True)
        self._sightings: list[Sighting] = []
        self.topology: Topology | None = None
        """Patroni's latest view."""

    def __enter__(self) -> Self:
        """Begin watching."""
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop watching."""
        self.stop()

    def stop(self) -> None:
        """Stop watching."""
        self._stop.set()
        self._thread.join(_JOIN_TIMEOUT)

    def sightings(self) -> tuple[Sighting, ...]:
        """Return the holders of the leader key so far."""
        return tuple(self._sightings.copy())

    def _look(self) -> None:
        due = 0.0
        with self._client:
            while not self._stop.is_set():
                leader = self._leader()
                if not self._sightings or self._sightings[-1].node != leader:
                    self._sightings.append(Sighting(leader, time.monotonic()))
                if time.monotonic() >= due:
                    self._view()
                    due = time.monotonic() + _VIEW
                self._stop.wait(_LOOK)

    def _view(self) -> None:
        try:
            self.topology = self._client.cluster(self._urls[0])
        except DiscoveryError:
            # Shown as it was; the next look asks the next node.
            self._urls.append(self._urls.pop(0))
