"""Routing sessions on a healthy cluster: which node a transaction goes to, and what it must not do there."""

# ruff: noqa: S608 - names are made here

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy
from sqlalchemy import ForeignKey, create_engine, func, insert, select, text, update
from sqlalchemy.exc import ArgumentError, DBAPIError, InternalError, InvalidRequestError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, scoped_session, sessionmaker

from patroni_db import PatroniConfig
from patroni_db.faults import sqlstate_of
from sqlalchemy_dialect import (
    AsyncRoutingSession,
    ReadOnlyError,
    RoutingSession,
    TransactionOnReplicaError,
    async_writer_and_reader,
    run_transaction,
    run_transaction_async,
    use_primary,
    use_replica,
    writer_and_reader,
)
from tests.integration.faults import eventually
from tests.sqlalchemy.clients import url_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patroni_db.cluster import LocalCluster
    from sqlalchemy_dialect.engines import Engines

ON_REPLICA = text("SELECT pg_is_in_recovery()")
SCHEMA = f"routing_{uuid.uuid4().hex}"


class Base(DeclarativeBase):
    metadata = sqlalchemy.MetaData(schema=SCHEMA)


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    notes: Mapped[list[Note]] = relationship(back_populates="user")


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str]
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id))
    user: Mapped[User] = relationship(back_populates="notes")


class Elsewhere(DeclarativeBase):
    pass


class Local(Elsewhere):
    __tablename__ = "local"
    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture(scope="module")
def cluster(patroni_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """The cluster, with a user who has a note, on all nodes."""
    patroni_cluster.heal()
    with psycopg.connect(patroni_cluster.conninfo(dbname=patroni_cluster.dbname), autocommit=True) as admin:
        admin.execute(f"""
            CREATE SCHEMA {SCHEMA} AUTHORIZATION {patroni_cluster.user};
            SET ROLE {patroni_cluster.user};
            SET search_path = {SCHEMA};
            CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL);
            CREATE TABLE notes (id serial PRIMARY KEY, note text NOT NULL, user_id int NOT NULL REFERENCES users);
            INSERT INTO users (name) VALUES ('ann');
            INSERT INTO notes (note, user_id) VALUES ('hello', 1);
            CREATE FUNCTION write() RETURNS int LANGUAGE sql
                AS 'INSERT INTO {SCHEMA}.users (name) VALUES (1) RETURNING id';
        """)
        position = admin.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
        behind = "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn < %s"
        eventually(lambda: admin.execute(behind, position).fetchone() == (0,), "the replicas")
        yield patroni_cluster
        admin.execute(f"DROP SCHEMA {SCHEMA} CASCADE")


@pytest.fixture
def engines(cluster: LocalCluster) -> Iterator[Engines]:
    pair = writer_and_reader(url_of(cluster, "patroni"), reads={"target": "replica"})
    yield pair
    for engine in pair:
        engine.dispose()


@pytest.fixture(name="make")
def sessions(engines: Engines) -> Callable[..., sessionmaker[RoutingSession]]:
    def make(**options: Any) -> sessionmaker[RoutingSession]:
        return sessionmaker(engines.writer, class_=RoutingSession, reader=engines.reader, **options)

    return make


def checked_out(engines: Engines) -> list[int]:
    return [engine.pool.checkedout() for engine in engines]  # type: ignore[attr-defined]  # both are queue pools


# -- Where a transaction goes ------------------------------------------------------------------------------------


def test_a_transaction_is_the_primarys_unless_it_is_declared(make: Any, engines: Engines) -> None:
    with make()() as session:
        assert session.scalar(ON_REPLICA) is False
        assert session.scalars(select(User)).one().name == "ann"
        session.rollback()
        assert session.scalar(ON_REPLICA, execution_options={"patroni_read_only": True}) is True
        assert session.scalar(ON_REPLICA) is True  # the same transaction
        session.commit()
        assert session.scalar(ON_REPLICA) is False
        session.commit()
        assert session.execute(ON_REPLICA.execution_options(patroni_use="replica")).scalar_one() is True
        session.commit()
        with use_replica():
            assert session.scalar(ON_REPLICA) is True
            session.commit()
            assert session.scalar(ON_REPLICA, execution_options={"patroni_use": "primary"}) is False
            session.commit()
            with use_primary():
                assert session.scalar(ON_REPLICA) is False
            session.commit()
        assert session.connection(execution_options={"patroni_read_only": True}).scalar(ON_REPLICA) is True
    assert checked_out(engines) == [0, 0]


def test_a_session_that_only_reads(make: Any, engines: Engines) -> None:
    with make(read_only=True)() as session:
        user = session.get(User, 1)
        assert session.connection().scalar(ON_REPLICA) is True
        assert [note.note for note in user.notes] == ["hello"]
        session.refresh(user)
        with session.begin_nested():
            assert session.scalar(ON_REPLICA) is True
        assert session.query(User).count() == 1
        assert checked_out(engines) == [0, 1]
        session.commit()
        assert checked_out(engines) == [0, 0]
        assert user.name == "ann"  # expired by the commit, and loaded again
        session.close()
        assert (
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"}).scalar(
                text("SHOW transaction_isolation")
            )
            == "repeatable read"
        )
        session.rollback()
        with session.begin():
            assert session.execute(ON_REPLICA, execution_options={"patroni_use": "primary"}).scalar_one() is False
            assert session.scalar(text("SHOW transaction_read_only")) == "on"
    assert checked_out(engines) == [0, 0]


