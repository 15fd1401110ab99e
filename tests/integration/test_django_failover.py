"""Django through a switchover, a crash of the primary, its restart in place, and forks.

Each fault happens to every way of keeping connections at once.
"""

# ruff: noqa: S608 - tables' names are made here

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
import multiprocessing
import os
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
import pytest
from django.db import DatabaseError, Error, InternalError, OperationalError, ProgrammingError, transaction
from django.db import connections as django_connections

from django_backend import session_state
from django_backend.errors import CommitOutcomeUnknown
from patroni_db.cluster.rest import get_json
from tests.django.backends import Project, project
from tests.integration.faults import eventually, switchover
from tests.integration.synchronous import replicate_synchronously, wait_for_synchronous_standby

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from django_backend.base import DatabaseWrapper
    from patroni_db.cluster import LocalCluster

pytestmark = pytest.mark.timeout(180)

KINDS: dict[str, dict[str, Any]] = {
    "a new one each request": {"CONN_MAX_AGE": 0},
    "persistent": {"CONN_MAX_AGE": None},
    "pool": {"OPTIONS": {"pool": {"min_size": 2, "max_size": 4}}},
}
WHERE = "SELECT host(inet_server_addr()), pg_is_in_recovery(), pg_backend_pid()"


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


@pytest.fixture
def table(cluster: LocalCluster) -> Iterator[str]:
    name = f"notes_{uuid.uuid4().hex}"
    on_primary(cluster, f"CREATE TABLE {name} (note text NOT NULL)")  # no key: what ran twice must show
    cluster.wait_until_streaming()
    yield name
    cluster.wait_for_leader()
    on_primary(cluster, f"DROP TABLE {name}")


def on_primary(cluster: LocalCluster, statement: str) -> list[Any]:
    """Execute past everything that is tested."""
    conninfo = cluster.conninfo(dbname=cluster.dbname, user=cluster.user)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def notes(cluster: LocalCluster, table: str) -> Counter[str]:
    return Counter(note for (note,) in on_primary(cluster, f"SELECT note FROM {table}"))


def host_of(cluster: LocalCluster, name: str | None) -> str:
    return cluster.node(name or "").host


def where(wrapper: DatabaseWrapper) -> tuple[str, bool, int]:
    with wrapper.cursor() as cursor:
        cursor.execute(WHERE)
        host, standby, pid = cursor.fetchone()
    return host, standby, pid


def write(wrapper: DatabaseWrapper, table: str, note: str) -> None:
    with wrapper.cursor() as cursor:
        cursor.execute(f"INSERT INTO {table} VALUES (%s)", [note])


def in_atomic(wrapper: DatabaseWrapper, work: Callable[[], None]) -> None:
    """Run `work` in a transaction. `atomic` knows aliases of the project: for the moment, ours is one."""
    alias = f"scratch-{threading.get_ident()}"
    django_connections[alias] = wrapper
    try:
        with transaction.atomic(using=alias):
            work()
    finally:
        del django_connections[alias]


class Worker:
    """A thread that serves requests, one after the other, as those of web servers do."""

    def __init__(self, aliases: Project) -> None:
        self.aliases = aliases
        self.thread = ThreadPoolExecutor(1)

    def do(self, work: Callable[[Project], Any]) -> Any:
        """Serve one request: what Django does around each, and `work` between."""

        def request() -> Any:
            for alias in ("default", "replica"):
                self.aliases[alias].close_if_unusable_or_obsolete()
            try:
                return work(self.aliases)
            finally:
                for alias in ("default", "replica"):
                    self.aliases[alias].close_if_unusable_or_obsolete()

        return self.thread.submit(request).result(100)

    def close(self) -> None:
        def close() -> None:
            for alias in ("default", "replica"):
                self.aliases[alias].close()

        self.thread.submit(close).result(100)
        self.thread.shutdown()


@pytest.fixture
def workers(cluster: LocalCluster) -> Iterator[dict[str, Worker]]:
    with contextlib.ExitStack() as stack:
        made = {}
        for kind, settings in KINDS.items():
            # Pools are known by alias: one kind at most may have them.
            made[kind] = Worker(stack.enter_context(project(cluster, **settings)))
            stack.callback(made[kind].close)
        yield made


def crash(cluster: LocalCluster) -> None:
    """Kill the postmaster, and wait until the sessions have noticed: until then they take statements, and fail them."""
    sessions = [pid for (pid,) in on_primary(cluster, "SELECT pid FROM pg_stat_activity WHERE usename = current_user")]
    cluster.kill_postgres()
    eventually(lambda: not any(map(psutil.pid_exists, sessions)), "the sessions to end")


