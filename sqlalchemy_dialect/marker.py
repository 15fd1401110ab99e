"""The table of commit markers for SQLAlchemy, and inserting one."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Final

from sqlalchemy import (
    BLANK_SCHEMA,
    TIMESTAMP,
    Column,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    func,
    text,
)
from sqlalchemy.exc import DBAPIError

from patroni_db.faults import sqlstate_of
from patroni_db.markers import (
    FINGERPRINT_LENGTH,
    INDEX,
    KEY_LENGTH,
    MARK,
    MARK_WITH_FINGERPRINT,
    RENEW,
    TABLE,
    check_fingerprint,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

__all__ = ["commit_marker_table", "create_commit_marker_table", "insert_marker", "renew_marker"]

_UNDEFINED_TABLE: Final = "42P01"
_UNDEFINED_COLUMN: Final = "42703"
_LOCK_NOT_AVAILABLE: Final = "55P03"
_MARK: Final = text(MARK.replace("%s", ":key"))
_MARK_WITH_FINGERPRINT: Final = text(MARK_WITH_FINGERPRINT.replace("%s, %s", ":key, :fingerprint"))
_RENEW: Final = text(RENEW.replace("%s", ":key"))
# The target list is evaluated from left to right: what was in force is read before it is replaced.
_LIMIT: Final = text(
    "SELECT pg_catalog.current_setting('lock_timeout'), pg_catalog.current_setting('statement_timeout'), "
    "pg_catalog.set_config('lock_timeout', :limit, true), pg_catalog.set_config('statement_timeout', '0', true)"
)
_UNLIMIT: Final = text(
    "SELECT pg_catalog.set_config('lock_timeout', :lock, true), "
    "pg_catalog.set_config('statement_timeout', :statement, true)"
)


def commit_marker_table(metadata: MetaData) -> Table:
    """Return the table of commit markers as a part of `metadata`, so that ``create_all`` and Alembic make it.

    It has no schema: it is made, and looked for, on the connection's ``search_path``. A second call returns the
    same table.
    """
    known = metadata.tables.get(TABLE)
    if known is not None:
        return known
    table = Table(
        TABLE,
        metadata,
        Column("key", String(KEY_LENGTH), nullable=False),
        Column("created_at", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
        Column("collisions", Integer, nullable=False, server_default=text("0")),
        Column("fingerprint", String(FINGERPRINT_LENGTH)),
        PrimaryKeyConstraint("key", name=f"{TABLE}_pkey"),
        schema=BLANK_SCHEMA,
    )
    Index(INDEX, table.c.created_at, postgresql_using="brin")
    return table


def create_commit_marker_table(connection: Connection) -> None:
    """Make the table unless it is there: for applications without migrations, and in one written by hand.

    :param connection: in a transaction of the caller's, who commits it; in Alembic ``op.get_bind()``
    """
    commit_marker_table(MetaData()).create(connection, checkfirst=True)


def insert_marker(connection: Connection, key: str, seconds: float | None, fingerprint: str | None = None) -> int:
    """Insert `key` in the transaction on `connection`, which has just begun.

    :param seconds: how long another transaction with this key may be waited for; None when there is none
    :param fingerprint: of the work that the key stands for; None where that does not matter
    :returns: 0 when the key is new; else what has this key has committed, and how often it was met again
    :raises DBAPIError: SQLAlchemy's own
    :raises KeyReusedError: it was taken by work with another fingerprint
    """
    with _explained():
        if seconds is None:
            return _insert(connection, key, fingerprint)
        limit = str(max(1, math.ceil(seconds * 1000)))
        lock, statement, *_ = connection.execute(_LIMIT, {"limit": limit}).one()
        collisions = _insert(connection, key, fingerprint)
        if not collisions:
            connection.execute(_UNLIMIT, {"lock": lock, "statement": statement})
        # Else COMMIT is all that follows. It proves that the standby has the first transaction too, and a timeout would
        # end the wait for that with a mere warning.
        return collisions


def renew_marker(connection: Connection, key: str) -> None:
    """Let the age of the marker of the transaction under way begin now.

    :raises DBAPIError: SQLAlchemy's own
    """
    connection.execute(_RENEW, {"key": key})


def _insert(connection: Connection, key: str, fingerprint: str | None) -> int:
    if fingerprint is not None:
        row = connection.execute(_MARK_WITH_FINGERPRINT, {"key": key, "fingerprint": fingerprint}).one()
        collisions, stored = row
        check_fingerprint(key, fingerprint, stored)
        return int(collisions)
    return int(connection.execute(_MARK, {"key": key}).scalar_one())


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except DBAPIError as exc:
        state = sqlstate_of(exc)
        if state == _LOCK_NOT_AVAILABLE:
            exc.add_note(
                "Until the deadline another transaction with the same key was neither committed nor rolled back."
            )
        if state == _UNDEFINED_COLUMN:
            exc.add_note(
                f"The table {TABLE} was made before there were fingerprints: have Alembic add the column, or execute "
                "patroni_db.markers.ADD_FINGERPRINT."
            )
        if state == _UNDEFINED_TABLE:
            exc.add_note(
                f"The table {TABLE} is not on the search_path: have commit_marker_table(metadata) in the metadata that "
                "Alembic or create_all makes the tables of, or call create_commit_marker_table(connection)."
            )
        raise
