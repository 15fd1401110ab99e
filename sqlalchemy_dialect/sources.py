"""What ``run_transaction`` is given to make its connections from: engines and sessionmakers, checked."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from sqlalchemy_dialect.events import PatroniEvents, events_of
from sqlalchemy_dialect.session import RoutingSession

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Source", "asynchronous_source", "synchronous_source"]

_AUTOCOMMIT: Final = "AUTOCOMMIT"
_OWN: Final = (Connection, AsyncConnection, Session, AsyncSession, scoped_session)


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """Where the attempts get their connections or sessions.

    :param open: returns a new one, as a context manager that closes it
    :param events: of the engine behind it
    """

    open: Callable[[], Any]
    events: PatroniEvents


def synchronous_source(given: Any, isolation_level: str | None) -> Source:
    """Return what an engine or a sessionmaker leads to.

    :raises ArgumentError: it is neither, or does not lead to one cluster
    """
    if isinstance(given, (AsyncEngine, async_sessionmaker)):
        raise ArgumentError(f"run_transaction() is for threads: await run_transaction_async() for {_kind(given)}")
    if isinstance(given, Engine):
        return _source(given.connect, given, isolation_level)
    if not isinstance(given, sessionmaker):
        raise ArgumentError(_expected(given, "an Engine or a sessionmaker"))
    with given() as session:
        return _source(given, _engine_of(given, session), isolation_level)


def asynchronous_source(given: Any, isolation_level: str | None) -> Source:
    """Return what an asynchronous engine or sessionmaker leads to.

    :raises ArgumentError: it is neither, or does not lead to one cluster
    """
    if isinstance(given, (Engine, sessionmaker)):
        raise ArgumentError(f"run_transaction_async() is for coroutines: call run_transaction() for {_kind(given)}")
    if isinstance(given, AsyncEngine):
        return _source(given.connect, given.sync_engine, isolation_level)
    if not isinstance(given, async_sessionmaker):
        raise ArgumentError(_expected(given, "an AsyncEngine or an async_sessionmaker"))
    # Nothing is connected yet: there is nothing to close.
    return _source(given, _engine_of(given, given().sync_session), isolation_level)


def _source(make: Callable[[], Any], engine: Engine, isolation_level: str | None) -> Source:
    events = events_of(engine)
    if events is None:
        raise ArgumentError(
            f"{engine!r} is not on a Patroni cluster: use postgresql+patroni://, ?plugin=patroni or "
            "PatroniCreator.attach(engine)"
        )
    if isolation_level is not None and isolation_level.replace("_", " ").upper() == _AUTOCOMMIT:
        raise ArgumentError("there is no transaction in isolation level AUTOCOMMIT")
    return Source(make, events)


def _engine_of(given: Any, session: Session) -> Engine:
    own = type(session).get_bind
    if given.kw.get("binds") or own not in {Session.get_bind, RoutingSession.get_bind}:
        raise ArgumentError(f"run_transaction() needs one engine for the transaction, and {_kind(given)} has several")
    if session.twophase:
        raise ArgumentError("run_transaction() does not commit in two phases: what it is for needs one COMMIT")
    bind = session.bind
    if bind is None:
        raise ArgumentError(f"{_kind(given)} has no engine: run_transaction() needs {_kind(given)}(bind=engine)")
    if not isinstance(bind, Engine):
        raise ArgumentError(_expected(bind, f"{_kind(given)} on an engine"))
    return bind


def _kind(given: object) -> str:
    kind = type(given).__name__
    return f"an {kind}" if kind[0].lower() in "aeiou" else f"a {kind}"


def _expected(given: object, expected: str) -> str:
    problem = f"run_transaction() takes {expected}, not {_kind(given)}"
    if isinstance(given, _OWN):
        problem += ": it must own the whole transaction, and makes a connection or session for each attempt"
    return problem
