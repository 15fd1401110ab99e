"""Replicas that answer and cannot serve: reads go elsewhere, and the replica rests."""

# ruff: noqa: S608 - tables' names are made here

from __future__ import annotations

import contextlib
import functools
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.db import InternalError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from patroni_db import PatroniConfig, discovery_for
from patroni_db.faults import Fault, classify, sqlstate_of
from patroni_db.quarantine import Quarantine
from sqlalchemy_dialect import run_transaction, run_transaction_async
from tests.django.backends import project
from tests.integration.faults import eventually
from tests.sqlalchemy.clients import WHERE, LoopClient, ThreadClient, make_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection

    from django_backend.base import DatabaseWrapper
    from patroni_db.cluster import LocalCluster
    from patroni_db.discovery import Discovery

pytestmark = pytest.mark.timeout(120)

PAGE = 8192


@pytest.fixture
def cluster(healthy_patroni_cluster: LocalCluster) -> LocalCluster:
    return healthy_patroni_cluster


@pytest.fixture(autouse=True)
def free(django_db_blocker: Any, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Let wrappers connect: pytest-django forbids it, as it knows only the project's own database."""
    with django_db_blocker.unblock():
        yield
    # psycopg's pool logs connections as objects, which keep their pool, and that the discovery with its thread.
    caplog.get_records("call").clear()


@pytest.fixture
def discovery(cluster: LocalCluster) -> Discovery:
    """The one that all clients of this process share, when nobody rests any more."""
    shared = discovery_for(PatroniConfig(urls=cluster.urls))
    shared.topology()
    forget_rests(shared)
    return shared


def forget_rests(discovery: Discovery) -> None:
    """Go on as if nobody had ever failed: a test need not wait for what comes by itself after a while."""
    discovery._quarantine = Quarantine(discovery.clock, discovery.rng)
    discovery.wait_for_look()
    assert discovery.snapshot is not None
    assert not discovery.snapshot.failing


@pytest.fixture
def table(cluster: LocalCluster) -> Iterator[str]:
    name = f"bad_{uuid.uuid4().hex}"
    with admin(cluster) as primary:
        primary.execute(f"CREATE TABLE {name} AS SELECT g AS id, repeat('x', 500) AS s FROM generate_series(1, 200) g")
        primary.execute(f"GRANT SELECT ON {name} TO {cluster.user}")
    for node in replicas(cluster):
        catch_up(cluster, node)
    yield name
    with admin(cluster) as primary:
        primary.execute(f"DROP TABLE {name}")


def admin(cluster: LocalCluster, name: str | None = None) -> psycopg.Connection[Any]:
    return psycopg.connect(cluster.conninfo(name, dbname=cluster.dbname), autocommit=True)


def replicas(cluster: LocalCluster) -> list[str]:
    return [node.name for node in cluster.nodes if node.name != cluster.leader]


def host_of(cluster: LocalCluster, name: str) -> str:
    return cluster.node(name).host


def catch_up(cluster: LocalCluster, name: str) -> None:
    with admin(cluster) as primary, admin(cluster, name) as replica:
        lsn = primary.execute("SELECT pg_current_wal_lsn()::text").fetchone()
        asked = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
        eventually(lambda: replica.execute(asked, lsn).fetchone() == (True,), "the replica to catch up")


def lead_to(discovery: Discovery, victim: str, other: str, connect: Callable[[], Any]) -> None:
    """Have a new connection lead to one replica: the other one rests meanwhile."""
    discovery.rest(other)
    try:
        assert connect() == victim
    finally:
        discovery._quarantine.forgive(other)


def value(wrapper: DatabaseWrapper, sql: str) -> Any:
    with wrapper.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


# -- Conflicts with recovery --------------------------------------------------------------------------------------


@contextlib.contextmanager
def impatient(cluster: LocalCluster, victim: str) -> Iterator[None]:
    """Have a vacuum of the primary end queries on one replica after a moment, and on the other after long."""
    try:
        for name in replicas(cluster):
            with admin(cluster, name) as replica:
                replica.execute("ALTER SYSTEM SET hot_standby_feedback = off")
                if name == victim:
                    replica.execute("ALTER SYSTEM SET max_standby_streaming_delay = '50ms'")
                replica.execute("SELECT pg_reload_conf()")
        with admin(cluster) as primary:
            asked = "SELECT 1 FROM pg_replication_slots WHERE xmin IS NOT NULL"
            eventually(lambda: primary.execute(asked).fetchone() is None, "the replicas to hold nothing back")
        yield
    finally:
        for name in replicas(cluster):
            with admin(cluster, name) as replica:
                replica.execute("ALTER SYSTEM RESET hot_standby_feedback")
                replica.execute("ALTER SYSTEM RESET max_standby_streaming_delay")
                replica.execute("SELECT pg_reload_conf()")


def vacuum_under(cluster: LocalCluster, victim: str, table: str, readers: int) -> None:
    """Remove rows that `readers` sessions on a replica, which sleep in a query, can still see."""
    asked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    with admin(cluster, victim) as replica, admin(cluster) as primary:
        eventually(lambda: replica.execute(asked).fetchone() == (readers,), "the readers to sleep")
        primary.execute(f"DELETE FROM {table} WHERE id <= 100")
        primary.execute(f"VACUUM {table}")


def test_a_read_that_conflicts_with_recovery_is_served_by_another_replica(
    cluster: LocalCluster, discovery: Discovery, table: str
) -> None:
    victim, other = replicas(cluster)
    here, elsewhere = host_of(cluster, victim), host_of(cluster, other)
    sql = (  # it takes long on the victim alone
        f"SELECT host(inet_server_addr()) FROM (SELECT count(*) FROM {table}) AS rows, "
        f"pg_sleep(CASE host(inet_server_addr()) WHEN '{here}' THEN 60 ELSE 0 END)"
    )
    again, plain = (make_client("dialect", cluster, target="replica") for _ in range(2))
    loop = make_client("async-plugin-asyncpg", cluster, target="replica")
    assert isinstance(again, ThreadClient)
    assert isinstance(loop, LoopClient)

    def in_django() -> tuple[Any, Any]:
        with project(cluster, CONN_MAX_AGE=None, OPTIONS={"patroni_target": "replica"}) as aliases:
            wrapper = aliases["replica"]
            lead_to(discovery, here, other, lambda: value(wrapper, WHERE))
            ready.wait()
            return value(wrapper, sql), value(wrapper, WHERE)

    async def read(connection: AsyncConnection) -> Any:
        return await connection.scalar(text(sql))

    def in_a_transaction() -> tuple[Any, Any]:
        with pytest.raises(DBAPIError) as caught:
            plain.query(sql)
        return sqlstate_of(caught.value), plain.query(WHERE)

    ready = threading.Event()
    with contextlib.ExitStack() as stack:
        for client in (again, plain, loop):
            stack.callback(client.close)
            lead_to(discovery, here, other, functools.partial(client.query, WHERE))
        stack.enter_context(impatient(cluster, victim))
        threads = stack.enter_context(ThreadPoolExecutor(4))
        django = threads.submit(in_django)
        run = threads.submit(run_transaction, again.engine, lambda connection: connection.scalar(text(sql)))
        run_async = threads.submit(loop.run, run_transaction_async(loop.engine, read))
        transaction = threads.submit(in_a_transaction)
        ready.set()
        vacuum_under(cluster, victim, table, 4)
        assert django.result() == (elsewhere, elsewhere)
        assert run.result() == run_async.result() == elsewhere
        assert transaction.result() == ("40001", elsewhere), "the driver's own error, and then the other one"
        assert discovery.resting() <= {victim}


# -- Too many connections -------------------------------------------------------------------------------------


def test_a_replica_that_takes_no_more_connections_is_left_alone(cluster: LocalCluster, discovery: Discovery) -> None:
    victim, other = replicas(cluster)
    with contextlib.ExitStack() as stack:
        client = make_client("dialect", cluster, target="replica")
        stack.callback(client.close)
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                conninfo = cluster.conninfo(victim, dbname=cluster.dbname, user=cluster.user)
                stack.enter_context(contextlib.closing(psycopg.connect(conninfo)))
        assert set(client.together(6, f"{WHERE} FROM pg_sleep(0.1)")) == {host_of(cluster, other)}
        assert victim in discovery.resting()
    forget_rests(discovery)


def test_a_primarys_serialization_failure_is_nobodys_fault(
    cluster: LocalCluster, discovery: Discovery, table: str
) -> None:
    with contextlib.closing(make_client("dialect", cluster, target="any")) as client:
        assert isinstance(client, ThreadClient)
        engine = client.engine.execution_options(isolation_level="REPEATABLE READ")
        for replica in replicas(cluster):
            discovery.rest(replica)
        connection = engine.connect()
        assert connection.scalar(text(WHERE)) == host_of(cluster, cluster.leader or "")
        forget_rests(discovery)
        with pytest.raises(OperationalError) as caught:
            connection.execute(text("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$"))
        assert classify(caught.value) is Fault.TRANSIENT
        connection.close()
    assert not discovery.resting()


def test_a_transaction_that_writes_on_a_replica_is_not_tried_for_long(cluster: LocalCluster, table: str) -> None:
    with contextlib.closing(make_client("dialect", cluster, target="replica")) as client:
        assert isinstance(client, ThreadClient)
        with pytest.raises(DBAPIError) as caught:
            run_transaction(client.engine, lambda connection: connection.execute(text(f"DELETE FROM {table}")))
    assert sqlstate_of(caught.value) == "25006"
    assert "2 times" in str(caught.value.__notes__)


# -- Damaged data ---------------------------------------------------------------------------------------------


def damage(cluster: LocalCluster, name: str, table: str) -> None:
    """Change bytes in a table's file on one node, and let the node forget what it had read of it."""
    with admin(cluster) as primary:
        primary.execute("CREATE EXTENSION IF NOT EXISTS pg_buffercache")
        primary.execute("CHECKPOINT")
    catch_up(cluster, name)
    with admin(cluster, name) as node:
        node.execute("CHECKPOINT")
        assert node.execute("SHOW data_checksums").fetchone() == ("on",)
        (path,) = node.execute(f"SELECT pg_relation_filepath('{table}')").fetchone() or ("",)
        file: Path = cluster.node(name).data_dir / path
        with file.open("r+b") as pages:
            pages.seek(PAGE + PAGE // 2)
            pages.write(bytes(range(64)))
        node.execute(f"SELECT pg_buffercache_evict_relation('{table}'::regclass)")


def test_a_read_of_a_damaged_page_is_served_by_another_node(
    cluster: LocalCluster, discovery: Discovery, table: str
) -> None:
    victim, other = replicas(cluster)
    damage(cluster, victim, table)
    here, elsewhere = host_of(cluster, victim), host_of(cluster, other)
    sql = f"SELECT host(inet_server_addr()) || ' ' || count(*) FROM {table}"
    expected = f"{elsewhere} 200"
    reading = {"patroni_target": "replica"}
    with contextlib.ExitStack() as stack:
        client = make_client("dialect", cluster, target="replica")
        stack.callback(client.close)
        assert isinstance(client, ThreadClient)
        engine = client.engine
        kept = stack.enter_context(project(cluster, CONN_MAX_AGE=None, OPTIONS=reading))["replica"]
        pool = {"min_size": 1, "max_size": 2}
        pooled = stack.enter_context(project(cluster, OPTIONS={**reading, "pool": pool}))["replica"]
        # One after the other: to be sent elsewhere, each must have met the damage itself.
        for wrapper in (kept, pooled):
            lead_to(discovery, here, other, functools.partial(value, wrapper, WHERE))
            assert value(wrapper, sql) == expected
            assert discovery.resting() == {victim}
            assert value(wrapper, WHERE) == elsewhere
            forget_rests(discovery)
        lead_to(discovery, here, other, lambda: client.query(WHERE))
        with engine.connect() as connection, pytest.raises(DBAPIError) as caught:
            connection.execute(text(sql))
        assert classify(caught.value) is Fault.CORRUPTED
        assert client.query(sql) == expected, "a pooled connection leaves the damaged node too"
        eventually(lambda: not discovery.resting(), "the replica to be tried again")
        engine.dispose()
        lead_to(discovery, here, other, lambda: client.query(WHERE))
        assert run_transaction(engine, lambda connection: connection.scalar(text(sql))) == expected

        # Nobody is left who could serve it: the error is told, and what else there is can be read.
        damage(cluster, other, table)
        with pytest.raises(InternalError) as failed:
            value(kept, sql)
        assert classify(failed.value) is Fault.CORRUPTED
        with pytest.raises(DBAPIError):
            run_transaction(engine, lambda connection: connection.scalar(text(sql)))
        assert value(kept, "SELECT 1") == client.query("SELECT 1") == 1
        assert discovery.resting() == {victim, other}
