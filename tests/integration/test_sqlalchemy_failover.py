"""Engines of every kind through a switchover, a crash of the primary, and its restart in place.

Each fault happens to all kinds of engines at once: what they live through together costs the time of one.
"""

# ruff: noqa: S608 - tables' names are made here

from __future__ import annotations

import contextlib
import itertools
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from tests.integration.faults import crash, eventually, switchover
from tests.integration.synchronous import replicate_synchronously, wait_for_synchronous_standby
from tests.sqlalchemy.clients import KINDS, WHERE, Client, make_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patroni_db.cluster import LocalCluster

pytestmark = pytest.mark.timeout(180)


def rows(cluster: LocalCluster, query: str) -> list[Any]:
    """Ask the primary directly, whatever the clients believe."""
    with psycopg.connect(cluster.conninfo(dbname=cluster.dbname, user=cluster.user)) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def cluster(healthy_patroni_cluster: LocalCluster) -> LocalCluster:
    return healthy_patroni_cluster


@pytest.fixture
def table(cluster: LocalCluster) -> Iterator[str]:
    name = f"notes_{uuid.uuid4().hex}"
    conninfo = cluster.conninfo(dbname=cluster.dbname, user=cluster.user)
    with psycopg.connect(conninfo) as connection:
        connection.execute(f"CREATE TABLE {name} (note text NOT NULL)")  # no key: what ran twice must show
    yield name
    cluster.wait_for_leader()
    with psycopg.connect(cluster.conninfo(dbname=cluster.dbname, user=cluster.user)) as connection:
        connection.execute(f"DROP TABLE {name}")


@contextlib.contextmanager
def clients_of(cluster: LocalCluster, **settings: Any) -> Iterator[dict[str, Client]]:
    with contextlib.ExitStack() as stack:
        clients = {}
        for kind in KINDS:
            clients[kind] = make_client(kind, cluster, **settings)
            stack.callback(clients[kind].close)
        stack.callback(
            clients.clear
        )  # pytest keeps the last test's fixtures to the end: engines must not stay with them
        yield clients


@pytest.fixture
def writers(cluster: LocalCluster) -> Iterator[dict[str, Client]]:
    with clients_of(cluster) as clients:
        yield clients


@pytest.fixture
def readers(cluster: LocalCluster) -> Iterator[dict[str, Client]]:
    with clients_of(cluster, target="replica") as clients:
        yield clients


