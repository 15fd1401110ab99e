"""Applications whose transactions are SERIALIZABLE, which no standby can be: reads there are REPEATABLE READ."""

# ruff: noqa: S608 - names are made here

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from patroni_db.causal_context import causal_context
from sqlalchemy_dialect import AsyncRoutingSession, RoutingSession, async_writer_and_reader, writer_and_reader
from tests.django.backends import project
from tests.integration.faults import eventually
from tests.sqlalchemy.clients import url_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patroni_db.cluster import LocalCluster

LEVEL = text("SELECT pg_is_in_recovery(), current_setting('transaction_isolation')")
LOWERED = (True, "repeatable read")
ROLE = f"serial_{uuid.uuid4().hex}"
SETS = "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE"


@pytest.fixture(scope="module")
def cluster(patroni_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """The cluster, with a role whose transactions are SERIALIZABLE unless they say otherwise."""
    patroni_cluster.heal()
    with psycopg.connect(patroni_cluster.conninfo(dbname=patroni_cluster.dbname), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD 'serial'")
        admin.execute(f"ALTER ROLE {ROLE} SET default_transaction_isolation = 'serializable'")
        admin.execute(f"CREATE TABLE {ROLE} (id int)")
        admin.execute(f"GRANT ALL ON {ROLE} TO {ROLE}, {patroni_cluster.user}")
        position = admin.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
        behind = "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn < %s"
        eventually(lambda: admin.execute(behind, position).fetchone() == (0,), "the replicas")
        yield patroni_cluster
        admin.execute(f"DROP TABLE {ROLE}")
        admin.execute(f"DROP ROLE {ROLE}")


@pytest.fixture(name="_django_db_unblocked")
def django_db_unblocked(django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock():
        yield


def url_for(cluster: LocalCluster, driver: str, *, role: bool = False, **query: Any) -> str:
    url = url_of(cluster, driver, **query)
    return url.replace(f"//{cluster.user}:{cluster.password}@", f"//{ROLE}:serial@") if role else url


def of_engine(url: str) -> Engine:
    return create_engine(url, isolation_level="SERIALIZABLE")


def of_engine_option(url: str) -> Engine:
    return create_engine(url, execution_options={"isolation_level": "SERIALIZABLE"})


def of_session_default(url: str) -> Engine:
    return create_engine(f"{url}&options=-c%20default_transaction_isolation%3Dserializable")


def plain(url: str) -> Engine:
    return create_engine(url)


WAYS: list[Any] = [
    pytest.param(of_engine, False, id="engine"),
    pytest.param(of_engine_option, False, id="engine_option"),
    pytest.param(of_session_default, False, id="session_default"),
    pytest.param(plain, True, id="role"),
    pytest.param(of_engine, True, id="role_and_engine"),
]


@pytest.mark.parametrize("driver", ["patroni", "psycopg2"])
@pytest.mark.parametrize(("make", "role"), WAYS)
def test_what_reads_on_a_replica_is_repeatable_read(
    cluster: LocalCluster, driver: str, make: Callable[[str], Engine], role: bool
) -> None:
    engine = make(url_for(cluster, driver, role=role, target="replica"))
    try:
        for _ in range(2):
            with engine.connect() as connection:
                assert connection.execute(LEVEL).one() == LOWERED
                connection.execute(text(f"SELECT * FROM {ROLE}"))
        with engine.connect().execution_options(isolation_level="SERIALIZABLE") as connection:
            assert connection.execute(LEVEL).one() == LOWERED
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            assert connection.scalar(text("SELECT pg_is_in_recovery()")) is True
    finally:
        engine.dispose()


@pytest.mark.parametrize("driver", ["patroni", "asyncpg"])
@pytest.mark.parametrize("role", [False, True])
def test_asynchronous_engines_do_the_same(cluster: LocalCluster, driver: str, role: bool) -> None:
    async def read() -> None:
        options = {} if role else {"isolation_level": "SERIALIZABLE"}
        engine = create_async_engine(url_for(cluster, driver, role=role, target="replica"), **options)
        async with engine.connect() as connection:
            assert (await connection.execute(LEVEL)).one() == LOWERED
            await connection.execute(text(f"SELECT * FROM {ROLE}"))
        async with engine.connect() as connection:
            same = await connection.execution_options(isolation_level="SERIALIZABLE")
            assert (await same.execute(LEVEL)).one() == LOWERED
        async with engine.connect() as connection:
            await connection.execute(text(SETS))
            await connection.commit()
            assert (await connection.execute(LEVEL)).one() == LOWERED
        await engine.dispose()

    asyncio.run(read())


@pytest.mark.parametrize("driver", ["patroni", "psycopg2"])
@pytest.mark.parametrize("level", [None, "AUTOCOMMIT"])
def test_a_session_that_becomes_serializable_is_lowered_again(
    cluster: LocalCluster, driver: str, level: str | None
) -> None:
    engine = create_engine(url_for(cluster, driver, target="replica"))
    for statement in (SETS, " set default_transaction_isolation = 'serializable'", f"{SETS}, READ WRITE"):
        with engine.connect() as connection:
            if level:
                connection.execution_options(isolation_level=level)
            connection.execute(text(statement))
            connection.commit()
            assert connection.execute(LEVEL).one() == LOWERED
    engine.dispose()


def test_sessions_read_what_they_wrote_and_are_serializable_on_the_primary(cluster: LocalCluster) -> None:
    cases: list[tuple[dict[str, Any], bool]] = [({"isolation_level": "SERIALIZABLE"}, False), ({}, True)]
    for options, role in cases:
        engines = writer_and_reader(url_for(cluster, "patroni", role=role, causal_wait=20), **options)
        with causal_context():
            with RoutingSession(engines.writer, reader=engines.reader) as session:
                assert session.execute(LEVEL).one() == (False, "serializable")
                session.execute(text(f"INSERT INTO {ROLE} VALUES (1)"))
                session.commit()
            with RoutingSession(engines.writer, reader=engines.reader, read_only=True) as session:
                assert session.execute(LEVEL).one() == LOWERED
                assert session.scalar(text(f"SELECT count(*) FROM {ROLE}"))
        for engine in engines:
            engine.dispose()


def test_asynchronous_sessions_too(cluster: LocalCluster) -> None:
    async def read() -> None:
        engines = async_writer_and_reader(url_for(cluster, "asyncpg", role=True, causal_wait=20))
        with causal_context():
            async with AsyncRoutingSession(engines.writer, reader=engines.reader) as session:
                await session.execute(text(f"INSERT INTO {ROLE} VALUES (1)"))
                await session.commit()
            async with AsyncRoutingSession(engines.writer, reader=engines.reader, read_only=True) as session:
                assert (await session.execute(LEVEL)).one() == LOWERED
        await engines.writer.dispose()
        await engines.reader.dispose()

    asyncio.run(read())


def test_other_levels_stay_as_they_are(cluster: LocalCluster) -> None:
    for level in ("READ COMMITTED", "REPEATABLE READ"):
        engine = create_engine(url_for(cluster, "patroni", role=True, target="replica"), isolation_level=level)
        with engine.connect() as connection:
            assert connection.execute(LEVEL).one() == (True, level.lower())
        engine.dispose()
    engine = create_engine(url_for(cluster, "patroni", target="replica"))
    with engine.connect() as connection:
        assert connection.execute(LEVEL).one() == (True, "read committed")
    engine.dispose()


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("role", [False, True])
@pytest.mark.usefixtures("_django_db_unblocked")
def test_django(cluster: LocalCluster, pool: bool, role: bool) -> None:
    options: dict[str, Any] = {} if role else {"isolation_level": psycopg.IsolationLevel.SERIALIZABLE}
    options |= {"pool": pool}
    login = {"USER": ROLE, "PASSWORD": "serial"} if role else {}
    with project(cluster, OPTIONS=options, **login) as aliases:
        replica = aliases["replica"]

        def level() -> Any:
            with replica.cursor() as cursor:
                cursor.execute(LEVEL.text)
                return cursor.fetchone()

        for _ in range(2):
            assert level()[0] is True  # in autocommit mode
            replica.set_autocommit(False)
            assert level() == LOWERED
            replica.rollback()
            replica.set_autocommit(True)
            replica.close()
        with replica.cursor() as cursor:
            cursor.execute(SETS)
        assert level()[0] is True
        replica.set_autocommit(False)
        assert level() == LOWERED
        replica.rollback()
        replica.set_autocommit(True)
        default = aliases["default"]
        default.set_autocommit(False)
        with default.cursor() as cursor:
            cursor.execute(LEVEL.text)
            assert cursor.fetchone() == (False, "serializable")
        default.rollback()
        default.set_autocommit(True)
