"""SQLAlchemy's transactions while their server goes: what runs again, what does not, and what became of a COMMIT."""

# ruff: noqa: S608 - tables' names are made here

from __future__ import annotations

import contextlib
import functools
import os
import socket
import subprocess
import sys
import threading
import uuid
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, InvalidRequestError, OperationalError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

import patroni_db
from patroni_db import PatroniConfig, markers
from patroni_db.errors import KeyReusedError
from patroni_db.faults import sqlstate_of
from sqlalchemy_dialect import CommitOutcomeUnknown, PatroniCreator, run_transaction, run_transaction_async
from tests.integration.faults import crash, eventually, switchover
from tests.integration.test_sqlalchemy_failover import at_once
from tests.sqlalchemy.clients import Client, LoopClient, ThreadClient, make_client, url_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine

    from patroni_db.cluster import LocalCluster

pytestmark = pytest.mark.timeout(180)

# One of each driver; and connections of an application's own class, which cannot look by themselves.
KINDS = ("dialect", "plugin-psycopg2", "async-dialect", "async-plugin-asyncpg", "own-class")
QUICK = ("dialect", "async-plugin-asyncpg")
BACKEND = text("SELECT pg_backend_pid()")


class OwnConnection(psycopg.Connection[Any]):
    pass


def make(kind: str, cluster: LocalCluster, engine_options: dict[str, Any] | None = None, **settings: Any) -> Any:
    if kind != "own-class":
        return make_client(kind, cluster, engine_options, **settings)
    config = PatroniConfig(**{"urls": cluster.urls, **settings})
    login: dict[str, Any] = {"user": cluster.user, "password": cluster.password, "dbname": cluster.dbname}
    creator = PatroniCreator(config, OwnConnection.connect, **login)
    engine = create_engine("postgresql+psycopg://", creator=creator, **(engine_options or {}))
    return ThreadClient(creator.attach(engine))


def transact(client: Client, fn: Callable[[Any], Any], *, orm: bool = False, **options: Any) -> Any:
    """Run `fn` with a (synchronous) Connection or Session by the ``run_transaction`` of the client's kind."""
    if isinstance(client, ThreadClient):
        return run_transaction(sessionmaker(client.engine) if orm else client.engine, fn, **options)

    assert isinstance(client, LoopClient)
    engine = client.engine

    async def work(subject: Any) -> Any:
        return await subject.run_sync(fn)

    async def main() -> Any:
        source: Any = async_sessionmaker(engine) if orm else engine
        return await run_transaction_async(source, work, **options)

    return client.run(main())


def plainly(client: Client, fn: Callable[[Connection], Any]) -> Any:
    """Run `fn` with a connection of the engine, in a transaction that is committed as usual."""
    if isinstance(client, ThreadClient):
        with client.engine.begin() as connection:
            return fn(connection)
    assert isinstance(client, LoopClient)
    engine = client.engine

    async def main() -> Any:
        async with engine.begin() as connection:
            return await connection.run_sync(fn)

    return client.run(main())


def connected(client: Client, fn: Callable[[Connection], Any]) -> Any:
    """Run `fn` with a connection of the engine, which it begins and commits as it likes."""
    if isinstance(client, ThreadClient):
        with client.engine.connect() as connection:
            return fn(connection)
    assert isinstance(client, LoopClient)
    engine = client.engine

    async def main() -> Any:
        async with engine.connect() as connection:
            return await connection.run_sync(fn)

    return client.run(main())


@pytest.fixture
def cluster(healthy_patroni_cluster: LocalCluster) -> LocalCluster:
    return healthy_patroni_cluster


@contextlib.contextmanager
def admin(cluster: LocalCluster, member: str | None = None) -> Iterator[psycopg.Connection[Any]]:
    """Connect past everything that is tested."""
    with psycopg.connect(cluster.conninfo(member, dbname=cluster.dbname), autocommit=True) as connection:
        yield connection


