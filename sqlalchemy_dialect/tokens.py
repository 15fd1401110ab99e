"""Causal tokens on SQLAlchemy's connections, threads and event loops alike."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import DBAPIError

from patroni_db.causal import Standing
from patroni_db.causal_reads import capture, capture_async, has_caught_up, has_caught_up_async
from sqlalchemy_dialect.events import events_of
from sqlalchemy_dialect.marks import mark_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from patroni_db.causal import CausalToken

__all__ = ["standing_on", "token_after_commit"]

logger = logging.getLogger("patroni_db.sqlalchemy")

# In the record's ``info``, which SQLAlchemy clears when the connection is replaced: what it is known to show.
_SHOWN: Final = "patroni_db_shown"


def standing_on(connection: Connection, token: CausalToken) -> Standing:
    """Return whether the server behind `connection`, which is in no transaction, shows what `token` stands for.

    It is asked once for each connection and token, and waited for up to ``patroni_causal_wait``. A server that cannot
    be asked counts as one that is behind.
    """
    events, mark = events_of(connection.engine), mark_of(connection.connection)
    if events is None or mark is None:
        return Standing.BEHIND
    shown: CausalToken | None = connection.info.get(_SHOWN)
    if shown is not None and token.later(shown) == shown:
        return Standing.REACHED  # a replica never goes back
    discovery, wait = events.discovery, events.config.causal_wait

    async def ask(driver_connection: Any) -> Standing:
        return await has_caught_up_async(discovery, driver_connection, mark.stamp, token, wait)

    try:
        standing: Standing = _on_driver(
            connection, lambda driver: has_caught_up(discovery, driver, mark.stamp, token, wait), ask
        )
    except _errors(connection) as exc:
        logger.warning("reading from the primary: %s could not be asked: %s", mark.stamp.member, str(exc))
        connection.invalidate(exc)
        discovery.invalidate(mark.stamp.member, mark.stamp.address)
        return Standing.BEHIND
    if standing is Standing.REACHED:
        connection.info[_SHOWN] = token
    return standing


def token_after_commit(connection: Connection) -> CausalToken | None:
    """Return a token for what was just committed on `connection`; None when no primary answers.

    If this one was lost in that moment, the next primary is waited for: what it has is in its history.
    """
    for connects in (False, True):
        try:
            token: CausalToken = _on_driver(connection, capture, capture_async)
        except _errors(connection) as exc:
            if connects:
                logger.warning(
                    "other sessions and later requests may not see yet what was committed, where a replica answers "
                    "that is behind: no causal token could be had for it: %s",
                    str(exc),
                )
            if not connection.invalidated:
                connection.invalidate(exc)  # has it connect anew
        else:
            return token
    return None


def _on_driver(connection: Connection, fn: Callable[[Any], Any], fn_async: Callable[[Any], Any]) -> Any:
    """Return what `fn`, or on an event loop `fn_async`, returns for the driver's own connection."""
    proxied: Any = connection.connection
    try:
        if connection.dialect.is_async:
            return proxied.dbapi_connection.run_async(fn_async)
        return fn(proxied.driver_connection)
    except _errors(connection):
        raise
    except BaseException:
        connection.invalidate()  # interrupted or cancelled: nobody knows what arrives on it next
        raise


def _errors(connection: Connection) -> tuple[type[Exception], ...]:
    """Return what a driver may raise; with asyncpg it is its own errors that come through here."""
    dbapi: Any = connection.dialect.loaded_dbapi
    errors: tuple[type[Exception], ...] = (DBAPIError, dbapi.Error, OSError)
    if connection.dialect.driver != "asyncpg":
        return errors
    import asyncpg  # noqa: PLC0415 - its engine has loaded it

    # A session that the server ended while it was idle is told from a wrong use of asyncpg by nothing.
    return (*errors, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
