"""Settings of engines: where they may stand, what is wrong with them, and that no secret is shown. Without a server."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import psycopg2
import pytest
from sqlalchemy import NullPool, QueuePool, StaticPool, create_engine
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import create_async_engine

from patroni_db import PatroniConfig
from patroni_db.acquisition import Attempt
from patroni_db.addresses import Address
from patroni_db.connections import Stamp
from patroni_db.faults import Fault
from patroni_db.selection import Target
from sqlalchemy_dialect import (
    PatroniAsyncQueuePool,
    PatroniCreator,
    PatroniDialect,
    PatroniDialectAsync,
    PatroniQueuePool,
)
from sqlalchemy_dialect.connecting import attempt_arguments
from sqlalchemy_dialect.events import events_of
from sqlalchemy_dialect.reactions import condemns

API = "http://127.0.0.1:1"
DIALECT = f"postgresql+patroni://app:hush@/app?patroni_urls={API}"
PLUGIN = f"postgresql+psycopg://app:hush@/app?plugin=patroni&patroni_urls={API}"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATRONI_API_URL", raising=False)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("patroni_target=master", "patroni_target"),
        ("patroni_nonsense=1", "patroni_nonsense"),
        ("patroni_max_lag=16MB", "patroni_max_lag"),
        ("patroni_failover_timeout=soon", "patroni_failover_timeout"),
        ("patroni_password=x", "patroni_password"),
        ("host=db1", "host"),
        ("host=db1:5432&host=db2:5432", "host"),
        ("target_session_attrs=read-write", "target_session_attrs"),
    ],
)
@pytest.mark.parametrize("url", [DIALECT, PLUGIN], ids=["dialect", "plugin"])
def test_a_wrong_setting_is_named_when_the_engine_is_created(url: str, query: str, named: str) -> None:
    with pytest.raises(ArgumentError, match=named) as raised:
        create_engine(f"{url}&{query}")
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize("where", ["db1", "db1:5432", ":5432", "hush", "hush@"])
@pytest.mark.parametrize("url", [DIALECT, PLUGIN], ids=["dialect", "plugin"])
def test_a_server_in_the_url_contradicts_discovery(url: str, where: str) -> None:
    with pytest.raises(ArgumentError, match="host or port") as raised:
        create_engine(url.replace("@/", f"@{where}/"))
    assert "hush" not in str(raised.value), "a password with an @ in it"


@pytest.mark.parametrize("url", [DIALECT, PLUGIN], ids=["dialect", "plugin"])
@pytest.mark.parametrize(
    ("query", "meant"),
    [("patroni_url=http://pg1:8008", "patroni_urls"), ("patroni-target=any", "patroni_target")],
)
def test_a_misspelled_setting_is_told_what_was_meant(url: str, query: str, meant: str) -> None:
    with pytest.raises(ArgumentError, match=f"did you mean {meant}"):
        create_engine(f"{url}&{query}")


@pytest.mark.parametrize("url", [DIALECT, PLUGIN], ids=["dialect", "plugin"])
@pytest.mark.parametrize("setting", ["patroni_urls", "patroni_etcd", "patroni_fallback_hosts", "patroni_allowed_hosts"])
def test_credentials_in_a_setting_are_not_shown(url: str, setting: str) -> None:
    bare = url.replace(f"patroni_urls={API}", "")
    others = "" if setting == "patroni_urls" else f"&patroni_urls={API}"
    with pytest.raises(ArgumentError, match=setting) as raised:
        create_engine(f"{bare}&{setting}=http:/app:whisper@pg1:8008{others}")
    assert "whisper" not in str(raised.value)


def test_a_member_with_several_hosts_is_named_as_each_driver_wants_it() -> None:
    attempt = Attempt(Stamp("n1", Address("10.0.0.1,pg1", 5432), 0), 2.0, 2.0)
    named = {driver: attempt_arguments(driver, {}, attempt) for driver in ("psycopg", "psycopg2", "asyncpg")}
    assert {driver: arguments["host"] for driver, arguments in named.items()} == {
        "psycopg": "10.0.0.1,pg1",
        "psycopg2": "10.0.0.1,pg1",
        "asyncpg": ["10.0.0.1", "pg1"],
    }


@pytest.mark.parametrize("url", [DIALECT, PLUGIN], ids=["dialect", "plugin"])
def test_urls_are_required_and_may_come_from_the_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = url.replace(f"patroni_urls={API}", "")
    with pytest.raises(ArgumentError, match="patroni_urls"):
        create_engine(bare)
    monkeypatch.setenv("PATRONI_API_URL", API)
    create_engine(bare)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///x?plugin=patroni",
        "postgresql+pg8000://app@/app?plugin=patroni",
        f"{DIALECT}&plugin=patroni",
    ],
)
def test_the_plugin_refuses_what_it_cannot_route(url: str) -> None:
    with pytest.raises(ArgumentError, match="plugin=patroni"):
        create_engine(url)


@pytest.mark.parametrize(
    ("option", "value"), [("creator", psycopg.connect), ("pool", object()), ("connect_args", {"port": 1})]
)
def test_the_plugin_refuses_options_that_would_bypass_it(option: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match="port" if option == "connect_args" else option):
        create_engine(PLUGIN, **{option: value})


def test_connect_args_cannot_name_a_server() -> None:
    engine = create_engine(DIALECT, connect_args={"host": "db1"})
    with pytest.raises(ArgumentError, match="host"):
        engine.connect()


def test_a_config_object_takes_the_place_of_the_urls_query() -> None:
    config = PatroniConfig(urls=API, target="replica", failover_timeout=5)
    for url, options in (
        ("postgresql+patroni://app@/app", {}),
        ("postgresql+psycopg2://app@/app", {"plugins": ["patroni"]}),
    ):
        engine = create_engine(url, patroni=config, **options)
        assert engine.pool._timeout == 35  # type: ignore[attr-defined]  # the queue pool's
    with pytest.raises(ArgumentError, match="patroni_urls"):
        create_engine(DIALECT, patroni=config)
    with pytest.raises(ArgumentError, match="PatroniConfig"):
        create_engine("postgresql+patroni://app@/app", patroni={"urls": API})


def test_a_creator_names_no_server() -> None:
    config = PatroniConfig(urls=API)
    with pytest.raises(ArgumentError, match="host"):
        PatroniCreator(config, dbname="app", host="db1")
    with pytest.raises(ArgumentError, match="PatroniConfig"):
        PatroniCreator({"urls": API})  # type: ignore[arg-type]  # the mistake under test
    assert "hush" not in repr(PatroniCreator(config, dbname="app", password="hush"))


@pytest.mark.parametrize("url", [DIALECT, PLUGIN], ids=["dialect", "plugin"])
def test_no_password_is_shown(url: str) -> None:
    secrets = "patroni_password=whisper&patroni_etcd_password=whisper"
    engine = create_engine(f"{url}&patroni_user=monitor&patroni_etcd=http://etcd1&patroni_etcd_user=app&{secrets}")
    shown = f"{engine!r} {engine.url!r} {engine.url} {engine.dialect!r}"
    assert "hush" not in shown
    assert "whisper" not in shown


def test_creating_an_engine_connects_to_nothing() -> None:
    before = set(threading.enumerate())  # one of an earlier test may end meanwhile
    create_engine(DIALECT)
    create_engine(PLUGIN)
    create_async_engine(DIALECT)
    assert set(threading.enumerate()) <= before


def test_the_dialect_is_sqlalchemys_for_psycopg() -> None:
    engine, async_engine = create_engine(DIALECT), create_async_engine(DIALECT)
    assert type(engine.dialect) is PatroniDialect
    assert type(async_engine.dialect) is PatroniDialectAsync
    assert type(create_async_engine(DIALECT.replace("+patroni", "+patroni_async")).dialect) is PatroniDialectAsync
    for dialect in (engine.dialect, async_engine.dialect):
        assert (dialect.name, dialect.driver) == ("postgresql", "psycopg")
        assert "supports_statement_cache" in vars(type(dialect))
        assert dialect.supports_statement_cache


def test_waiting_for_a_place_in_the_pool_outlasts_a_failover() -> None:
    def timeout_of(url: str, **options: Any) -> Any:
        return create_engine(url, **options).pool._timeout  # type: ignore[attr-defined]  # the queue pool's

    for url in (DIALECT, PLUGIN):
        assert timeout_of(url) == 90
        assert timeout_of(f"{url}&patroni_failover_timeout=5") == 35
        assert timeout_of(url, pool_timeout=7) == 7
    pool = create_engine(DIALECT).pool
    assert type(pool) is PatroniQueuePool
    assert pool.recreate()._timeout == 90
    assert type(create_async_engine(DIALECT).pool) is PatroniAsyncQueuePool


@pytest.mark.parametrize("poolclass", [NullPool, QueuePool, StaticPool])
@pytest.mark.parametrize("url", [DIALECT, PLUGIN], ids=["dialect", "plugin"])
def test_the_application_may_choose_the_pool(url: str, poolclass: Any) -> None:
    assert type(create_engine(url, poolclass=poolclass).pool) is poolclass


@pytest.mark.parametrize("module", [psycopg, psycopg2], ids=lambda module: module.__name__)
def test_the_deadline_is_reported_as_the_drivers_operational_error(module: Any) -> None:
    creator = PatroniCreator(PatroniConfig(urls=API, failover_timeout=0.2), module=module, dbname="app")
    with pytest.raises(module.OperationalError, match="patroni_failover_timeout"):
        creator()


@pytest.mark.parametrize(
    ("fault", "target", "in_hot_standby", "expected"),
    [
        (Fault.UNAVAILABLE, Target.PRIMARY, None, True),
        (Fault.UNAVAILABLE, Target.REPLICA, "on", True),
        (Fault.NOT_WRITABLE, Target.PRIMARY, "on", True),
        (Fault.NOT_WRITABLE, Target.PRIMARY, None, True),
        (Fault.NOT_WRITABLE, Target.PRIMARY, "off", False),  # the transaction was declared READ ONLY
        (Fault.NOT_WRITABLE, Target.REPLICA, "on", False),
        (Fault.NOT_WRITABLE, Target.PRIMARY_PREFERRED, "on", False),
        (Fault.TRANSIENT, Target.PRIMARY, "off", False),
        (Fault.OTHER, Target.PRIMARY, "off", False),
    ],
)
def test_which_errors_condemn_a_connection(
    fault: Fault, target: Target, in_hot_standby: str | None, expected: bool
) -> None:
    assert condemns(fault, target, in_hot_standby) is expected


# -- Tools that connect by themselves ----------------------------------------------------------------------------

DRIVERS = ["psycopg", "psycopg_async", "psycopg2", "asyncpg"]


def arguments_of(url: str) -> dict[str, Any]:
    create: Any = create_async_engine if "asyncpg" in url or "_async" in url else create_engine
    engine = create(url)
    asked = [engine.dialect.create_connect_args(engine.url) for _ in range(3)]
    assert asked[0][1].keys() == asked[1][1].keys() == asked[2][1].keys()
    cparams = asked[0][1]
    assert (cparams["user"], cparams["password"]) == ("app", "hush")
    assert not [name for name in cparams if name.startswith("patroni")]
    return dict(cparams)


@pytest.mark.parametrize("driver", [*DRIVERS, "patroni", "patroni_async"])
def test_a_tool_is_given_servers_and_the_role_to_prove(driver: str) -> None:
    plugin = "" if driver.startswith("patroni") else "plugin=patroni&"
    settings = f"patroni_urls={API}&patroni_fallback_hosts=db1:6000,db2:5432"
    given = arguments_of(f"postgresql+{driver}://app:hush@/app?{plugin}{settings}")
    assert given["target_session_attrs"] == "read-write"
    if driver == "asyncpg":
        assert (given["host"], given["port"]) == (["db1", "db2"], [6000, 5432])
    else:
        assert (given["host"], given["port"]) == ("db1,db2", "6000,5432")


@pytest.mark.parametrize("url", [DIALECT, PLUGIN], ids=["dialect", "plugin"])
def test_a_tool_is_not_sent_to_the_local_host(url: str) -> None:
    given = arguments_of(url)
    assert given["host"] == "no-patroni-api-has-answered.invalid"


def test_a_password_of_the_api_is_no_reason_to_refuse() -> None:
    given = arguments_of(f"{DIALECT}&patroni_user=me&patroni_password=x")
    assert "x" not in given.values()


@pytest.mark.parametrize("driver", ["", *DRIVERS])
def test_the_plugin_leaves_the_urls_driver_as_it_was(driver: str) -> None:
    drivername = f"postgresql+{driver}" if driver else "postgresql"
    create: Any = create_async_engine if driver in {"asyncpg", "psycopg_async"} else create_engine
    engine = create(f"{drivername}://app:hush@/app?plugin=patroni&patroni_urls={API}")
    assert engine.url.drivername == drivername
    assert engine.dialect.driver == (driver.removesuffix("_async") or engine.url.get_driver_name())


@pytest.mark.parametrize("url", [DIALECT, PLUGIN], ids=["dialect", "plugin"])
def test_an_engines_execution_options_are_the_applications_own(url: str) -> None:
    engine = create_engine(url, execution_options={"own": 1})
    assert engine.get_execution_options() == {"own": 1}
    assert events_of(engine.execution_options(other=2)) is events_of(engine) is not None
    assert events_of(create_engine("postgresql+psycopg://")) is None