@pytest.fixture
def table(cluster: LocalCluster) -> Iterator[str]:
    """A table whose COMMIT takes as many seconds as a note says: ``slow 1``. One note can be there only once."""
    name = f"notes_{uuid.uuid4().hex}"
    with admin(cluster) as connection:
        connection.execute(f"""
            CREATE TABLE {name} (note text NOT NULL);
            CREATE TABLE {name}_unique (note text UNIQUE DEFERRABLE INITIALLY DEFERRED);
            CREATE FUNCTION {name}_slow() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN PERFORM pg_sleep(substring(NEW.note FROM 'slow ([0-9]+)')::int); RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON {name}
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.note LIKE 'slow %')
                EXECUTE FUNCTION {name}_slow();
            GRANT ALL ON {name}, {name}_unique TO {cluster.user};
        """)
        connection.execute(f"SET ROLE {cluster.user}")
        connection.execute(markers.CREATE_TABLE)
        connection.execute(f"TRUNCATE {markers.TABLE}")
    cluster.wait_until_streaming()
    yield name
    cluster.wait_for_leader()
    with admin(cluster) as connection:
        connection.execute(f"DROP TABLE {name}, {name}_unique; DROP FUNCTION {name}_slow()")


@pytest.fixture(params=[kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.thorough) for kind in KINDS])
def client(cluster: LocalCluster, request: pytest.FixtureRequest) -> Iterator[Client]:
    made = make(request.param, cluster)
    yield made
    made.close()


@pytest.fixture
def engine(cluster: LocalCluster) -> Iterator[Engine]:
    made = create_engine(url_of(cluster, "patroni"))
    yield made
    made.dispose()


def write(subject: Any, table: str, note: str) -> int:
    subject.execute(text(f"INSERT INTO {table} VALUES (:note)"), {"note": note})
    return int(subject.execute(BACKEND).scalar_one())


def notes(cluster: LocalCluster, table: str) -> Counter[str]:
    with admin(cluster) as connection:
        return Counter(note for (note,) in connection.execute(f"SELECT note FROM {table}"))


def keys(cluster: LocalCluster) -> dict[str, int]:
    with admin(cluster) as connection:
        return dict(connection.execute(f"SELECT key, collisions FROM {markers.TABLE}").fetchall())


def end(cluster: LocalCluster, pid: int, member: str | None = None) -> None:
    with admin(cluster, member) as connection:
        connection.execute("SELECT pg_terminate_backend(%s)", [pid])
        gone = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
        eventually(lambda: connection.execute(gone, [pid]).fetchone() == (0,), "a session to end")
    # Only then its socket is closed: until then nobody but the server knows.
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "its process to end")


def waits(cluster: LocalCluster, pid: int, event_name: str) -> None:
    query = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = %s"
    with admin(cluster) as connection:
        eventually(lambda: connection.execute(query, [pid, event_name]).fetchone(), f"{pid} to wait for {event_name}")


@contextlib.contextmanager
def meanwhile(action: Callable[[], object]) -> Iterator[None]:
    failures: list[BaseException] = []

    def act() -> None:
        try:
            action()
        except BaseException as exc:  # noqa: BLE001 - told below
            failures.append(exc)

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join(90)
    assert not failures, failures


def cut(connection: Connection) -> Callable[[], None]:
    """Return what breaks the connection to the server, which does not notice while it is busy."""
    driver_connection: Any = connection.connection.driver_connection
    if issubclass(type(driver_connection), asyncpg.Connection):  # mypy would narrow to what has no _transport
        sock = driver_connection._transport.get_extra_info("socket")
        duplicate = socket.socket(fileno=os.dup(sock.fileno()))
    else:
        duplicate = socket.socket(fileno=os.dup(driver_connection.fileno()))

    def act() -> None:
        with duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)

    return act


# -- What runs again -----------------------------------------------------------------------------------------------


def fail_with(state: str) -> Callable[[LocalCluster, Any, int], None]:
    def fail(cluster: LocalCluster, subject: Any, pid: int) -> None:
        subject.execute(text(f"DO $$ BEGIN RAISE 'on purpose' USING ERRCODE = '{state}'; END $$"))

    return fail


def be_terminated(cluster: LocalCluster, subject: Any, pid: int) -> None:
    end(cluster, pid)
    subject.execute(BACKEND)


def be_read_only(cluster: LocalCluster, subject: Any, pid: int) -> None:
    subject.execute(text("SET TRANSACTION READ ONLY"))
    subject.execute(text(f"DELETE FROM {markers.TABLE}"))


