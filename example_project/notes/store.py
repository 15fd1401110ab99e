"""What both applications share: the tables, the settings, and the answers."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Column, Identity, Integer, MetaData, String, Table, func, insert, select
from sqlalchemy.engine import URL

from patroni_db.faults import Fault, classify
from patroni_db.markers import check_key
from sqlalchemy_dialect import CommitOutcomeUnknown, commit_marker_table

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.exc import DBAPIError

__all__ = ["DEADLINE", "Answer", "add", "answer_to_failure", "count", "database_url", "key_of", "metadata", "note_of"]

metadata = MetaData()
notes = Table(
    "notes",
    metadata,
    Column("id", Integer, Identity(), primary_key=True),
    Column("note", String, nullable=False),
)
commit_marker_table(metadata)

# Seconds for one request, all its attempts together: less than a proxy, or gunicorn's --timeout, waits for an answer.
DEADLINE: Final = float(os.environ.get("NOTES_DEADLINE", "20"))
_RETRY_AFTER: Final = "2"

# A status, headers and what becomes the body.
Answer = tuple[str, dict[str, str], dict[str, Any]]


def database_url() -> URL:
    """Return the engine's URL; Patroni's API is named by ``PATRONI_API_URL``."""
    return URL.create(
        "postgresql+patroni",
        username=os.environ.get("PGUSER"),
        password=os.environ.get("PGPASSWORD"),
        database=os.environ.get("PGDATABASE"),
    )


def note_of(body: bytes) -> str:
    """Return the note that a request brings.

    :raises ValueError: the body is not JSON with a note in it
    """
    given = json.loads(body)
    if not isinstance(given, dict) or not isinstance(given.get("note"), str):
        problem = 'the body must be JSON like {"note": "..."}'
        raise ValueError(problem)  # noqa: TRY004 - of a value that came from outside
    return str(given["note"])


def key_of(given: str | None) -> str | None:
    """Return the key of a transaction for what a client gave as ``Idempotency-Key``.

    :raises ValueError: it is too long
    """
    return None if given is None else check_key(f"notes:{given}")


def add(connection: Connection, note: str) -> Answer:
    """Store a note. May run more than once: it changes nothing but the database."""
    number = connection.execute(insert(notes).values(note=note).returning(notes.c.id)).scalar_one()
    return "201 Created", {}, {"id": number}


def count(connection: Connection) -> Answer:
    """Tell how many there are."""
    return "200 OK", {}, {"notes": connection.execute(select(func.count()).select_from(notes)).scalar_one()}


def answer_to_failure(exc: DBAPIError, *, has_key: bool) -> Answer:
    """Return what to answer when a transaction could not be brought to its end before the deadline.

    :param has_key: whether the client gave the request a key, so that it may send it again whatever became of it
    :raises DBAPIError: `exc`, when it has nothing to do with a failover
    """
    if classify(exc) is Fault.OTHER:
        raise exc
    if isinstance(exc, CommitOutcomeUnknown) and not has_key:
        # No Retry-After: whoever sends it again may store it twice.
        return "503 Service Unavailable", {}, {"error": "it is not known whether the note was stored"}
    return "503 Service Unavailable", {"Retry-After": _RETRY_AFTER}, {"error": "the database is not available"}
