"""Commit markers of a wrapper's transactions: inserting one, and asking afterwards what became of it."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import math
import random
import time
from typing import TYPE_CHECKING, Any, Final

import psycopg
from django.db import Error

from patroni_db.bounded import call_within
from patroni_db.faults import sqlstate_of
from patroni_db.markers import MARK, MARK_WITH_FINGERPRINT, RENEW, TABLE, check_fingerprint
from patroni_db.time_limit import time_limit
from patroni_db.transaction import Reruns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from django_backend.effects import Mark
    from django_backend.mixin import PatroniMixin

__all__ = ["LOCK_NOT_AVAILABLE", "explain", "has_committed", "insert", "renew"]

logger = logging.getLogger("patroni_db.django")

LOCK_NOT_AVAILABLE: Final = "55P03"
_UNDEFINED_TABLE: Final = "42P01"
_UNDEFINED_COLUMN: Final = "42703"
_GRACE: Final = 0.5
# The target list is evaluated from left to right: what was in force is read before it is replaced.
_LIMIT: Final = """\
SELECT pg_catalog.current_setting('lock_timeout'), pg_catalog.current_setting('statement_timeout'),
    pg_catalog.set_config('lock_timeout', %s, true), pg_catalog.set_config('statement_timeout', '0', true)"""
_UNLIMIT: Final = """\
SELECT pg_catalog.set_config('lock_timeout', %s, true), pg_catalog.set_config('statement_timeout', %s, true)"""


def insert(connection: psycopg.Connection[Any], mark: Mark, seconds: float) -> int:
    """Insert `mark` in the transaction that begins with it, or is open already.

    :param seconds: how long a shared key may wait for another transaction that has it too
    :returns: 0 when the key is new; else what has this key has committed, and how often it was met again
    :raises psycopg.Error: the driver's own
    :raises KeyReusedError: it was taken by work with another fingerprint
    """
    cursor = psycopg.Cursor(connection)
    with contextlib.closing(cursor), _limited(cursor, seconds) if mark.shared else contextlib.nullcontext():
        if mark.fingerprint is None:
            cursor.execute(MARK, [mark.key])
            [(collisions,)] = cursor.fetchall()
            stored = None
        else:
            cursor.execute(MARK_WITH_FINGERPRINT, [mark.key, mark.fingerprint])
            [(collisions, stored)] = cursor.fetchall()
    check_fingerprint(mark.key, mark.fingerprint, stored)
    return int(collisions)


def renew(connection: psycopg.Connection[Any], keys: Iterable[str]) -> None:
    """Let the age of markers of the transaction under way begin now.

    :raises psycopg.Error: the driver's own
    """
    with contextlib.closing(psycopg.Cursor(connection)) as cursor:
        for key in keys:
            cursor.execute(RENEW, [key])


@contextlib.contextmanager
def _limited(cursor: psycopg.Cursor[Any], seconds: float) -> Iterator[None]:
    """Let the statement within wait for a lock so many seconds, whatever the session's own timeouts are."""
    cursor.execute(_LIMIT, [str(max(1, math.ceil(seconds * 1000)))])
    lock_timeout, statement_timeout, *_ = cursor.fetchone() or ("0", "0")
    yield
    # Only here: after an error the transaction is aborted, and its settings end with it.
    with contextlib.closing(psycopg.Cursor(cursor.connection)) as other:
        other.execute(_UNLIMIT, [lock_timeout, statement_timeout])


def explain(exc: BaseException, alias: str) -> None:
    """Tell with `exc` what to do where the table of markers, or its column for fingerprints, is missing."""
    missing = {_UNDEFINED_TABLE: f"The table {TABLE}", _UNDEFINED_COLUMN: f"The column fingerprint of {TABLE}"}
    what = missing.get(sqlstate_of(exc) or "")
    if what is not None:
        exc.add_note(
            f"{what} is not there: run 'manage.py migrate django_backend --database={alias}', "
            'with "django_backend" in INSTALLED_APPS.'
        )


def has_committed(wrapper: PatroniMixin, mark: Mark, seconds: float) -> bool:
    """Return whether the transaction with `mark`, whose COMMIT was not answered, has committed.

    Asked in a session and a thread of its own, on whichever server is primary by then: a server that is frozen keeps
    nobody longer than `seconds`.

    :param wrapper: whose alias it was
    :param seconds: how long a primary is waited for, and the transaction to be decided
    :raises Error: it could not be found out in time: Django's error of the last look
    :raises TimeoutError: the last look hung
    """
    reruns = Reruns(seconds, random.SystemRandom())

    def look() -> bool:
        while True:
            asking = wrapper.copy()
            try:
                with time_limit(max(reruns.remaining, _GRACE)):
                    return _look(asking, mark, max(reruns.remaining, _GRACE))
            except Error as exc:
                lost = asking.connection is not None and bool(asking.connection.closed)
                pause = reruns.pause_after(exc, lost=lost, decidable=True)
                if pause is None:
                    raise
                logger.info("asking %r again what became of a COMMIT: %s", wrapper.alias, exc)
            finally:
                with contextlib.suppress(Error):
                    asking.close()
            time.sleep(pause)

    # In an empty context: the work's own deadline may be over, and what is asked here is no part of its effects.
    return call_within(seconds + 2 * _GRACE, lambda: contextvars.Context().run(look), _forget)


def _look(asking: PatroniMixin, mark: Mark, seconds: float) -> bool:
    asking.set_autocommit(False)
    with asking.wrap_database_errors, contextlib.closing(psycopg.Cursor(asking.connection)) as cursor:
        with _limited(cursor, seconds):
            cursor.execute(MARK, [mark.key])
            [(collisions,)] = cursor.fetchall()
        if collisions:
            # Its COMMIT proves that the standby has the first transaction too. A timeout would end the wait for that
            # with a mere warning.
            cursor.execute("SET LOCAL statement_timeout = 0")
    if not collisions:
        asking.rollback()
        return False
    asking.commit()
    return True


def _forget(_answer: bool) -> None:  # noqa: FBT001 - as call_within hands it over
    """Nothing is held by an answer that came too late."""