def restart_in_place(cluster: LocalCluster) -> None:
    cluster.patch_config({"primary_start_timeout": 300})
    leader = cluster.node(cluster.leader or "")

    def known() -> bool:
        config = get_json((leader.host, leader.api_port), "/config", timeout=2.0) or {}
        return config.get("primary_start_timeout") == 300

    eventually(known, "Patroni to know primary_start_timeout")
    crash(cluster)


@pytest.mark.parametrize("fault", [switchover, crash, pytest.param(restart_in_place, marks=pytest.mark.thorough)])
def test_writes_follow_the_primary(
    cluster: LocalCluster, workers: dict[str, Worker], table: str, fault: Callable[[LocalCluster], None]
) -> None:
    def both(note: str, aliases: Project) -> None:
        write(aliases["default"], table, note)
        in_atomic(aliases["default"], lambda: write(aliases["default"], table, f"{note} in a transaction"))

    before = cluster.leader
    for kind, worker in workers.items():
        worker.do(functools.partial(both, f"{kind} before"))
        assert worker.do(lambda aliases: where(aliases["default"]))[:2] == (host_of(cluster, before), False)
    fault(cluster)
    # At once, without a pause, an error or a try more: what waits is the engine.
    with ThreadPoolExecutor(len(workers)) as threads:
        kept = [threads.submit(worker.do, functools.partial(both, f"{kind} after")) for kind, worker in workers.items()]
        for future in kept:
            future.result(100)
    leader = cluster.wait_for_leader()
    if fault is not crash:  # after which Patroni starts the same one again when it finds nobody else in time
        assert (leader == before) == (fault is restart_in_place)
    for worker in workers.values():
        assert worker.do(lambda aliases: where(aliases["default"]))[:2] == (host_of(cluster, leader), False)
    expected = {
        f"{kind} {when}{how}" for kind in KINDS for when in ("before", "after") for how in ("", " in a transaction")
    }
    assert notes(cluster, table) == Counter(expected)


def test_no_pooled_connection_to_the_old_primary_is_handed_out(cluster: LocalCluster) -> None:
    with project(cluster, OPTIONS={"pool": {"min_size": 4, "max_size": 4}}) as aliases:
        pool = aliases["default"].pool
        assert pool is not None
        pool.open()
        pool.wait()
        old = host_of(cluster, cluster.leader)
        new = host_of(cluster, cluster.switchover())
        taken = [pool.getconn() for _ in range(4)]
        try:
            assert [connection.execute(WHERE).fetchone()[:2] for connection in taken] == [(new, False)] * 4  # type: ignore[index]
            assert old not in {connection.stamp.address.host for connection in taken}
        finally:
            for connection in taken:
                pool.putconn(connection)


def test_a_healthy_connection_to_a_former_primary_goes_when_the_leader_changes(cluster: LocalCluster) -> None:
    """Patroni stopped on the old primary, PostgreSQL alive: two servers accept writes, and one loses them."""
    with project(cluster, CONN_MAX_AGE=None) as aliases:
        wrapper = aliases["default"]
        old, _, _ = where(wrapper)
        frozen = cluster.freeze(patroni_only=True)
        try:
            cluster.expire_leader()
            new = cluster.wait_for_leader(other_than=frozen)
            eventually(
                lambda: (seen := wrapper.discovery.snapshot) and seen.primary and seen.primary[0].name == new,
                "the new primary to be known",
            )
            assert wrapper.connection is not None
            assert where(wrapper)[:2] == (host_of(cluster, new), False)
            assert host_of(cluster, new) != old
        finally:
            cluster.thaw(frozen)


def test_reads_go_to_replicas_and_move_on_when_one_dies(cluster: LocalCluster, workers: dict[str, Worker]) -> None:
    for worker in workers.values():
        # A member that rests is tried last, after the primary.
        worker.do(lambda aliases: forget_faults(aliases["replica"]))
        _, standby, _ = worker.do(lambda aliases: where(aliases["replica"]))
        assert standby
    dead = next(node.name for node in cluster.nodes if node.name != cluster.leader)
    cluster.kill_node(dead)
    for _ in range(5):
        for worker in workers.values():
            assert worker.do(lambda aliases: where(aliases["replica"]))[0] != host_of(cluster, dead)
    # On a busy machine the other one may be late with an answer, or be seen to stream a moment later: then the primary
    # helps out.
    for kind, worker in workers.items():
        eventually(
            lambda worker=worker: worker.do(lambda aliases: where(aliases["replica"]))[1],  # type: ignore[misc]
            f"{kind}: reads to go to the other replica",
        )


