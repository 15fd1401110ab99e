"""Commit markers: the row by which a transaction whose COMMIT was not answered is known to have committed, or not.

Each transaction that must happen exactly once first inserts its key into one table. Whoever comes later with the same
key waits, on the table's unique index, until the first transaction is decided. Then either the row is there, and the
first one has committed, or it is not, and the first one never will. The proof is written out in
``docs/exactly-once.md``. Pure.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

from patroni_db.errors import KeyReusedError
from patroni_db.escaping import quoted

if TYPE_CHECKING:
    import random

__all__ = [
    "ADD_FINGERPRINT",
    "CREATE_TABLE",
    "DROP_FINGERPRINT",
    "DROP_TABLE",
    "FINGERPRINT_LENGTH",
    "INDEX",
    "KEY_LENGTH",
    "MARK",
    "MARK_WITH_FINGERPRINT",
    "PRUNE",
    "RENEW",
    "RENEW_AFTER",
    "TABLE",
    "check_fingerprint",
    "check_key",
    "fingerprint_of",
    "new_key",
    "seconds_of",
]

TABLE: Final = "patroni_commit_marker"
INDEX: Final = f"{TABLE}_age"
# Characters; long enough for a job queue's own identifiers.
KEY_LENGTH: Final = 200

# Hexadecimal digits of a SHA-256.
FINGERPRINT_LENGTH: Final = 64

# A BRIN index costs next to nothing to keep, and rows come in the order in which they go.
CREATE_TABLE: Final = f"""\
CREATE TABLE IF NOT EXISTS {TABLE} (
    key varchar({KEY_LENGTH}) PRIMARY KEY,
    created_at timestamp with time zone NOT NULL DEFAULT now(),
    collisions integer NOT NULL DEFAULT 0,
    fingerprint varchar({FINGERPRINT_LENGTH})
);
CREATE INDEX IF NOT EXISTS {INDEX} ON {TABLE} USING brin (created_at)
"""
# For a table that was made before there were fingerprints; without them it is used as it is.
ADD_FINGERPRINT: Final = f"ALTER TABLE {TABLE} ADD COLUMN IF NOT EXISTS fingerprint varchar({FINGERPRINT_LENGTH})"
DROP_FINGERPRINT: Final = f"ALTER TABLE {TABLE} DROP COLUMN IF EXISTS fingerprint"
DROP_TABLE: Final = f"DROP TABLE IF EXISTS {TABLE}"

# Returns 0 when the key is new. A collision writes too, so that its COMMIT waits for the synchronous standby: what
# it tells of is then replicated as well, also when the first transaction's own wait was cut short.
MARK: Final = f"""\
INSERT INTO {TABLE} (key) VALUES (%s)
ON CONFLICT (key) DO UPDATE SET collisions = {TABLE}.collisions + 1
RETURNING collisions"""  # noqa: S608 - a constant

# The same with a fingerprint of the work; returns that of the transaction that has taken the key as well.
MARK_WITH_FINGERPRINT: Final = f"""\
INSERT INTO {TABLE} (key, fingerprint) VALUES (%s, %s)
ON CONFLICT (key) DO UPDATE SET collisions = {TABLE}.collisions + 1
RETURNING collisions, fingerprint"""  # noqa: S608 - a constant

# Age counts from the end of a transaction: one that has taken longer than RENEW_AFTER renews its marker before COMMIT.
# What took less than that is not worth a statement, as no age below an hour can be pruned.
RENEW: Final = f"UPDATE {TABLE} SET created_at = pg_catalog.clock_timestamp() WHERE key = %s"  # noqa: S608 - a constant
RENEW_AFTER: Final = 1.0

# In parts, so that no lock is held, and no replica kept behind, for long.
PRUNE: Final = f"""\
DELETE FROM {TABLE} WHERE key IN (
    SELECT key FROM {TABLE} WHERE created_at < now() - make_interval(secs => %s) LIMIT %s FOR UPDATE SKIP LOCKED
)"""  # noqa: S608 - a constant

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
# In seconds; PostgreSQL's timestamps go back further, its intervals too.
_LONGEST_AGE: Final = 100 * 366 * 86400
_AGE: Final = re.compile(r"(\d{1,9})\s*([smhdw])", re.ASCII)


def new_key(rng: random.Random, now: float) -> str:
    """Return a key that nobody else has: 12 hexadecimal digits of time and 20 that are random.

    Those of one time are neighbours in the unique index, as with UUIDs of version 7.

    :param rng: a source that an other process does not repeat, as :class:`random.SystemRandom`
    :param now: seconds since 1970
    """
    return f"{int(now * 1000) & (1 << 48) - 1:012x}{rng.getrandbits(80):020x}"


def check_key(key: str) -> str:
    """Return `key`, a caller's own.

    :raises ValueError: it is empty, too long, or PostgreSQL could not store it
    """
    if not key or len(key) > KEY_LENGTH or "\0" in key or not _is_unicode(key):
        problem = f"the key of a transaction has 1 to {KEY_LENGTH} characters that can be stored: {key[:80]!r}"
        raise ValueError(problem)
    return key


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def fingerprint_of(work: str | bytes | None) -> str | None:
    """Return what is stored of `work`: its SHA-256; None for None.

    :param work: what the same key must always stand for, such as the body of a request, or a job's arguments
    """
    if work is None:
        return None
    return hashlib.sha256(work.encode(errors="surrogatepass") if isinstance(work, str) else work).hexdigest()


def check_fingerprint(key: str, given: str | None, stored: str | None) -> None:
    """Check that a key that was taken before stands for the same work; where one of both is not known, it may.

    :raises KeyReusedError: it does not
    """
    if given is not None and stored is not None and given != stored:
        raise KeyReusedError(key)


def seconds_of(age: str) -> float:
    """Return the seconds of an age as ``7d``, ``12h`` or ``90s``.

    :raises ValueError: it is none
    """
    match = _AGE.fullmatch(age.strip().lower())
    if match is None:
        problem = f"{quoted(age)} is no age: write a number and one of {', '.join(_UNITS)}, as in 7d"
        raise ValueError(problem)
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds > _LONGEST_AGE:
        problem = f"{quoted(age)} is more than 100 years"
        raise ValueError(problem)
    return seconds
