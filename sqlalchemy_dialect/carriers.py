"""Causal tokens from one HTTP request to the next, in a signed header, for ASGI and WSGI applications.

A request that wrote is answered with ``Patroni-Causal-Token``. The client sends that header with its next requests,
which then see what was written, whichever process and replica answers them.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import weakref
from typing import TYPE_CHECKING, Any, Final

from patroni_db.causal import DEFAULT_CLUSTER
from patroni_db.causal_context import causal_context
from patroni_db.causal_text import dump, load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from patroni_db.causal import CausalToken
    from patroni_db.causal_context import CausalScope

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    ASGIApplication = Callable[[Message, Receive, Send], Awaitable[None]]

__all__ = ["HEADER", "CausalASGIMiddleware", "CausalWSGIMiddleware"]

logger = logging.getLogger("patroni_db.sqlalchemy")

HEADER: Final = "Patroni-Causal-Token"


class _Carrier:
    """What both have in common.

    :param app: the application behind
    :param key: a secret that all processes share; a header that was not signed with it is ignored
    :param cluster: the name by which the sessions know the cluster
    :raises ValueError: the key is empty
    """

    def __init__(self, app: Any, key: str | bytes, cluster: str = DEFAULT_CLUSTER) -> None:
        if not key:
            raise ValueError("key: signing causal tokens needs a secret")
        self.app = app
        self._key = key
        self._cluster = cluster

    def _tokens(self, given: str | None) -> dict[str, CausalToken]:
        """Return the token that a request brings."""
        loaded = load([given], [self._key])
        if loaded.problem is not None:
            logger.info("a request's %s is ignored: %s", HEADER, loaded.problem)
        return {name: token for name, token in loaded.tokens.items() if name == self._cluster}

    def _answer(self, scope: CausalScope) -> str | None:
        """Return the header of a response: the latest token known, None when there is none."""
        return dump({name: token for name, token in scope.tokens.items() if name == self._cluster}, self._key) or None


class CausalASGIMiddleware(_Carrier):
    """Opens a :func:`~patroni_db.causal_context.causal_context` for each request, and carries its token.

    ``app.add_middleware(CausalASGIMiddleware, key=...)`` with Starlette and FastAPI. The transaction has to be
    committed before the response begins: in the endpoint, not in what runs after it.
    """

    app: ASGIApplication

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name.lower() == HEADER.lower().encode()), b"")
        with causal_context(self._tokens(given.decode("latin-1"))) as tokens:

            async def send_with_token(message: Message) -> None:
                if message["type"] == "http.response.start":
                    answer = self._answer(tokens)
                    if answer is not None:
                        headers = _with_token(map(_decoded, message.get("headers", ())), answer)
                        message = {**message, "headers": list(map(_encoded, headers))}
                await send(message)

            await self.app(scope, receive, send_with_token)


class CausalWSGIMiddleware(_Carrier):
    """The same for WSGI: ``app.wsgi_app = CausalWSGIMiddleware(app.wsgi_app, key=...)`` with Flask."""

    app: WSGIApplication

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        context, scope = contextvars.copy_context(), contextlib.ExitStack()
        try:
            body = context.run(self._call, scope, environ, start_response)
        except BaseException:
            context.run(scope.close)
            raise
        if isinstance(body, (list, tuple)):
            context.run(scope.close)
            return body
        return _Body(body, context, scope)

    def _call(
        self, scope: contextlib.ExitStack, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        given = environ.get(f"HTTP_{HEADER.upper().replace('-', '_')}")
        tokens = scope.enter_context(causal_context(self._tokens(given)))

        def start_with_token(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
            answer = self._answer(tokens)
            return start_response(status, headers if answer is None else _with_token(headers, answer), *exc_info)

        return self.app(environ, start_with_token)


def _with_token(headers: Iterable[tuple[str, str]], answer: str) -> list[tuple[str, str]]:
    """Return the headers of a response with its token, which caches must not give to those who sent another one."""
    headers = list(headers)
    varies = [value for name, value in headers if name.lower() == "vary"]
    named = {word.strip().lower() for value in varies for word in value.split(",")}
    if not named & {"*", HEADER.lower()}:
        headers = [(name, value) for name, value in headers if name.lower() != "vary"]
        headers.append(("Vary", ", ".join([*filter(None, varies), HEADER])))
    return [*headers, (HEADER, answer)]


def _decoded(header: tuple[bytes, bytes]) -> tuple[str, str]:
    name, value = header
    return name.decode("latin-1"), value.decode("latin-1")


def _encoded(header: tuple[str, str]) -> tuple[bytes, bytes]:
    """Return a header as ASGI has it."""
    name, value = header
    return name.lower().encode("latin-1"), value.encode("latin-1")


class _Body:
    """A response's body that is made while it is sent, in the request's context: it may read, and answer late.

    :param body: the application's
    :param context: of the request
    :param scope: is left when the body is closed, or when nobody has it any more
    """

    def __init__(self, body: Iterable[bytes], context: contextvars.Context, scope: contextlib.ExitStack) -> None:
        self._body = body
        self._context = context
        # Where it was entered: a context variable is set back in its own context only.
        self._leave = weakref.finalize(self, context.run, scope.close)

    def __iter__(self) -> Iterator[bytes]:
        parts = self._context.run(iter, self._body)
        while (part := self._context.run(next, parts, None)) is not None:
            yield part

    def close(self) -> None:
        """Close the application's body, as the server does at the end."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                self._context.run(close)
        finally:
            self._leave()
