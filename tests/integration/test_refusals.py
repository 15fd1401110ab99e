"""What no waiting can mend is told at once, whichever way one connects, and nobody logs in again and again."""

# ruff: noqa: S608 - roles' names are made here

from __future__ import annotations

import dataclasses
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.db import Error, OperationalError
from sqlalchemy.exc import DBAPIError

from django_backend.base import DatabaseWrapper
from patroni_db import PatroniConfig
from patroni_db.acquisition import acquire
from patroni_db.discovery import Discovery
from patroni_db.libpq import attempt_params
from tests.agents import Agent
from tests.django.backends import project
from tests.integration.faults import eventually
from tests.sqlalchemy.clients import KINDS, make_client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patroni_db.cluster import LocalCluster

pytestmark = pytest.mark.timeout(180)


@dataclasses.dataclass
class Login:
    """Takes the cluster's place where only its addresses and a login are asked for."""

    urls: tuple[str, ...]
    user: str
    password: str
    dbname: str


@pytest.fixture(autouse=True)
def free(django_db_blocker: Any, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Let wrappers connect: pytest-django forbids it, as it knows only the project's own database."""
    with django_db_blocker.unblock():
        yield
    # psycopg's pool logs connections as objects, which keep their pool, and that the discovery with its thread.
    caplog.get_records("call").clear()


@pytest.fixture
def cluster(patroni_cluster: LocalCluster) -> LocalCluster:
    return patroni_cluster


@pytest.fixture
def login(cluster: LocalCluster) -> Login:
    return Login(tuple(cluster.urls), cluster.user, cluster.password, cluster.dbname)


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Agent:
    """What counts the logins."""
    agent = Agent(lambda connection, _spans: connection)
    agent.instrument(monkeypatch)
    return agent


def _with_django(login: Any, **options: Any) -> None:
    with project(login, OPTIONS={"patroni_failover_timeout": 60, **options}) as aliases:
        aliases["default"].ensure_connection()


def _with_acquire(login: Login) -> None:
    discovery = Discovery(PatroniConfig(urls=login.urls))
    params = {"dbname": login.dbname, "user": login.user, "password": login.password}
    try:
        acquire(discovery, discovery.config, lambda attempt: psycopg.connect(**attempt_params(params, attempt)))
    finally:
        discovery.close()


def _with_sqlalchemy(kind: str, login: Any) -> None:
    client = make_client(kind, login)
    try:
        client.query("SELECT 1")
    finally:
        client.close()


WAYS: dict[str, Any] = {
    "acquire": _with_acquire,
    "django": _with_django,
    "django-pool": lambda login: _with_django(login, pool=True),
    **{kind: lambda login, kind=kind: _with_sqlalchemy(kind, login) for kind in KINDS},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"password": "wrong"}, "password authentication failed"),
        pytest.param({"dbname": "nowhere"}, 'database "nowhere" does not exist', marks=pytest.mark.thorough),
        pytest.param({"user": "nobody"}, "authentication failed|does not exist|no pg_hba", marks=pytest.mark.thorough),
    ],
)
def test_a_refused_login_is_told_at_once(login: Login, agent: Agent, way: str, wrong: Any, told: str) -> None:
    with pytest.raises((psycopg.Error, Error, DBAPIError), match=told) as raised:
        WAYS[way](dataclasses.replace(login, **wrong))
    assert "patroni_failover_timeout" not in str(raised.value)
    # libpq does not tell why a login failed: the second attempt makes sure that it was no server that starts up.
    # One more is for an attempt that a busy machine lets time out.
    assert agent.attempts <= (2 if "asyncpg" in way else 3)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"sslmode": "verify-full"}, "SSL"),
        ({"options": "-c no_such_setting=1"}, "no_such_setting"),
        ({"no_such_parameter": "1"}, "no_such_parameter"),
    ],
)
@pytest.mark.parametrize("pool", [True, pytest.param(False, marks=pytest.mark.thorough)])
def test_a_wrong_option_is_told_at_once(
    login: Login, agent: Agent, pool: bool, options: dict[str, str], told: str
) -> None:
    with pytest.raises(Error, match=told):
        _with_django(login, pool=pool, **options)
    assert agent.attempts <= 3


