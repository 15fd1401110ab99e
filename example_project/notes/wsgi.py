"""The WSGI application: ``gunicorn --threads 8 example_project.notes.wsgi``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError

from example_project.notes.store import DEADLINE, Answer, add, answer_to_failure, count, database_url, key_of, note_of
from sqlalchemy_dialect import run_transaction

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["application", "engine"]

engine = create_engine(database_url())


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer one request."""
    status, headers, content = _answer(environ)
    body = json.dumps(content).encode()
    given = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    start_response(status, list(given.items()))
    return [body]


def _answer(environ: WSGIEnvironment) -> Answer:
    given = environ.get("HTTP_IDEMPOTENCY_KEY")
    try:
        if environ["REQUEST_METHOD"] != "POST":
            return run_transaction(engine, count, deadline=DEADLINE)
        # All of it, before the transaction: it can be read once, and the transaction may run again.
        note = note_of(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        return run_transaction(
            engine,
            lambda connection: add(connection, note),
            exactly_once=True,
            key=key_of(given),
            if_applied=("200 OK", {}, {"stored": "before"}),
            deadline=DEADLINE,
        )
    except ValueError as exc:
        return "400 Bad Request", {}, {"error": str(exc)}
    except DBAPIError as exc:
        return answer_to_failure(exc, has_key=given is not None)