FAULTS = {"57P01": be_terminated, "25006": be_read_only, "40001": fail_with("40001"), "40P01": fail_with("40P01")}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("orm", [False, True])
def test_what_left_nothing_behind_runs_again(
    cluster: LocalCluster, table: str, client: Client, fault: str, orm: bool
) -> None:
    subjects = []

    def work(subject: Any) -> str:
        subjects.append(subject)
        pid = write(subject, table, f"attempt {len(subjects)}")
        if len(subjects) == 1:
            FAULTS[fault](cluster, subject, pid)
        return f"value {len(subjects)}"

    assert transact(client, work, orm=orm) == "value 2"
    assert notes(cluster, table) == {"attempt 2": 1}
    assert subjects[0] is not subjects[1]


def test_a_session_ended_before_commit_is_no_doubt(cluster: LocalCluster, table: str, client: Client) -> None:
    calls: list[int] = []

    def work(subject: Any) -> None:
        calls.append(write(subject, table, f"attempt {len(calls) + 1}"))
        if len(calls) == 1:
            end(cluster, calls[0])

    transact(client, work)
    assert notes(cluster, table) == {"attempt 2": 1}


@pytest.mark.parametrize("fault", [pytest.param(switchover, marks=pytest.mark.thorough), crash])
def test_transactions_under_way_survive_a_failover(
    cluster: LocalCluster, table: str, fault: Callable[[LocalCluster], None]
) -> None:
    at_work = threading.Barrier(len(KINDS) + 1)
    attempts: Counter[str] = Counter()
    over = threading.Event()

    with contextlib.ExitStack() as stack:
        clients = {}
        for kind in KINDS:
            clients[kind] = make(kind, cluster)
            stack.callback(clients[kind].close)

        def work_of(kind: str) -> Callable[[Any], int]:
            def work(subject: Any) -> int:
                attempts[kind] += 1
                write(subject, table, kind)
                if attempts[kind] == 1:
                    at_work.wait(30)
                    over.wait(60)
                    write(subject, table, kind)
                return attempts[kind]

            return work

        def fail() -> None:
            at_work.wait(30)
            fault(cluster)
            over.set()

        with meanwhile(fail):
            went = at_once({kind: lambda k=kind: transact(clients[k], work_of(k)) for kind in KINDS})  # type: ignore[misc]  # mypy cannot infer a lambda with defaults
        clients.clear()
    assert all(times > 1 for times in went.values())
    assert notes(cluster, table) == dict.fromkeys(KINDS, 1)


def test_a_serialization_failure_runs_again_in_its_isolation_level(
    cluster: LocalCluster, table: str, client: Client
) -> None:
    levels = []

    def work(subject: Any) -> None:
        levels.append(subject.execute(text("SHOW transaction_isolation")).scalar_one())
        write(subject, table, f"count {subject.execute(text(f'SELECT count(*) FROM {table}')).scalar_one()}")
        if len(levels) == 1:
            with admin(cluster) as connection, connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
                connection.execute(f"INSERT INTO {table} SELECT 'other ' || count(*) FROM {table}")

    transact(client, work, isolation_level="SERIALIZABLE")
    assert levels == ["serializable", "serializable"]
    assert notes(cluster, table) == {"other 0": 1, "count 1": 1}
    assert plainly(client, lambda c: c.execute(text("SHOW transaction_isolation")).scalar_one()) == "read committed"


def test_errors_of_the_work_are_raised_at_once_and_unchanged(cluster: LocalCluster, table: str, client: Client) -> None:
    calls = []

    def fail(exc: BaseException, subject: Any) -> None:
        calls.append(1)
        write(subject, table, "never")
        raise exc

    for exc in (ValueError("mine"), ConnectionRefusedError("a web service's"), KeyboardInterrupt()):
        if isinstance(exc, KeyboardInterrupt) and isinstance(client, LoopClient):
            continue  # it would end the test's event loop
        with pytest.raises(type(exc)) as raised:
            transact(client, functools.partial(fail, exc))
        assert raised.value is exc
        assert not hasattr(exc, "__notes__")
    with pytest.raises(IntegrityError):
        transact(client, lambda subject: subject.execute(text(f"INSERT INTO {table} VALUES (NULL)")))
    assert len(calls) == (2 if isinstance(client, LoopClient) else 3)
    assert not notes(cluster, table)


