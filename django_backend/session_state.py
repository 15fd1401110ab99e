"""What an open connection holds that would be lost with it, and when it may be left for a better server."""

from __future__ import annotations

import math
import weakref
from typing import TYPE_CHECKING, Any, Final

from django_backend.guard import text_of
from django_backend.work import current_work
from patroni_db.statements import StatementKind, keeps_state, shapes_reads, takes_lock

if TYPE_CHECKING:
    from django.db.backends.postgresql.base import DatabaseWrapper as _Base

    from patroni_db.config import PatroniConfig
    from patroni_db.discovery import Discovery
else:
    _Base = object

__all__ = ["SessionStateMixin"]

# Seconds. What did not come to the end of a request or job for so long is a job that never will.
_ENDLESS: Final = 30.0
# Seconds between two looks at a connection while one cursor is used again and again.
_LOOK_EVERY: Final = 1.0
# Characters of a statement that tell what it does.
_LONGEST: Final = 4096


class SessionStateMixin(_Base):
    """The part of a wrapper that tells faults, for which a connection is left at once, from preferences, for which not.

    A better server (less lag, other tags, less load, no reads of others that failed) is preferred between two requests
    or jobs alone, and only if nothing is under way on the connection.
    """

    if TYPE_CHECKING:
        _config: PatroniConfig | None
        _discovery: Discovery | None

        _looked_at: float

        def _close_if_unusable(self, *, between: bool) -> None: ...
        def _is_alone(self) -> bool: ...
        def _renew(self, cursor: Any) -> None: ...

    # When the request or job began, in seconds of the discovery's clock.
    _work_began: float = -math.inf
    # Whether the session was given something outside of what all its kind are given.
    _keeps_state: bool = False
    # Whether reads see other rows in the session than in others: of the tables of a tenant, for example.
    _shapes_reads: bool = False
    # Whether an advisory lock was taken in this request or job: what it guards must be read where it is written.
    _has_locked: bool = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Cursors whose rows the server keeps.
        self._server_cursors: weakref.WeakSet[Any] = weakref.WeakSet()
        super().__init__(*args, **kwargs)

    def create_cursor(self, name: str | None = None) -> Any:
        """Return a driver's cursor; with a `name`, one whose rows the server keeps."""
        cursor = super().create_cursor(name)
        if name:
            self._server_cursors.add(cursor)
        return cursor

    @property
    def keeps_reads(self) -> bool:
        """Whether reads belong on the open connection, and not on a replica's, because of what was executed on it."""
        return self._shapes_reads or self._has_locked

    def _begin_work(self) -> None:
        """Note that a request or job begins, or has ended."""
        self._has_locked = False
        if self._discovery is not None:
            self._work_began = self._discovery.clock()

    def _may_follow_preference(self, *, between: bool) -> bool:
        """Return whether the connection may be closed although nothing is wrong with it.

        :param between: whether a request or job has ended, or is about to begin
        """
        if not self._is_alone() or self._has_open_cursors():
            return False
        if between:
            return True
        if self._keeps_state or self._discovery is None or self._config is None:
            return False
        if self._config.target.writes:
            return True  # the primary does not answer: what is sent would hang, and be in doubt
        # Some jobs never come to an end. They do not stay on a bad replica for ever, and lose nothing by leaving it.
        work = current_work()
        is_request = work is not None and work.is_request
        return not is_request and self._discovery.clock() - self._work_began >= _ENDLESS

    def _has_open_cursors(self, *, but: object = None) -> bool:
        """Return whether rows are still to be fetched from the server over the open connection.

        :param but: a driver's cursor that does not count
        """
        cursors = [cursor for cursor in self._server_cursors if cursor is not but]
        return any(self._has_made(cursor) and not cursor.closed for cursor in cursors)

    def _holds_something(self, *, but: object = None) -> bool:
        """Return whether the open connection holds settings, cursors or the like; `but` as above."""
        return self._keeps_state or self._has_open_cursors(but=but)

    def _note_state(self, kind: StatementKind, sql: Any) -> None:
        """Take note of a statement that was executed.

        :param kind: what it does
        """
        # Of a long one, which is a bulk one, the beginning tells.
        text = text_of(sql, self.connection)[:_LONGEST]
        if keeps_state(text):
            self._keeps_state = True
            self._shapes_reads = self._shapes_reads or shapes_reads(text)
            self._has_locked = self._has_locked or takes_lock(text)
        elif kind is StatementKind.UNKNOWN:
            self._keeps_state = True

    def _note_new_session(self) -> None:
        """Note that the session is new. What it was given at once, the next one is given too."""
        self._keeps_state = self._shapes_reads = self._has_locked = False

    def _renew_outlived(self, cursor: Any) -> None:
        """Let a cursor go on that was made before its connection was replaced, as one that is kept for long is.

        Where no other cursor is made meanwhile, nobody else looks at the connection.

        :param cursor: Django's
        """
        if not self._is_alone():
            return
        if self._discovery is not None and self._discovery.clock() - self._looked_at >= _LOOK_EVERY:
            self._close_if_unusable(between=False)
        if self.connection is None or not self._has_made(cursor.cursor):
            self._renew(cursor)

    def _has_made(self, cursor: Any) -> bool:
        """Return whether the open connection has made a driver's cursor. Both may be proxies of monitoring agents."""
        made: bool = cursor.connection.pgconn is self.connection.pgconn
        return made