WRITES: dict[str, Callable[[Any], Any]] = {
    "a flush": lambda session: (session.add(User(name="x")), session.flush()),
    "an autoflush": lambda session: (session.add(User(name="x")), session.scalars(select(User)).all()),
    "a commit": lambda session: (session.add(User(name="x")), session.commit()),
    "an insert": lambda session: session.execute(insert(User).values(name="x")),
    "many inserts": lambda session: session.execute(insert(User), [{"name": "x"}, {"name": "y"}]),
    "an update": lambda session: session.execute(update(User).where(User.id == 0).values(name="x")),
    "a query's delete": lambda session: session.query(User).filter_by(id=0).delete(),
    "a lock": lambda session: session.scalars(select(User).with_for_update()).all(),
    "a refresh with a lock": lambda session: session.refresh(session.get(User, 1), with_for_update=True),
    "a CTE": lambda session: session.execute(select(insert(User).values(name="x").returning(User.id).cte())),
    "SQL": lambda session: session.execute(text(f"/* SELECT */ INSERT INTO {SCHEMA}.users (name) VALUES ('x')")),
    "SELECT INTO": lambda session: session.execute(text(f"SELECT * INTO {SCHEMA}.copy FROM {SCHEMA}.users")),
    "a sequence": lambda session: session.scalar(text(f"SELECT nextval('{SCHEMA}.users_id_seq')")),
    "the connection": lambda session: session.connection().execute(insert(User).values(name="x")),
    "the driver's SQL": lambda session: session.connection().exec_driver_sql(
        f"DELETE FROM {SCHEMA}.users WHERE id = 0"
    ),
    "a bulk insert": lambda session: session.bulk_save_objects([User(name="x")]),
}


@pytest.mark.parametrize("what", WRITES)
@pytest.mark.parametrize("where", ["replica", "primary"])
def test_a_write_is_refused_before_the_server_does(make: Any, engines: Engines, what: str, where: str) -> None:
    with make(read_only=True)() as session:
        if what != "a flush":  # which begins the transaction
            session.scalar(ON_REPLICA, execution_options={"patroni_use": where})
        with pytest.raises(ReadOnlyError, match="declared to read only"):
            WRITES[what](session)
    assert checked_out(engines) == [0, 0]
    with make()() as session:
        assert session.scalar(select(func.count()).select_from(User)) == 1


def test_a_function_that_writes_is_refused_by_the_server_with_a_hint(make: Any) -> None:
    writes = text(f"SELECT {SCHEMA}.write()")
    for where in ("replica", "primary"):
        with make(read_only=True)() as session, pytest.raises(InternalError) as raised:
            session.scalar(writes, execution_options={"patroni_use": where})
        assert sqlstate_of(raised.value) == "25006"
        assert any("patroni_use" in note for note in raised.value.__notes__)


