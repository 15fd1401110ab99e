"""Applications that reach the cluster through a pooler beside every node (``patroni_port``)."""

# ruff: noqa: S608 - tables' names are made here

from __future__ import annotations

import collections
import contextlib
import threading
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import OperationalError

from sqlalchemy_dialect import create_commit_marker_table, run_transaction
from tests.django.backends import project
from tests.integration.faults import crash, eventually, switchover
from tests.integration.poolers import PGBOUNCER, pgbouncers, stand_ins
from tests.integration.synchronous import replicate_synchronously, wait_for_synchronous_standby

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patroni_db.cluster import LocalCluster

pytestmark = pytest.mark.timeout(180)

installed = pytest.mark.skipif(PGBOUNCER is None, reason="there is no pgbouncer on this machine")


@pytest.fixture
def cluster(healthy_patroni_cluster: LocalCluster) -> LocalCluster:
    return healthy_patroni_cluster


@pytest.fixture(
    params=[
        "stand-in",
        pytest.param("session", marks=[installed, pytest.mark.thorough], id="pgbouncer-session"),
        pytest.param("transaction", marks=[installed, pytest.mark.thorough], id="pgbouncer-transaction"),
    ]
)
def port(cluster: LocalCluster, request: pytest.FixtureRequest) -> Iterator[int]:
    kind = request.param
    with stand_ins(cluster) if kind == "stand-in" else pgbouncers(cluster, kind) as found:
        yield found


@pytest.fixture
def table(cluster: LocalCluster) -> Iterator[str]:
    name = f"notes_{uuid.uuid4().hex}"
    where = {"dbname": cluster.dbname, "user": cluster.user}
    with psycopg.connect(cluster.conninfo(**where)) as connection:
        connection.execute(f"CREATE TABLE {name} (note text NOT NULL)")  # no key: what ran twice must show
    yield name
    cluster.wait_for_leader()
    with psycopg.connect(cluster.conninfo(**where)) as connection:
        connection.execute(f"DROP TABLE {name}")


def through(cluster: LocalCluster, port: int, name: str) -> str:
    """Return the connection string for a node through its pooler."""
    direct = cluster.conninfo(name, dbname=cluster.dbname, user=cluster.user)
    return make_conninfo(direct, port=port, sslmode="disable")


class Application:
    """An engine behind the poolers, and how many connections it has made."""

    def __init__(self, cluster: LocalCluster, port: int, **settings: Any) -> None:
        query = {"patroni_urls": ",".join(cluster.urls), "patroni_port": port, "sslmode": "disable", **settings}
        self.made = 0
        self.engine: Engine = create_engine(
            f"postgresql+patroni://{cluster.user}:{cluster.password}@/{cluster.dbname}?"
            + "&".join(f"{name}={value}" for name, value in query.items()),
            # In transaction mode PgBouncer 1.18 does not know of prepared statements.
            connect_args={"prepare_threshold": None},
        )
        event.listen(self.engine, "connect", self._count)

    def _count(self, *_: object) -> None:
        self.made += 1

    def is_in_recovery(self) -> bool:
        with self.engine.connect() as connection:
            return bool(connection.scalar(text("SELECT pg_is_in_recovery()")))


@contextlib.contextmanager
def application(cluster: LocalCluster, port: int, **settings: Any) -> Iterator[Application]:
    one = Application(cluster, port, **settings)
    try:
        yield one
    finally:
        one.engine.dispose()


def test_the_role_is_the_servers_own_also_after_it_has_changed(cluster: LocalCluster, port: int) -> None:
    with application(cluster, port) as writer, application(cluster, port, patroni_target="replica") as reader:
        # Each pooler opens its first session now, and will tell of these roles for ever.
        for node in cluster.nodes:
            psycopg.connect(through(cluster, port, node.name)).close()
        assert (writer.is_in_recovery(), reader.is_in_recovery()) == (False, True)
        switchover(cluster)
        cluster.wait_until_streaming()
        eventually(lambda: not _fails(writer.is_in_recovery), "the new primary to be reached")
        eventually(reader.is_in_recovery, "a replica to be read from")
        writer.made = reader.made = 0
        found = [(writer.is_in_recovery(), reader.is_in_recovery()) for _ in range(30)]
        assert set(found) == {(False, True)}
        # Nobody throws connections away because the pooler tells of another role. (New members get their share.)
        assert writer.made == 0
        assert reader.made < 5