@pytest.mark.thorough
def test_reads_fall_back_to_the_primary(cluster: LocalCluster) -> None:
    replicas = [node.name for node in cluster.nodes if node.name != cluster.leader]
    with project(cluster, CONN_MAX_AGE=None) as aliases:
        assert where(aliases["replica"])[1]
        for name in replicas:
            cluster.kill_node(name)
        assert where(aliases["replica"])[:2] == (host_of(cluster, cluster.leader), False)
        cluster.heal()

        def back() -> bool:
            aliases["replica"].close_if_unusable_or_obsolete()  # the next request
            return where(aliases["replica"])[1]

        eventually(back, "reads to go to a replica again")


# -- What is repeated, and what is not ------------------------------------------------------------------------


def terminate(cluster: LocalCluster, member: str | None, pid: int) -> None:
    with psycopg.connect(cluster.conninfo(member)) as connection:
        assert connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid]).fetchone() == (True,)


def killed_while_it_runs(cluster: LocalCluster, member: str | None, pid: int) -> threading.Thread:
    """Return a thread that ends the session `pid` once it sleeps."""

    def kill() -> None:
        asked = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
        with psycopg.connect(cluster.conninfo(member), autocommit=True) as connection:
            eventually(lambda: connection.execute(asked, [pid]).fetchone(), "the session to sleep")
        terminate(cluster, member, pid)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def forget_faults(wrapper: DatabaseWrapper) -> None:
    """Wait until no member rests: the discovery is the process's, and earlier tests had their faults."""
    eventually(lambda: not wrapper.discovery.resting(), "earlier faults to be forgotten")


def member_at(cluster: LocalCluster, host: str) -> str:
    return next(node.name for node in cluster.nodes if node.host == host)


def test_an_idle_session_that_was_ended_is_replaced_without_a_word(cluster: LocalCluster, table: str) -> None:
    with project(cluster, CONN_MAX_AGE=None) as aliases:
        for alias in ("default", "replica"):
            host, _, pid = where(aliases[alias])
            terminate(cluster, member_at(cluster, host), pid)
            assert where(aliases[alias])[2] != pid


def test_a_write_that_may_have_run_is_reported_and_not_repeated(cluster: LocalCluster, table: str) -> None:
    with project(cluster, CONN_MAX_AGE=None) as aliases:
        wrapper = aliases["default"]
        host, _, pid = where(wrapper)
        killer = killed_while_it_runs(cluster, member_at(cluster, host), pid)
        with pytest.raises(OperationalError) as caught, wrapper.cursor() as cursor:
            cursor.execute(f"INSERT INTO {table} SELECT 'once' FROM pg_sleep(60)")
        killer.join()
        assert isinstance(caught.value.__cause__, psycopg.OperationalError)
        assert notes(cluster, table) == Counter()
        write(wrapper, table, "the next one works")


def test_a_read_on_a_replica_is_repeated_elsewhere(cluster: LocalCluster) -> None:
    with project(cluster, CONN_MAX_AGE=None) as aliases:
        wrapper = aliases["replica"]
        host, _, pid = where(wrapper)
        forget_faults(wrapper)
        killer = killed_while_it_runs(cluster, member_at(cluster, host), pid)
        with wrapper.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid(), pg_is_in_recovery(), %s FROM pg_sleep(2)", ["as before"])
            again, standby, parameter = cursor.fetchone()
        killer.join()
        assert again != pid
        assert (standby, parameter) == (True, "as before")


def test_a_read_that_ends_every_server_does_not_go_round(cluster: LocalCluster) -> None:
    """A statement that kills its own session stands for one that crashes the server."""
    with project(cluster, CONN_MAX_AGE=None) as aliases:
        wrapper = aliases["replica"]
        ran: list[int] = []

        def count(execute: Any, *arguments: Any) -> Any:
            ran.append(1)
            return execute(*arguments)

        with (
            wrapper.execute_wrapper(count),
            pytest.raises(OperationalError),
            wrapper.cursor() as cursor,
        ):
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        assert 1 < len(ran) < 5


