"""Connections that hang, or lead to a former primary that does not know it yet, are ended from outside."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg
import psycopg2
import pytest

from patroni_db import PatroniConfig
from patroni_db.acquisition import Attempt, acquire, acquire_async
from patroni_db.discovery import Discovery
from patroni_db.libpq import attempt_params

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patroni_db.cluster import LocalCluster

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def cluster(healthy_patroni_cluster: LocalCluster) -> LocalCluster:
    return healthy_patroni_cluster


@pytest.fixture
def discovery(cluster: LocalCluster) -> Iterator[Discovery]:
    one = Discovery(PatroniConfig(urls=cluster.urls, timeout=1))
    yield one
    one.close()


def params(cluster: LocalCluster, attempt: Attempt) -> dict[str, Any]:
    return attempt_params({"dbname": cluster.dbname, "user": cluster.user, "password": cluster.password}, attempt)


def get(cluster: LocalCluster, discovery: Discovery) -> psycopg.Connection[Any]:
    return acquire(discovery, discovery.config, lambda attempt: psycopg.connect(**params(cluster, attempt)))[0]


def lose_the_lock(cluster: LocalCluster, *, whole: bool) -> str:
    """Freeze the leader (`whole`: its PostgreSQL too) and let its lock expire; return its name."""
    former = cluster.leader
    assert former is not None
    cluster.freeze(former, patroni_only=not whole)
    cluster.expire_leader()
    return former


def test_a_statement_that_hangs_on_a_frozen_primary_ends_when_the_leader_changed(
    cluster: LocalCluster, discovery: Discovery
) -> None:
    hanging = get(cluster, discovery)
    former = lose_the_lock(cluster, whole=True)
    with pytest.raises(psycopg.OperationalError):
        hanging.execute("SELECT 1")
    assert hanging.broken or hanging.closed
    assert discovery.primary(timeout=60).name != former
    assert get(cluster, discovery).execute("SELECT pg_is_in_recovery()").fetchone() == (False,)


def test_an_open_transaction_on_a_former_primary_that_lives_is_not_committed(
    cluster: LocalCluster, discovery: Discovery
) -> None:
    with get(cluster, discovery) as setup:
        setup.execute("CREATE TABLE IF NOT EXISTS split_brain (id int)")
    former = cluster.leader
    assert former is not None
    connection = get(cluster, discovery)
    connection.execute("INSERT INTO split_brain VALUES (1)")
    lose_the_lock(cluster, whole=False)
    assert discovery.wait_for(lambda t: t.primary if t.primary and t.primary.name != former else None, 60)
    with pytest.raises(psycopg.OperationalError):
        connection.commit()
    with psycopg.connect(cluster.conninfo(former, dbname=cluster.dbname)) as old:
        assert old.execute("SELECT pg_is_in_recovery()").fetchone() == (False,), "the former primary was to live"
        assert old.execute("SELECT count(*) FROM split_brain").fetchone() == (0,)


@pytest.mark.parametrize(
    "driver",
    ["asyncpg", *(pytest.param(driver, marks=pytest.mark.thorough) for driver in ("psycopg2", "psycopg async"))],
)
def test_other_drivers_are_ended_too(cluster: LocalCluster, discovery: Discovery, driver: str) -> None:
    asyncpg = pytest.importorskip("asyncpg")

    def blocking() -> None:
        def connect(attempt: Attempt) -> Any:
            return psycopg2.connect(**params(cluster, attempt))

        connection, _ = acquire(discovery, discovery.config, connect)
        lose_the_lock(cluster, whole=True)
        with pytest.raises(psycopg2.OperationalError), connection.cursor() as cursor:
            cursor.execute("SELECT 1")

    async def with_psycopg() -> None:
        async def connect(attempt: Attempt) -> Any:
            return await psycopg.AsyncConnection.connect(**params(cluster, attempt))

        connection, _ = await acquire_async(discovery, discovery.config, connect)
        await asyncio.to_thread(lose_the_lock, cluster, whole=True)
        with pytest.raises(psycopg.OperationalError):
            await connection.execute("SELECT 1")

    async def with_asyncpg() -> None:
        async def connect(attempt: Attempt) -> Any:
            where = {"host": attempt.address.host, "port": attempt.address.port}
            return await asyncpg.connect(database=cluster.dbname, user=cluster.user, password=cluster.password, **where)

        connection, _ = await acquire_async(discovery, discovery.config, connect)
        await asyncio.to_thread(lose_the_lock, cluster, whole=True)
        with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError)):
            await connection.fetchval("SELECT 1")

    cases: dict[str, Callable[[], Any]] = {
        "psycopg2": blocking,
        "psycopg async": lambda: asyncio.run(with_psycopg()),
        "asyncpg": lambda: asyncio.run(with_asyncpg()),
    }
    cases[driver]()


def test_a_slow_query_on_a_healthy_primary_is_never_touched(cluster: LocalCluster, discovery: Discovery) -> None:
    connection = get(cluster, discovery)
    done: list[Any] = []
    query = threading.Thread(target=lambda: done.append(connection.execute("SELECT pg_sleep(5), 42").fetchone()))
    query.start()
    for node in cluster.nodes:
        cluster.freeze(node.name, patroni_only=True)
    with contextlib.suppress(TimeoutError):
        discovery.invalidate(cluster.leader)
        discovery.wait_for_look()
    for node in cluster.nodes:
        cluster.thaw(node.name)
    query.join()
    assert done
    assert done[0][1] == 42


def test_a_reader_finishes_on_a_replica_that_is_promoted(cluster: LocalCluster, discovery: Discovery) -> None:
    leader = cluster.leader
    other = next(node.name for node in cluster.nodes if node.name != leader)
    config = discovery.config.replace(target="replica")
    while True:
        connection, stamp = acquire(discovery, config, lambda attempt: psycopg.connect(**params(cluster, attempt)))
        if stamp.member == other:
            break
        connection.close()
    done: list[Any] = []
    query = threading.Thread(target=lambda: done.append(connection.execute("SELECT pg_sleep(6), 42").fetchone()))
    query.start()
    cluster.switchover(other)
    assert discovery.wait_for(lambda t: t.primary if t.primary and t.primary.name == other else None, 60)
    query.join()
    assert done
    assert done[0][1] == 42


def test_what_is_closed_or_collected_is_not_watched_any_more(cluster: LocalCluster, discovery: Discovery) -> None:
    connections = [get(cluster, discovery) for _ in range(5)]
    assert len(discovery.live) == 5
    connections.pop().close()
    del connections[:2]
    assert len(discovery.live) == 2
    for connection in connections:
        connection.close()
    connections.clear()
    del connection
    deadline = time.monotonic() + 30
    while len(discovery.live):
        assert time.monotonic() < deadline
        time.sleep(0.05)