def test_a_former_primary_is_read_from(cluster: LocalCluster, port: int) -> None:
    former = cluster.leader
    assert former is not None
    where = through(cluster, port, former)
    with psycopg.connect(where) as connection:
        assert connection.info.parameter_status("in_hot_standby") == "off"
    switchover(cluster)
    cluster.wait_until_streaming()
    with psycopg.connect(where) as connection:  # what all this is about
        assert connection.info.parameter_status("in_hot_standby") == "off"
        assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
    address = cluster.node(former).host

    def server() -> str:
        with application(cluster, port, patroni_target="replica") as reader, reader.engine.connect() as connection:
            return str(connection.scalar(text("SELECT host(inet_server_addr())")))

    eventually(lambda: server() == address, "the former primary to be read from")


def test_djangos_connections_are_kept_and_lead_to_the_right_servers(
    cluster: LocalCluster, port: int, table: str, django_db_blocker: Any
) -> None:
    options = {"patroni_port": port, "sslmode": "disable"}
    with django_db_blocker.unblock(), project(cluster, CONN_MAX_AGE=None, OPTIONS=options) as aliases:

        def request() -> tuple[bool, bool]:
            for alias in ("default", "replica"):
                aliases[alias].close_if_unusable_or_obsolete()
            with aliases["default"].cursor() as cursor:
                cursor.execute(f"INSERT INTO {table} VALUES ('x') RETURNING pg_is_in_recovery()")
                (wrote,) = cursor.fetchone()
            with aliases["replica"].cursor() as cursor:
                cursor.execute("SELECT pg_is_in_recovery()")
                (read,) = cursor.fetchone()
            return wrote, read

        for node in cluster.nodes:
            psycopg.connect(through(cluster, port, node.name)).close()
        assert request() == (False, True)
        switchover(cluster)
        cluster.wait_until_streaming()
        eventually(lambda: request() == (False, True), "a replica to be read from")
        kept = aliases["default"].connection
        assert {request() for _ in range(30)} == {(False, True)}
        assert aliases["default"].connection is kept


def test_transactions_run_again_through_a_crash(cluster: LocalCluster, port: int, table: str) -> None:
    replicate_synchronously(cluster)
    wait_for_synchronous_standby(cluster)
    acknowledged: list[str] = []
    errors: list[BaseException] = []
    ended = threading.Event()
    with application(cluster, port) as app:
        with app.engine.begin() as connection:
            create_commit_marker_table(connection)

        def work() -> None:
            while not ended.is_set():
                note = uuid.uuid4().hex

                def write(connection: Any, note: str = note) -> None:
                    connection.execute(text(f"INSERT INTO {table} VALUES (:note)"), {"note": note})

                try:
                    run_transaction(app.engine, write, exactly_once=True)
                except Exception as exc:  # noqa: BLE001 - told below
                    errors.append(exc)
                else:
                    acknowledged.append(note)
                ended.wait(0.01)

        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        try:
            eventually(lambda: len(acknowledged) > 20, "writes")
            crash(cluster)
            before = len(acknowledged)
            eventually(lambda: len(acknowledged) > before + 20 or errors, "writes after the crash")
        finally:
            ended.set()
            for worker in workers:
                worker.join()
    assert not errors
    with psycopg.connect(cluster.conninfo(dbname=cluster.dbname, user=cluster.user)) as direct:
        rows = collections.Counter(note for (note,) in direct.execute(f"SELECT note FROM {table}"))
    assert rows == collections.Counter(acknowledged)


def test_a_wrong_password_is_told_at_once(cluster: LocalCluster, port: int) -> None:
    with application(cluster, port, patroni_failover_timeout=60, user="nobody_at_all", password="wrong") as app:
        with pytest.raises(OperationalError, match="authentication failed") as raised:
            app.engine.connect()
        assert "patroni_failover_timeout" not in str(raised.value)
    assert raised.value.orig is not None


def test_what_may_be_the_poolers_own_trouble_is_told_of_at_once_and_again_at_the_deadline(
    cluster: LocalCluster, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with application(cluster, port, patroni_failover_timeout=1, options="-c no_such_setting=1") as app:
        with pytest.raises(OperationalError, match=r"patroni_failover_timeout.*last tried"):
            app.engine.connect()
        assert "refuses us" in caplog.text


def _fails(role: Callable[[], bool]) -> bool:
    """Return whether there is no primary yet, or the one that is asked stands by."""
    try:
        return role()
    except OperationalError:
        return True
