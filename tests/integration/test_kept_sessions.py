"""Readers stay on their replica for as long as work is under way there, whatever would be better meanwhile."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import requests
from django.db import OperationalError
from sqlalchemy import create_engine, text
from sqlalchemy.pool import StaticPool

from django_backend import session_state
from patroni_db import PatroniConfig, discovery_for
from patroni_db.connections import Stamp
from patroni_db.faults import Fault
from patroni_db.quarantine import Quarantine
from patroni_db.topology import Address
from tests.django.backends import project
from tests.integration.faults import eventually
from tests.integration.lagging import replay_paused, replicas
from tests.sqlalchemy.clients import make_client, url_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django_backend.base import DatabaseWrapper
    from patroni_db.cluster import LocalCluster
    from patroni_db.discovery import Discovery

pytestmark = pytest.mark.timeout(120)

SESSION = "SELECT host(inet_server_addr()) || ' ' || pg_backend_pid()"
NUMBERS = "SELECT generate_series(1, 1000)"
KINDS: list[dict[str, Any]] = [{"CONN_MAX_AGE": None}, {"OPTIONS": {"pool": {"min_size": 1, "max_size": 1}}}]


@pytest.fixture(autouse=True)
def free(django_db_blocker: Any, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Let wrappers connect: pytest-django forbids it, as it knows only the project's own database."""
    with django_db_blocker.unblock():
        yield
    # psycopg's pool logs connections as objects, which keep their pool, and that the discovery with its thread.
    caplog.get_records("call").clear()


@pytest.fixture
def cluster(healthy_patroni_cluster: LocalCluster) -> LocalCluster:
    healthy_patroni_cluster.wait_until_streaming()
    return healthy_patroni_cluster


@pytest.fixture
def discovery(cluster: LocalCluster) -> Iterator[Discovery]:
    """The one that all clients of this process share, with nobody in quarantine, and no quarantine ending by itself."""
    shared = discovery_for(PatroniConfig(urls=cluster.urls))
    shared.topology()
    forget_failures(shared)
    yield shared
    forget_failures(shared, shared.clock)


def forget_failures(discovery: Discovery, clock: Callable[[], float] = lambda: 0.0) -> None:
    discovery._quarantine = Quarantine(clock, discovery.rng)
    discovery.wait_for_look()


@pytest.fixture(params=[KINDS[0], pytest.param(KINDS[1], marks=pytest.mark.thorough)], ids=["persistent", "pool"])
def reader(cluster: LocalCluster, discovery: Discovery, request: pytest.FixtureRequest) -> Iterator[DatabaseWrapper]:
    settings = {**request.param, "OPTIONS": {"patroni_target": "replica", **request.param.get("OPTIONS", {})}}
    with project(cluster, **settings) as aliases:
        yield aliases["replica"]


def value(wrapper: DatabaseWrapper, sql: str) -> Any:
    with wrapper.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def server_of(wrapper: DatabaseWrapper) -> Stamp:
    assert wrapper.stamp is not None
    return wrapper.stamp


def fail_reads_of_others(discovery: Discovery, stamp: Stamp) -> None:
    """Do what a read of another thread does that meets a conflict with recovery."""
    assert discovery.distrust(stamp, Fault.CORRUPTED, "on")


def end_request(wrapper: DatabaseWrapper) -> None:
    wrapper.close_if_unusable_or_obsolete()


@contextlib.contextmanager
def drained(cluster: LocalCluster, discovery: Discovery, name: str) -> Iterator[None]:
    """Take a replica out of load balancing meanwhile."""
    file = cluster.node(name).config_file
    before = file.read_text()

    def reload(text: str, *, serves: bool) -> None:
        file.write_text(text)
        url = cluster.urls[[node.name for node in cluster.nodes].index(name)]
        login = (cluster.api_user, cluster.api_password)
        requests.post(f"{url}/reload", timeout=10, auth=login).raise_for_status()

        def is_known() -> bool:
            discovery.wait_for_look()
            member = discovery.topology().member(name)
            return member is not None and member.serves_reads is serves

        eventually(is_known, "the tag to be known")

    config = json.loads(before)
    reload(json.dumps({**config, "tags": {**config.get("tags", {}), "noloadbalance": True}}), serves=False)
    try:
        yield
    finally:
        reload(before, serves=True)


