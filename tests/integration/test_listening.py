"""Sessions that LISTEN keep what they hear, while their connections are checked, pooled and used for other work."""

from __future__ import annotations

import contextlib
import time
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import text

from tests.django.backends import project
from tests.integration.faults import eventually
from tests.listening import heard_by
from tests.sqlalchemy.clients import LoopClient, ThreadClient, make_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django_backend.base import DatabaseWrapper
    from patroni_db.cluster import LocalCluster

pytestmark = pytest.mark.timeout(60)

PID = "SELECT pg_backend_pid()"


@pytest.fixture(autouse=True)
def free(django_db_blocker: Any, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Let wrappers connect: pytest-django forbids it, as it knows only the project's own database."""
    with django_db_blocker.unblock():
        yield
    # psycopg's pool logs connections as objects, which keep their pool, and that the discovery with its thread.
    caplog.get_records("call").clear()


@pytest.fixture
def channel() -> str:
    return f"jobs_{uuid.uuid4().hex}"


@pytest.fixture
def notify(patroni_cluster: LocalCluster, channel: str) -> Iterator[Callable[[str], None]]:
    conninfo = patroni_cluster.conninfo(dbname=patroni_cluster.dbname, user=patroni_cluster.user)
    with psycopg.connect(conninfo, password=patroni_cluster.password, autocommit=True) as sender:

        def send(payload: str) -> None:
            sender.execute("SELECT pg_notify(%s, %s)", [channel, payload])
            time.sleep(0.05)  # for it to arrive while the listener is between two statements

        yield send


@pytest.mark.parametrize("kept", [{"CONN_MAX_AGE": None}, {"OPTIONS": {"pool": {"min_size": 1, "max_size": 1}}}])
def test_a_worker_goes_on_hearing(
    patroni_cluster: LocalCluster, channel: str, notify: Callable[[str], None], kept: dict[str, Any]
) -> None:
    with project(patroni_cluster, **kept) as aliases:
        wrapper = aliases["default"]
        with wrapper.cursor() as cursor:
            cursor.execute(f'LISTEN "{channel}"')
            cursor.execute(PID)
            (pid,) = cursor.fetchone()
        heard: list[str] = []
        for number in range(3):
            notify(f"before {number}")
            with in_a_transaction(wrapper), wrapper.cursor() as cursor:  # the work for what was heard
                cursor.execute(PID)
                assert cursor.fetchone() == (pid,)
            notify(f"after {number}")
            wrapper.close_if_unusable_or_obsolete()  # as between two jobs
            if wrapper.pool:
                wrapper.close()  # the session goes back
                notify(f"pooled {number}")
                wrapper.ensure_connection()
            heard += heard_by(wrapper.connection)
        moments = ["before", "after", "pooled"] if wrapper.pool else ["before", "after"]
        assert heard == [f"{moment} {number}" for number in range(3) for moment in moments]


@contextlib.contextmanager
def in_a_transaction(wrapper: DatabaseWrapper) -> Iterator[None]:
    """Do what ``atomic`` does, for a wrapper that ``django.db.connections`` does not know."""
    wrapper.set_autocommit(False)
    yield
    wrapper.commit()
    wrapper.set_autocommit(True)


@pytest.mark.parametrize(
    "kind", ["dialect", "plugin-psycopg2", pytest.param("creator-psycopg", marks=pytest.mark.thorough)]
)
def test_a_pooled_session_keeps_what_it_hears(
    patroni_cluster: LocalCluster, channel: str, notify: Callable[[str], None], kind: str
) -> None:
    with contextlib.closing(make_client(kind, patroni_cluster, {"pool_size": 1, "max_overflow": 0})) as client:
        assert isinstance(client, ThreadClient)
        with client.engine.begin() as connection:
            connection.execute(text(f'LISTEN "{channel}"'))
            pid = connection.scalar(text(PID))
        for payload in "abc":
            notify(payload)
            assert client.query(PID) == pid
        notify("d")
        with client.engine.connect() as connection:
            assert connection.scalar(text(PID)) == pid
            assert heard_by(connection.connection.driver_connection) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("kind", ["async-plugin-asyncpg", pytest.param("async-dialect", marks=pytest.mark.thorough)])
def test_a_pooled_session_on_a_loop_keeps_what_it_hears(
    patroni_cluster: LocalCluster, channel: str, notify: Callable[[str], None], kind: str
) -> None:
    with contextlib.closing(make_client(kind, patroni_cluster, {"pool_size": 1, "max_overflow": 0})) as client:
        assert isinstance(client, LoopClient)
        heard: list[str] = []

        async def listen() -> Any:
            async with client.engine.begin() as connection:
                driver: Any = (await connection.get_raw_connection()).driver_connection
                if kind.endswith("asyncpg"):
                    await driver.add_listener(channel, lambda *told: heard.append(told[3]))
                else:
                    driver.add_notify_handler(lambda told: heard.append(told.payload))
                    await connection.execute(text(f'LISTEN "{channel}"'))
                return await connection.scalar(text(PID))

        pid = client.run(listen())
        for payload in "abc":
            notify(payload)
            assert client.query(PID) == pid
        eventually(lambda: heard == ["a", "b", "c"], "the notifications")
