"""What a statement written in SQL does to a database, as far as its words tell. Pure.

A function called in a SELECT may write, and nothing here sees that. Everything else errs on neither side: what is
called a read changes nothing, what is called a write would be refused by a standby, and the rest is called unknown.
"""

from __future__ import annotations

import enum
import functools
import re
from typing import Final

__all__ = ["StatementKind", "keeps_state", "kind_of", "shapes_reads", "takes_lock"]


class StatementKind(enum.IntEnum):
    """What a statement does; of several together, the largest counts."""

    READ = 0
    UNKNOWN = 1
    """``CALL``, ``DO``, ``EXECUTE`` and the like: the server knows."""
    WRITE = 2
    """It changes something or locks rows: a server in recovery refuses it."""


_READS: Final = (
    "SHOW|FETCH|MOVE|CLOSE|BEGIN|START|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT|RELEASE|SET|RESET|DEALLOCATE|DISCARD"
    "|UNLISTEN"
)
_WRITES: Final = (
    "INSERT|UPDATE|DELETE|MERGE|TRUNCATE|CREATE|ALTER|DROP|GRANT|REVOKE|COMMENT|REFRESH|REINDEX|CLUSTER|VACUUM|ANALYZE"
    "|ANALYSE|IMPORT|SECURITY|REASSIGN|NOTIFY"
)
_BY_WORD: Final = {
    "": StatementKind.READ,
    **dict.fromkeys(_READS.split("|"), StatementKind.READ),
    **dict.fromkeys(_WRITES.split("|"), StatementKind.WRITE),
}
_QUERIES: Final = frozenset({"SELECT", "VALUES", "TABLE", "DECLARE", "WITH"})
# Where what words are not looked for in begins: literals, quoted names and comments. All begin with a character of
# their own, which is what lets a long statement be searched fast.
_OPAQUE: Final = re.compile(r"""['"]|\$(?:[A-Za-z_]\w*)?\$|--|/\*""")
_ESCAPED: Final = re.compile(r"(?:[^'\\]|\\.|'')*'", re.DOTALL)
_BLOCK_ENDS: Final = re.compile(r"/\*|\*/")
_HEAD: Final = re.compile(r"[\s(]*([A-Z]+)")
# What UPDATE, DELETE and INSERT are in front of tells them from columns of that name.
_CHANGES: Final = re.compile(r"[()]\s*(?:INSERT\s+INTO\b|DELETE\s+FROM\b|MERGE\s+INTO\b|UPDATE\s[^;]*?\sSET\b)")
_INTO_OR_LOCKS: Final = re.compile(
    r"(?<!\bAS)\s+INTO\b|\bFOR\s+(?:NO\s+KEY\s+UPDATE|UPDATE|KEY\s+SHARE|SHARE)\b",
)
_EXPLAIN: Final = re.compile(r"\s*EXPLAIN\s*(\([^)]*\)|(?:(?:ANALY[SZ]E|VERBOSE)\s+)*)")
_COPY_IN: Final = re.compile(r"\s*COPY\s+[^\s(]+\s*(?:\([^)]*\)\s*)?FROM\b")
# What a session holds from then on, beyond the end of a transaction.
_KEPT_BY_SESSION: Final = re.compile(
    r"(?:\A|;)\s*(?:SET(?!\s+(?:LOCAL|TRANSACTION|CONSTRAINTS)\b)|DECLARE|LISTEN|PREPARE(?!\s+TRANSACTION\b)|LOAD)\b"
    r"|\b(?:CREATE|INTO)\s+(?:(?:GLOBAL|LOCAL|OR\s+REPLACE)\s+)?TEMP(?:ORARY)?\b"
    r"|\b(?:SET_CONFIG|PG_(?:TRY_)?ADVISORY_LOCK\w*)\s*\("
)
# Which rows later reads of the session see, and of which tables: where names are looked for, who asks, what policies of
# row-level security and the like are told (settings with a dot), and tables that only this session has.
_SHAPES_READS: Final = re.compile(
    r"(?:\A|;)\s*SET\s+(?:SESSION\s+)?(?:SEARCH_PATH|SCHEMA|ROLE|AUTHORIZATION|ROW_SECURITY|[\w\"]+\s*\.)"
    r"|\b(?:CREATE|INTO)\s+(?:(?:GLOBAL|LOCAL|OR\s+REPLACE)\s+)?TEMP(?:ORARY)?\b"
    r"|\bSET_CONFIG\s*\("
)
_TAKES_LOCK: Final = re.compile(r"\bPG_(?:TRY_)?ADVISORY_LOCK\w*\s*\(")
# Longer ones are not kept, and a write is mostly told by its first word.
_LONGEST_KEPT: Final = 4096
_LONGEST_HEAD: Final = 24