@pytest.mark.parametrize("alias", ["default", "replica"])
def test_nothing_is_repeated_inside_a_transaction(cluster: LocalCluster, alias: str) -> None:
    with project(cluster, CONN_MAX_AGE=None) as aliases:
        wrapper = aliases[alias]
        ran: list[int] = []

        def work() -> None:
            # From here on nothing can take its place, whatever becomes of the cluster after earlier tests.
            host, _, pid = where(wrapper)
            terminate(cluster, member_at(cluster, host), pid)
            ran.append(pid)
            where(wrapper)

        with pytest.raises(OperationalError):
            in_atomic(wrapper, work)
        (pid,) = ran
        assert where(wrapper)[2] != pid


@pytest.mark.parametrize("kind", ["persistent", pytest.param("pool", marks=pytest.mark.thorough)])
def test_a_lost_transaction_is_told_while_there_is_no_primary_yet(cluster: LocalCluster, table: str, kind: str) -> None:
    """The error comes at once, and what was to follow the commit is forgotten; the next transaction waits."""
    cluster.pause()  # nobody takes over
    followed: list[str] = []
    with project(cluster, **KINDS[kind]) as aliases:
        wrapper = aliases["default"]
        killed = ""

        def work(note: str) -> None:
            nonlocal killed
            wrapper.on_commit(lambda: followed.append(note))
            write(wrapper, table, note)
            if not killed:
                killed = cluster.kill_postgres()
                while True:  # sessions outlive the postmaster for a moment
                    write(wrapper, table, note)

        with pytest.raises(OperationalError):
            in_atomic(wrapper, lambda: work("lost"))
        assert wrapper.connection is None, "it did not wait for another one"
        cluster.resume()
        in_atomic(wrapper, lambda: work("kept"))
    assert followed == ["kept"]
    assert notes(cluster, table) == Counter(["kept"])


def test_a_transaction_begun_by_hand_is_not_cut_in_two(cluster: LocalCluster, table: str) -> None:
    with project(cluster, CONN_MAX_AGE=None) as aliases:
        wrapper = aliases["default"]
        with wrapper.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute(f"INSERT INTO {table} VALUES ('first half')")
        host, _, pid = where(wrapper)
        terminate(cluster, member_at(cluster, host), pid)
        with pytest.raises(OperationalError):
            write(wrapper, table, "second half")
        assert notes(cluster, table) == Counter()


