"""The engine without a server: settings, parameters, and being mixed into other backends."""

from __future__ import annotations

import http.server
import threading
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError
from django.db.backends import utils
from django.db.backends.postgresql import base, creation, operations
from django.db.models.sql.compiler import SQLCompiler, SQLInsertCompiler
from django.db.utils import load_backend

from django_backend.base import DatabaseWrapper
from django_backend.client import PatroniClientMixin
from django_backend.clusters import release
from django_backend.creation import PatroniCreationMixin
from django_backend.mixin import PatroniMixin
from django_backend.operations import PatroniOperationsMixin
from django_backend.pool import Source
from patroni_db.config import PatroniConfig
from patroni_db.errors import DiscoveryError
from tests.django.backends import entry


def wrapper(cls: type[PatroniMixin] = DatabaseWrapper, **changes: Any) -> PatroniMixin:
    return cls(entry(**changes), "scratch")


@pytest.fixture(autouse=True)
def free(django_db_blocker: Any) -> Any:
    """Let tests connect, as far as they get: pytest-django forbids it without a mark."""
    with django_db_blocker.unblock():
        yield
    release()


def test_it_is_a_postgresql_backend() -> None:
    assert load_backend("django_backend").DatabaseWrapper is DatabaseWrapper
    assert wrapper().vendor == "postgresql"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"OPTIONS": {"patroni_target": "leader"}}, "patroni_target"),
        ({"OPTIONS": {"patroni_nonsense": "1"}}, "patroni_nonsense"),
        ({"OPTIONS": {"hostaddr": "10.0.0.1"}}, "hostaddr"),
        ({"OPTIONS": {"pool": True}, "CONN_MAX_AGE": 1}, "persistent"),
        ({"OPTIONS": {"pool": {"no_such_option": 1}}}, "no_such_option"),
        ({"OPTIONS": {"pool": {"kwargs": {}}}}, "kwargs"),
    ],
)
def test_a_wrong_setting_is_an_error_before_any_connection(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=told):
        wrapper(**changes).ensure_connection()


def test_without_a_cluster_the_error_is_djangos_and_tells_why() -> None:
    unreachable = wrapper(OPTIONS={"patroni_failover_timeout": 0})
    with pytest.raises(OperationalError, match=r"127\.0\.0\.1:9") as caught:
        unreachable.ensure_connection()
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    assert caught.value.__cause__.__cause__ is not None


class NotPatroni(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_arguments: Any) -> None:
        """Print nothing."""


def test_a_server_that_is_not_patroni_is_not_waited_for() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), NotPatroni) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            with pytest.raises(OperationalError, match=url) as caught:
                wrapper(OPTIONS={"patroni_urls": [url]}).ensure_connection()
        finally:
            server.shutdown()
            thread.join()
    cause = caught.value.__cause__
    assert cause is not None
    assert isinstance(cause.__cause__, DiscoveryError)


def test_the_driver_gets_its_own_options() -> None:
    params = wrapper(
        HOST="ignored", PORT="1", USER="me", OPTIONS={"sslmode": "require", "keepalives_idle": 60, "patroni_timeout": 1}
    ).get_connection_params()
    assert not [name for name in params if name.startswith("patroni_")]
    assert (params["sslmode"], params["user"], params["dbname"]) == ("require", "me", "app")
    assert params["keepalives_idle"] == 60
    assert params["tcp_user_timeout"] > 0


def test_tools_that_connect_by_themselves_are_given_servers_and_nothing_changes_for_it() -> None:
    asked = wrapper(OPTIONS={"patroni_fallback_hosts": "db1:6000,db2:5432"})
    before = {**vars(asked), "timezone": asked.timezone}
    params = asked.get_connection_params()
    assert (params["host"], params["port"], params["target_session_attrs"]) == ("db1,db2", "6000,5432", "read-write")
    assert asked.get_connection_params() == params
    assert vars(asked) == before
    assert wrapper().get_connection_params()["host"] == "no-patroni-api-has-answered.invalid"


def test_our_own_connections_are_routed_whatever_tools_are_given() -> None:
    class Seeing(DatabaseWrapper):
        def get_connection_params(self) -> dict[str, Any]:
            params = super().get_connection_params()
            seen.append(params)
            return params

    seen: list[dict[str, Any]] = []
    for options in ({}, {"pool": True}):
        connecting = wrapper(Seeing, OPTIONS={"patroni_failover_timeout": 0, **options})
        with pytest.raises(OperationalError):
            connecting.ensure_connection()
        connecting.close_pool()
    assert len(seen) >= 2
    assert not [name for params in seen for name in ("host", "port", "target_session_attrs") if name in params]


def test_a_projects_execute_wrappers_are_its_own() -> None:
    plain = wrapper()
    assert plain.execute_wrappers == []
    for make, name in ((plain.make_cursor, "CursorWrapper"), (plain.make_debug_cursor, "CursorDebugWrapper")):
        cursor = make(None)
        assert isinstance(cursor, getattr(utils, name))
        assert cursor.db is plain