# -- Automatic mode ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", [what for what in WRITES if what not in {"a refresh with a lock", "the driver's SQL"}])
def test_an_automatic_transaction_goes_by_its_first_statement(make: Any, engines: Engines, what: str) -> None:
    with make(automatic=True)() as session:
        WRITES[what](session)
        if session.in_transaction():
            assert session.scalar(ON_REPLICA) is False
            session.rollback()
        with engines.writer.begin() as connection:
            connection.execute(text(f"DELETE FROM {SCHEMA}.users WHERE name <> 'ann'"))
            connection.execute(text(f"DROP TABLE IF EXISTS {SCHEMA}.copy"))
    with make(automatic=True)() as session:
        assert session.scalars(select(User)).one().name == "ann"
        assert session.scalar(ON_REPLICA) is True
    assert checked_out(engines) == [0, 0]


def test_what_else_an_automatic_transaction_begins_with(make: Any) -> None:
    with make(automatic=True)() as session:
        for clause, replica in (
            (text("SET LOCAL statement_timeout = 10000"), False),
            (text("SELECT pg_advisory_xact_lock(1)"), False),
            (ON_REPLICA.execution_options(patroni_use="primary"), False),
            (select(User), True),
            (func.now(), True),
        ):
            session.execute(clause)
            assert session.scalar(ON_REPLICA) is replica
            session.rollback()
        assert session.connection().scalar(ON_REPLICA) is False
        session.rollback()
        with use_primary():
            assert session.scalar(ON_REPLICA) is False


@pytest.mark.parametrize("what", WRITES)
def test_a_write_after_reading_from_a_replica_is_an_error(make: Any, engines: Engines, what: str) -> None:
    with make(automatic=True)() as session:
        assert session.scalar(ON_REPLICA) is True
        with pytest.raises(TransactionOnReplicaError, match=r"on_write='switch'"):
            WRITES[what](session)
        session.rollback()
        session.expunge_all()
        assert session.scalar(ON_REPLICA) is True
        with pytest.raises(TransactionOnReplicaError, match="patroni_use='primary'"):
            session.execute(select(User), execution_options={"patroni_use": "primary"})
    assert checked_out(engines) == [0, 0]


@pytest.mark.parametrize("what", ["a flush", "an insert", "a lock", "a CTE", "SQL", "a bulk insert", "a sequence"])
def test_it_goes_on_on_the_primary_if_that_was_asked_for(make: Any, engines: Engines, what: str) -> None:
    with make(automatic=True, on_write="switch")() as session:
        user = session.get(User, 1)
        assert session.scalar(ON_REPLICA) is True
        WRITES[what](session)
        assert session.scalar(ON_REPLICA) is False
        assert user in session
        session.commit()
        with engines.writer.begin() as connection:
            found = connection.scalar(text(f"SELECT count(*) FROM {SCHEMA}.users"))
            connection.execute(text(f"DELETE FROM {SCHEMA}.users WHERE name <> 'ann'"))
        assert found == (1 if what in {"a lock", "a sequence"} else 2)
    assert checked_out(engines) == [0, 0]


def test_switching_ends_with_the_transaction(make: Any, engines: Engines) -> None:
    with make(automatic=True, on_write="switch")() as session:
        for end in (session.rollback, session.close, session.invalidate, session.reset, session.commit):
            assert session.scalar(ON_REPLICA) is True
            session.execute(select(User).with_for_update())
            assert session.scalar(ON_REPLICA) is False
            end()
            assert checked_out(engines) == [0, 0]
        session.close()
        session.scalar(ON_REPLICA)
        with session.begin_nested():
            session.scalar(ON_REPLICA)
            with pytest.raises(TransactionOnReplicaError):
                session.execute(insert(User).values(name="x"))
        session.rollback()
        # What the replica's transaction ended with is of no interest any more.
        pid = session.scalar(text("SELECT pg_backend_pid()"))
        connection = session.connection()
        connection.connection.driver_connection.close()
        session.execute(insert(User).values(name="x"))
        assert session.scalar(text("SELECT pg_backend_pid()")) != pid
        session.rollback()
    assert checked_out(engines) == [0, 0]


# -- After a write -----------------------------------------------------------------------------------------------


def test_a_session_reads_from_the_primary_after_it_wrote(make: Any) -> None:
    with make(automatic=True)() as session:
        session.execute(update(User).values(name=User.name))
        session.rollback()
        assert session.scalar(ON_REPLICA) is True  # nothing was written
        session.rollback()
        user = session.get(User, 1, execution_options={"patroni_use": "primary"})
        user.name = user.name + ""
        session.execute(update(User).values(name=User.name))
        session.commit()
        assert user.name == "ann"  # loaded again
        assert session.scalar(ON_REPLICA) is False
        session.commit()
        assert session.scalar(ON_REPLICA, execution_options={"patroni_read_only": True}) is False
        assert session.scalar(text("SHOW transaction_read_only")) == "on"
        session.close()
        assert session.scalar(ON_REPLICA) is True


