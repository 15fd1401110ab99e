"""Under a monitoring agent, whose proxies stand around the drivers' connections, everything works as without.

Every kind of client goes through the same fault at once.
"""

# ruff: noqa: S608 - tables' names are made here

from __future__ import annotations

import contextlib
import threading
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from patroni_db import markers
from sqlalchemy_dialect import CommitOutcomeUnknown, run_transaction
from tests.agents import Agent, OpaqueConnection, TracedConnection
from tests.django.backends import project
from tests.integration.faults import eventually, switchover
from tests.sqlalchemy.clients import KINDS, make_client, url_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patroni_db.cluster import LocalCluster

    Query = Callable[[str], Any]

pytestmark = pytest.mark.timeout(180)

WHERE = "SELECT host(inet_server_addr()) WHERE NOT pg_is_in_recovery()"


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


@pytest.fixture(params=[TracedConnection, pytest.param(OpaqueConnection, marks=pytest.mark.thorough)])
def agent(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Agent:
    agent = Agent(request.param)
    agent.instrument(monkeypatch)
    return agent


@pytest.fixture
def clients(cluster: LocalCluster, agent: Agent) -> Iterator[dict[str, Query]]:
    """Every way to use the cluster, as a function that executes one statement."""
    with contextlib.ExitStack() as stack:
        found: dict[str, Query] = {}
        for kind in KINDS:
            client = make_client(kind, cluster)
            stack.callback(client.close)
            found[kind] = client.query
        persistent = stack.enter_context(project(cluster, CONN_MAX_AGE=None))
        found["django"] = _query_of(persistent["default"], stays=True)
        pooled = stack.enter_context(project(cluster, OPTIONS={"pool": True}))
        found["django-pool"] = _query_of(pooled["default"], stays=False)
        stack.callback(found.clear)  # pytest keeps the last test's fixtures to the end: engines must not stay with them
        yield found


def _query_of(wrapper: Any, *, stays: bool) -> Query:
    def query(statement: str) -> Any:
        with wrapper.cursor() as cursor:
            cursor.execute(statement)
            (value,) = cursor.fetchone()
        if not stays:
            wrapper.close()
        return value

    return query


def test_all_clients_follow_a_switchover_and_every_statement_is_seen(
    cluster: LocalCluster, agent: Agent, clients: dict[str, Query]
) -> None:
    host = cluster.node(cluster.leader or "").host
    for name, query in clients.items():
        for number in range(2):  # the second time the connection is there
            assert query(f"{WHERE} -- {name} {number}") == host
    switchover(cluster)
    host = cluster.node(cluster.wait_for_leader()).host
    for name, query in clients.items():
        assert query(f"{WHERE} -- {name} after") == host
    for name in clients:
        for moment in ("0", "1", "after"):
            assert any(span.endswith(f"-- {name} {moment}") for span in agent.spans), f"{name} {moment}"
    assert agent.connected >= 2 * len(clients)


@pytest.mark.thorough
def test_what_hangs_on_a_frozen_primary_ends(cluster: LocalCluster, agent: Agent, clients: dict[str, Query]) -> None:
    former = cluster.leader or ""
    for query in clients.values():
        assert query(WHERE) == cluster.node(former).host
    cluster.freeze(former)
    failed: dict[str, BaseException | None] = {}

    def hang(name: str, query: Query) -> None:
        try:
            failed[name] = query(WHERE)
        except Exception as exc:  # noqa: BLE001 - each framework's own
            failed[name] = exc

    # Django's wrappers belong to this thread: each of them waits here, in turn.
    own = {name: query for name, query in clients.items() if name.startswith("django")}
    threads = [threading.Thread(target=hang, args=item) for item in clients.items() if item[0] not in own]
    for thread in threads:
        thread.start()
    cluster.expire_leader()
    for name, query in own.items():
        hang(name, query)
    for thread in threads:
        thread.join(60)
    assert failed.keys() == clients.keys()
    host = cluster.node(cluster.wait_for_leader()).host
    for name, query in clients.items():
        assert query(WHERE) == host, name


def test_a_pools_connections_may_be_of_the_applications_class(cluster: LocalCluster) -> None:
    class Own(psycopg.Connection[Any]):
        pass

    with project(cluster, OPTIONS={"pool": {"connection_class": Own}}) as aliases:
        wrapper = aliases["default"]
        with wrapper.cursor() as cursor:
            cursor.execute(WHERE)
            assert cursor.fetchone() == (cluster.node(cluster.leader or "").host,)
        assert isinstance(wrapper.connection, Own)


# At COMMIT it ends the session of a transaction that inserted 'first': nothing is committed, and nobody says so.
TRIGGER = """
CREATE TABLE {0} (note text NOT NULL);
CREATE FUNCTION {0}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_terminate_backend(pg_backend_pid());
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER {0} AFTER INSERT ON {0} DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.note = 'first') EXECUTE FUNCTION {0}();
"""


@pytest.fixture
def table(cluster: LocalCluster) -> Iterator[str]:
    name = f"notes_{uuid.uuid4().hex}"
    conninfo = cluster.conninfo(dbname=cluster.dbname, user=cluster.user)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(TRIGGER.format(name))
        connection.execute(markers.CREATE_TABLE)
    yield name
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(f"DROP TABLE {name}")
        connection.execute(f"DROP FUNCTION {name}")


def _terminate(cluster: LocalCluster, pid: int) -> None:
    """End a session, and wait until the server has no more to do with it."""
    with psycopg.connect(cluster.conninfo(), autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s)", [pid])
        left = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
        eventually(lambda: connection.execute(left, [pid]).fetchone() == (0,), "the session to end")


@pytest.mark.parametrize("driver", ["patroni", pytest.param("psycopg2", marks=pytest.mark.thorough)])
class TestCommit:
    """What becomes of a COMMIT is known as without the agent."""

    def test_a_session_that_was_lost_before_committed_nothing(
        self, cluster: LocalCluster, agent: Agent, driver: str, table: str
    ) -> None:
        engine = create_engine(url_of(cluster, driver))
        with engine.connect() as connection:
            connection.execute(text(f"INSERT INTO {table} VALUES ('lost')"))
            _terminate(cluster, connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
            with pytest.raises(DBAPIError) as raised:
                connection.commit()
        assert not isinstance(raised.value, CommitOutcomeUnknown)
        engine.dispose()

    def test_one_that_is_lost_meanwhile_is_in_doubt(
        self, cluster: LocalCluster, agent: Agent, driver: str, table: str
    ) -> None:
        engine = create_engine(url_of(cluster, driver))
        with engine.connect() as connection:
            connection.execute(text(f"INSERT INTO {table} VALUES ('first')"))
            with pytest.raises(CommitOutcomeUnknown):
                connection.commit()
        engine.dispose()

    def test_one_that_is_lost_meanwhile_runs_again_exactly_once(
        self, cluster: LocalCluster, agent: Agent, driver: str, table: str
    ) -> None:
        engine = create_engine(url_of(cluster, driver))
        attempts = iter(["first", "second"])

        def work(connection: Any) -> None:
            connection.execute(text(f"INSERT INTO {table} VALUES ('{next(attempts)}')"))

        run_transaction(engine, work, exactly_once=True)
        with engine.connect() as connection:
            assert connection.execute(text(f"SELECT note FROM {table}")).scalars().all() == ["second"]
        engine.dispose()