def kind_of(sql: str) -> StatementKind:
    """Return what `sql` does, a statement or several with semicolons between them."""
    return _kept_kind_of(sql) if len(sql) <= _LONGEST_KEPT else _kind_of(sql)


@functools.lru_cache(maxsize=1024)
def keeps_state(sql: str) -> bool:
    """Return whether the session holds something after `sql` that is lost with its connection.

    A setting, a prepared statement, a cursor, a temporary table or an advisory lock. What a function does inside is not
    seen.
    """
    return _KEPT_BY_SESSION.search(_bare(sql).upper()) is not None


@functools.lru_cache(maxsize=1024)
def shapes_reads(sql: str) -> bool:
    """Return whether later reads see other rows in this session than in one that was not given `sql`."""
    return _SHAPES_READS.search(_bare(sql).upper()) is not None


@functools.lru_cache(maxsize=1024)
def takes_lock(sql: str) -> bool:
    """Return whether the session may hold an advisory lock after `sql`."""
    return _TAKES_LOCK.search(_bare(sql).upper()) is not None


def _kind_of(sql: str) -> StatementKind:
    head = _HEAD.match(sql[:_LONGEST_HEAD].upper())
    if head and _BY_WORD.get(head[1]) is StatementKind.WRITE:  # bulk ones are long, and not read to their end
        return StatementKind.WRITE
    bare = _bare(sql).upper()
    return max(map(_kind_of_one, bare.split(";")), default=StatementKind.READ)


_kept_kind_of = functools.lru_cache(maxsize=1024)(_kind_of)


def _kind_of_one(bare: str) -> StatementKind:
    head = _HEAD.match(bare)
    word = head[1] if head else bare.strip()
    if word in _QUERIES:
        changes = (word == "WITH" and _CHANGES.search(bare)) or (
            ("INTO" in bare or "FOR" in bare) and _INTO_OR_LOCKS.search(bare)
        )
        return StatementKind.WRITE if changes else StatementKind.READ
    if word == "EXPLAIN":
        options = _EXPLAIN.match(bare)
        if options and "ANALY" in options[1]:
            return _kind_of_one(bare[options.end() :])
        return StatementKind.READ
    if word == "COPY":
        return StatementKind.WRITE if _COPY_IN.match(bare) or _CHANGES.search(bare) else StatementKind.READ
    return _BY_WORD.get(word, StatementKind.UNKNOWN)


def _bare(sql: str) -> str:
    """Return `sql` without comments and with nothing in its literals and quoted names."""
    parts, start = [], 0
    while (found := _OPAQUE.search(sql, start)) is not None:
        parts.append(sql[start : found.start()])
        parts.append('""' if found[0] == '"' else " ")
        start = _end_of(sql, found)
    parts.append(sql[start:])
    return "".join(parts)


def _end_of(sql: str, found: re.Match[str]) -> int:
    """Return where ends what begins there; a quote within, doubled, ends one literal and begins the next."""
    begin, before = found.end(), sql[max(0, found.start() - 2) : found.start()]
    mark = found[0]
    if mark == "/*":
        return _end_of_block(sql, begin)
    if mark[0] == "$" and (before[-1:].isalnum() or before[-1:] in ("_", "$")):
        return found.start() + 1  # within a name
    if mark == "'" and before[-1:] in ("e", "E") and not (before[:-1].isalnum() or before[:-1] == "_"):
        escaped = _ESCAPED.match(sql, begin)
        return escaped.end() if escaped else len(sql)
    closing = "\n" if mark == "--" else mark
    end = sql.find(closing, begin)
    return len(sql) if end < 0 else end + len(closing)


def _end_of_block(sql: str, start: int) -> int:
    depth = 1
    for mark in _BLOCK_ENDS.finditer(sql, start):
        depth += 1 if mark[0] == "/*" else -1
        if not depth:
            return mark.end()
    return len(sql)