# -- Together with everything else -------------------------------------------------------------------------------


def test_models_bound_elsewhere_are_left_alone(engines: Engines) -> None:
    other = create_engine("sqlite://")
    Elsewhere.metadata.create_all(other)
    maker = sessionmaker(
        engines.writer, class_=RoutingSession, reader=engines.reader, read_only=True, binds={Elsewhere: other}
    )
    with maker() as session:
        assert session.scalars(select(User)).one().name == "ann"
        session.add(Local(id=1))
        session.flush()
        assert session.scalars(select(Local)).one().id == 1
        assert session.scalar(ON_REPLICA) is True
        assert session.get_bind(Local) is other
        assert session.scalar(ON_REPLICA, bind_arguments={"bind": engines.writer}) is False
    other.dispose()


def test_asking_for_the_bind_connects_nothing(make: Any, engines: Engines) -> None:
    for options in ({}, {"read_only": True}, {"automatic": True}):
        with make(**options)() as session:
            assert session.get_bind() is engines[bool(options.get("read_only"))]
            assert session.get_bind(User, clause=select(User)) is engines[bool(options.get("read_only"))]
            assert str(session.query(User))
            assert checked_out(engines) == [0, 0]
            assert not session.in_transaction()


def test_a_session_in_a_tests_transaction(engines: Engines) -> None:
    """SQLAlchemy's recipe "Joining a Session into an External Transaction" keeps working."""
    with engines.writer.connect() as connection:
        outer = connection.begin()
        maker = sessionmaker(
            connection, class_=RoutingSession, automatic=True, join_transaction_mode="create_savepoint"
        )
        with maker() as session:
            assert session.scalar(select(func.count()).select_from(User)) == 1
            session.add(User(name="x"))
            session.commit()
            assert session.scalar(select(func.count()).select_from(User)) == 2
        outer.rollback()


def test_without_a_reader_everything_is_the_primarys(engines: Engines) -> None:
    maker = sessionmaker(engines.writer, class_=RoutingSession, automatic=True)
    with maker() as session:
        assert session.scalar(ON_REPLICA) is False
        server_process = select(func.pg_backend_pid())
        begun_on = session.scalar(server_process)
        assert session.scalar(server_process, execution_options={"patroni_read_only": True}) == begun_on
    with maker(read_only=True) as session:
        assert session.scalar(ON_REPLICA) is False
        with pytest.raises(ReadOnlyError):
            session.execute(insert(User).values(name="x"))


def test_on_another_database_it_is_a_session_like_others() -> None:
    engine = create_engine("sqlite://")
    Elsewhere.metadata.create_all(engine)
    maker = sessionmaker(engine, class_=RoutingSession)
    with maker.begin() as session:
        session.add(Local(id=1))
    with maker(read_only=True) as session:
        assert session.scalars(select(Local)).one().id == 1
        with pytest.raises(ReadOnlyError):
            session.execute(insert(Local).values(id=2))
    engine.dispose()


def test_run_transaction(make: Any, engines: Engines) -> None:
    attempts = []

    def work(session: Session) -> Any:
        attempts.append(session.scalar(ON_REPLICA))
        if len(attempts) == 1:
            session.execute(text("DO $$ BEGIN RAISE EXCEPTION SQLSTATE '40001'; END $$"))
        session.add(User(name="again"))
        session.flush()
        return session.scalar(select(func.count()).select_from(User))

    assert run_transaction(make(automatic=True), work) == 2
    assert attempts == [False, False]
    with pytest.raises(ReadOnlyError):
        run_transaction(make(read_only=True), work)
    assert run_transaction(make(read_only=True), lambda session: session.scalar(ON_REPLICA)) is True
    with engines.writer.begin() as connection:
        connection.execute(text(f"DELETE FROM {SCHEMA}.users WHERE name <> 'ann'"))
    assert checked_out(engines) == [0, 0]