@pytest.fixture
def unnoticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody look at a connection while one cursor is used."""
    monkeypatch.setattr(session_state, "_LOOK_EVERY", math.inf)


@pytest.mark.usefixtures("unnoticed")
def test_a_write_refused_by_a_standby_runs_on_the_primary(cluster: LocalCluster, table: str) -> None:
    """A pooler beside each node hands sessions on to a server that has become a standby: 25006."""
    with project(cluster, CONN_MAX_AGE=None) as aliases:
        wrapper, reader = aliases["default"], aliases["replica"]
        with wrapper.cursor() as cursor:
            assert where(reader)[1]
            wrapper.connection.close()
            wrapper.connection, reader.connection = reader.connection, None
            cursor.cursor = wrapper.create_cursor()
            cursor.execute(f"INSERT INTO {table} VALUES ('once')")
        assert where(wrapper)[1] is False
    assert notes(cluster, table) == Counter(["once"])


@pytest.mark.usefixtures("unnoticed")
def test_several_statements_are_not_repeated(cluster: LocalCluster, table: str) -> None:
    with project(cluster, CONN_MAX_AGE=None) as aliases:
        wrapper, reader = aliases["default"], aliases["replica"]
        with wrapper.cursor() as cursor:
            assert where(reader)[1]
            wrapper.connection.close()
            wrapper.connection, reader.connection = reader.connection, None
            cursor.cursor = wrapper.create_cursor()
            with pytest.raises(InternalError):
                cursor.executemany(f"INSERT INTO {table} VALUES (%s)", [["a"], ["b"]])


@pytest.mark.parametrize("how", ["session", "transaction"])
def test_a_read_only_session_of_the_applications_own_is_no_fault(cluster: LocalCluster, table: str, how: str) -> None:
    with project(cluster, CONN_MAX_AGE=None) as aliases:
        wrapper = aliases["default"]
        _, _, pid = where(wrapper)
        forget_faults(wrapper)
        with wrapper.cursor() as cursor:
            if how == "session":
                cursor.execute("SET default_transaction_read_only = on")
                with pytest.raises(InternalError) as caught:
                    cursor.execute(f"INSERT INTO {table} VALUES ('no')")
            else:

                def work() -> None:
                    cursor.execute("SET TRANSACTION READ ONLY")
                    cursor.execute(f"INSERT INTO {table} VALUES ('no')")

                with pytest.raises(InternalError) as caught:
                    in_atomic(wrapper, work)
        assert getattr(caught.value.__cause__, "sqlstate", None) == "25006"
        assert wrapper.discovery.resting() == frozenset()
        assert where(wrapper)[2] == pid


def test_errors_stay_djangos_and_the_drivers(cluster: LocalCluster, table: str) -> None:
    with project(cluster) as aliases:
        with pytest.raises(ProgrammingError) as caught:
            write(aliases["default"], "no_such_table", "x")
        assert isinstance(caught.value.__cause__, psycopg.errors.UndefinedTable)
        with pytest.raises(InternalError) as refused, aliases["replica"].cursor() as cursor:
            cursor.execute("SELECT lo_create(0)")  # writes, and does not look like it
        assert isinstance(refused.value.__cause__, psycopg.errors.ReadOnlySqlTransaction)


@pytest.mark.parametrize("options", [{}, {"pool": {"timeout": 3, "min_size": 1}}], ids=["plain", "pool"])
def test_a_wrong_password_is_told_and_not_waited_out(cluster: LocalCluster, options: dict[str, Any]) -> None:
    with project(cluster, OPTIONS=options) as aliases:
        wrapper = aliases["default"]
        wrapper.settings_dict["PASSWORD"] = "wrong"
        with pytest.raises(OperationalError, match="password"):
            wrapper.ensure_connection()


def test_a_server_side_cursor_is_not_broken_by_other_statements(cluster: LocalCluster) -> None:
    with project(cluster, CONN_MAX_AGE=None) as aliases:
        wrapper = aliases["default"]
        with contextlib.closing(wrapper.chunked_cursor()) as cursor:
            cursor.execute("SELECT generate_series(1, 1000)")
            seen = [cursor.fetchmany(100)]
            where(wrapper)
            while chunk := cursor.fetchmany(100):
                seen.append(chunk)
        assert [number for chunk in seen for (number,) in chunk] == list(range(1, 1001))


@pytest.mark.thorough  # as the demonstration, which is tested too
def test_under_load_nothing_is_lost_or_doubled(cluster: LocalCluster, table: str) -> None:
    replicate_synchronously(cluster)
    acknowledged: Counter[str] = Counter()
    errors: list[Exception] = []
    stop = threading.Event()

    def serve(aliases: Project, name: str) -> None:
        wrapper = aliases["default"]
        for number in itertools.count(1):
            if stop.is_set():
                break
            note = f"{name} {number}"
            wrapper.close_if_unusable_or_obsolete()
            work = functools.partial(write, wrapper, table, note)
            try:
                work() if number % 2 else in_atomic(wrapper, work)
                acknowledged[note] += 1
            except Exception as exc:  # noqa: BLE001 - judged below
                errors.append(exc)
            wrapper.close_if_unusable_or_obsolete()
        wrapper.close()

    with contextlib.ExitStack() as stack:
        kinds = {kind: stack.enter_context(project(cluster, **settings)) for kind, settings in KINDS.items()}
        threads = [
            threading.Thread(target=serve, args=(aliases, f"{kind} {number}"))
            for kind, aliases in kinds.items()
            for number in range(2)
        ]
        for thread in threads:
            thread.start()

        def all_write() -> bool:
            return all(any(note.startswith(kind) for note in acknowledged) for kind in KINDS)

        try:
            eventually(all_write, "every kind to write")
            for fault in (switchover, crash):
                wait_for_synchronous_standby(cluster)
                fault(cluster)
                acknowledged_before = sum(acknowledged.values())
                eventually(
                    lambda known=acknowledged_before: sum(acknowledged.values()) > known + 20,  # type: ignore[misc]
                    "writes to go on",
                )
        finally:
            stop.set()
            for thread in threads:
                thread.join(100)
    assert {type(error) for error in errors} <= {OperationalError, CommitOutcomeUnknown}, errors
    # A thread has at most one statement under way when its server goes: a fault costs each at most one error.
    assert len(errors) <= 2 * len(threads)
    found = notes(cluster, table)
    assert not acknowledged.keys() - found.keys()
    assert set(found.values()) <= {1}


# -- Forks ------------------------------------------------------------------------------------------------------


# Python 3.12+ warns of forks in processes with threads: that is what is tried here.
forks = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@forks
@pytest.mark.parametrize("kind", ["persistent", "pool"])
def test_a_forked_child_has_connections_of_its_own(cluster: LocalCluster, kind: str) -> None:
    context = multiprocessing.get_context("fork")
    with project(cluster, **KINDS[kind]) as aliases:
        parents = {where(aliases[alias])[2] for alias in ("default", "replica")}
        answers = context.Queue()

        def child() -> None:
            try:
                answers.put({where(aliases[alias])[2] for alias in ("default", "replica")})
            except Error as exc:
                answers.put(repr(exc))

        seen = set(parents)
        for _ in range(2):
            process = context.Process(target=child)
            process.start()
            answer = answers.get(timeout=60)
            process.join(60)
            assert isinstance(answer, set), answer
            assert not answer & seen
            seen |= answer
        assert {where(aliases[alias])[2] for alias in ("default", "replica")} == parents


@forks
def test_a_child_forked_in_a_transaction_cannot_go_on_with_it(cluster: LocalCluster, table: str) -> None:
    context = multiprocessing.get_context("fork")
    with project(cluster) as aliases:
        wrapper = aliases["default"]
        answers = context.Queue()

        def child() -> None:
            try:
                write(wrapper, table, "child")
                answers.put("written")
            except DatabaseError as exc:
                answers.put(type(exc).__name__)

        def work() -> None:
            write(wrapper, table, "parent")
            process = context.Process(target=child)
            process.start()
            assert answers.get(timeout=60) in {"ProgrammingError", "TransactionManagementError"}
            process.join(60)

        in_atomic(wrapper, work)
    assert notes(cluster, table) == Counter(["parent"])


APPLICATION = """
import json, os
from django.conf import settings
from django_backend.config import databases

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES=databases(**json.loads(os.environ["PROJECT_DATABASES"])),
    DATABASE_ROUTERS=["django_backend.router.PrimaryReplicaRouter"],
    INSTALLED_APPS=["django_backend"],
    ROOT_URLCONF="application",
    SECRET_KEY="of no use elsewhere",
)

