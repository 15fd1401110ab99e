"""SERIALIZABLE on a standby: PostgreSQL refuses it (0A000), so what only reads there is REPEATABLE READ, READ ONLY.

Where the level comes from decides where it is replaced: a session's default (``ALTER ROLE ... SET``, ``SET SESSION
CHARACTERISTICS``) here, the level of a driver's connection where the frameworks set it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from patroni_db.autocommit import autocommit, autocommit_async
from patroni_db.connections import in_hot_standby

if TYPE_CHECKING:
    from patroni_db.connections import Driver, Stamp
    from patroni_db.selection import Target

__all__ = ["LOWER", "lower_default", "lower_default_async", "refuses_serializable", "sets_serializable"]

# Neither needs a snapshot, which a standby would refuse to take.
_SHOW: Final = "SHOW default_transaction_isolation"
LOWER: Final = "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_SETS: Final = re.compile(
    r"\s*SET\s+(?:SESSION\s+)?(?:CHARACTERISTICS|default_transaction_isolation)\b.*\bserializable\b",
    re.IGNORECASE | re.DOTALL,
)


def refuses_serializable(driver: Driver, connection: object, stamp: Stamp, target: Target) -> bool:
    """Return whether `connection` only reads, on a server that refuses SERIALIZABLE.

    A connection that may write on a server that is promoted keeps its level, and a standby's refusal with it. Behind a
    pooler nobody knows the server's role: there, what is for replicas counts as on one.
    """
    return target.only_reads and (stamp.pooled or in_hot_standby(driver, connection, stamp) == "on")


def lower_default(connection: Any) -> None:
    """Have transactions on `connection`, of psycopg or psycopg2, begin as a standby can, if they would not.

    One statement, and another one if the default is SERIALIZABLE.

    :raises Exception: the driver's own error
    """
    with autocommit(connection), connection.cursor() as cursor:
        cursor.execute(_SHOW)
        (row,) = cursor.fetchall()
        if _is_serializable(row):
            cursor.execute(LOWER)


async def lower_default_async(connection: Any) -> None:
    """Do the same as :func:`lower_default` on an asyncpg connection or psycopg's AsyncConnection."""
    if hasattr(connection, "fetchrow"):  # asyncpg, which begins no transaction by itself
        if _is_serializable(await connection.fetchrow(_SHOW)):
            await connection.execute(LOWER)
        return
    async with autocommit_async(connection), connection.cursor() as cursor:
        await cursor.execute(_SHOW)
        (row,) = await cursor.fetchall()
        if _is_serializable(row):
            await cursor.execute(LOWER)


def sets_serializable(sql: Any) -> bool:
    """Return whether a statement makes SERIALIZABLE the default of its session."""
    return isinstance(sql, str) and _SETS.match(sql) is not None


def _is_serializable(row: Any) -> bool:
    (level,) = row.values() if hasattr(row, "values") else row
    return bool(level == "serializable")