def test_a_server_without_tls_is_told_at_once_with_asyncpg(login: Any, agent: Agent) -> None:
    client = make_client("async-plugin-asyncpg", login, {"connect_args": {"ssl": "require"}})
    try:
        with pytest.raises(ConnectionError, match="rejected SSL upgrade"):
            client.query("SELECT 1")
    finally:
        client.close()
    assert agent.attempts <= 3


def test_a_session_that_cannot_be_set_up_is_told_at_once(
    login: Login, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def set_up(_self: object, connection: Any) -> None:
        connection.execute("SELECT no_such_column")

    monkeypatch.setattr(DatabaseWrapper, "_configure_connection", set_up)
    with pytest.raises(Error, match="no_such_column"):
        _with_django(login, pool=True)
    assert agent.attempts <= 4  # the pool's threads were at it together


@pytest.fixture
def role(cluster: LocalCluster) -> Iterator[str]:
    name = f"role_{uuid.uuid4().hex}"
    _as_superuser(cluster, f"CREATE ROLE {name} LOGIN PASSWORD 'first'")
    yield name
    _as_superuser(cluster, f"DROP ROLE {name}")


def _as_superuser(cluster: LocalCluster, statement: str) -> list[Any]:
    with psycopg.connect(cluster.conninfo(), autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def _end_sessions(cluster: LocalCluster, role: str) -> None:
    _as_superuser(cluster, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'")
    left = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}'"
    eventually(lambda: _as_superuser(cluster, left) == [(0,)], "sessions to end")


def test_a_pool_whose_password_was_changed_tells_it_and_works_again_when_that_is_mended(
    cluster: LocalCluster, login: Login, role: str, agent: Agent
) -> None:
    mine: Any = dataclasses.replace(login, user=role, password="first")
    with project(mine, OPTIONS={"pool": {"min_size": 2, "max_size": 2}}) as aliases:
        wrapper = aliases["default"]
        wrapper.ensure_connection()
        wrapper.close()
        _as_superuser(cluster, f"ALTER ROLE {role} PASSWORD 'second'")
        _end_sessions(cluster, role)
        for _ in range(2):  # of the pool that there was, and of the next one
            with pytest.raises(OperationalError, match="password authentication failed"):
                wrapper.ensure_connection()
        before = agent.attempts
        time.sleep(1.5)  # psycopg's pool would try again after a second
        assert agent.attempts == before
        _as_superuser(cluster, f"ALTER ROLE {role} PASSWORD 'first'")
        wrapper.ensure_connection()


def test_who_waits_for_a_pool_that_still_has_connections_goes_on_waiting(
    cluster: LocalCluster, login: Login, role: str
) -> None:
    """A new connection is refused, but one that is there comes back."""
    mine: Any = dataclasses.replace(login, user=role, password="first")
    with project(mine, OPTIONS={"pool": {"min_size": 2, "max_size": 3}}) as aliases:
        pool = aliases["default"].pool
        assert pool is not None
        pool.wait()
        taken = [pool.getconn(), pool.getconn()]
        assert pool.get_stats()["pool_size"] == 2
        _as_superuser(cluster, f"ALTER ROLE {role} PASSWORD 'second'")
        got: list[Any] = []
        waiting = threading.Thread(target=lambda: got.append(pool.getconn(30)))
        waiting.start()
        eventually(lambda: pool.get_stats().get("connections_errors"), "a refusal")
        pool.putconn(taken[0])
        waiting.join()
        assert got == taken[:1]
        for connection in taken:
            pool.putconn(connection)
