"""How each driver is told which server to connect to, and how long that may take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from patroni_db.libpq import attempt_params, with_defaults
from sqlalchemy_dialect.watched import watched_class

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from patroni_db.acquisition import Attempt

__all__ = ["ASYNC_CREATOR", "DRIVERS", "async_connect_of", "attempt_arguments", "connect_of"]

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


def connect_of(driver: str) -> Callable[..., Any]:
    """Return the function with which the synchronous `driver` connects; its connections are watched."""
    if driver == "psycopg2":
        return _psycopg2_connect
    import psycopg  # noqa: PLC0415 - as below

    connect: Callable[..., Any] = watched_class(psycopg.Connection).connect  # type: ignore[attr-defined]  # psycopg's
    return connect


def async_connect_of(driver: str) -> Callable[..., Awaitable[Any]]:
    """Return the coroutine function with which `driver` connects; its connections are watched."""
    if driver == "asyncpg":
        return _asyncpg_connect
    import psycopg  # noqa: PLC0415 - one driver is installed, not necessarily all

    connect: Callable[..., Awaitable[Any]]
    connect = watched_class(psycopg.AsyncConnection).connect  # type: ignore[attr-defined]  # psycopg's
    return connect


def _psycopg2_connect(*cargs: Any, connection_factory: Any = None, **cparams: Any) -> Any:
    import psycopg2.extensions  # noqa: PLC0415 - as above

    factory = connection_factory or psycopg2.extensions.connection
    if isinstance(factory, type):
        factory = watched_class(factory)
    return psycopg2.connect(*cargs, connection_factory=factory, **cparams)


async def _asyncpg_connect(*cargs: Any, connection_class: Any = None, **cparams: Any) -> Any:
    import asyncpg  # noqa: PLC0415 - as above

    return await asyncpg.connect(
        *cargs, connection_class=watched_class(connection_class or asyncpg.Connection), **cparams
    )
