"""The ASGI application: ``uvicorn example_project.notes.asgi:application``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from example_project.notes.store import DEADLINE, Answer, add, answer_to_failure, count, database_url, key_of, note_of
from sqlalchemy_dialect import run_transaction_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from sqlalchemy.ext.asyncio import AsyncConnection

    Message = MutableMapping[str, Any]

__all__ = ["application", "engine"]

engine = create_async_engine(database_url())


async def application(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Answer one request."""
    if scope["type"] != "http":
        await _live(receive, send)
        return
    status, headers, content = await _answer(scope, receive)
    given = {"Content-Type": "application/json", **headers}
    raw = [(name.lower().encode(), value.encode()) for name, value in given.items()]
    await send({"type": "http.response.start", "status": int(status.split()[0]), "headers": raw})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})


async def _answer(scope: Message, receive: Callable[[], Awaitable[Message]]) -> Answer:
    given = dict(scope["headers"]).get(b"idempotency-key")
    try:
        if scope["method"] != "POST":
            return await run_transaction_async(engine, lambda connection: connection.run_sync(count), deadline=DEADLINE)
        # All of it, before the transaction: it can be read once, and the transaction may run again.
        note = note_of(await _body(receive))

        async def store(connection: AsyncConnection) -> Answer:
            return await connection.run_sync(add, note)

        return await run_transaction_async(
            engine,
            store,
            exactly_once=True,
            key=None if given is None else key_of(given.decode("latin-1")),
            if_applied=("200 OK", {}, {"stored": "before"}),
            deadline=DEADLINE,
        )
    except ValueError as exc:
        return "400 Bad Request", {}, {"error": str(exc)}
    except DBAPIError as exc:
        return answer_to_failure(exc, has_key=given is not None)


async def _body(receive: Callable[[], Awaitable[Message]]) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _live(receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]) -> None:
    """Begin and end with the server (ASGI's lifespan)."""
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await engine.dispose()
    await send({"type": "lifespan.shutdown.complete"})
