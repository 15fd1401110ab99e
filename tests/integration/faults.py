"""Faults of the shared cluster, and waiting for what follows from them."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable

    from patroni_db.cluster import LocalCluster

__all__ = ["crash", "eventually", "switchover"]

PATIENCE = 60.0


def eventually(condition: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
    """Wait until `condition` holds, or fail and say `what` was waited for in vain."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout:g} s in vain: {what}"
        time.sleep(0.02)


def switchover(cluster: LocalCluster) -> None:
    """Have another node lead, as planned."""
    cluster.switchover()


def crash(cluster: LocalCluster) -> None:
    """Kill the primary's PostgreSQL, and wait until there is a primary again.

    Usually that is another node. Where Patroni finds none that may take over, because a busy machine is late with an
    answer or a synchronous standby is not, it starts the same one again.
    """
    before = _primary(cluster)
    cluster.kill_postgres()

    def is_another() -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            now = _primary(cluster)
            return now is not None and now != before
        return False

    eventually(is_another, "a primary after the crash")


def _primary(cluster: LocalCluster) -> Any:
    """Return what tells this run of the primary's PostgreSQL from all others; None while there is none."""
    leader = cluster.leader
    if leader is None:
        return None
    with psycopg.connect(cluster.conninfo(leader)) as connection:
        asked = "SELECT pg_postmaster_start_time() WHERE NOT pg_is_in_recovery()"
        started = connection.execute(asked).fetchone()
    return (leader, started) if started else None