def test_at_the_deadline_the_last_error_is_raised_with_a_note(
    cluster: LocalCluster, table: str, client: Client
) -> None:
    with pytest.raises(DBAPIError) as raised:
        transact(client, lambda subject: FAULTS["40001"](cluster, subject, 0), deadline=0.5)
    assert not isinstance(raised.value, patroni_db.PatroniError)
    assert sqlstate_of(raised.value) == "40001"
    assert "the transaction was tried" in raised.value.__notes__[0]


def test_a_transaction_declared_read_only_is_not_tried_to_the_deadline(
    cluster: LocalCluster, table: str, client: Client
) -> None:
    calls = []

    def work(subject: Any) -> None:
        calls.append(1)
        FAULTS["25006"](cluster, subject, 0)

    with pytest.raises(DBAPIError) as raised:
        transact(client, work)
    assert sqlstate_of(raised.value) == "25006"
    assert len(calls) == 2


# -- What became of a COMMIT ---------------------------------------------------------------------------------------


def in_commit(cluster: LocalCluster, table: str, run: Callable[[Callable[[Any], Any]], Any]) -> None:
    """Let the server end the session that is in its COMMIT."""
    sleeping = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND usename = %s"

    def act() -> None:
        with admin(cluster) as connection:

            def found() -> list[Any]:
                return connection.execute(sleeping, [cluster.user]).fetchall()

            eventually(found, "a session to be in COMMIT")
            end(cluster, found()[0][0])

    with meanwhile(act):
        run(lambda subject: write(subject, table, "slow 90"))


@pytest.mark.parametrize("way", ["begin", "run_transaction", "session", "by hand", "autocommit"])
def test_a_connection_lost_during_commit_leaves_a_doubt(
    cluster: LocalCluster, table: str, client: Client, way: str
) -> None:
    def by_hand(work: Callable[[Any], Any]) -> None:
        plainly(client, lambda connection: (work(connection), connection.execute(text("COMMIT"))))

    def autocommit(work: Callable[[Any], Any]) -> None:
        connected(client, lambda connection: work(connection.execution_options(isolation_level="AUTOCOMMIT")))

    ways: dict[str, Callable[[Any], Any]] = {
        "begin": lambda work: plainly(client, work),
        "run_transaction": lambda work: transact(client, work),
        "session": lambda work: transact(client, work, orm=True),
        "by hand": by_hand,
        "autocommit": autocommit,
    }
    with pytest.raises(CommitOutcomeUnknown) as raised:
        in_commit(cluster, table, ways[way])
    error = raised.value
    assert isinstance(error, OperationalError)
    assert isinstance(error, patroni_db.CommitOutcomeUnknown)
    assert (error.sqlstate, error.connection_invalidated) == ("08007", True)
    assert error.orig is not None
    assert error.__cause__ is error.orig
    assert "may have taken effect" in str(error)
    assert (error.statement is None) == (way in {"begin", "run_transaction", "session"})
    assert not notes(cluster, table)
    plainly(client, lambda connection: write(connection, table, "afterwards"))
    assert notes(cluster, table) == {"afterwards": 1}


@pytest.mark.parametrize("way", ["commit", "autocommit", "rollback", "isolation level"])
def test_what_was_lost_before_is_no_doubt(cluster: LocalCluster, table: str, client: Client, way: str) -> None:
    def work(connection: Connection) -> None:
        if way == "autocommit":
            connection.execution_options(isolation_level="AUTOCOMMIT")
            end(cluster, connection.execute(BACKEND).scalar_one())
            write(connection, table, "never")
        if way == "isolation level":
            connection.execute(BACKEND)
            connection.commit()
        pid = write(connection, table, "never")
        end(cluster, pid)
        {"commit": connection.commit, "rollback": connection.rollback}.get(way, connection.get_isolation_level)()

    with pytest.raises(DBAPIError) as raised:
        connected(client, work)
    assert not isinstance(raised.value, patroni_db.PatroniError)
    assert not notes(cluster, table)


def test_what_the_server_refused_to_commit_is_no_doubt(cluster: LocalCluster, table: str, client: Client) -> None:
    def twice(connection: Any) -> None:
        connection.execute(text(f"INSERT INTO {table}_unique VALUES ('same'), ('same')"))

    for run in (plainly, transact):
        with pytest.raises(IntegrityError):
            run(client, twice)


