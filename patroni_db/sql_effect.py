"""What a statement may do to the database, read from its SQL: what the core tells from its words, and functions. Pure.

Conservative: only what is known to read is said to read. What a function does inside cannot be seen, except for some of
PostgreSQL's own.
"""

from __future__ import annotations

import enum
import functools
import re
from typing import Final

from patroni_db.statements import StatementKind, kind_of

__all__ = ["Effect", "effect_of_function", "effect_of_sql"]


class Effect(enum.IntEnum):
    """The worst that a statement may do: of several, the highest counts."""

    NEUTRAL = 0
    """It is no query, and changes nothing: it steers the session or the transaction, as SET and SAVEPOINT do."""
    READS = 1
    MAY_WRITE = 2
    """Nobody can tell from here, as with CALL; or it makes sense on the primary only."""
    WRITES = 3
    """It changes something, takes row locks, or draws from a sequence: a standby refuses it."""


# PostgreSQL's own: what a standby refuses, and what makes no sense there. Advisory locks exist on one server only:
# taken on a replica they keep nobody out.
_WRITING: Final = re.compile("nextval|setval|pg_notify", re.IGNORECASE)
_OF_THE_PRIMARY: Final = re.compile(
    r"currval|lastval|pg_(?:try_)?advisory_\w+|pg_current_(?:xact_id|wal_\w+)|txid_current|pg_logical_emit_message"
    r"|lo_\w+|dblink\w*|pg_(?:create|drop)_\w+|pg_switch_wal|pg_export_snapshot",
    re.IGNORECASE,
)
_CALL: Final = re.compile(rf'\b({_WRITING.pattern}|{_OF_THE_PRIMARY.pattern})"?\s*\(', re.IGNORECASE)
_NO_CALLS: Final = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*+'", re.DOTALL)
_QUERY: Final = re.compile(
    r"(?:\s|\(|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*+(?:SELECT|WITH|VALUES|TABLE|SHOW|EXPLAIN)\b", re.IGNORECASE | re.DOTALL
)
_KINDS: Final = {StatementKind.WRITE: Effect.WRITES, StatementKind.UNKNOWN: Effect.MAY_WRITE}
# Statements with many values are each another one: they would only drive the others out.
_LONGEST_KEPT: Final = 4096


def effect_of_function(name: str) -> Effect:
    """Return what a call of the function `name`, without its schema, is known to do."""
    if _WRITING.fullmatch(name):
        return Effect.WRITES
    return Effect.MAY_WRITE if _OF_THE_PRIMARY.fullmatch(name) else Effect.READS


def effect_of_sql(sql: str) -> Effect:
    """Return what `sql`, one statement or several, may do."""
    return _effect(sql) if len(sql) <= _LONGEST_KEPT else _effect.__wrapped__(sql)


@functools.lru_cache(maxsize=1024)
def _effect(sql: str) -> Effect:
    effect = _KINDS.get(kind_of(sql))
    if effect is not None:
        return effect
    if _CALL.search(sql):
        return max(map(effect_of_function, _CALL.findall(_NO_CALLS.sub(" ", sql))), default=Effect.READS)
    return Effect.READS if _QUERY.match(sql) else Effect.NEUTRAL
