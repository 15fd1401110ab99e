"""How each driver is told which server to connect to, and how long that may take."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final, cast

from patroni_db.libpq import attempt_params, hosts_and_ports, session_attrs, with_defaults
from patroni_db.outside import outside_addresses, outside_params
from sqlalchemy_dialect.watched import watched_class, watches

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from patroni_db.acquisition import Attempt
    from patroni_db.config import PatroniConfig
    from patroni_db.discovery import Discovery

__all__ = ["ASYNC_CREATOR", "DRIVERS", "async_connect_of", "attempt_arguments", "connect_of", "server_arguments"]

# SQLAlchemy's asynchronous dialects take the coroutine function that makes a driver's connection under this name.
ASYNC_CREATOR: Final = "async_creator_fn"


def _libpq(params: Mapping[str, Any], attempt: Attempt) -> dict[str, Any]:
    return attempt_params(with_defaults(params), attempt)


def _asyncpg(params: Mapping[str, Any], attempt: Attempt) -> dict[str, Any]:
    address = attempt.address
    host = address.host if len(address.hosts) == 1 else list(address.hosts)  # asyncpg takes no commas
    return {"timeout": attempt.timeout, **params, "host": host, "port": address.port}


_ARGUMENTS: Final[Mapping[str, Callable[[Mapping[str, Any], Attempt], dict[str, Any]]]] = {
    "psycopg": _libpq,
    "psycopg2": _libpq,
    "asyncpg": _asyncpg,
}

DRIVERS: Final = tuple(_ARGUMENTS)


def attempt_arguments(driver: str, params: Mapping[str, Any], attempt: Attempt) -> dict[str, Any]:
    """Return the keyword arguments with which `driver` makes the attempt.

    :param driver: a dialect's ``driver``: one of :data:`DRIVERS`
    :param params: what the user gave
    """
    return _ARGUMENTS[driver](params, attempt)


def server_arguments(driver: str, discovery: Discovery, config: PatroniConfig) -> dict[str, Any]:
    """Return the keyword arguments that name the servers to a tool that connects by itself with `driver`."""
    if driver != "asyncpg":
        return outside_params(discovery, config)
    hosts, ports = zip(*hosts_and_ports(outside_addresses(discovery, config)), strict=True)
    attrs = session_attrs(config.target)
    return {"host": list(hosts), "port": list(ports), **({"target_session_attrs": attrs} if attrs else {})}


def connect_of(dbapi: Any) -> Callable[..., Any]:
    """Return the function with which connections are made for a synchronous dialect.

    :param dbapi: the dialect's DB-API module: the driver, or what the application gave in its place
    """
    return _watching(dbapi.connect)


def async_connect_of(dbapi: Any, driver: str) -> Callable[..., Awaitable[Any]]:
    """Return the coroutine function with which connections are made for an asynchronous dialect.

    :param dbapi: the dialect's DB-API module, which adapts the driver's
    :param driver: the dialect's ``driver``
    """
    module = getattr(dbapi, driver, None) or importlib.import_module(driver)
    return _watching(module.connect if driver == "asyncpg" else module.AsyncConnection.connect)


def _watching(connect: Callable[..., Any]) -> Callable[..., Any]:
    """Return what makes the same connections as a driver's own `connect`, only watched; any other `connect` as it is.

    What a monitoring agent or the application has put in the place of the driver's own is what is called.
    """
    if type(connect) is MethodType and watches(connect.__self__):  # psycopg's, of a connection class
        return MethodType(connect.__func__, watched_class(cast("type", connect.__self__)))
    if type(connect) is FunctionType and connect.__globals__.get("__name__") in _FACTORIES:
        return functools.partial(_with_factory, connect, *_FACTORIES[connect.__globals__["__name__"]])
    return connect


def _with_factory(connect: Callable[..., Any], keyword: str, base: str, *cargs: Any, **cparams: Any) -> Any:
    """Connect with a function that takes the connection's class under `keyword`; `base` is that by default."""
    factory = cparams.pop(keyword, None) or pkgutil.resolve_name(base)
    return connect(*cargs, **{keyword: watched_class(factory) if watches(factory) else factory}, **cparams)


# Where a driver's own function stands, the name under which it takes a connection class, and that by default.
_FACTORIES: Final = {
    "psycopg2": ("connection_factory", "psycopg2.extensions:connection"),
    "asyncpg.connection": ("connection_class", "asyncpg:Connection"),
}