def test_a_read_in_autocommit_on_a_replica_is_no_doubt(cluster: LocalCluster) -> None:
    client = make("dialect", cluster, {"isolation_level": "AUTOCOMMIT"}, target="replica")
    try:
        with client.engine.connect() as connection:
            pid = connection.execute(BACKEND).scalar_one()
            host = connection.execute(text("SELECT host(inet_server_addr())")).scalar_one()
            replica = next(node.name for node in cluster.nodes if node.host == host)

            def act() -> None:
                with admin(cluster, replica) as there:
                    sleeping = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
                    eventually(lambda: there.execute(sleeping, [pid]).fetchone(), "the statement to run")
                    there.execute("SELECT pg_terminate_backend(%s)", [pid])

            with meanwhile(act), pytest.raises(OperationalError) as raised:
                connection.execute(text("SELECT pg_sleep(90)"))
        assert not isinstance(raised.value, CommitOutcomeUnknown)
    finally:
        client.close()


def test_a_doubt_that_an_application_renames_is_still_one(cluster: LocalCluster, table: str, engine: Engine) -> None:
    class RenamedError(OperationalError):
        pass

    @event.listens_for(engine, "handle_error")
    def rename(context: Any) -> None:
        raise RenamedError("COMMIT", None, context.original_exception)

    with pytest.raises(RenamedError):
        in_commit(cluster, table, lambda work: run_transaction(engine, work))
    assert not notes(cluster, table)


# -- Exactly once --------------------------------------------------------------------------------------------------


def test_a_commit_that_did_not_happen_is_done_again(cluster: LocalCluster, table: str, client: Client) -> None:
    pids: list[int] = []

    def work(subject: Any) -> int:
        pids.append(write(subject, table, "quick" if pids else "slow 90"))
        return len(pids)

    def act() -> None:
        eventually(lambda: pids, "the work to begin")
        waits(cluster, pids[0], "PgSleep")
        end(cluster, pids[0])

    with meanwhile(act):
        assert transact(client, work, exactly_once=True) == 2
    assert notes(cluster, table) == {"quick": 1}
    assert list(keys(cluster).values()) == [0]


@pytest.mark.parametrize(("key", "orm"), [(None, False), ("job 7", True)])
def test_a_commit_whose_answer_was_lost_is_not_done_again(
    cluster: LocalCluster, table: str, client: Client, key: str | None, orm: bool
) -> None:
    """The connection breaks while the server is in COMMIT, which it finishes: the next attempt waits for it."""
    pids: list[int] = []
    breaks: list[Callable[[], None]] = []

    def work(subject: Any) -> str:
        pids.append(write(subject, table, "slow 1"))
        breaks.append(cut(subject.connection() if isinstance(subject, Session) else subject))
        return f"value {len(pids)}"

    def act() -> None:
        eventually(lambda: breaks, "the work to begin")
        waits(cluster, pids[0], "PgSleep")
        breaks[0]()

    with meanwhile(act):
        assert transact(client, work, exactly_once=True, key=key, orm=orm, if_applied="somebody else's") == "value 1"
    assert notes(cluster, table) == {"slow 1": 1}
    assert list(keys(cluster).values()) == [1]


def test_what_has_committed_locally_only_is_awaited(cluster: LocalCluster, table: str, client: Client) -> None:
    """A session ended while it waits for a synchronous standby has committed; whoever finds that out waits, too."""
    pids: list[int] = []
    in_force = "SELECT setting FROM pg_settings WHERE name = 'synchronous_standby_names'"
    second = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND pid <> %s"

    def act() -> None:
        eventually(lambda: pids, "the work to begin")
        waits(cluster, pids[0], "SyncRep")
        end(cluster, pids[0])
        with admin(cluster) as connection:
            eventually(lambda: connection.execute(second, [pids[0]]).fetchone(), "the next attempt to wait, too")
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            connection.execute("SELECT pg_reload_conf()")

    def work(subject: Any) -> int:
        pids.append(write(subject, table, "once"))
        return len(pids)

    with admin(cluster) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        connection.execute("SELECT pg_reload_conf()")
        eventually(lambda: connection.execute(in_force).fetchone() == ("nobody",), "the standby to be waited for")
    with meanwhile(act):
        assert transact(client, work, exactly_once=True) == 1
    assert notes(cluster, table) == {"once": 1}


