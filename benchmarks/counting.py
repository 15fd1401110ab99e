"""Counts the connections that psycopg tries to make in this process, whichever library asks it to."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psycopg.generators
from psycopg import pq

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["count_attempts"]


def count_attempts(attempts: list[float]) -> None:
    """Have the time of each attempt appended to `attempts`.

    Measuring from within is the one thing that works for all clients alike: each host of a multi-host string is
    an attempt, and so is a ``PQping``. It replaces two names of psycopg's; that is for this process of the
    benchmark, no way to treat a library otherwise.
    """
    connect = psycopg.generators.connect

    def counted(*args: Any, **kwargs: Any) -> Iterator[Any]:
        attempts.append(time.monotonic())
        answer: Iterator[Any] = connect(*args, **kwargs)
        return answer

    def ping(_: type[Any], conninfo: bytes) -> Any:
        attempts.append(time.monotonic())
        return connection.ping(conninfo)

    connection = pq.PGconn
    psycopg.generators.connect = counted
    pq.PGconn = type("PGconn", (connection,), {"ping": classmethod(ping)})
