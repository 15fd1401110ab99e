"""Django's transactions while their server goes: what runs again, what does not, and what became of a COMMIT."""

# ruff: noqa: PT012, S608 - transactions are more than one statement; tables' names are made here

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, InterfaceError, OperationalError, ProgrammingError, transaction
from django.db import connections as django_connections
from django.db.transaction import TransactionManagementError

import patroni_db
from django_backend.errors import CommitOutcomeUnknown, NothingCommitted, RolledBack
from django_backend.transaction import atomic_rerun, run_atomic
from patroni_db import markers
from patroni_db.errors import KeyReusedError
from tests.django.backends import Project, project
from tests.integration.faults import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django_backend.base import DatabaseWrapper
    from patroni_db.cluster import LocalCluster

pytestmark = pytest.mark.timeout(180)

KINDS: dict[str, dict[str, Any]] = {
    "a new one each request": {"CONN_MAX_AGE": 0},
    "persistent": {"CONN_MAX_AGE": None},
    "pool": {"OPTIONS": {"pool": {"min_size": 1, "max_size": 2}}},
}
ALIAS = "scratch"


@pytest.fixture(autouse=True)
def free(django_db_blocker: Any, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Let wrappers connect: pytest-django forbids it, as it knows only the project's own database."""
    with django_db_blocker.unblock():
        yield
    # psycopg's pool logs connections as objects, which keep their pool, and that the discovery with its thread.
    caplog.get_records("call").clear()


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
    """A table whose COMMIT takes long after a note that begins with "slow"."""
    name = f"notes_{uuid.uuid4().hex}"
    with admin(cluster) as connection:
        connection.execute(f"""
            CREATE TABLE {name} (note text NOT NULL);
            CREATE FUNCTION {name}_slow() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN IF NEW.note LIKE 'slow%' THEN PERFORM pg_sleep(120); END IF; RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON {name}
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {name}_slow();
            GRANT ALL ON {name} TO {cluster.user};
        """)
        connection.execute(f"SET ROLE {cluster.user}")
        connection.execute(markers.CREATE_TABLE)
        connection.execute(f"TRUNCATE {markers.TABLE}")
    cluster.wait_until_streaming()
    yield name
    cluster.wait_for_leader()
    with admin(cluster) as connection:
        connection.execute(f"DROP TABLE {name}; DROP FUNCTION {name}_slow()")


@pytest.fixture(
    params=["persistent", *(pytest.param(kind, marks=pytest.mark.thorough) for kind in KINDS if kind != "persistent")]
)
def wrapper(cluster: LocalCluster, request: pytest.FixtureRequest) -> Iterator[DatabaseWrapper]:
    with known(cluster, **KINDS[request.param]) as aliases:
        yield aliases["default"]


@pytest.fixture
def lasting(cluster: LocalCluster) -> Iterator[DatabaseWrapper]:
    with known(cluster, CONN_MAX_AGE=None) as aliases:
        yield aliases["default"]


@contextlib.contextmanager
def known(cluster: LocalCluster, **settings: Any) -> Iterator[Project]:
    """Make an alias of a project of its own known to Django, in this thread."""
    with project(cluster, **settings) as aliases:
        wrapper = aliases["default"]
        django_connections[ALIAS] = wrapper
        try:
            yield aliases
        finally:
            del django_connections[ALIAS]
    # pytest keeps the values of the last test's fixtures, and this one the discovery with its thread.
    wrapper._discovery = None


def write(wrapper: DatabaseWrapper, table: str, note: str) -> None:
    with wrapper.cursor() as cursor:
        cursor.execute(f"INSERT INTO {table} VALUES (%s)", [note])


def notes(cluster: LocalCluster, table: str) -> Counter[str]:
    with admin(cluster) as connection:
        return Counter(note for (note,) in connection.execute(f"SELECT note FROM {table}"))


def keys(cluster: LocalCluster) -> dict[str, int]:
    with admin(cluster) as connection:
        return dict(connection.execute(f"SELECT key, collisions FROM {markers.TABLE}").fetchall())


def pid_of(wrapper: DatabaseWrapper) -> int:
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    return int(pid)


def end(cluster: LocalCluster, pid: int) -> None:
    with admin(cluster) as connection:
        assert connection.execute("SELECT pg_terminate_backend(%s, 10000)", [pid]).fetchone() == (True,)


@contextlib.contextmanager
def while_it_waits(
    cluster: LocalCluster, pid: int, event: str, work: Callable[[LocalCluster, int], object]
) -> Iterator[None]:
    """Do `work` in another thread as soon as the session `pid` waits for `event`."""
    failures: list[BaseException] = []

    def run() -> None:
        asked = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = %s"
        try:
            with admin(cluster) as connection:
                eventually(lambda: connection.execute(asked, [pid, event]).fetchone(), f"the session to be in {event}")
            work(cluster, pid)
        except BaseException as exc:  # noqa: BLE001 - raised below
            failures.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(100)
    if failures:
        raise failures[0]


@contextlib.contextmanager
def nobody_confirms(cluster: LocalCluster) -> Iterator[None]:
    """Let COMMITs wait for a synchronous standby that does not exist."""
    with admin(cluster) as connection:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        connection.execute("SELECT pg_reload_conf()")
        eventually(
            lambda: connection.execute("SHOW synchronous_standby_names").fetchone() == ("nobody",), "it to be in force"
        )
        # The checkpointer tells the sessions that there is somebody to wait for.
        connection.execute("CHECKPOINT")
    try:
        yield
    finally:
        everybody_confirms(cluster)


def everybody_confirms(cluster: LocalCluster) -> None:
    with admin(cluster) as connection:
        connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
        connection.execute("SELECT pg_reload_conf()")


# -- What became of a COMMIT ------------------------------------------------------------------------------------


def test_a_commit_that_may_have_happened_is_told_so(
    cluster: LocalCluster, wrapper: DatabaseWrapper, table: str
) -> None:
    followed: list[str] = []
    with pytest.raises(CommitOutcomeUnknown) as caught, contextlib.ExitStack() as stack:
        pid = pid_of(wrapper)
        stack.enter_context(while_it_waits(cluster, pid, "PgSleep", end))
        with transaction.atomic(using=ALIAS):
            pid = pid_of(wrapper)
            transaction.on_commit(lambda: followed.append("x"), using=ALIAS)
            write(wrapper, table, "slow")
    assert isinstance(caught.value, OperationalError)
    assert isinstance(caught.value, patroni_db.CommitOutcomeUnknown)
    assert caught.value.sqlstate == "08007"
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    assert followed == []
    with transaction.atomic(using=ALIAS):
        write(wrapper, table, "next")
    assert notes(cluster, table) == Counter(["next"])


def test_a_commit_that_was_never_sent_is_no_riddle(cluster: LocalCluster, wrapper: DatabaseWrapper, table: str) -> None:
    with pytest.raises(OperationalError) as caught, transaction.atomic(using=ALIAS):
        write(wrapper, table, "lost")
        end(cluster, pid_of(wrapper))
    assert not isinstance(caught.value, CommitOutcomeUnknown)
    assert "before COMMIT" in str(caught.value)
    assert notes(cluster, table) == Counter()
    write(wrapper, table, "next")


def test_an_error_passed_over_does_not_let_a_lost_transaction_end_well(
    cluster: LocalCluster, lasting: DatabaseWrapper, table: str
) -> None:
    with pytest.raises(OperationalError), transaction.atomic(using=ALIAS):
        write(lasting, table, "lost")
        end(cluster, pid_of(lasting))
        with contextlib.suppress(OperationalError):
            pid_of(lasting)
    assert notes(cluster, table) == Counter()


def test_a_transaction_without_statements_needs_no_connection(cluster: LocalCluster, lasting: DatabaseWrapper) -> None:
    pid = pid_of(lasting)
    with transaction.atomic(using=ALIAS):
        end(cluster, pid)
    assert pid_of(lasting) != pid


def test_a_statement_on_its_own_that_may_have_run(cluster: LocalCluster, lasting: DatabaseWrapper, table: str) -> None:
    with (
        pytest.raises(CommitOutcomeUnknown),
        while_it_waits(cluster, pid_of(lasting), "PgSleep", end),
    ):
        write(lasting, table, "slow")
    write(lasting, table, "next")
    assert notes(cluster, table) == Counter(["next"])


def test_a_statement_on_its_own_that_was_not_sent_is_sent_elsewhere(
    cluster: LocalCluster, lasting: DatabaseWrapper, table: str
) -> None:
    """The same cursor: nobody looked at its connection in between."""
    with lasting.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        end(cluster, cursor.fetchone()[0])
        cursor.execute(f"INSERT INTO {table} VALUES ('once')")
        end(cluster, lasting.connection.pgconn.backend_pid)
        cursor.executemany(f"INSERT INTO {table} VALUES (%s)", [["a"], ["b"]])
    assert notes(cluster, table) == Counter(["once", "a", "b"])


@pytest.mark.parametrize("how", ["by hand", "by cursor"])
def test_commits_that_django_does_not_make(
    cluster: LocalCluster, lasting: DatabaseWrapper, table: str, how: str
) -> None:
    pid = pid_of(lasting)

    def commit() -> None:
        if how == "by hand":
            lasting.set_autocommit(False)
            write(lasting, table, "slow")
            lasting.commit()
        else:
            with lasting.cursor() as cursor:
                cursor.execute("BEGIN")
                cursor.execute(f"INSERT INTO {table} VALUES ('slow')")
                cursor.execute("commit")

    with pytest.raises(CommitOutcomeUnknown), while_it_waits(cluster, pid, "PgSleep", end):
        commit()
    lasting.close()


def test_an_error_of_commit_itself_stays_what_it_is(cluster: LocalCluster, lasting: DatabaseWrapper) -> None:
    name = f"unique_{uuid.uuid4().hex}"
    with lasting.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {name} (note text UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        with pytest.raises(IntegrityError), transaction.atomic(using=ALIAS):
            write(lasting, name, "twice")
            write(lasting, name, "twice")
        cursor.execute(f"DROP TABLE {name}")


# -- Running again ----------------------------------------------------------------------------------------------


def test_what_was_lost_before_commit_runs_again(cluster: LocalCluster, wrapper: DatabaseWrapper, table: str) -> None:
    followed: list[int] = []
    runs: list[int] = []

    def work() -> str:
        runs.append(pid_of(wrapper))
        transaction.on_commit(lambda: followed.append(len(runs)), using=ALIAS)
        write(wrapper, table, "once")
        with transaction.atomic(using=ALIAS):
            write(wrapper, table, "nested")
        if len(runs) < 3:
            end(cluster, runs[-1])
            if len(runs) == 1:
                write(wrapper, table, "never")
        return f"run {len(runs)}"

    assert run_atomic(work, using=ALIAS) == "run 3"
    assert followed == [3]
    assert notes(cluster, table) == Counter(["once", "nested"])


def test_a_commit_in_doubt_is_not_run_again_without_a_marker(
    cluster: LocalCluster, lasting: DatabaseWrapper, table: str
) -> None:
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        write(lasting, table, "slow")

    with pytest.raises(CommitOutcomeUnknown), while_it_waits(cluster, pid_of(lasting), "PgSleep", end):
        run_atomic(work, using=ALIAS)
    assert runs == [1]


@pytest.mark.parametrize("key", [None, "the caller's own"])
def test_a_commit_that_did_not_happen_is_found_out_and_run_again(
    cluster: LocalCluster, wrapper: DatabaseWrapper, table: str, key: str | None
) -> None:
    followed: list[str] = []
    runs: list[int] = []

    def work() -> str:
        runs.append(1)
        transaction.on_commit(lambda: followed.append("x"), using=ALIAS)
        write(wrapper, table, "slow" if len(runs) == 1 else "quick")
        return f"run {len(runs)}"

    with contextlib.ExitStack() as stack:
        pid = pid_of(wrapper)
        stack.enter_context(while_it_waits(cluster, pid, "PgSleep", end))
        assert run_atomic(work, using=ALIAS, exactly_once=True, key=key) == "run 2"
    assert followed == ["x"]
    assert notes(cluster, table) == Counter(["quick"])
    found = keys(cluster)
    assert set(found.values()) == {0}
    assert (key in found) == (key is not None)


@pytest.mark.parametrize("key", [None, "the caller's own"])
def test_a_commit_that_did_happen_is_found_out_and_not_run_again(
    cluster: LocalCluster, wrapper: DatabaseWrapper, table: str, key: str | None
) -> None:
    """A session that is ended while it waits for the standby has committed already, and cannot say so."""
    followed: list[int] = []
    runs: list[int] = []

    def work() -> str:
        runs.append(1)
        transaction.on_commit(lambda: followed.append(pid_of(wrapper)), using=ALIAS)
        write(wrapper, table, "once")
        return "the first run's"

    def end_and_confirm(cluster: LocalCluster, pid: int) -> None:
        end(cluster, pid)
        everybody_confirms(cluster)

    pid = pid_of(wrapper)
    with nobody_confirms(cluster), while_it_waits(cluster, pid, "SyncRep", end_and_confirm):
        assert run_atomic(work, using=ALIAS, exactly_once=True, key=key) == "the first run's"
    assert len(runs) == 1
    assert len(followed) == 1, "what follows the commit follows once"
    assert followed != [pid]
    assert notes(cluster, table) == Counter(["once"])
    assert wrapper.get_autocommit()
    with transaction.atomic(using=ALIAS):
        write(wrapper, table, "next")


def test_a_commit_that_stays_undecided_is_told_so(cluster: LocalCluster, lasting: DatabaseWrapper, table: str) -> None:
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        write(lasting, table, "once")

    with nobody_confirms(cluster), while_it_waits(cluster, pid_of(lasting), "SyncRep", end):
        with pytest.raises(CommitOutcomeUnknown) as caught:
            run_atomic(work, using=ALIAS, exactly_once=True, deadline=2)
        assert any("commit marker" in note for note in caught.value.__notes__)
    assert runs == [1]


@pytest.mark.parametrize("fault", ["crash", "frozen"])
def test_a_primary_that_goes_during_commit(
    cluster: LocalCluster, lasting: DatabaseWrapper, table: str, fault: str
) -> None:
    runs: list[int] = []
    frozen: list[str] = []

    def work() -> int:
        runs.append(1)
        write(lasting, table, "slow" if len(runs) == 1 else "quick")
        return len(runs)

    def go(cluster: LocalCluster, pid: int) -> None:
        if fault == "crash":
            cluster.kill_postgres()
        else:
            frozen.append(cluster.freeze())
            cluster.expire_leader()

    with while_it_waits(cluster, pid_of(lasting), "PgSleep", go):
        assert run_atomic(work, using=ALIAS, exactly_once=True) == 2
    for name in frozen:
        cluster.wait_for_leader(other_than=name)
        cluster.thaw(name)
    cluster.wait_for_leader()
    assert notes(cluster, table) == Counter(["quick"])


def test_what_follows_a_commit_does_not_make_it_run_again(
    cluster: LocalCluster, lasting: DatabaseWrapper, table: str
) -> None:
    runs: list[int] = []

    def follow() -> None:
        end(cluster, pid_of(lasting))
        raise OperationalError("the connection is lost")

    def work() -> None:
        runs.append(1)
        transaction.on_commit(follow, using=ALIAS)
        write(lasting, table, "once")

    with pytest.raises(OperationalError):
        run_atomic(work, using=ALIAS)
    assert runs == [1]
    assert notes(cluster, table) == Counter(["once"])


def test_a_serialization_failure_runs_again(cluster: LocalCluster, lasting: DatabaseWrapper, table: str) -> None:
    write(lasting, table, "0")
    runs: list[str] = []

    def work() -> str:
        with lasting.cursor() as cursor:
            cursor.execute(f"SELECT note, current_setting('transaction_isolation') FROM {table}")
            note, level = cursor.fetchone()
            runs.append(note)
            if len(runs) == 1:
                with admin(cluster) as other:
                    other.execute(f"UPDATE {table} SET note = '10'")
            cursor.execute(f"UPDATE {table} SET note = %s", [str(int(note) + 1)])
        return str(level)

    level = psycopg.IsolationLevel.REPEATABLE_READ
    assert run_atomic(work, using=ALIAS, exactly_once=True, isolation_level=level) == "repeatable read"
    assert runs == ["0", "10"]
    assert notes(cluster, table) == Counter(["11"])
    with lasting.cursor() as cursor, transaction.atomic(using=ALIAS):
        cursor.execute("SHOW transaction_isolation")
        assert cursor.fetchone() == ("read committed",)


def test_errors_of_the_applications_own_are_raised_at_once(lasting: DatabaseWrapper, table: str) -> None:
    runs: list[int] = []

    def work(error: Exception) -> None:
        runs.append(1)
        raise error

    for error in (ValueError("x"), ConnectionResetError("of a web service"), IntegrityError("x")):
        with pytest.raises(type(error)) as caught:
            run_atomic(lambda error=error: work(error), using=ALIAS)  # type: ignore[misc]
        assert caught.value is error
    assert len(runs) == 3


def test_at_the_deadline_djangos_own_error_tells_how_often(
    cluster: LocalCluster, lasting: DatabaseWrapper, table: str
) -> None:
    def work() -> None:
        end(cluster, pid_of(lasting))
        write(lasting, table, "x")

    with pytest.raises(OperationalError) as caught:
        run_atomic(work, using=ALIAS, deadline=1.0)
    assert type(caught.value) is OperationalError
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    assert "times in" in caught.value.__notes__[-1]
    write(lasting, table, "next")


def test_the_deadline_holds_for_waiting_too(cluster: LocalCluster, lasting: DatabaseWrapper, table: str) -> None:
    """The alias would wait for 45 seconds."""
    cluster.pause()  # nobody takes over
    try:
        cluster.kill_postgres()
        began = time.monotonic()
        with pytest.raises((OperationalError, InterfaceError)):
            run_atomic(lambda: write(lasting, table, "x"), using=ALIAS, deadline=1.0)
        assert time.monotonic() - began < 30
    finally:
        cluster.resume()


def test_a_wrong_password_is_not_waited_out(cluster: LocalCluster, lasting: DatabaseWrapper, table: str) -> None:
    lasting.settings_dict["PASSWORD"] = "wrong"
    runs: list[int] = []
    began = time.monotonic()
    with pytest.raises(OperationalError, match="password"):
        run_atomic(lambda: runs.append(1), using=ALIAS)
    assert time.monotonic() - began < 30
    assert not runs


def test_ctrl_c_ends_it(lasting: DatabaseWrapper, table: str) -> None:
    def work() -> None:
        write(lasting, table, "x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_atomic(work, using=ALIAS)
    write(lasting, table, "next")


def test_from_an_event_loop(cluster: LocalCluster, table: str) -> None:
    runs: list[int] = []

    def in_thread() -> str:
        # Django's connections belong to threads.
        with known(cluster, CONN_MAX_AGE=None) as aliases:
            wrapper = aliases["default"]

            @atomic_rerun(using=ALIAS, exactly_once=True)
            def work(note: str) -> str:
                runs.append(1)
                write(wrapper, table, note)
                if len(runs) == 1:
                    end(cluster, pid_of(wrapper))
                return note

            return work("once")

    async def view() -> str:
        return await sync_to_async(in_thread)()

    assert async_to_sync(view)() == "once"
    assert len(runs) == 2
    assert notes(cluster, table) == Counter(["once"])


# -- Keys of the caller's own -----------------------------------------------------------------------------------


def test_work_that_is_delivered_twice_is_done_once(cluster: LocalCluster, wrapper: DatabaseWrapper, table: str) -> None:
    @atomic_rerun(using=ALIAS, key=lambda job: f"job {job}", if_applied="done before")
    def work(job: int) -> str:
        write(wrapper, table, f"{job}")
        return "done"

    assert [work(1), work(1), work(2), work(1)] == ["done", "done before", "done", "done before"]
    assert notes(cluster, table) == Counter(["1", "2"])
    assert keys(cluster)["job 1"] == 2


def test_work_that_failed_can_be_delivered_again(cluster: LocalCluster, lasting: DatabaseWrapper, table: str) -> None:
    def fails() -> None:
        write(lasting, table, "x")
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - the application's own
        run_atomic(fails, using=ALIAS, key="job")
    run_atomic(lambda: write(lasting, table, "y"), using=ALIAS, key="job")
    assert notes(cluster, table) == Counter(["y"])


def test_a_key_that_comes_again_is_logged(
    lasting: DatabaseWrapper, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "patroni_db.django"):
        run_atomic(lambda: write(lasting, table, "x"), using=ALIAS, key="job")
        assert not caplog.messages
        assert run_atomic(lambda: write(lasting, table, "y"), using=ALIAS, key="job") is None
    assert [message for message in caplog.messages if "'job'" in message]


def test_a_key_that_comes_again_for_other_work_is_refused(
    cluster: LocalCluster, wrapper: DatabaseWrapper, table: str
) -> None:
    @atomic_rerun(using=ALIAS, key=lambda job, _what: job, fingerprint=lambda _job, what: what, if_applied="before")
    def work(_job: str, what: str) -> str:
        write(wrapper, table, what)
        return "done"

    assert [work("a", "10 to bob"), work("a", "10 to bob")] == ["done", "before"]
    with pytest.raises(KeyReusedError, match="'a'"):
        work("a", "99 to eve")
    assert not wrapper.in_atomic_block
    # Where one of both is not known, nobody can tell.
    assert run_atomic(str, using=ALIAS, key="a", if_applied="before") == "before"
    run_atomic(lambda: write(wrapper, table, "without"), using=ALIAS, key="b")
    assert work("b", "anything") == "before"
    assert notes(cluster, table) == Counter(["10 to bob", "without"])


def test_a_table_without_fingerprints_is_used_as_it_is(
    cluster: LocalCluster, lasting: DatabaseWrapper, table: str
) -> None:
    with admin(cluster) as connection:
        connection.execute(markers.DROP_FINGERPRINT)
    run_atomic(lambda: write(lasting, table, "x"), using=ALIAS, key="job")
    with pytest.raises(ProgrammingError) as raised:
        run_atomic(int, using=ALIAS, key="job", fingerprint="y")
    assert "migrate django_backend" in raised.value.__notes__[0]
    with admin(cluster) as connection:
        connection.execute(markers.ADD_FINGERPRINT)
    assert run_atomic(str, using=ALIAS, key="job", fingerprint=b"y", if_applied="before") == "before"


@pytest.mark.parametrize("how", [{"key": "job"}, {"exactly_once": True}])
def test_the_age_of_a_marker_counts_from_the_end_of_its_transaction(
    cluster: LocalCluster, lasting: DatabaseWrapper, table: str, how: dict[str, Any]
) -> None:
    def work() -> None:
        write(lasting, table, "x")
        with lasting.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(1.1)")

    run_atomic(work, using=ALIAS, **how)
    young = f"SELECT count(*) FROM {markers.TABLE} WHERE created_at < now() - interval '1 s'"
    with admin(cluster) as connection:
        assert connection.execute(young).fetchone() == (0,)
    assert keys(cluster)


def test_two_at_once_with_one_key(cluster: LocalCluster, lasting: DatabaseWrapper, table: str) -> None:
    """The second waits for the first, and does nothing."""
    began = threading.Event()
    answers: list[str] = []

    def other() -> None:
        with known(cluster, CONN_MAX_AGE=None) as aliases:
            began.wait(60)
            wrapper = aliases["default"]
            done = run_atomic(lambda: write(wrapper, table, "twice"), using=ALIAS, key="job", if_applied="applied")
            answers.append(str(done))

    def work() -> None:
        write(lasting, table, "once")
        began.set()
        asked = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'transactionid'"
        with admin(cluster) as connection:
            eventually(lambda: connection.execute(asked).fetchone(), "the other to wait")

    thread = threading.Thread(target=other)
    thread.start()
    run_atomic(work, using=ALIAS, key="job")
    thread.join(60)
    assert answers == ["applied"]
    assert notes(cluster, table) == Counter(["once"])


def test_a_key_that_somebody_holds_is_waited_for_until_the_deadline(
    cluster: LocalCluster, lasting: DatabaseWrapper, table: str
) -> None:
    runs: list[str] = []

    def work() -> None:
        with lasting.cursor() as cursor:
            cursor.execute("SHOW lock_timeout")
            runs.append(cursor.fetchone()[0])

    with lasting.cursor() as cursor:
        cursor.execute("SET lock_timeout = '77s'")
    with admin(cluster) as connection, connection.transaction(force_rollback=True):
        connection.execute(markers.MARK, ["job"])
        with pytest.raises(CommitOutcomeUnknown, match="job"):
            run_atomic(work, using=ALIAS, key="job", deadline=1.0)
    assert runs == []
    run_atomic(work, using=ALIAS, key="job")
    assert runs == ["77s"], "the application's own timeouts are in force again"


# -- Misuse -----------------------------------------------------------------------------------------------------


def test_within_a_transaction_it_is_refused(cluster: LocalCluster, lasting: DatabaseWrapper) -> None:
    with transaction.atomic(using=ALIAS), pytest.raises(TransactionManagementError, match="own"):
        run_atomic(int, using=ALIAS)
    lasting.set_autocommit(False)
    with pytest.raises(TransactionManagementError, match="autocommit"):
        run_atomic(int, using=ALIAS)
    lasting.set_autocommit(True)
    with pytest.raises(TransactionManagementError, match="own"):
        run_atomic(lambda: run_atomic(int, using=ALIAS), using=ALIAS)


def test_aliases_that_it_cannot_serve(cluster: LocalCluster) -> None:
    with known(cluster) as aliases:
        django_connections[ALIAS] = aliases["replica"]
        with pytest.raises(ImproperlyConfigured, match="not for the primary"):
            run_atomic(int, using=ALIAS)
    with pytest.raises(Exception, match="nowhere"):
        run_atomic(int, using="nowhere")


@pytest.mark.parametrize("key", ["", "x" * 201, "a\0b"])
def test_keys_that_cannot_be_stored(lasting: DatabaseWrapper, key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        run_atomic(int, using=ALIAS, key=key)


@pytest.mark.parametrize("key", [None, "job"])
def test_a_missing_table_is_named(cluster: LocalCluster, lasting: DatabaseWrapper, table: str, key: str | None) -> None:
    with admin(cluster) as connection:
        connection.execute(markers.DROP_TABLE)
    with pytest.raises(ProgrammingError) as caught:
        run_atomic(int, using=ALIAS, exactly_once=True, key=key)
    assert isinstance(caught.value.__cause__, psycopg.errors.UndefinedTable)
    assert any("manage.py migrate django_backend" in note for note in caught.value.__notes__)
    assert lasting.get_autocommit()
    write(lasting, table, "next")


def test_a_transaction_that_could_not_commit_is_not_told_as_done(
    cluster: LocalCluster, lasting: DatabaseWrapper, table: str
) -> None:
    runs: list[str] = []

    def closes() -> None:
        runs.append("closes")
        write(lasting, table, "x")
        lasting.close()

    def passes_over() -> None:
        runs.append("passes over")
        with contextlib.suppress(ProgrammingError), lasting.cursor() as cursor:
            cursor.execute("SELECT nothing_of_the_kind")

    for work in (closes, passes_over):
        with pytest.raises(NothingCommitted):
            run_atomic(work, using=ALIAS)
    assert runs == ["closes", "passes over"]
    assert notes(cluster, table) == Counter()


def test_a_marked_transaction_of_atomic_is_rolled_back_in_plain_words(
    cluster: LocalCluster, lasting: DatabaseWrapper, table: str
) -> None:
    """What the middleware does for views: the marker without the reruns."""
    from django_backend.effects import Opening, fresh_mark, observed

    pid = pid_of(lasting)
    with pytest.raises(RolledBack), while_it_waits(cluster, pid, "PgSleep", end), observed() as effects:
        effects.openings[lasting.alias] = Opening(fresh_mark())
        with transaction.atomic(using=ALIAS):
            write(lasting, table, "slow")
    assert lasting.alias not in effects.changed
    assert keys(cluster) == {}


# -- The command line -------------------------------------------------------------------------------------------


def test_markers_are_pruned_from_the_command_line(
    cluster: LocalCluster, table: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from patroni_db.cli import main, prune

    with admin(cluster) as connection:
        connection.execute(f"""
            INSERT INTO {markers.TABLE} (key, created_at)
            SELECT number::text, now() - make_interval(hours => number) FROM generate_series(0, 9) AS number""")
    monkeypatch.setenv("PGUSER", cluster.user)
    monkeypatch.setenv("PGPASSWORD", cluster.password)
    monkeypatch.setattr(prune, "BATCH", 3)
    words = ["prune-markers", "--url", cluster.urls[0], "--dbname", cluster.dbname]
    assert main([*words, "--older-than", "2h"]) == 0
    assert capsys.readouterr().out == "deleted 8 commit markers older than 2h\n"
    assert keys(cluster).keys() == {"0", "1"}
    assert main([*words, "--older-than", "7d", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"deleted": 0, "older_than": 604800.0, "table": markers.TABLE}
    with admin(cluster) as connection:
        connection.execute(markers.DROP_TABLE)
    assert main(words) == 1
    assert markers.TABLE in capsys.readouterr().err