def test_an_iteration_ends_where_it_began_though_the_replica_is_drained(
    cluster: LocalCluster, discovery: Discovery, reader: DatabaseWrapper
) -> None:
    session = value(reader, SESSION)
    value(reader, "SELECT set_config('work_mem', '3MB', false)")
    rows = reader.chunked_cursor()
    rows.execute(NUMBERS)
    seen = rows.fetchmany(10)
    with drained(cluster, discovery, server_of(reader).member or ""):
        while more := rows.fetchmany(330):
            seen += more
            assert value(reader, SESSION) == session, "another read, between two chunks"
            assert value(reader, "SHOW work_mem") == "3MB"
            if not reader.pool:
                end_request(reader)  # a job that ends within the iteration: persistent connections stay open
        assert len(seen) == 1000
        rows.close()
        assert value(reader, SESSION) == session, "to the end of the request"
        end_request(reader)
        assert value(reader, SESSION).split()[0] != session.split()[0]


@pytest.mark.parametrize("reader", KINDS[:1], indirect=True)
def test_reads_of_others_that_failed_end_no_work(discovery: Discovery, reader: DatabaseWrapper) -> None:
    session = value(reader, SESSION)
    rows = reader.chunked_cursor()
    rows.execute(NUMBERS)
    assert rows.fetchone() == (1,)
    fail_reads_of_others(discovery, server_of(reader))
    assert value(reader, SESSION) == session
    # Also a read of its own does not end what else is under way: it is tried again on the same session.
    with pytest.raises(OperationalError, match="conflict"), reader.cursor() as cursor:
        cursor.execute("DO $$ BEGIN RAISE EXCEPTION 'conflict' USING ERRCODE = '40001'; END $$")
    assert len(rows.fetchall()) == 999
    rows.close()
    assert value(reader, SESSION) == session
    end_request(reader)
    assert value(reader, SESSION) != session


@pytest.mark.parametrize("reader", KINDS[:1], indirect=True)
def test_a_job_without_end_leaves_a_bad_replica_when_it_loses_nothing(
    discovery: Discovery, reader: DatabaseWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_state, "_ENDLESS", 0.0)
    with reader.cursor() as kept:
        kept.execute(SESSION)
        (session,) = kept.fetchone()
        kept.execute("SELECT generate_series(1, 3)")
        assert kept.fetchone() == (1,)
        rows = reader.chunked_cursor()
        rows.execute(NUMBERS)
        fail_reads_of_others(discovery, server_of(reader))
        assert value(reader, SESSION) == session, "rows are still to be fetched"
        rows.close()
        moved = value(reader, SESSION)
        assert moved.split()[0] != session.split()[0]
        assert kept.fetchall() == [(2,), (3,)], "these have arrived"
        kept.execute(SESSION)  # on the connection that there is now
        assert kept.fetchone() == (moved,)
        monkeypatch.setattr(session_state, "_LOOK_EVERY", 0.0)
        forget_failures(discovery)
        fail_reads_of_others(discovery, server_of(reader))
        kept.execute(SESSION)  # no other cursor is made
        moved = kept.fetchone()[0]
        assert moved.split()[0] == session.split()[0]
    with reader.cursor() as cursor:
        cursor.execute("SET work_mem = '3MB'")
    forget_failures(discovery)
    fail_reads_of_others(discovery, server_of(reader))
    assert value(reader, SESSION) == moved, "its setting would be lost"
    assert value(reader, "SHOW work_mem") == "3MB"
    end_request(reader)
    assert value(reader, SESSION) != moved


