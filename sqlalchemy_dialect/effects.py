"""What a statement may do to the database, read from its SQL. Pure.

Conservative: only what is known to read is said to read. No full parser: strings, quoted names, comments and bind
parameters are left out, and of the rest only what tells a write from a read is looked at. What a function does inside
cannot be seen, except for some of PostgreSQL's own.
"""

from __future__ import annotations

import enum
import functools
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Effect", "effect_of_function", "effect_of_sql"]


class Effect(enum.IntEnum):
    """The worst that a statement may do: of several, the highest counts."""

    NEUTRAL = 0
    """It steers the session or the transaction, as SET and SAVEPOINT do."""
    READS = 1
    MAY_WRITE = 2
    """Nobody can tell from here, as with CALL; or it makes sense on the primary only."""
    WRITES = 3
    """It changes something, takes row locks, or draws from a sequence: a standby refuses it."""


# A quoted name is kept, as it may name a function; all else that is no word and no punctuation of interest is dropped.
_TOKEN: Final = re.compile(
    r"""
      --[^\n]*
    | (?P<comment> /\*)
    | [eE]' (?: [^'\\] | \\. | '' )*+ '
    | ' (?: [^'] | '' )*+ '
    | (?P<quoted> " (?: [^"] | "" )*+ ")
    | \$ (?P<tag> (?: [^\W\d]\w* )? ) \$ .*? \$ (?P=tag) \$
    | %\([^)]*\)s | \$\d+ | ::? \s* \w+
    | (?P<word> [^\W\d][\w$]* )
    | (?P<sign> [();] )
    | (?P<open> ['"] )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_SIGN: Final = re.compile(r"/\*|\*/")

_READING: Final = frozenset({"SELECT", "WITH", "VALUES", "TABLE"})
_NEUTRAL: Final = frozenset(
    {
        "SET",
        "RESET",
        "BEGIN",
        "START",
        "COMMIT",
        "END",
        "ROLLBACK",
        "ABORT",
        "SAVEPOINT",
        "RELEASE",
        "FETCH",
        "MOVE",
        "CLOSE",
        "DISCARD",
        "DEALLOCATE",
    }
)
_WRITING: Final = frozenset(
    {
        "INSERT",
        "UPDATE",
        "DELETE",
        "MERGE",
        "TRUNCATE",
        "CREATE",
        "ALTER",
        "DROP",
        "GRANT",
        "REVOKE",
        "COMMENT",
        "REINDEX",
        "REFRESH",
        "CLUSTER",
        "VACUUM",
        "NOTIFY",
        "REASSIGN",
        "SECURITY",
        "IMPORT",
    }
)
_LOCKS: Final = frozenset({"UPDATE", "SHARE", "NO", "KEY"})

# PostgreSQL's own. Advisory locks and notices exist on one server only: taken on a replica they keep nobody out.
_WRITING_FUNCTIONS: Final = frozenset({"nextval", "setval", "pg_notify"})
_PRIMARY_FUNCTIONS: Final = re.compile(
    r"currval|lastval|pg_(try_)?advisory_\w+|pg_current_(xact_id|wal_\w+)|txid_current|pg_logical_emit_message"
    r"|lo_\w+|dblink\w*|pg_(create|drop)_\w+|pg_switch_wal|pg_export_snapshot"
)
_LONGEST_KEPT: Final = 20_000


def effect_of_function(name: str) -> Effect:
    """Return what a call of the function `name`, without its schema, is known to do."""
    lowered = name.lower()
    if lowered in _WRITING_FUNCTIONS:
        return Effect.WRITES
    return Effect.MAY_WRITE if _PRIMARY_FUNCTIONS.fullmatch(lowered) else Effect.READS


def effect_of_sql(sql: str) -> Effect:
    """Return what `sql`, one statement or several, may do.

    Bind parameters may be SQLAlchemy's (``:name``) or a driver's (``%(name)s``, ``$1``).
    """
    # Statements with many values are each another one: they would only drive the others out.
    return _effect(sql) if len(sql) <= _LONGEST_KEPT else _effect.__wrapped__(sql)


@functools.lru_cache(maxsize=1024)
def _effect(sql: str) -> Effect:
    effect = Effect.NEUTRAL
    statement: list[str] = []
    for word in (*_words(sql), ";"):
        if not word:
            return Effect.MAY_WRITE  # a quote or a comment that does not end
        if word != ";":
            statement.append(word)
        elif statement:
            effect = max(effect, _effect_of_statement(statement))
            statement.clear()
    return effect


def _words(sql: str) -> Iterator[str]:
    """Yield words in capitals, quoted names as they are, and punctuation; an empty one if something does not end."""
    place = 0
    while (match := _TOKEN.search(sql, place)) is not None:
        place = match.end()
        kind = match.lastgroup
        if kind == "word":
            yield match[0].upper()
        elif kind in {"quoted", "sign"}:
            yield match[0]
        elif kind == "open":
            yield ""
        elif kind == "comment":
            place = _end_of_comment(sql, place)
            if place < 0:
                yield ""
                return


def _end_of_comment(sql: str, place: int) -> int:
    """Return where a comment ends that began before `place`: PostgreSQL's may be nested. -1 if it does not."""
    depth = 1
    while depth:
        match = _COMMENT_SIGN.search(sql, place)
        if match is None:
            return -1
        depth += 1 if match[0] == "/*" else -1
        place = match.end()
    return place


def _effect_of_statement(words: Sequence[str]) -> Effect:
    verb = next((word for word in words if word != "("), "")
    if verb in _READING:
        return _effect_of_query(words)
    if verb == "EXPLAIN":
        return Effect.MAY_WRITE if {"ANALYZE", "ANALYSE"}.intersection(words) else Effect.READS
    if verb == "SHOW":
        return Effect.READS
    if verb in _NEUTRAL:
        return Effect.NEUTRAL
    return Effect.WRITES if verb in _WRITING else Effect.MAY_WRITE


def _effect_of_query(words: Sequence[str]) -> Effect:
    """Return the worst that is in a query."""
    effect = Effect.READS
    before_a_statement = {"(", ")"} if "WITH" in words else {"("}
    for before, word, after in zip(("", *words), words, (*words[1:], ""), strict=False):
        if word in _WRITING:
            # Columns, too, may be called so. A statement begins after a parenthesis, and goes on as it must.
            if before in before_a_statement and _goes_on(word, after):
                return Effect.WRITES
        elif word == "INTO" or (word == "FOR" and after in _LOCKS):
            return Effect.WRITES
        elif after == "(":
            effect = max(effect, effect_of_function(word.strip('"')))
    return effect


def _goes_on(verb: str, after: str) -> bool:
    """Return whether a statement with `verb` in a query goes on with `after`."""
    if verb in {"INSERT", "MERGE"}:
        return after == "INTO"
    return after == "FROM" if verb == "DELETE" else verb == "UPDATE" and after not in {"", "(", ")", ";"}