def at_once(work: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """Do all of `work` at the same time, and return its results by name."""
    with ThreadPoolExecutor(len(work)) as threads:
        futures = {name: threads.submit(call) for name, call in work.items()}
        return {name: future.result() for name, future in futures.items()}


def restart_in_place(cluster: LocalCluster) -> None:
    cluster.patch_config({"primary_start_timeout": 300})
    leader = cluster.leader
    eventually(lambda: _start_timeout_of(cluster) == 300, "every node to know primary_start_timeout")
    with psycopg.connect(cluster.conninfo()) as connection:
        before = connection.execute("SELECT pg_postmaster_start_time()").fetchone()
    cluster.kill_postgres()

    def is_another() -> bool:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(cluster.conninfo(leader)) as connection:
            asked = "SELECT pg_postmaster_start_time(), pg_is_in_recovery()"
            started, in_recovery = connection.execute(asked).fetchone() or (None, True)
            return not in_recovery and (started,) != before
        return False

    eventually(is_another, "PostgreSQL to come back as primary")
    assert cluster.leader == leader


def _start_timeout_of(cluster: LocalCluster) -> Any:
    from patroni_db.cluster.rest import get_json

    node = cluster.node(cluster.leader or "")
    return (get_json((node.host, node.api_port), "/config", timeout=2.0) or {}).get("primary_start_timeout")


@pytest.mark.parametrize(
    "fault", [crash, *(pytest.param(other, marks=pytest.mark.thorough) for other in (switchover, restart_in_place))]
)
def test_pooled_connections_follow_without_an_error(
    cluster: LocalCluster,
    table: str,
    writers: dict[str, Client],
    readers: dict[str, Client],
    fault: Callable[[LocalCluster], None],
) -> None:
    """What lay idle in a pool is replaced before it is handed out: not one error, and nothing runs twice."""
    before = {kind: client.sessions(3) for kind, client in writers.items()}
    for client in readers.values():
        client.sessions(3)

    fault(cluster)

    leader = cluster.node(cluster.wait_for_leader())
    insert = f"INSERT INTO {table} VALUES ('{{}}') RETURNING host(inet_server_addr())"
    went = at_once({kind: lambda c=c, k=kind: c.together(4, insert.format(k)) for kind, c in writers.items()})  # type: ignore[misc]  # mypy cannot infer a lambda with defaults
    assert went == {kind: [leader.host] * 4 for kind in KINDS}
    noted = dict(rows(cluster, f"SELECT note, count(*) FROM {table} GROUP BY note"))
    assert noted == dict.fromkeys(KINDS, 4)
    for kind, client in writers.items():
        assert not set(before[kind]) & set(client.sessions(3)), f"{kind}: a session of the old primary is still used"

    cluster.wait_until_streaming()
    read = at_once({kind: lambda c=c: c.together(4, WHERE) for kind, c in readers.items()})  # type: ignore[misc]
    assert not [kind for kind, hosts in read.items() if leader.host in hosts], "replica engines read from the primary"


def test_a_statement_in_flight_is_reported_and_not_repeated(
    cluster: LocalCluster, table: str, writers: dict[str, Client]
) -> None:
    started = f"/* {table} */"
    # Autocommit or not, the server may have done it before it died: whoever repeats it may do it twice.
    slow = f"INSERT INTO {table} SELECT 'in flight' FROM (SELECT pg_sleep(90)) AS s {started}"
    errors: dict[str, DBAPIError] = {}

    def run(kind: str, client: Client) -> None:
        try:
            client.query(slow)
        except DBAPIError as exc:
            errors[kind] = exc

    threads = [threading.Thread(target=run, args=item) for item in writers.items()]
    for thread in threads:
        thread.start()
    running = f"SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%{started}%' AND wait_event = 'PgSleep'"
    eventually(lambda: rows(cluster, running)[0][0] == len(KINDS), "all statements to run")

    crash(cluster)

    for thread in threads:
        thread.join(60)
    assert set(errors) == set(KINDS)
    assert all(exc.connection_invalidated for exc in errors.values())
    assert rows(cluster, running) == [(0,)]
    assert rows(cluster, f"SELECT * FROM {table}") == []
    leader = cluster.node(cluster.wait_for_leader()).host
    assert at_once({kind: lambda c=c: c.query(WHERE) for kind, c in writers.items()}) == dict.fromkeys(KINDS, leader)  # type: ignore[misc]


@pytest.mark.thorough  # test_exactly_once does it with transactions that run again
def test_writers_go_on_through_two_failovers(cluster: LocalCluster, table: str, writers: dict[str, Client]) -> None:
    """Every acknowledged write is there once, one that failed at most once, and only those in flight fail."""
    replicate_synchronously(cluster)
    stop = threading.Event()
    acknowledged: dict[str, set[str]] = {kind: set() for kind in KINDS}
    failed: dict[str, list[str]] = {kind: [] for kind in KINDS}
    servers: dict[str, str] = {}

    def write(kind: str, client: Client) -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            note = f"{kind} {number}"
            try:
                server = client.query(
                    f"INSERT INTO {table} VALUES (:note) RETURNING host(inet_server_addr())", note=note
                )
            except (DBAPIError, asyncpg.InternalClientError):  # which SQLAlchemy wraps only lately
                failed[kind].append(note)
            else:
                acknowledged[kind].add(note)
                servers[kind] = server
            time.sleep(0.005)

    threads = [threading.Thread(target=write, args=item) for item in writers.items()]
    for thread in threads:
        thread.start()
    faults = [switchover, crash]
    try:
        for fault in faults:
            wait_for_synchronous_standby(cluster)
            fault(cluster)
            new = cluster.node(cluster.wait_for_leader())
            everywhere = dict.fromkeys(KINDS, new.host)
            eventually(lambda everywhere=everywhere: servers == everywhere, f"all to write to {new.name}")  # type: ignore[misc]
            cluster.wait_until_streaming()
    finally:
        stop.set()
        for thread in threads:
            thread.join(90)
    counts = dict(rows(cluster, f"SELECT note, count(*) FROM {table} GROUP BY note"))
    for kind in KINDS:
        assert acknowledged[kind] <= set(counts), f"{kind}: acknowledged writes are lost"
        assert len(failed[kind]) <= len(faults), f"{kind}: more failed than was in flight"
    assert set(counts.values()) == {1}, "a statement ran twice"