from django.core.wsgi import get_wsgi_application
from django.db import connections
from django.http import JsonResponse
from django.urls import path

def where():
    found = {}
    for alias in ("default", "replica"):
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid(), pg_is_in_recovery(), host(inet_server_addr())")
            found[alias] = cursor.fetchone()
    return found

def view(request):
    return JsonResponse({"worker": os.getpid(), "master": [os.getppid(), AT_IMPORT], "here": where()})

urlpatterns = [path("", view)]
application = get_wsgi_application()
AT_IMPORT = where()  # in gunicorn's master: the connections are open when it forks
"""


@pytest.mark.parametrize("kind", [pytest.param("persistent", marks=pytest.mark.thorough), "pool"])
def test_gunicorn_preload(cluster: LocalCluster, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("gunicorn")
    (tmp_path / "application.py").write_text(APPLICATION)
    settings = dict(KINDS[kind])
    options = {"patroni_urls": list(cluster.urls), "patroni_failover_timeout": 45, **settings.pop("OPTIONS", {})}
    databases = {
        "NAME": cluster.dbname,
        "USER": cluster.user,
        "PASSWORD": cluster.password,
        "OPTIONS": options,
        **settings,
    }
    log = tmp_path / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--bind", "127.0.0.1:0", "application"],
            cwd=tmp_path,
            env={**os.environ, "PROJECT_DATABASES": json.dumps(databases)},
            stdout=output,
            stderr=output,
        )
    try:

        def address() -> str | None:
            _, listening, rest = log.read_text().partition("Listening at: ")
            assert server.poll() is None, log.read_text()
            return rest.split(" ", 1)[0] if listening else None

        eventually(address, "gunicorn to listen")

        def ask() -> dict[str, Any]:
            with urllib.request.urlopen(address() or "", timeout=60) as answer:  # noqa: S310 - gunicorn's own address
                told: dict[str, Any] = json.load(answer)
                return told

        answers: dict[int, dict[str, Any]] = {}

        def both_workers() -> bool:
            told = ask()
            answers[told["worker"]] = told
            return len(answers) == 2

        eventually(both_workers, "both workers to answer")
        inherited = {pid for told in answers.values() for pid, *_ in told["master"][1].values()}
        pids = [pid for told in answers.values() for pid, *_ in told["here"].values()]
        assert not inherited & set(pids)
        assert len(set(pids)) == len(pids)
        assert [told["here"]["replica"][1] for told in answers.values()] == [True, True]
        new = cluster.switchover()
        for _ in range(6):
            assert ask()["here"]["default"][1:] == [False, host_of(cluster, new)]
    finally:
        server.terminate()
        server.wait(30)