def test_threads_have_transactions_of_their_own(make: Any, engines: Engines) -> None:
    maker, barrier = make(), threading.Barrier(8)

    def work(number: int) -> bool:
        with maker(read_only=bool(number % 2)) as session:
            found = [session.scalar(ON_REPLICA)]
            barrier.wait(30)
            found.append(session.scalar(ON_REPLICA))
            assert found[0] == found[1]
            return bool(found[0])

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(8))) == [False, True] * 4
    assert checked_out(engines) == [0, 0]


def test_other_ways_to_have_a_session(make: Any, engines: Engines) -> None:
    registry = scoped_session(make(read_only=True))
    assert registry.scalar(ON_REPLICA) is True
    assert [user.name for user in registry.scalars(select(User).execution_options(yield_per=1))] == ["ann"]
    registry.remove()
    with make(read_only=True, autobegin=False)() as session:
        for _ in range(2):
            with pytest.raises(InvalidRequestError, match=r"[Aa]utobegin"):
                session.scalar(ON_REPLICA)
        with session.begin():
            assert session.scalar(ON_REPLICA) is True
    assert checked_out(engines) == [0, 0]
    level = engines.reader.execution_options(isolation_level="AUTOCOMMIT")  # BEGIN and ROLLBACK spared
    with RoutingSession(engines.writer, reader=level, read_only=True) as session:
        assert session.scalar(ON_REPLICA) is True
        with pytest.raises(ReadOnlyError):
            session.execute(insert(User).values(name="x"))
    assert checked_out(engines) == [0, 0]


def test_functions_may_declare_too(make: Any) -> None:
    def on_replica() -> bool:
        with make()() as session:
            return bool(session.scalar(ON_REPLICA))

    @use_replica()
    def reads(depth: int) -> bool:
        """Read."""
        return on_replica() and (not depth or reads(depth - 1))

    @use_replica()
    async def awaits() -> tuple[bool, bool]:
        await asyncio.sleep(0)
        return on_replica(), use_primary()(on_replica)()

    assert reads(2) is True
    assert reads.__doc__ == "Read."
    assert asyncio.run(awaits()) == (True, False)
    assert on_replica() is False
    with pytest.raises(TypeError, match="use `with`"):

        @use_primary()
        def generates() -> Iterator[None]:
            yield


# -- Engines -----------------------------------------------------------------------------------------------------


def test_the_reader_refuses_to_write(engines: Engines) -> None:
    with engines.reader.connect() as connection:
        assert connection.scalar(ON_REPLICA) is True
        for write in (
            insert(User).values(name="x"),
            text(f"INSERT INTO {SCHEMA}.users (name) VALUES ('x')"),
            select(User).with_for_update(),
        ):
            with pytest.raises(ReadOnlyError, match="declared to read only"):
                connection.execute(write)
        with pytest.raises(ReadOnlyError):
            connection.execute(insert(User), [{"name": "x"}, {"name": "y"}])
        with pytest.raises(ReadOnlyError):
            connection.exec_driver_sql("CREATE TABLE x ()")
        assert connection.scalar(select(func.count()).select_from(User)) == 1
    with engines.writer.begin() as connection:
        assert connection.scalar(ON_REPLICA) is False
        with pytest.raises(ReadOnlyError):
            connection.execute(insert(User).values(name="x").execution_options(patroni_read_only=True))


def test_engines_on_a_config_object(cluster: LocalCluster) -> None:
    url = f"postgresql+psycopg2://{cluster.user}:{cluster.password}@/{cluster.dbname}?plugin=patroni"
    config = PatroniConfig(urls=cluster.urls)
    pair = writer_and_reader(url, patroni=config, reads={"max_lag": "1GB"}, reader_options={"pool_size": 2})
    try:
        with pair.reader.connect() as reader, pair.writer.connect() as writer:
            assert (reader.scalar(ON_REPLICA), writer.scalar(ON_REPLICA)) == (True, False)
        assert pair.reader.pool.size() == 2  # type: ignore[attr-defined]  # a queue pool
    finally:
        pair.writer.dispose()
        pair.reader.dispose()


