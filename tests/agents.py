"""A double of a monitoring agent: it puts proxies around the drivers' connections and cursors, and notes what passes.

Elastic APM, Datadog and New Relic do the same, with the same library (wrapt).
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Self

import asyncpg
import psycopg
import psycopg2._json
import psycopg2.extensions
import wrapt
from psycopg2 import _psycopg

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    Proxy = wrapt.ObjectProxy[Any]
else:
    Proxy = wrapt.ObjectProxy

__all__ = ["Agent", "OpaqueConnection", "Proxy", "TracedConnection"]


class TracedCursor(Proxy):
    def __init__(self, cursor: Any, spans: list[str]) -> None:
        super().__init__(cursor)
        self._self_spans = spans

    async def __aenter__(self) -> Self:
        await self.__wrapped__.__aenter__()
        return self

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        self._self_spans.append(str(query))
        return self.__wrapped__.execute(query, *args, **kwargs)


class TracedConnection(Proxy):
    """A transparent proxy: only ``__class__`` shows what is inside."""

    def __init__(self, connection: Any, spans: list[str]) -> None:
        super().__init__(connection)
        self._self_spans = spans

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        return TracedCursor(self.__wrapped__.cursor(*args, **kwargs), self._self_spans)

    def prepare(self, query: str, *args: Any, **kwargs: Any) -> Any:  # asyncpg
        self._self_spans.append(query)
        return self.__wrapped__.prepare(query, *args, **kwargs)


class OpaqueConnection:
    """A proxy written by hand: there is no way to what is inside, and it cannot be referred to weakly."""

    __slots__ = ("_inner",)

    def __init__(self, connection: Any, spans: list[str]) -> None:
        object.__setattr__(self, "_inner", TracedConnection(connection, spans))

    def __getattr__(self, name: str) -> Any:
        if name == "__wrapped__":
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._inner, name, value)

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._inner.__exit__(*exc)

    @property  # type: ignore[misc]  # it cannot be set
    def __class__(self) -> Any:  # psycopg's TypeInfo, which SQLAlchemy asks, looks at it
        return self._inner.__class__


def _register_type(kind: Any, connection: Any = None) -> None:
    """Register with what is inside: psycopg2's own function, written in C, takes no proxy."""
    while type(connection) in {OpaqueConnection, TracedConnection}:
        connection = connection._inner if type(connection) is OpaqueConnection else connection.__wrapped__
    _psycopg.register_type(kind, connection)


class Agent:
    """Wraps what frameworks connect with.

    :param proxy: makes the proxies
    """

    def __init__(self, proxy: Callable[[Any, list[str]], Any]) -> None:
        self.spans: list[str] = []
        """The statements that passed."""
        self.attempts = 0
        """How often a driver was told to connect."""
        self.connected = 0
        """How many connections were made through it."""
        self._proxy = proxy

    def instrument(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Begin to watch; `monkeypatch` ends it."""
        for holder in (psycopg, psycopg.Connection, psycopg.AsyncConnection, psycopg2, asyncpg):
            # What a class has, not what it gives: a class method is bound to the subclass that is asked for it.
            own = inspect.getattr_static(holder, "connect")
            monkeypatch.setattr(holder, "connect", wrapt.FunctionWrapper(own, self._connect))

        for module in (psycopg2.extensions, psycopg2._json):
            monkeypatch.setattr(module, "register_type", _register_type)

    def _connect(self, connect: Callable[..., Any], instance: Any, args: Any, kwargs: Any) -> Any:
        self.attempts += 1
        made = connect(*args, **kwargs)
        if inspect.isawaitable(made):
            return self._connect_async(made)
        self.connected += 1
        return self._proxy(made, self.spans)

    async def _connect_async(self, made: Any) -> Any:
        connection = await made
        self.connected += 1
        return self._proxy(connection, self.spans)