def test_the_pool_asks_each_connection_where_health_checks_are_wanted() -> None:
    def custom(connection: object) -> None:
        pass

    for options, wanted, asks in (({}, False, False), ({}, True, True), ({"check": custom}, False, True)):
        pooled = wrapper(OPTIONS={"pool": {"min_size": 0, "max_size": 2, **options}}, CONN_HEALTH_CHECKS=wanted)
        pool: Any = pooled.pool
        try:
            assert (pool._check is not None) is asks
        finally:
            pooled.close_pool()


class Compiler(SQLCompiler):
    pass


class Operations(operations.DatabaseOperations):
    """Has a compiler of its own, as Django's backend for MySQL has."""

    def compiler(self, compiler_name: str) -> type[Any]:
        return Compiler if compiler_name == "SQLCompiler" else super().compiler(compiler_name)


class Creation(creation.DatabaseCreation):
    def sql_table_creation_suffix(self) -> str:
        return "WITH theirs"


class Theirs(base.DatabaseWrapper):
    """Stands for PostGIS's backend: a subclass with parts of its own that also touches every new connection."""

    ops_class = Operations
    creation_class = Creation
    seen: list[Any]

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        self.seen.append((conn_params["host"], conn_params["port"]))
        connection = super().get_new_connection(conn_params)
        with connection.transaction():
            connection.execute("SELECT 1")
        return connection


class Mixed(PatroniMixin, Theirs):
    pass


def test_another_backend_keeps_its_parts() -> None:
    mixed = wrapper(Mixed)
    assert isinstance(mixed.ops, Operations)
    assert isinstance(mixed.ops, PatroniOperationsMixin)
    assert issubclass(mixed.ops.compiler("SQLCompiler"), Compiler)
    assert issubclass(mixed.ops.compiler("SQLInsertCompiler"), SQLInsertCompiler)
    assert isinstance(mixed.creation, Creation)
    assert isinstance(mixed.creation, PatroniCreationMixin)
    assert isinstance(mixed.client, PatroniClientMixin)
    assert mixed.creation.sql_table_creation_suffix() == "WITH theirs"
    assert Theirs.creation_class is Creation


def test_another_backend_follows_the_cluster(patroni_cluster: Any) -> None:
    cluster = patroni_cluster
    mixed: Any = wrapper(
        Mixed,
        NAME=cluster.dbname,
        USER=cluster.user,
        PASSWORD=cluster.password,
        OPTIONS={"patroni_urls": list(cluster.urls)},
    )
    mixed.seen = []
    try:
        with mixed.cursor() as cursor:
            cursor.execute("SELECT pg_is_in_recovery()")
            assert cursor.fetchone() == (False,)
    finally:
        mixed.close()
    assert mixed.seen[-1] == (cluster.node(cluster.leader).host, cluster.node(cluster.leader).port)


def test_the_postgis_backend_can_be_mixed_in() -> None:
    try:
        from django.contrib.gis.db.backends.postgis import base as postgis
    except ImproperlyConfigured as exc:
        pytest.skip(f"PostGIS's backend cannot be imported: {str(exc).partition('(')[0].strip()}")

    class Gis(PatroniMixin, postgis.DatabaseWrapper):
        pass

    made = wrapper(Gis)
    assert type(made.ops).__name__ == "PostGISOperations"
    assert isinstance(made.creation, PatroniCreationMixin)


def test_a_copy_is_of_the_same_engine_and_goes_its_own_way() -> None:
    original = wrapper()
    copied = original.copy("other")
    copied.settings_dict["OPTIONS"]["patroni_target"] = "replica"
    assert type(copied) is type(original)
    assert original.patroni_config.target == "primary"
    assert copied.patroni_config.target == "replica"


@pytest.mark.parametrize(
    ("attempt", "look", "primary", "target", "told"),
    [
        ("refused", "no answer", None, "primary", "refused"),
        (None, "no answer", "n1", "primary", "no answer"),
        (None, None, None, "primary", "the cluster has no primary"),
        (None, None, "n1", "primary", None),
        (None, None, None, "replica", None),
    ],
)
def test_a_pool_knows_why_it_has_no_connection_while_its_attempts_are_under_way(
    attempt: str | None, look: str | None, primary: str | None, target: Any, told: str | None
) -> None:
    discovery: Any = SimpleNamespace(
        failure=look and DiscoveryError("http://pg1:8008", look), snapshot=SimpleNamespace(primary=primary)
    )
    source = Source(discovery, PatroniConfig(urls="http://pg1:8008", target=target))
    source.failure = psycopg.OperationalError(attempt) if attempt else None
    why = source.why_none()
    assert why is None if told is None else told in str(why)
