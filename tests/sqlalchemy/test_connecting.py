"""What SQLAlchemy would connect with is what connects, whoever put it there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psycopg
import psycopg2
import pytest
import wrapt
from sqlalchemy import Engine, create_engine

from sqlalchemy_dialect.connecting import async_connect_of, connect_of
from tests.agents import Proxy
from tests.sqlalchemy.clients import WHERE, ThreadClient, creator_engine, url_of

if TYPE_CHECKING:
    from patroni_db.cluster import LocalCluster


def test_the_drivers_own_connects_with_a_class_that_looks_before_commit() -> None:
    assert issubclass(connect_of(psycopg).__self__, psycopg.Connection)  # type: ignore[attr-defined]
    given = async_connect_of(SimpleNamespace(psycopg=psycopg), "psycopg")
    assert issubclass(given.__self__, psycopg.AsyncConnection)  # type: ignore[attr-defined]


def test_the_applications_class_is_kept() -> None:
    class Own(psycopg.Connection[Any]):
        pass

    assert issubclass(connect_of(SimpleNamespace(connect=Own.connect)).__self__, Own)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "connect",
    [
        lambda **_: None,
        wrapt.FunctionWrapper(psycopg.connect, lambda wrapped, _instance, args, kwargs: wrapped(*args, **kwargs)),
        wrapt.ObjectProxy(psycopg.connect),
    ],
)
def test_what_stands_in_the_drivers_place_is_called_itself(connect: Any) -> None:
    assert connect_of(SimpleNamespace(connect=connect)) is connect
    module = SimpleNamespace(AsyncConnection=SimpleNamespace(connect=connect), connect=connect)
    assert async_connect_of(SimpleNamespace(psycopg=module), "psycopg") is connect
    assert async_connect_of(SimpleNamespace(asyncpg=module), "asyncpg") is connect


class Module(Proxy):
    """A driver that notes where it connects to."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self._self_hosts: list[str] = []

    def connect(self, *args: Any, **kwargs: Any) -> Any:
        self._self_hosts.append(kwargs["host"])
        return self.__wrapped__.connect(*args, **kwargs)


def _with_dialect(cluster: LocalCluster, module: Any) -> Engine:
    return create_engine(url_of(cluster, "patroni"), module=module)


def _with_plugin(cluster: LocalCluster, module: Any) -> Engine:
    return create_engine(url_of(cluster, module.__name__), module=module)


def _with_creator(cluster: LocalCluster, module: Any) -> Engine:
    return creator_engine(cluster, module, {})


@pytest.mark.parametrize("make", [_with_dialect, _with_plugin, _with_creator])
@pytest.mark.parametrize("driver", [psycopg, psycopg2])
def test_a_driver_that_the_application_gives_makes_the_connections(
    patroni_cluster: LocalCluster, make: Any, driver: Any
) -> None:
    if make is _with_dialect and driver is psycopg2:
        pytest.skip("the dialect is psycopg's")
    module = Module(driver)
    engine = make(patroni_cluster, module)
    host = ThreadClient(engine).query(WHERE)
    engine.dispose()
    assert module._self_hosts == [host]


def test_a_function_put_in_the_place_of_the_drivers_makes_the_connections(
    patroni_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = []
    own = psycopg.connect

    def connect(*args: Any, **kwargs: Any) -> Any:
        hosts.append(kwargs["host"])
        return own(*args, **kwargs)

    engine = create_engine(url_of(patroni_cluster, "patroni"))
    monkeypatch.setattr(psycopg, "connect", connect)
    host = ThreadClient(engine).query(WHERE)
    engine.dispose()
    assert hosts == [host]
