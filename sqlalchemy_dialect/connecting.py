"""How each driver is told which server to connect to, and how long that may take. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from patroni_db.libpq import attempt_params, with_defaults

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from patroni_db.acquisition import Attempt

__all__ = ["ASYNC_CREATOR", "DRIVERS", "async_connect_of", "attempt_arguments"]

# SQLAlchemy's asynchronous dialects take the coroutine function that makes a driver's connection under this name.
ASYNC_CREATOR: Final = "async_creator_fn"


def _libpq(params: Mapping[str, Any], attempt: Attempt) -> dict[str, Any]:
    return attempt_params(with_defaults(params), attempt)


def _asyncpg(params: Mapping[str, Any], attempt: Attempt) -> dict[str, Any]:
    return {"timeout": attempt.timeout, **params, "host": attempt.address.host, "port": attempt.address.port}


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


def async_connect_of(driver: str) -> Callable[..., Awaitable[Any]]:
    """Return the coroutine function with which `driver` connects."""
    if driver == "asyncpg":
        import asyncpg  # noqa: PLC0415 - one driver is installed, not necessarily both

        return asyncpg.connect
    import psycopg  # noqa: PLC0415

    return psycopg.AsyncConnection.connect
