"""What became of a COMMIT, or of a statement in AUTOCOMMIT, whose connection was lost.

Whether it was lost before anything was sent is noted by the connections themselves (:mod:`sqlalchemy_dialect.watched`),
for those of an application's own making by SQLAlchemy's events ``commit`` and ``commit_twophase``, and for statements
by ``do_execute``. ``handle_error`` asks :func:`in_doubt`.

The handlers are functions, not methods: SQLAlchemy's caches keep dialects, with their events, for as long as the
process lives, and nothing else must stay with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event

from patroni_db.connections import in_hot_standby
from patroni_db.outcome import ends_transaction, is_in_doubt
from sqlalchemy_dialect.attempt import ATTEMPT, attempt_on
from sqlalchemy_dialect.errors import CommitOutcomeUnknown
from sqlalchemy_dialect.marks import Mark, mark_of
from sqlalchemy_dialect.watched import Watched, let_the_loop_read

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor, ExceptionContext, ExecutionContext

    from sqlalchemy_dialect.attempt import Attempt

__all__ = ["in_doubt", "watch_commits", "watch_statements"]

# In the record's ``info``: whether the connection was lost before a COMMIT, or a statement that commits, was sent.
_COMMIT: Final = "patroni_db_commit"
_STATEMENT: Final = "patroni_db_statement"
# Statements that begin so are no COMMIT, whatever follows. Looking further at each one would cost a microsecond.
_ORDINARY: Final = frozenset("SIUDWsiudw")


def watch_statements(engine: Engine) -> None:
    """Look before a statement is sent that commits: a COMMIT by hand, or any in AUTOCOMMIT."""
    event.listen(engine, "do_execute", _before_statement)
    event.listen(engine, "do_executemany", _before_statement)
    event.listen(engine, "do_execute_no_params", _before_plain_statement)


def watch_commits(engine: Engine) -> None:
    """Look before COMMIT is sent on connections that do not look themselves."""
    for name in ("commit", "commit_twophase"):
        event.listen(engine, name, _before_commit)
    for name in ("begin", "begin_twophase", "prepare_twophase", "rollback", "rollback_twophase"):
        event.listen(engine, name, _before_other)


def in_doubt(context: ExceptionContext, *, lost: bool) -> CommitOutcomeUnknown | None:
    """Return the error that says so when what failed may have taken effect.

    :param context: of ``handle_error``; its connection is checked out, and one of ours
    :param lost: whether it is closed or broken now
    """
    connection = context.connection
    lost_before = None if connection is None else _take_note(context, connection)
    if lost_before is None or not is_in_doubt(context.original_exception, lost=lost, lost_before=lost_before):
        return None
    many = context.execution_context is not None and context.execution_context.executemany
    return CommitOutcomeUnknown(
        context.statement,
        context.parameters,
        context.original_exception,
        hide_parameters=context.engine is not None and context.engine.hide_parameters,
        connection_invalidated=context.is_disconnect,
        ismulti=many,
    )


def _take_note(context: ExceptionContext, connection: Connection) -> bool | None:
    """Return whether the connection was lost before it was sent; None when what failed was nothing that commits."""
    proxied = connection.connection
    note: bool | None
    if context.statement is not None:
        note = proxied.info.pop(_STATEMENT, None)
        return note if _commits(proxied.dbapi_connection, context.statement) else None
    if context.execution_context is not None:
        return None  # what a cursor fetches later
    # Without a statement SQLAlchemy reports BEGIN, COMMIT and ROLLBACK.
    driver_connection = proxied.driver_connection
    if isinstance(driver_connection, Watched):
        note, driver_connection.lost_before = driver_connection.lost_before, None
        return note
    note = proxied.info.pop(_COMMIT, None)
    return note


def _commits(dbapi_connection: DBAPIConnection | None, statement: str) -> bool:
    return getattr(dbapi_connection, "autocommit", False) or ends_transaction(statement)


# -- Before something is sent --------------------------------------------------------------------------------------


def _before_commit(connection: Connection, *_twophase: object) -> None:
    if connection.invalidated or isinstance(connection.connection.driver_connection, Watched):
        return
    attempt = attempt_on(connection)
    if attempt is not None:
        attempt.refuse_commit()
        attempt.sent = True
    mark = mark_of(connection.connection)
    if mark is not None and not _stands_by(connection, mark):
        connection.info[_COMMIT] = _is_lost(connection, mark)


def _before_other(connection: Connection, *_others: object) -> None:
    """Forget the COMMIT before: what is sent now is none."""
    if not connection.invalidated:
        connection.info.pop(_COMMIT, None)


def _before_plain_statement(cursor: DBAPICursor, statement: str, context: ExecutionContext) -> None:
    _before_statement(cursor, statement, None, context)


def _before_statement(_cursor: DBAPICursor, statement: str, _parameters: Any, context: ExecutionContext) -> None:
    """Look at the connection of a statement that commits."""
    connection = context.root_connection
    proxied = connection.connection
    if statement[:1] in _ORDINARY and not proxied.dbapi_connection.autocommit:  # type: ignore[union-attr]
        return
    attempt: Attempt | None = context.execution_options.get(ATTEMPT)
    if attempt is not None:
        _refuse_ends(attempt, statement)
    mark = mark_of(proxied)
    if mark is None or not _commits(proxied.dbapi_connection, statement):
        return
    if _stands_by(connection, mark):
        connection.info.pop(_STATEMENT, None)
    else:
        connection.info[_STATEMENT] = _is_lost(connection, mark)


def _stands_by(connection: Connection, mark: Mark) -> bool:
    """Return whether nothing can be written there: then nothing is ever in doubt."""
    driver_connection = connection.connection.driver_connection
    if mark.driver.is_closed(driver_connection):
        return False
    return in_hot_standby(mark.driver, driver_connection, mark.stamp) == "on"


def _is_lost(connection: Connection, mark: Mark) -> bool:
    proxied = connection.connection
    driver_connection = proxied.driver_connection
    if mark.driver.fileno(driver_connection) is None and not mark.driver.is_closed(driver_connection):
        proxied.dbapi_connection.run_async(let_the_loop_read)  # type: ignore[union-attr]  # it is an adapted one
    return mark.is_lost(driver_connection)


def _refuse_ends(attempt: Attempt, statement: str) -> None:
    words = " ".join(statement[:40].upper().replace(";", " ").split())
    if ends_transaction(statement):
        attempt.refuse_commit()
    elif words.startswith(("ROLLBACK", "ABORT")) and " TO " not in words:
        attempt.refuse_rollback()
