"""Replicas that receive everything and show nothing new, on the cluster that all tests share."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import psycopg

from tests.integration.faults import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patroni_db.cluster import LocalCluster

__all__ = ["replay_paused", "replicas", "resume_replay"]

PATIENCE = 30.0


@contextlib.contextmanager
def replay_paused(cluster: LocalCluster) -> Iterator[None]:
    """Have no replica replay anything meanwhile.

    Patroni is paused too: on PostgreSQL 14 and later it resumes replay with every loop, once a second here
    (``handle_parameter_change`` in its source, and measured).
    """
    cluster.pause()
    try:
        for name in replicas(cluster):
            with _admin(cluster, name) as admin:
                admin.execute("SELECT pg_wal_replay_pause()")
                eventually(
                    lambda: admin.execute("SELECT pg_get_wal_replay_pause_state()").fetchone() == ("paused",),
                    "replay to pause",
                )
        yield
    finally:
        resume_replay(cluster)
        cluster.resume()


def resume_replay(cluster: LocalCluster) -> None:
    """Let every replica catch up."""
    for name in replicas(cluster):
        with _admin(cluster, name) as admin:
            admin.execute("SELECT pg_wal_replay_resume()")


def replicas(cluster: LocalCluster) -> list[str]:
    """Return the names of the nodes that do not lead."""
    leader = cluster.leader
    return [node.name for node in cluster.nodes if node.name != leader]


def _admin(cluster: LocalCluster, name: str) -> psycopg.Connection[Any]:
    return psycopg.connect(cluster.conninfo(name), autocommit=True)
