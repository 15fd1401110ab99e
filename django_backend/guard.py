"""Writes that are refused before the server is asked: through aliases that read, and under ``prevent_writes()``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.backends.base.base import NO_DB_ALIAS

from django_backend.errors import WriteRefusedError
from django_backend.options import current_config, declared_config
from django_backend.routing import current_rules
from patroni_db.statements import StatementKind, kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["is_for_reading", "refuse_write", "statement_kind", "text_of"]

_SHOWN = 40


def is_for_reading(alias: str, entry: Mapping[str, Any]) -> bool:
    """Return whether an alias must not be written through.

    What mirrors another alias in tests, where both lead to the primary, refuses there what it refuses elsewhere. An
    alias that has its own test database must be able to make that.

    :param alias: its key in ``DATABASES``
    :param entry: its settings
    """
    if alias == NO_DB_ALIAS:
        return False
    is_mirror = (entry.get("TEST") or {}).get("MIRROR")
    return not (declared_config if is_mirror else current_config)(alias, entry).target.writes


def statement_kind(sql: Any, connection: Any) -> StatementKind:
    """Return what a statement does.

    :param sql: whatever psycopg executes
    :param connection: the driver's, for quoting
    """
    text = text_of(sql, connection)
    return kind_of(text) if text or sql == "" else StatementKind.UNKNOWN


def text_of(sql: Any, connection: Any) -> str:
    """Return a statement as text, empty where that cannot be told.

    :param sql: whatever psycopg executes
    :param connection: the driver's, for quoting
    """
    if isinstance(sql, str):
        return sql
    if isinstance(sql, bytes):
        return sql.decode(errors="replace")
    text: str = sql.as_string(connection) if hasattr(sql, "as_string") else ""
    return text


def refuse_write(alias: str, kind: StatementKind, sql: Any, *, for_reading: bool, standby: bool | None) -> None:
    """Refuse a statement that must not be sent.

    :param alias: that it would be sent through
    :param kind: what it does, not a read
    :param sql: the statement
    :param for_reading: whether the alias is for reading
    :param standby: whether the server is a standby, which refuses writes itself; None when that is not known
    :raises WriteRefusedError: it must not
    """
    if for_reading:
        if kind is StatementKind.WRITE or standby is False:
            raise WriteRefusedError(
                f"alias {alias!r} reads from replicas, and this writes: {_beginning(sql)}. "
                "Write through the primary's alias."
            )
        return
    rules = current_rules()
    if rules is not None and rules.guards(alias):
        raise WriteRefusedError(f"prevent_writes() is in force on alias {alias!r}, and this writes: {_beginning(sql)}")


def _beginning(sql: Any) -> str:
    """Return the first words: values may follow that are nobody's business."""
    return " ".join(str(sql)[:_SHOWN].split()[:3])
