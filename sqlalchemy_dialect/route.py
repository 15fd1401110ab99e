"""The route of one transaction of a session: its connection, and what becomes of statements on it."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event

from patroni_db.faults import Fault, classify
from patroni_db.sql_effect import Effect, effect_of_sql
from sqlalchemy_dialect.declarations import READ_ONLY
from sqlalchemy_dialect.errors import ReadOnlyError, TransactionOnReplicaError
from sqlalchemy_dialect.marks import mark_of

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import Dialect
    from sqlalchemy.engine.interfaces import DBAPICursor, ExceptionContext, ExecutionContext

__all__ = ["ROUTE", "Route", "guard", "refusal"]

# The execution option by which a Connection knows its route; it ends with the Connection.
ROUTE: Final = "patroni_db_route"

_REMEDY: Final = (
    "Begin such a transaction on the primary (patroni_use='primary', use_primary()), or give the session "
    "on_write='switch' if what was read from the replica may be outdated"
)
_HINT: Final = (
    "The transaction was declared, or taken, to read only, and the server refused to write: a function that writes "
    "cannot be recognised before. Have it begin with the execution option patroni_use='primary'."
)


class Route:
    """Where one transaction goes.

    :param connection: of the transaction
    :param read_only: whether it was declared to read only
    :param held: whether the session has to close the connection when the transaction ends
    """

    __slots__ = ("begun", "committed", "committing", "connection", "held", "read_only", "wrote")

    def __init__(self, connection: Connection, *, read_only: bool = False, held: bool = False) -> None:
        self.connection = connection
        self.read_only = read_only
        self.held = held
        self.begun = False
        """The session's transaction has the connection."""
        self.wrote = False
        """Something was sent to the primary that may have written."""
        self.committing = False
        self.committed = False

    @property
    def bind(self) -> Connection | Engine:
        """What ``Session.get_bind`` returns: the connection; once the session knows that one, its engine."""
        return self.connection.engine if self.begun else self.connection


def refusal(what: str, connection: Connection | None, *, read_only: bool) -> ReadOnlyError | TransactionOnReplicaError:
    """Return the error for something that a transaction which reads must not do.

    :param what: the subject and verb of the sentence
    :param connection: the transaction's
    :param read_only: whether it was declared to read only
    """
    if read_only:
        return ReadOnlyError(f"{what}, and the transaction was declared to read only")
    known = connection is not None and not connection.closed and not connection.invalidated
    mark = mark_of(connection.connection) if connection is not None and known else None
    where = "a replica" if mark is None else f"{mark.stamp.member or mark.stamp.address}, by an engine for reading"
    return TransactionOnReplicaError(f"{what}, and the transaction has read from {where}. {_REMEDY}")


_guarded: weakref.WeakSet[Dialect] = weakref.WeakSet()
_lock: Final = threading.Lock()


def guard(engine: Engine) -> None:
    """Have writes refused, before they are sent, on connections of `engine` that are declared to read only.

    Those are the ones with the execution option ``patroni_read_only``, and those of sessions' transactions that read.
    May be called again.
    """
    if engine.dialect in _guarded:
        return
    with _lock:
        if engine.dialect not in _guarded:
            event.listen(engine, "do_execute", _before)
            event.listen(engine, "do_executemany", _before)
            event.listen(engine, "do_execute_no_params", _before_plain)
            event.listen(engine, "handle_error", _explain)
            _guarded.add(engine.dialect)


def _before_plain(cursor: DBAPICursor, statement: str, context: ExecutionContext) -> None:
    _before(cursor, statement, None, context)


def _before(_cursor: DBAPICursor, statement: str, _parameters: Any, context: ExecutionContext) -> None:
    """Refuse a write where it must not be, and note one where it may.

    :raises ReadOnlyError: it must not write
    :raises TransactionOnReplicaError: the same, in a session in automatic mode
    """
    options = context.execution_options
    route: Route | None = options.get(ROUTE)
    read_only = options.get(READ_ONLY)
    if route is None or not route.held:
        if read_only:
            if _effect(statement, context) is Effect.WRITES:
                raise ReadOnlyError(f"{_shown(statement)} writes, and is declared to read only")
        elif route is not None and not route.wrote:
            route.wrote = _effect(statement, context) >= Effect.MAY_WRITE
        return
    effect = _effect(statement, context)
    if effect is Effect.WRITES or (effect is Effect.MAY_WRITE and not route.read_only):
        what = "writes" if effect is Effect.WRITES else "may write, or needs the primary"
        raise refusal(f"{_shown(statement)} {what}", route.connection, read_only=route.read_only)


def _effect(statement: str, context: ExecutionContext) -> Effect:
    dml: bool = context.isinsert or context.isupdate or context.isdelete  # type: ignore[attr-defined]  # of all PostgreSQL's
    return Effect.WRITES if dml else effect_of_sql(statement)


def _shown(statement: str) -> str:
    """Return how a statement begins, without values."""
    return " ".join(statement[:60].split()[:3]) + " ..."


def _explain(context: ExceptionContext) -> None:
    """Tell what to do when a server refuses to write that was taken for one to read from."""
    connection, shown = context.connection, context.sqlalchemy_exception
    if connection is None or shown is None:
        return
    route: Route | None = connection.get_execution_options().get(ROUTE)
    if route is not None and route.held and classify(context.original_exception) is Fault.NOT_WRITABLE:
        shown.add_note(_HINT)
