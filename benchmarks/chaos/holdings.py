"""What the clients' processes hold, counted from outside: by the system, and by the servers."""

from __future__ import annotations

import collections
import os
import signal
import statistics
import time
from typing import TYPE_CHECKING

import psutil
import psycopg

from benchmarks.chaos.clients import KNOWN_AS
from benchmarks.chaos.incidents import Census

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from benchmarks.running import RunningClient
    from patroni_db.cluster import LocalCluster

__all__ = ["take_census"]

# A look may fall into the middle of a request, or of a connection that comes or goes: what counts is what most see.
_LOOKS = 9
_PAUSE = 0.25

_BACKENDS = "SELECT application_name, count(*) FROM pg_stat_activity GROUP BY 1"


def take_census(
    cluster: LocalCluster, running: Sequence[RunningClient], between: Iterable[tuple[str, int]]
) -> tuple[Census, ...]:
    """Count, some times in the next seconds, and return the median of each.

    :param cluster: nothing of it may be broken
    :param running: the clients
    :param between: addresses at which some of them reach the servers
    """
    for client in running:
        # psycopg keeps the socket of an attempt that timed out until its garbage is collected.
        os.kill(client.child.pid, signal.SIGUSR1)
    time.sleep(_PAUSE)
    servers: set[tuple[object, ...]] = {*((node.host, node.port) for node in cluster.nodes), *between}
    looks: dict[str, list[tuple[int, int, int, int]]] = collections.defaultdict(list)
    for _ in range(_LOOKS):
        backends = _backends(cluster)
        for client in running:
            threads, descriptors, sessions = _look(client.child.pid, servers)
            name = client.kind.name
            looks[name].append((threads, descriptors, sessions, backends[KNOWN_AS.format(name)]))
        time.sleep(_PAUSE)
    return tuple(
        Census(client, *map(statistics.median_low, zip(*counts, strict=True))) for client, counts in looks.items()
    )


def _look(pid: int, servers: Container[tuple[object, ...]]) -> tuple[int, int, int]:
    process = psutil.Process(pid)
    # The far end of a socket that listens is an empty tuple.
    sockets = [c for c in process.net_connections("tcp") if tuple(c.raddr) in servers]
    sessions = len({tuple(connection.laddr) for connection in sockets})
    # Of each session the library owns a duplicate, to end it with.
    return process.num_threads(), process.num_fds() - 2 * sessions, sessions


def _backends(cluster: LocalCluster) -> collections.Counter[str]:
    """Return the sessions that the servers have, by name of the application."""
    found: collections.Counter[str] = collections.Counter()
    for node in cluster.nodes:
        with psycopg.connect(cluster.conninfo(node.name), connect_timeout=5) as connection:
            found.update(dict(connection.execute(_BACKENDS).fetchall()))
    return found
