"""What a statement written in SQL does to a database, as far as its words tell. Pure.

A function called in a SELECT may write, and nothing here sees that. Everything else errs on neither side: what is
called a read changes nothing, what is called a write would be refused by a standby, and the rest is called unknown.
"""

from __future__ import annotations

import enum
import functools
import re
from typing import Final

__all__ = ["StatementKind", "kind_of"]


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
# What words are not looked for in: literals, quoted names and comments. A block comment may hold others.
_OPAQUE: Final = re.compile(
    r"""
      (?<!\w)[eE]'(?:[^'\\]|\\.|'')*'
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | (?<![\w$])\$(?P<tag>[A-Za-z_]\w*|)\$.*?\$(?P=tag)\$
    | --[^\n]*
    | (?P<block>/\*)
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK_ENDS: Final = re.compile(r"/\*|\*/")
_HEAD: Final = re.compile(r"[\s(]*([A-Z]+)")
# What UPDATE, DELETE and INSERT are in front of tells them from columns of that name.
_CHANGES: Final = re.compile(r"[()]\s*(?:INSERT\s+INTO\b|DELETE\s+FROM\b|MERGE\s+INTO\b|UPDATE\s[^;]*?\sSET\b)")
_INTO_OR_LOCKS: Final = re.compile(
    r"(?<!\bAS)\s+INTO\b|\bFOR\s+(?:NO\s+KEY\s+UPDATE|UPDATE|KEY\s+SHARE|SHARE)\b",
)
_EXPLAIN: Final = re.compile(r"\s*EXPLAIN\s*(\([^)]*\)|(?:(?:ANALY[SZ]E|VERBOSE)\s+)*)")
_COPY_IN: Final = re.compile(r"\s*COPY\s+[^\s(]+\s*(?:\([^)]*\)\s*)?FROM\b")
# Longer ones are not kept, and a write is mostly told by its first word.
_LONGEST_KEPT: Final = 4096


def kind_of(sql: str) -> StatementKind:
    """Return what `sql` does, a statement or several with semicolons between them."""
    if sql[:12] == "INSERT INTO ":  # a long one, as bulk inserts are, is not read to its end
        return StatementKind.WRITE
    return _kept_kind_of(sql) if len(sql) <= _LONGEST_KEPT else _kind_of(sql)


def _kind_of(sql: str) -> StatementKind:
    bare = _bare(sql).upper()
    return max(map(_kind_of_one, bare.split(";")), default=StatementKind.READ)


_kept_kind_of = functools.lru_cache(maxsize=1024)(_kind_of)


def _kind_of_one(bare: str) -> StatementKind:
    head = _HEAD.match(bare)
    word = head[1] if head else bare.strip()
    if word in _QUERIES:
        changes = (word == "WITH" and _CHANGES.search(bare)) or _INTO_OR_LOCKS.search(bare)
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
        start = found.end()
        if found["block"]:
            start = _end_of_block(sql, start)
        parts.append('""' if sql[found.start()] == '"' else " ")
    parts.append(sql[start:])
    return "".join(parts)


def _end_of_block(sql: str, start: int) -> int:
    depth = 1
    for mark in _BLOCK_ENDS.finditer(sql, start):
        depth += 1 if mark[0] == "/*" else -1
        if not depth:
            return mark.end()
    return len(sql)