def test_what_stays_undecided_to_the_deadline_is_reported(cluster: LocalCluster, table: str, client: Client) -> None:
    pids: list[int] = []
    breaks: list[Callable[[], None]] = []

    def work(subject: Any) -> None:
        pids.append(write(subject, table, "slow 90"))
        breaks.append(cut(subject))

    def act() -> None:
        eventually(lambda: breaks, "the work to begin")
        waits(cluster, pids[0], "PgSleep")
        breaks[0]()

    with meanwhile(act), pytest.raises(CommitOutcomeUnknown) as raised:
        transact(client, work, exactly_once=True, deadline=3)
    assert len(pids) == 1
    assert "could not be found out" in raised.value.__notes__[0]
    end(cluster, pids[0])


def test_a_key_is_applied_once_by_whoever_comes(cluster: LocalCluster, table: str, client: Client) -> None:
    options: dict[str, Any] = {"key": "celery:7", "if_applied": "was done"}
    assert transact(client, lambda c: write(c, table, "once") and "done", **options) == "done"
    assert transact(client, lambda c: write(c, table, "twice") and "done", **options) == "was done"
    with pytest.raises(ValueError, match="mine"):
        transact(client, _raise_value_error, key="celery:8")
    assert transact(client, lambda c: write(c, table, "at last") and "done", key="celery:8") == "done"
    assert notes(cluster, table) == {"once": 1, "at last": 1}
    assert keys(cluster) == {"celery:7": 1, "celery:8": 0}


