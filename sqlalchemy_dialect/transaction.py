"""Transactions that survive a failover: a callable, run in one again after faults that left nothing behind."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeVar, overload

from sqlalchemy import text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session

from patroni_db.time_limit import time_limit
from sqlalchemy_dialect.attempt import ATTEMPT, Attempt
from sqlalchemy_dialect.course import Course
from sqlalchemy_dialect.marker import insert_marker, renew_marker
from sqlalchemy_dialect.marks import mark_of
from sqlalchemy_dialect.sources import asynchronous_source, synchronous_source

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
    from sqlalchemy.orm import sessionmaker

__all__ = ["run_transaction", "run_transaction_async"]

T = TypeVar("T")
S = TypeVar("S", bound=Session)
A = TypeVar("A", bound="AsyncSession")


@overload
def run_transaction(
    source: Engine,
    fn: Callable[[Connection], T],
    *,
    exactly_once: bool = False,
    key: str | None = None,
    fingerprint: str | bytes | None = None,
    if_applied: Any = None,
    deadline: float | None = None,
    isolation_level: str | None = None,
) -> T: ...
@overload
def run_transaction(
    source: sessionmaker[S],
    fn: Callable[[S], T],
    *,
    exactly_once: bool = False,
    key: str | None = None,
    fingerprint: str | bytes | None = None,
    if_applied: Any = None,
    deadline: float | None = None,
    isolation_level: str | None = None,
) -> T: ...
def run_transaction(
    source: Engine | sessionmaker[Any],
    fn: Callable[[Any], Any],
    *,
    exactly_once: bool = False,
    key: str | None = None,
    fingerprint: str | bytes | None = None,
    if_applied: Any = None,
    deadline: float | None = None,
    isolation_level: str | None = None,
) -> Any:
    """Return what `fn` returns, run in a transaction of its own; after a fault that left nothing behind run it again.

    That is after a connection lost before COMMIT, a server that is read-only or going, a serialization failure, a
    deadlock. With `exactly_once` a COMMIT whose answer was lost is looked up by the transaction's marker, and `fn`
    runs again if it did not take effect. Nothing is repeated that may have been committed.

    `fn` is given a :class:`~sqlalchemy.engine.Connection` of the engine, or a new session of the sessionmaker, each
    time another one; both are closed afterwards. It neither commits nor rolls back; savepoints are its own. What it
    does elsewhere (mail, files, other databases) happens in each run.

    :param source: an engine on a cluster, or a sessionmaker on one
    :param fn: is given the connection or session
    :param exactly_once: find out what became of a COMMIT that was not answered; needs the table of
        :func:`~sqlalchemy_dialect.marker.commit_marker_table`
    :param key: of the work, at most 200 characters: it is done only once, whoever comes with the same key, until the
        markers are pruned. Implies `exactly_once`
    :param fingerprint: of the work that `key` stands for, such as the body of the request: where an earlier call with
        this key had another one, this call is refused. Needs `key`
    :param if_applied: returned, without running `fn`, when `key` has been applied by an earlier call
    :param deadline: seconds for everything together; by default ``patroni_failover_timeout``. Waiting for a server
        ends then, and no other attempt begins; waiting for a place in a pool ends with ``pool_timeout``
    :param isolation_level: of this transaction, as ``execution_options`` takes it
    :raises ArgumentError: `source`, `key` or `isolation_level` cannot be used
    :raises KeyReusedError: the key has been applied by work with another fingerprint
    :raises InvalidRequestError: `fn` has ended the transaction by itself
    :raises CommitOutcomeUnknown: the transaction may have been committed
    :raises Exception: whatever `fn` raises, and SQLAlchemy's own error of the last run, with a note of how often it ran
    """
    origin = synchronous_source(source, isolation_level)
    course: Course[Any] = Course(
        origin.events,
        exactly_once=exactly_once,
        key=key,
        fingerprint=fingerprint,
        if_applied=if_applied,
        deadline=deadline,
    )
    while True:
        attempt = course.next_attempt()
        try:
            with time_limit(course.remaining), origin.open() as subject:
                try:
                    applied = _begin(subject, course, attempt, isolation_level)
                    value = course.applied_value if applied else fn(subject)
                    course.finishing(value)
                    _commit(subject, course, attempt)
                finally:
                    attempt.release()
        except Exception as exc:
            pause = course.pause_after(exc)
            if pause is None:
                raise
        else:
            return value
        time.sleep(pause)


@overload
async def run_transaction_async(
    source: AsyncEngine,
    fn: Callable[[AsyncConnection], Awaitable[T]],
    *,
    exactly_once: bool = False,
    key: str | None = None,
    fingerprint: str | bytes | None = None,
    if_applied: Any = None,
    deadline: float | None = None,
    isolation_level: str | None = None,
) -> T: ...
@overload
async def run_transaction_async(
    source: async_sessionmaker[A],
    fn: Callable[[A], Awaitable[T]],
    *,
    exactly_once: bool = False,
    key: str | None = None,
    fingerprint: str | bytes | None = None,
    if_applied: Any = None,
    deadline: float | None = None,
    isolation_level: str | None = None,
) -> T: ...
async def run_transaction_async(
    source: AsyncEngine | async_sessionmaker[Any],
    fn: Callable[[Any], Awaitable[Any]],
    *,
    exactly_once: bool = False,
    key: str | None = None,
    fingerprint: str | bytes | None = None,
    if_applied: Any = None,
    deadline: float | None = None,
    isolation_level: str | None = None,
) -> Any:
    """Do the same as :func:`run_transaction` on an event loop.

    :param source: an asynchronous engine on a cluster, or an ``async_sessionmaker`` on one
    :param fn: is given an :class:`~sqlalchemy.ext.asyncio.AsyncConnection`, or a new session, and is awaited
    :raises CancelledError: the task was cancelled: nothing is tried again, and no connection is left half-open
    """
    origin = asynchronous_source(source, isolation_level)
    course: Course[Any] = Course(
        origin.events,
        exactly_once=exactly_once,
        key=key,
        fingerprint=fingerprint,
        if_applied=if_applied,
        deadline=deadline,
    )
    while True:
        attempt = course.next_attempt()
        try:
            with time_limit(course.remaining):
                async with origin.open() as subject:
                    try:
                        applied = await subject.run_sync(_begin, course, attempt, isolation_level)
                        value = course.applied_value if applied else await fn(subject)
                        course.finishing(value)
                        await subject.run_sync(_commit, course, attempt)
                    finally:
                        attempt.release()
        except Exception as exc:
            pause = course.pause_after(exc)
            if pause is None:
                raise
        else:
            return value
        await asyncio.sleep(pause)


def _begin(subject: Connection | Session, course: Course[Any], attempt: Attempt, isolation_level: str | None) -> bool:
    """Begin the transaction of an attempt, with its marker; return whether its work is done already."""
    options: dict[str, Any] = {ATTEMPT: attempt}
    if isolation_level is not None:
        options["isolation_level"] = isolation_level
    if isinstance(subject, Session):
        if not subject.in_transaction():
            subject.begin()
        connection = subject.connection(execution_options=options)
    else:
        connection = subject.execution_options(**options)
        connection.begin()
    if mark_of(connection.connection) is None:
        raise ArgumentError("the engine's connections come from elsewhere (pool= or a do_connect listener of yours)")
    attempt.take(connection)
    dbapi_connection: Any = connection.connection.dbapi_connection
    if dbapi_connection.autocommit:
        raise ArgumentError("the engine is in isolation level AUTOCOMMIT: give run_transaction() an isolation_level")
    if course.key is None:
        return False
    return course.marked(insert_marker(connection, course.key, course.patience, course.fingerprint))


def _commit(subject: Connection | Session, course: Course[Any], attempt: Attempt) -> None:
    if isinstance(subject, Session):
        subject.flush()
    if attempt.unsure:
        # PostgreSQL answers the COMMIT of a transaction that it has aborted with a mere ROLLBACK. This it refuses.
        subject.execute(text("SELECT 1"))
    if course.key is not None and course.is_old:
        renew_marker(subject.connection() if isinstance(subject, Session) else subject, course.key)
    subject.commit()
