"""Engines of every kind on a healthy cluster: roles, errors, pools, and connections that die one by one."""

# ruff: noqa: S608 - names are made here

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy
from sqlalchemy import NullPool, StaticPool, create_engine, event, inspect, text
from sqlalchemy.exc import DBAPIError, InternalError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from patroni_db.connections import Stamp
from patroni_db.faults import sqlstate_of
from patroni_db.topology import Address
from sqlalchemy_dialect.marks import mark
from tests.sqlalchemy.clients import KINDS, WHERE, Client, LoopClient, ThreadClient, make_client, url_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patroni_db.cluster import LocalCluster

BACKEND = "SELECT pg_backend_pid()"


@pytest.fixture
def cluster(patroni_cluster: LocalCluster) -> LocalCluster:
    return patroni_cluster


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(name="make")
def make_clients(cluster: LocalCluster, kind: str) -> Iterator[Callable[..., Client]]:
    """Return what makes clients of every kind in turn, disposed of after the test."""
    with contextlib.ExitStack() as stack:

        def make(engine_options: dict[str, Any] | None = None, **settings: Any) -> Client:
            client = make_client(kind, cluster, engine_options, **settings)
            stack.callback(client.close)
            return client

        yield make


def eventually(condition: Callable[[], object], what: str, timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout:g} s in vain: {what}"
        time.sleep(0.02)