def test_a_key_that_comes_again_for_other_work_is_refused(
    cluster: LocalCluster, table: str, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    def work(what: str, **options: Any) -> Any:
        return transact(client, lambda c: write(c, table, what) and "done", key="a", if_applied="before", **options)

    with caplog.at_level("INFO", "patroni_db.sqlalchemy"):
        assert work("10 to bob", fingerprint="10 to bob") == "done"
        assert not [message for message in caplog.messages if "key" in message]
        assert work("10 to bob", fingerprint=b"10 to bob") == "before"
        assert [message for message in caplog.messages if "the key 'a' has been applied" in message]
    with pytest.raises(KeyReusedError, match="'a'"):
        work("99 to eve", fingerprint="99 to eve")
    assert work("who knows") == "before"
    with pytest.raises(ArgumentError, match="key"):
        transact(client, _raise_value_error, fingerprint="of nothing")
    assert notes(cluster, table) == {"10 to bob": 1}


def test_a_table_without_fingerprints_is_used_as_it_is(cluster: LocalCluster, table: str, engine: Engine) -> None:
    with admin(cluster) as connection:
        connection.execute(markers.DROP_FINGERPRINT)
    assert run_transaction(engine, lambda c: write(c, table, "x"), key="job")
    with pytest.raises(DBAPIError) as raised:
        run_transaction(engine, lambda _: None, key="job", fingerprint="y")
    assert "ADD_FINGERPRINT" in raised.value.__notes__[0]
    with admin(cluster) as connection:
        connection.execute(markers.ADD_FINGERPRINT)


def test_the_age_of_a_marker_counts_from_the_end_of_its_transaction(
    cluster: LocalCluster, table: str, client: Client
) -> None:
    def work(subject: Any) -> Any:
        write(subject, table, "x")
        return subject.execute(text("SELECT 'done' FROM pg_sleep(1.1)")).scalar_one()

    assert transact(client, work, key="job") == "done"
    with admin(cluster) as connection:
        young = f"SELECT count(*) FROM {markers.TABLE} WHERE created_at > now() - interval '1 s'"
        assert connection.execute(young).fetchone() == (1,)


def _raise_value_error(_subject: Any) -> None:
    raise ValueError("mine")


def test_a_job_delivered_twice_at_once_waits_for_the_other(
    cluster: LocalCluster, table: str, engine: Engine, tmp_path: Path
) -> None:
    """Another process has the key, and has not committed yet."""
    script = tmp_path / "worker.py"
    script.write_text(f"""
import sys
from sqlalchemy import create_engine, text
from sqlalchemy_dialect import run_transaction

def work(connection):
    connection.execute(text("INSERT INTO {table} VALUES ('slow 2')"))
    print("at work", flush=True)
    return "mine"

print(run_transaction(create_engine({url_of(cluster, "patroni")!r}), work, key="job 1", if_applied="theirs"))
""")
    other = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "at work\n"
        calls: list[int] = []
        assert run_transaction(engine, calls.append, key="job 1", if_applied="theirs") == "theirs"  # type: ignore[arg-type]  # it must not be called
        assert other.stdout.readline() == "mine\n"
    assert not calls
    assert notes(cluster, table) == {"slow 2": 1}


def test_without_its_table_the_error_tells_how_to_make_it(cluster: LocalCluster, table: str, client: Client) -> None:
    with admin(cluster) as connection:
        connection.execute(markers.DROP_TABLE)
    with pytest.raises(DBAPIError) as raised:
        transact(client, lambda c: write(c, table, "never"), exactly_once=True)
    assert sqlstate_of(raised.value) == "42P01"
    assert "commit_marker_table" in raised.value.__notes__[0]
    assert not notes(cluster, table)


# -- What the callable may not do ----------------------------------------------------------------------------------


@pytest.mark.parametrize("orm", [False, True])
@pytest.mark.parametrize("how", ["commit", "rollback", "COMMIT", "ROLLBACK", "close"])
def test_who_ends_the_transaction_by_himself_is_told(
    cluster: LocalCluster, table: str, client: Client, how: str, orm: bool
) -> None:
    calls = []

    def work(subject: Any) -> None:
        calls.append(1)
        write(subject, table, "never")
        if how.isupper():
            subject.execute(text(how))
        else:
            getattr(subject, how)()

    with pytest.raises(InvalidRequestError):
        transact(client, work, orm=orm)
    assert len(calls) == 1
    assert not notes(cluster, table)


@pytest.mark.parametrize("orm", [False, True])
def test_an_error_that_is_passed_over_does_not_pass_for_a_commit(
    cluster: LocalCluster, table: str, client: Client, orm: bool
) -> None:
    def work(subject: Any) -> None:
        write(subject, table, "never")
        with contextlib.suppress(DBAPIError):
            subject.execute(text("SELECT 1 / 0"))

    with pytest.raises(DBAPIError) as raised:
        transact(client, work, orm=orm)
    assert sqlstate_of(raised.value) == "25P02"
    assert not notes(cluster, table)


@pytest.mark.parametrize("orm", [False, True])
def test_a_savepoint_is_the_callables_own(cluster: LocalCluster, table: str, client: Client, orm: bool) -> None:
    def work(subject: Any) -> None:
        write(subject, table, "kept")
        with contextlib.suppress(DBAPIError), subject.begin_nested():
            write(subject, table, "not kept")
            subject.execute(text("SELECT 1 / 0"))
        with subject.begin_nested():
            write(subject, table, "kept, too")

    transact(client, work, orm=orm)
    assert notes(cluster, table) == {"kept": 1, "kept, too": 1}


def test_a_session_is_clean_on_each_run(cluster: LocalCluster, table: str, client: Client) -> None:
    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = table
        note: Mapped[str] = mapped_column(primary_key=True)

    sessions: list[Session] = []

    def work(session: Session) -> bool:
        assert not list(session)
        sessions.append(session)
        note = Note(note="once")
        session.add(note)
        session.flush()
        if len(sessions) == 1:
            FAULTS["40001"](cluster, session, 0)
        return list(session) == [note]

    assert transact(client, work, orm=True)
    assert len(set(map(id, sessions))) == 2
    assert not any(list(session) for session in sessions)
    assert notes(cluster, table) == {"once": 1}


@pytest.mark.parametrize(("target", "error"), [("primary", CommitOutcomeUnknown), ("replica", OperationalError)])
def test_a_commit_on_a_replica_is_never_in_doubt(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch, target: str, error: type[Exception]
) -> None:
    """There was nothing to be committed."""
    engine = create_engine(url_of(cluster, "patroni", target=target))
    with engine.connect() as connection:
        connection.execute(BACKEND)
        driver_connection: Any = connection.connection.driver_connection
        break_it, note = cut(connection), driver_connection.note

        def note_and_break(*args: Any, **kwargs: Any) -> None:
            note(*args, **kwargs)
            break_it()

        monkeypatch.setattr(driver_connection, "note", note_and_break)
        with pytest.raises(OperationalError) as raised:
            connection.commit()
    engine.dispose()
    assert type(raised.value) is error