# -- Wrong use ---------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_told_before_anything_is_connected(engines: Engines) -> None:
    plain = create_engine("postgresql+psycopg://")
    for arguments, message in (
        ({"reader": engines.writer}, "target primary"),
        ({"reader": plain}, "not on a Patroni cluster"),
        ({"reader": "replica"}, "an Engine, not str"),
        ({"bind": engines.reader, "reader": engines.reader}, "must be for the primary"),
        ({"bind": plain, "reader": engines.reader}, "not on a Patroni cluster"),
        ({"bind": None, "reader": engines.reader}, "needs bind="),
        ({"twophase": True}, "two phases"),
        ({"on_write": "switch"}, "automatic=True"),
        ({"on_write": "wait", "automatic": True}, "not 'wait'"),
        ({"on_write": "switch", "automatic": True, "join_transaction_mode": "control_fully"}, "join_transaction_mode"),
    ):
        with pytest.raises(ArgumentError, match=message):
            RoutingSession(**{"bind": engines.writer, "reader": engines.reader, **arguments})  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="AsyncEngine, not Engine"):
        AsyncRoutingSession(reader=engines.reader)  # type: ignore[arg-type]  # what is wrong with it
    with pytest.raises(ArgumentError, match="reads="):
        writer_and_reader("postgresql+patroni://?patroni_urls=http://127.0.0.1:1&patroni_target=replica")
    with pytest.raises(ArgumentError, match="patroni_target"):
        writer_and_reader("postgresql+patroni://?patroni_urls=http://127.0.0.1:1", reads={"target": "nearest"})
    with RoutingSession(engines.writer, reader=engines.reader) as session:
        for options in (
            {"patroni_use": "nearest"},
            {"patroni_read_only": 1},
            {"patroni_use": "replica", "patroni_read_only": False},
        ):
            with pytest.raises(ArgumentError):
                session.execute(ON_REPLICA, execution_options=options)


@pytest.mark.skipif(sqlalchemy.__version__ < "2.1", reason="sessions have execution options from 2.1")
def test_options_of_the_session(make: Any) -> None:
    with make(execution_options={"patroni_read_only": True})() as session:
        assert session.scalar(ON_REPLICA) is True
    with pytest.raises(ArgumentError, match="isolation_level"):
        make(automatic=True, on_write="switch", execution_options={"isolation_level": "SERIALIZABLE"})()
    with make(read_only=True, execution_options={"isolation_level": "REPEATABLE READ"})() as session:
        assert session.scalar(text("SHOW transaction_isolation")) == "repeatable read"


# -- Event loops -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", ["asyncpg", pytest.param("patroni", marks=pytest.mark.thorough)])
def test_on_an_event_loop(cluster: LocalCluster, driver: str) -> None:
    async def main() -> None:
        pair = async_writer_and_reader(url_of(cluster, driver), reads={"target": "replica"})
        maker = async_sessionmaker(pair.writer, class_=AsyncRoutingSession, reader=pair.reader)
        try:
            async with maker() as session:
                assert await session.scalar(ON_REPLICA) is False
            async with maker(read_only=True) as session:
                user = (await session.scalars(select(User))).one()
                await session.refresh(user, ["notes"])
                assert [note.note for note in user.notes] == ["hello"]
                assert await session.scalar(ON_REPLICA) is True
                assert await (await session.connection()).scalar(ON_REPLICA) is True
                for write in ("a flush", "an insert", "SQL", "a lock"):
                    with pytest.raises(ReadOnlyError):
                        await session.run_sync(WRITES[write])
                    await session.rollback()
                assert await session.scalar(ON_REPLICA, execution_options={"patroni_use": "primary"}) is False
                assert await session.scalar(text("SHOW transaction_read_only")) == "on"
            async with maker(automatic=True, on_write="switch") as session:
                assert await session.scalar(ON_REPLICA) is True
                await session.execute(insert(User).values(name="x"))
                assert await session.scalar(ON_REPLICA) is False
            reading = maker(read_only=True)
            task = asyncio.create_task(reading.execute(text("SELECT pg_sleep(60)")))
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await reading.close()
            assert await run_transaction_async(maker, lambda session: session.scalar(ON_REPLICA)) is False
            with contextlib.suppress(DBAPIError):
                async with pair.reader.connect() as connection:
                    with pytest.raises(ReadOnlyError):
                        await connection.execute(insert(User).values(name="x"))
            assert [engine.pool.checkedout() for engine in pair] == [0, 0]  # type: ignore[attr-defined]
        finally:
            await pair.writer.dispose()
            await pair.reader.dispose()

    asyncio.run(main())
