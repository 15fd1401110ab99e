"""Taking causal tokens on a primary, and asking a server whether it shows what one stands for.

Both ask one statement on a connection of psycopg, psycopg2 or asyncpg that is not in a transaction. Nothing is left
behind on it: a transaction that the driver would begin by itself is not begun.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from patroni_db.autocommit import autocommit, autocommit_async
from patroni_db.causal import CausalToken, Standing, standing

if TYPE_CHECKING:
    from patroni_db.connections import Stamp
    from patroni_db.discovery import Discovery
    from patroni_db.topology import Member

__all__ = ["capture", "capture_async", "has_caught_up", "has_caught_up_async", "known_standing"]

# After a commit has returned it is flushed, except where the session does not wait for that. The insert position is
# not taken always: it can be ahead of everything that standbys receive until somebody writes again.
# pg_walfile_name() begins with the timeline, in eight hexadecimal digits.
_CAPTURE: Final = """
SELECT system_identifier::text, pg_catalog.pg_walfile_name(lsn), (lsn - '0/0'::pg_catalog.pg_lsn)::bigint
FROM pg_catalog.pg_control_system(), (
    SELECT CASE pg_catalog.current_setting('synchronous_commit')
        WHEN 'off' THEN pg_catalog.pg_current_wal_insert_lsn() ELSE pg_catalog.pg_current_wal_flush_lsn() END AS lsn
) AS place
"""
_REACHED: Final = """
SELECT system_identifier::text, (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
    ELSE pg_catalog.pg_current_wal_insert_lsn() END - '0/0'::pg_catalog.pg_lsn)::bigint
FROM pg_catalog.pg_control_system()
"""
_TIMELINE_DIGITS: Final = 8
# Between two questions to a server that is still behind, doubled each time up to the latter, in seconds.
_FIRST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.02


def capture(connection: Any) -> CausalToken:
    """Return a token for everything that was committed on this primary before, by this session or any other.

    One statement. A transaction that ran under ``SET LOCAL synchronous_commit = off`` may not be covered: it asked
    not to wait for its own commit.

    :param connection: a psycopg or psycopg2 connection to a primary, not in a transaction
    :raises Exception: the driver's own error; on a standby its 55000
    """
    return _token(_ask(connection, _CAPTURE))


async def capture_async(connection: Any) -> CausalToken:
    """Do the same as :func:`capture` on an asyncpg connection or psycopg's AsyncConnection."""
    return _token(await _ask_async(connection, _CAPTURE))


def known_standing(discovery: Discovery, stamp: Stamp, token: CausalToken) -> Standing | None:
    """Return how a connection's server stands to `token`, by what is known already; None when it has to be asked.

    Patroni (4.1 and later) tells up to where each replica has replayed: a lower bound.
    """
    lineage, member = discovery.lineage(), _member(discovery, stamp)
    known = standing(
        token,
        lineage,
        timeline=member.timeline if member else None,
        reached=member.replayed if member and lineage else None,
    )
    if known is not Standing.BEHIND:
        return known
    # Not on the token's timeline yet, or on a later one whose history is not known: asking it cannot help.
    place = standing(token, lineage, timeline=member.timeline if member else None, reached=token.lsn)
    return Standing.BEHIND if place is Standing.BEHIND else None


def has_caught_up(discovery: Discovery, connection: Any, stamp: Stamp, token: CausalToken, wait: float) -> Standing:
    """Return whether the server behind `connection` shows what `token` stands for; wait a little for it to.

    :param discovery: the view of the cluster
    :param connection: a psycopg or psycopg2 connection, not in a transaction
    :param stamp: where it leads
    :param token: the place to have reached
    :param wait: seconds to wait for a server that is behind; 0 asks it once
    :raises Exception: the driver's own error
    """
    deadline, pause = time.monotonic() + wait, _FIRST_PAUSE
    while True:
        found = known_standing(discovery, stamp, token)
        if found is None:
            found = _judge(discovery, stamp, token, _ask(connection, _REACHED))
        left = deadline - time.monotonic()
        if found is not Standing.BEHIND or left <= 0 or _is_elsewhere(discovery, stamp, token):
            return found
        time.sleep(min(pause, left))
        pause = min(2 * pause, _LONGEST_PAUSE)


async def has_caught_up_async(
    discovery: Discovery, connection: Any, stamp: Stamp, token: CausalToken, wait: float
) -> Standing:
    """Do the same as :func:`has_caught_up` on an asyncpg connection or psycopg's AsyncConnection."""
    deadline, pause = time.monotonic() + wait, _FIRST_PAUSE
    while True:
        found = known_standing(discovery, stamp, token)
        if found is None:
            found = _judge(discovery, stamp, token, await _ask_async(connection, _REACHED))
        left = deadline - time.monotonic()
        if found is not Standing.BEHIND or left <= 0 or _is_elsewhere(discovery, stamp, token):
            return found
        await asyncio.sleep(min(pause, left))
        pause = min(2 * pause, _LONGEST_PAUSE)


# -- Judging -------------------------------------------------------------------------------------------------


def _judge(discovery: Discovery, stamp: Stamp, token: CausalToken, row: tuple[Any, ...]) -> Standing:
    identifier, reached = row
    if identifier != token.system_identifier:
        return Standing.LOST
    member = _member(discovery, stamp)
    return standing(token, discovery.lineage(), timeline=member.timeline if member else None, reached=reached)


def _is_elsewhere(discovery: Discovery, stamp: Stamp, token: CausalToken) -> bool:
    """Return whether waiting is of no avail: the server has to change its timeline first."""
    return known_standing(discovery, stamp, token) is Standing.BEHIND


def _member(discovery: Discovery, stamp: Stamp) -> Member | None:
    snapshot = discovery.snapshot
    return snapshot.topology.member(stamp.member) if snapshot is not None and stamp.member is not None else None


def _token(row: tuple[Any, ...]) -> CausalToken:
    identifier, file, lsn = row
    return CausalToken(identifier, int(file[:_TIMELINE_DIGITS], 16), lsn)


# -- Asking --------------------------------------------------------------------------------------------------


def _ask(connection: Any, statement: str) -> tuple[Any, ...]:
    with autocommit(connection), connection.cursor() as cursor:
        cursor.execute(statement)
        (row,) = cursor.fetchall()
    return tuple(row.values() if isinstance(row, dict) else row)


async def _ask_async(connection: Any, statement: str) -> tuple[Any, ...]:
    if hasattr(connection, "fetchrow"):  # asyncpg, which begins no transaction by itself
        return tuple(await connection.fetchrow(statement))
    async with autocommit_async(connection), connection.cursor() as cursor:
        await cursor.execute(statement)
        (row,) = await cursor.fetchall()
    return tuple(row.values() if isinstance(row, dict) else row)