@pytest.mark.parametrize("reader", KINDS[:1], indirect=True)
def test_a_session_that_ended_is_replaced_at_once(cluster: LocalCluster, reader: DatabaseWrapper) -> None:
    session = value(reader, SESSION)
    with psycopg.connect(cluster.conninfo(server_of(reader).member), autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", [int(session.split()[1])])
    assert value(reader, SESSION) != session


def test_a_session_that_listens_stays_with_a_slow_primary(cluster: LocalCluster, discovery: Discovery) -> None:
    with project(cluster, CONN_MAX_AGE=None) as aliases:
        writer = aliases["default"]
        with writer.cursor() as cursor:
            cursor.execute("LISTEN jobs")
        session = value(writer, SESSION)
        name = server_of(writer).member or ""
        discovery._suspects._set(name, silent=True)
        discovery.silence_changed()
        try:
            assert value(writer, SESSION) == session
        finally:
            discovery._suspects._set(name, silent=False)
            discovery.silence_changed()


def test_a_cursor_that_is_kept_outlives_its_session(cluster: LocalCluster, discovery: Discovery) -> None:
    """When its connection has been replaced, it works on the new one."""
    with project(cluster, CONN_MAX_AGE=None) as aliases, aliases["default"].cursor() as kept:
        kept.execute(SESSION)
        (session,) = kept.fetchone()
        with psycopg.connect(cluster.conninfo(), autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", [int(session.split()[1])])
        moved = value(aliases["default"], SESSION)
        assert moved != session
        kept.execute(SESSION)
        assert kept.fetchone() == (moved,)


# -- SQLAlchemy -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["dialect", *(pytest.param(kind, marks=pytest.mark.thorough) for kind in ("plugin-psycopg2",))]
)
def test_what_is_checked_out_stays(cluster: LocalCluster, discovery: Discovery, kind: str) -> None:
    client: Any = make_client(kind, cluster, {"pool_size": 2}, target="replica")
    with contextlib.closing(client):
        held = client.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        held.execute(text("SET work_mem = '3MB'"))
        session = held.scalar(text(SESSION))
        with client.engine.connect().execution_options(stream_results=True, max_row_buffer=10) as streaming:
            rows = streaming.execute(text(NUMBERS))
            assert rows.fetchone() == (1,)
            for name in replicas(cluster):
                fail_reads_of_others(discovery, Stamp(name, Address("", 0), 0))
            assert len(rows.fetchall()) == 999
        assert held.scalar(text(SESSION)) == session
        assert held.scalar(text("SHOW work_mem")) == "3MB"
        held.close()


def test_a_connection_that_several_share_stays_while_one_is_at_work(
    cluster: LocalCluster, discovery: Discovery
) -> None:
    engine = create_engine(url_of(cluster, "patroni", target="replica"), poolclass=StaticPool)
    with engine.connect() as first:
        session = first.scalar(text(SESSION))
        rows = first.execution_options(stream_results=True, max_row_buffer=10).execute(text(NUMBERS))
        assert rows.fetchone() == (1,)
        (live,) = (live for live in discovery.live._open() if live.config.target == "replica")
        fail_reads_of_others(discovery, live.stamp)
        with engine.connect() as second:
            assert second.scalar(text(SESSION)) == session
            assert len(rows.fetchall()) == 999
    with engine.connect() as third:
        assert third.scalar(text(SESSION)) != session
    engine.dispose()


@pytest.mark.thorough  # replay has to be paused for it
def test_lag_is_no_alarm(cluster: LocalCluster, discovery: Discovery) -> None:
    """A replica that lags is left by the pool, and is not taken for one that cannot be reached."""
    client: Any = make_client("dialect", cluster, target="replica_preferred", max_lag="1MB")
    with contextlib.closing(client):
        client.query("SELECT 1")
        with replay_paused(cluster), psycopg.connect(cluster.conninfo(), autocommit=True) as primary:
            primary.execute("CREATE TABLE lag_is_no_alarm AS SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
            eventually(lambda: client.query("SELECT NOT pg_is_in_recovery()"), "the reader to leave the replica")
            assert not discovery.resting()
            primary.execute("DROP TABLE lag_is_no_alarm")