def as_superuser(cluster: LocalCluster, statement: str, node: str | None = None) -> list[Any]:
    with psycopg.connect(cluster.conninfo(node), autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def terminate(cluster: LocalCluster, pids: list[int]) -> None:
    """End sessions on the primary, and wait until the server has no more to do with them."""
    listed = ",".join(map(str, pids))
    as_superuser(cluster, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid IN ({listed})")
    left = f"SELECT count(*) FROM pg_stat_activity WHERE pid IN ({listed})"
    eventually(lambda: as_superuser(cluster, left) == [(0,)], "sessions to end")


def host_of_leader(cluster: LocalCluster) -> str:
    return cluster.node(cluster.leader or "").host


def test_each_target_leads_to_its_servers(cluster: LocalCluster, make: Callable[..., Client]) -> None:
    leader = host_of_leader(cluster)
    assert make().query(WHERE) == leader
    assert make(target="primary_preferred").query(WHERE) == leader
    assert make(target="replica").query(WHERE) != leader
    assert make(target="replica_preferred").query(WHERE) != leader


def test_reads_spread_over_the_replicas(cluster: LocalCluster) -> None:
    engine = create_engine(url_of(cluster, "patroni", target="replica"), poolclass=NullPool)
    hosts = {ThreadClient(engine).query(WHERE) for _ in range(40)}
    assert hosts == {node.host for node in cluster.nodes} - {host_of_leader(cluster)}


def test_a_pooled_connection_is_used_again(make: Callable[..., Client]) -> None:
    client = make()
    assert client.query(BACKEND) == client.query(BACKEND)


def test_a_session_that_ended_is_replaced_without_an_error(cluster: LocalCluster, make: Callable[..., Client]) -> None:
    client = make()
    before = client.sessions(3)
    terminate(cluster, before)
    after = client.together(3, BACKEND)
    assert not set(before) & set(after)


def test_one_dead_session_does_not_cost_the_others(cluster: LocalCluster, make: Callable[..., Client]) -> None:
    client = make()
    first, *others = client.sessions(3)
    terminate(cluster, [first])
    assert set(others) < set(client.sessions(3))


def test_an_end_that_the_event_loop_has_not_read_yet_is_seen(cluster: LocalCluster) -> None:
    """The session ends while the loop is busy: at checkout nobody has read what the server said."""

    async def run(url: str) -> tuple[int, int]:
        engine = create_async_engine(url)

        async def backend() -> int:
            async with engine.connect() as connection:
                return int((await connection.execute(text(BACKEND))).scalar_one())

        before = await backend()
        terminate(cluster, [before])  # blocks the loop
        after = await backend()
        await engine.dispose()
        return before, after

    for driver in ("asyncpg", "psycopg", "patroni"):
        before, after = asyncio.run(run(url_of(cluster, driver)))
        assert before != after


def test_a_statement_that_loses_its_connection_is_an_error(cluster: LocalCluster, make: Callable[..., Client]) -> None:
    client = make()
    mark = uuid.uuid4().hex
    errors: list[DBAPIError] = []

    def run() -> None:
        try:
            client.query(f"SELECT pg_sleep(60) /* {mark} */")
        except DBAPIError as exc:
            errors.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    asleep = f"SELECT pid FROM pg_stat_activity WHERE query LIKE '%{mark}%' AND wait_event = 'PgSleep'"
    eventually(lambda: as_superuser(cluster, asleep), "the statement to run")
    terminate(cluster, [pid for (pid,) in as_superuser(cluster, asleep)])
    thread.join(30)
    assert [exc.connection_invalidated for exc in errors] == [True]
    assert client.query("SELECT 1") == 1


def test_a_wrong_password_is_reported_at_once(cluster: LocalCluster) -> None:
    for driver in ("patroni", "psycopg", "psycopg2"):
        engine = create_engine(url_of(cluster, driver).replace(cluster.password, "wrong"))
        began = time.monotonic()
        with pytest.raises(OperationalError, match="password authentication failed"):
            engine.connect()
        assert time.monotonic() - began < 30  # not after patroni_failover_timeout


def test_no_answer_in_time_is_an_operational_error(make: Callable[..., Client]) -> None:
    client = make(urls="http://127.0.0.1:1", failover_timeout=0.5)
    with pytest.raises(OperationalError, match="patroni_failover_timeout") as raised:
        client.query("SELECT 1")
    assert "127.0.0.1:1" in str(raised.value)


def test_a_read_only_transaction_costs_no_connection(cluster: LocalCluster, make: Callable[..., Client]) -> None:
    """25006 on the real primary is the transaction's own doing."""
    client = make()
    before = client.query(BACKEND)
    with pytest.raises(DBAPIError) as raised:
        client.query("DO $$ BEGIN SET LOCAL transaction_read_only = on; CREATE TABLE nobody_sees_this (); END $$")
    assert sqlstate_of(raised.value) == "25006"
    assert not raised.value.connection_invalidated
    assert client.query(BACKEND) == before


def test_a_writer_that_is_told_read_only_by_a_standby_moves(cluster: LocalCluster) -> None:
    """However a connection for writing came to lead to a standby: its first write is an error, the next is not."""
    engine = create_engine(url_of(cluster, "patroni"))
    misled: list[Any] = []
    replica = next(node for node in cluster.nodes if node.name != cluster.leader)

    @event.listens_for(engine, "do_connect", insert=True)
    def mislead(dialect: Any, record: Any, cargs: Any, cparams: dict[str, Any]) -> Any:
        if misled:
            return None
        misled.append(record)
        connection = psycopg.connect(cluster.conninfo(replica.name, cluster.dbname, user=cluster.user))
        mark(record, connection, Stamp(replica.name, Address(replica.host, replica.port), 0))
        return connection

    with pytest.raises(InternalError) as raised, engine.begin() as connection:
        connection.execute(text("CREATE TABLE nobody_sees_this ()"))
    assert raised.value.connection_invalidated
    assert ThreadClient(engine).query(WHERE) == host_of_leader(cluster)
    engine.dispose()


def test_autocommit(make: Callable[..., Client]) -> None:
    client = make({"isolation_level": "AUTOCOMMIT"})
    assert client.query("SHOW transaction_isolation") == "read committed"
    assert client.query(BACKEND) == client.query(BACKEND)


def test_pre_ping_may_be_combined(cluster: LocalCluster, make: Callable[..., Client]) -> None:
    client = make({"pool_pre_ping": True})
    before = client.sessions(2)
    terminate(cluster, before)
    assert not set(before) & set(client.together(2, BACKEND))


@pytest.mark.parametrize("poolclass", [NullPool, StaticPool])
def test_other_pools(cluster: LocalCluster, make: Callable[..., Client], poolclass: Any) -> None:
    client = make({"poolclass": poolclass})
    before = client.query(BACKEND)
    if poolclass is StaticPool:
        assert client.query(BACKEND) == before
        terminate(cluster, [before])
    assert client.query(BACKEND) != before


def test_dispose_keeps_the_engine_routed(cluster: LocalCluster) -> None:
    engine = create_engine(url_of(cluster, "patroni"))
    client = ThreadClient(engine)
    before = client.sessions(2)
    engine.dispose()
    terminate(cluster, after := client.sessions(2))
    assert not set(before) & set(after)
    assert client.query(WHERE) == host_of_leader(cluster)
    engine.dispose()


@pytest.mark.parametrize("driver", ["patroni", "psycopg", "psycopg2", "asyncpg"])
def test_a_password_made_at_this_moment_reaches_the_driver(cluster: LocalCluster, driver: str) -> None:
    """The recipe of SQLAlchemy's documentation for passwords that expire."""
    url = url_of(cluster, driver).replace(f":{cluster.password}@", "@")

    def give_password(dialect: Any, record: Any, cargs: Any, cparams: dict[str, Any]) -> None:
        cparams["password"] = cluster.password

    if driver == "asyncpg":
        client: Client = LoopClient(lambda: create_async_engine(url))
        event.listen(client.engine.sync_engine, "do_connect", give_password)  # type: ignore[attr-defined]
    else:
        client = ThreadClient(create_engine(url))
        event.listen(client.engine, "do_connect", give_password)
    try:
        assert client.query(WHERE) == host_of_leader(cluster)
    finally:
        client.close()


def test_connections_made_elsewhere_are_left_alone_and_warned_of(
    cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    engine = create_engine(url_of(cluster, "patroni"))
    conninfo = cluster.conninfo(dbname=cluster.dbname, user=cluster.user)

    @event.listens_for(engine, "do_connect")
    def connect(*_: Any) -> Any:
        return psycopg.connect(conninfo)

    client = ThreadClient(engine)
    assert client.query(BACKEND) == client.query(BACKEND)
    assert [r.name for r in caplog.records if "not routed by Patroni" in r.getMessage()] == ["patroni_db.sqlalchemy"]
    engine.dispose()


@pytest.mark.parametrize("driver", ["patroni", "psycopg", "psycopg2"])
def test_a_listener_that_connects_by_itself_is_led_to_the_primary(cluster: LocalCluster, driver: str) -> None:
    client = ThreadClient(create_engine(url_of(cluster, driver)))

    @event.listens_for(client.engine, "do_connect")
    def connect(dialect: Any, record: Any, cargs: Any, cparams: dict[str, Any]) -> Any:
        return dialect.loaded_dbapi.connect(*cargs, **cparams)

    try:
        assert client.query(WHERE) == host_of_leader(cluster)
    finally:
        client.close()


@pytest.mark.parametrize("driver", ["patroni", "psycopg"])
def test_an_engine_that_is_forgotten_takes_its_thread_along(cluster: LocalCluster, driver: str) -> None:
    def watchers() -> set[threading.Thread]:
        gc.collect()
        return {t for t in threading.enumerate() if t.name == "patroni-db watcher"}

    others = watchers()
    # Settings of its own, so that it shares its thread with nobody.
    engine = create_engine(url_of(cluster, driver, refresh=2.75))
    assert not inspect(engine).has_table("none")  # SQLAlchemy's cache keeps the dialect from now on
    assert watchers() - others
    engine.dispose()
    del engine
    eventually(lambda: not watchers() - others, "the watcher to end")


@pytest.mark.skipif(
    tuple(map(int, sqlalchemy.__version__.split(".")[:3])) < (2, 0, 54),
    reason="SQLAlchemy itself strands a connection when a task is cancelled while it sets the connection up",
)
def test_a_cancelled_task_leaves_no_session_behind(cluster: LocalCluster) -> None:
    """Cancelled at any moment while it connects, or waits for a primary."""
    name = f"cancelled_{uuid.uuid4().hex}"

    async def run(url: str, connect_args: dict[str, Any]) -> None:
        engine = create_async_engine(url, poolclass=NullPool, connect_args=connect_args)
        for delay in range(0, 40, 2):
            task = asyncio.create_task(_backend(engine))
            await asyncio.sleep(delay / 1000)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await engine.dispose()

    asyncio.run(run(f"{url_of(cluster, 'psycopg')}&application_name={name}", {}))
    asyncio.run(run(url_of(cluster, "asyncpg"), {"server_settings": {"application_name": name}}))
    left = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'"
    eventually(lambda: as_superuser(cluster, left) == [(0,)], "cancelled sessions to end")


async def _backend(engine: Any) -> int:
    async with engine.connect() as connection:
        return int((await connection.execute(text(BACKEND))).scalar_one())


def test_a_cancelled_wait_for_a_server_ends_at_once(cluster: LocalCluster) -> None:
    url = url_of(cluster, "patroni", urls="http://127.0.0.1:1", failover_timeout=60)

    async def run() -> None:
        engine = create_async_engine(url)
        tasks = [asyncio.create_task(_backend(engine)) for _ in range(3)]
        for _ in range(10):  # the loop goes on while they wait
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        await engine.dispose()

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_fallback_host_serves_while_no_api_has_answered(cluster: LocalCluster) -> None:
    leader = cluster.node(cluster.leader or "")
    hosts = ",".join(f"{node.host}:{node.port}" for node in cluster.nodes)
    url = url_of(cluster, "patroni", urls="http://127.0.0.1:1", fallback_hosts=hosts)
    client = ThreadClient(create_engine(url))
    assert client.query(WHERE) == leader.host
    terminate(cluster, before := client.sessions(1))
    assert client.query(BACKEND) not in before
    client.close()
