"""Causal tokens on real servers: replicas that lag, a switchover, and a failover that loses what they stand for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg
import psycopg2
import pytest

from patroni_db import PatroniConfig
from patroni_db.acquisition import acquire, acquire_async
from patroni_db.causal import CausalToken, Standing
from patroni_db.causal_reads import capture, capture_async, has_caught_up, has_caught_up_async, known_standing
from patroni_db.connections import Stamp
from patroni_db.discovery import Discovery
from patroni_db.libpq import attempt_params
from tests.integration.faults import eventually
from tests.integration.lagging import replay_paused, replicas, resume_replay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patroni_db.acquisition import Attempt
    from patroni_db.cluster import LocalCluster

pytestmark = pytest.mark.timeout(180)

PATIENCE = 30.0


@pytest.fixture
def cluster(healthy_patroni_cluster: LocalCluster) -> Iterator[LocalCluster]:
    with _admin(healthy_patroni_cluster) as admin:
        admin.execute("CREATE TABLE causal (id bigint)")
        admin.execute("GRANT ALL ON causal TO PUBLIC")
    yield healthy_patroni_cluster
    healthy_patroni_cluster.heal()
    with _admin(healthy_patroni_cluster) as admin:
        admin.execute("DROP TABLE causal")


@pytest.fixture
def discovery(cluster: LocalCluster) -> Iterator[Discovery]:
    one = Discovery(PatroniConfig(urls=cluster.urls, refresh=0.2))
    one.topology()
    yield one
    one.close()


def test_a_replica_that_lags_is_waited_for_and_then_shows_it(cluster: LocalCluster, discovery: Discovery) -> None:
    with contextlib.ExitStack() as stack:
        writer, _ = _open(stack, cluster, discovery, "primary")
        reader, stamp = _open(stack, cluster, discovery, "replica")
        with replay_paused(cluster):
            writer.execute("INSERT INTO causal VALUES (1)")
            writer.commit()
            token = capture(writer)
            assert has_caught_up(discovery, reader, stamp, token, 0.2) is Standing.BEHIND
            assert known_standing(discovery, stamp, token) is None  # it may catch up at any time: ask it
            resume = threading.Timer(0.2, resume_replay, [cluster])
            resume.start()
            assert has_caught_up(discovery, reader, stamp, token, PATIENCE) is Standing.REACHED
            resume.join()
        assert reader.execute("SELECT count(*) FROM causal").fetchone() == (1,)
        reader.rollback()
        # Patroni tells it in the end, and nobody has to be asked any more.
        eventually(lambda: known_standing(discovery, stamp, token) is Standing.REACHED, "it to be shown")


def test_nothing_is_left_behind_on_connections_that_begin_transactions_by_themselves(
    cluster: LocalCluster, discovery: Discovery
) -> None:
    params = {"dbname": cluster.dbname, "user": cluster.user, "password": cluster.password}

    def connect(attempt: Attempt) -> Any:
        return psycopg2.connect(**attempt_params(params, attempt))

    with contextlib.ExitStack() as stack:
        old, stamp = acquire(discovery, discovery.config.replace(target="replica"), connect)
        stack.callback(old.close)
        writer, _ = _open(stack, cluster, discovery, "primary")
        token = capture(writer)
        assert writer.info.transaction_status.name == "IDLE"
        assert not writer.autocommit
        assert has_caught_up(discovery, old, stamp, token, PATIENCE) is Standing.REACHED
        assert old.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_IDLE
        assert not old.autocommit


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_coroutines_wait_without_blocking(cluster: LocalCluster, discovery: Discovery, driver: str) -> None:
    params = {"dbname": cluster.dbname, "user": cluster.user, "password": cluster.password}

    async def connect(attempt: Attempt) -> Any:
        if driver == "psycopg":
            return await psycopg.AsyncConnection.connect(**attempt_params(params, attempt))
        address = attempt.address
        return await asyncpg.connect(
            host=address.host, port=address.port, user=cluster.user, password=cluster.password, database=cluster.dbname
        )

    async def main() -> None:
        writer, _ = await acquire_async(discovery, discovery.config, connect)
        reader, stamp = await acquire_async(discovery, discovery.config.replace(target="replica"), connect)
        try:
            with replay_paused(cluster):
                await writer.execute("INSERT INTO causal VALUES (1)")
                if driver == "psycopg":
                    await writer.commit()
                token = await capture_async(writer)
                assert await has_caught_up_async(discovery, reader, stamp, token, 0.0) is Standing.BEHIND
                waiting = asyncio.create_task(has_caught_up_async(discovery, reader, stamp, token, PATIENCE))
                await asyncio.to_thread(resume_replay, cluster)
                assert await waiting is Standing.REACHED
        finally:
            await writer.close()
            await reader.close()

    asyncio.run(main())


def test_a_token_outlives_a_switchover(cluster: LocalCluster, discovery: Discovery) -> None:
    with contextlib.ExitStack() as stack:
        writer, _ = _open(stack, cluster, discovery, "primary")
        writer.execute("INSERT INTO causal VALUES (1)")
        writer.commit()
        token = capture(writer)
        cluster.switchover()
        with _admin(cluster) as admin:
            admin.execute("INSERT INTO causal VALUES (2)")
            later = capture(admin)
        assert later.timeline == token.timeline + 1
        assert later.later(token) == token.later(later) == later
        reader, stamp = _open(stack, cluster, discovery, "replica")
        eventually(lambda: has_caught_up(discovery, reader, stamp, later, 1.0) is Standing.REACHED, "it to be shown")
        eventually(lambda: has_caught_up(discovery, reader, stamp, token, 1.0) is Standing.REACHED, "it to be shown")


def test_what_a_failover_lost_is_recognised(cluster: LocalCluster, discovery: Discovery) -> None:
    """The replicas are sent nothing more, the primary acknowledges a write and dies: nobody can ever show it."""
    with contextlib.ExitStack() as stack:
        writer, _ = _open(stack, cluster, discovery, "primary")
        before = capture(writer)
        with _nothing_sent(cluster):
            writer.execute("INSERT INTO causal SELECT generate_series(1, 1000)")
            writer.commit()
            lost = capture(writer)
            former = cluster.leader
            assert former is not None
            cluster.kill_node(former)
        cluster.expire_leader()
        reader, stamp = _open(stack, cluster, discovery, "primary")
        reader.execute("INSERT INTO causal SELECT generate_series(1, 5000)")  # past the lost position
        reader.commit()
        assert capture(reader).lsn > lost.lsn
        eventually(lambda: known_standing(discovery, stamp, lost) is Standing.LOST, "it to be lost")
        assert has_caught_up(discovery, reader, stamp, lost, 1.0) is Standing.LOST
        eventually(lambda: has_caught_up(discovery, reader, stamp, before, 1.0) is Standing.REACHED, "it to be shown")


def test_another_clusters_token_is_lost(cluster: LocalCluster, discovery: Discovery) -> None:
    with contextlib.ExitStack() as stack:
        reader, stamp = _open(stack, cluster, discovery, "replica")
        foreign = CausalToken("1234567890", 1, 1)
        eventually(
            lambda: has_caught_up(discovery, reader, stamp, foreign, 0.0) is Standing.LOST,
            "it to be lost",
        )
        nobody = Stamp(None, stamp.address, 0)
        token = capture(_open(stack, cluster, discovery, "primary")[0])
        assert has_caught_up(discovery, reader, nobody, token, 0.0) is Standing.BEHIND


# -- The cluster ---------------------------------------------------------------------------------------------


def _open(
    stack: contextlib.ExitStack, cluster: LocalCluster, discovery: Discovery, target: str
) -> tuple[psycopg.Connection[Any], Stamp]:
    params = {"dbname": cluster.dbname, "user": cluster.user, "password": cluster.password}

    def connect(attempt: Attempt) -> psycopg.Connection[Any]:
        return psycopg.connect(**attempt_params(params, attempt))

    connection, stamp = acquire(discovery, discovery.config.replace(target=target), connect)
    stack.callback(connection.close)
    return connection, stamp


def _admin(cluster: LocalCluster, name: str | None = None) -> psycopg.Connection[Any]:
    return psycopg.connect(cluster.conninfo(name, cluster.dbname), autocommit=True)


@contextlib.contextmanager
def _nothing_sent(cluster: LocalCluster) -> Iterator[None]:
    """Have the primary send its replicas nothing: its processes that would are stopped.

    A replica's ``primary_conninfo`` is no way to that: Patroni puts it right with its next loop, within a second here.
    """
    replicated = len(replicas(cluster))
    senders: list[int] = []

    def all_are_served() -> bool:
        senders[:] = [pid for (pid,) in admin.execute("SELECT pid FROM pg_stat_replication").fetchall()]
        return len(senders) == replicated

    with _admin(cluster) as admin:
        eventually(all_are_served, "every replica to be served")
    for pid in senders:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in senders:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
