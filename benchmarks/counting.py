"""Counts the connections that psycopg tries to make in this process, whichever library asks it to."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psycopg.generators

from patroni_db import ping

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patroni_db.topology import Address

__all__ = ["count_attempts"]


def count_attempts(attempts: list[float]) -> None:
    """Have the time of each attempt appended to `attempts`.

    Measuring from within is the one thing that works for all clients alike: each host of a multi-host string is
    an attempt, and so is each question that patroni-db asks a server without logging in. It replaces names of
    both; that is for this process of the benchmark, no way to treat a library otherwise.
    """
    connect, answer_of = psycopg.generators.connect, ping._answer  # noqa: SLF001 - all questions go through it

    def counted(*args: Any, **kwargs: Any) -> Iterator[Any]:
        attempts.append(time.monotonic())
        answer: Iterator[Any] = connect(*args, **kwargs)
        return answer

    def asked(address: Address, request: bytes, size: int, patience: float) -> bytes:
        attempts.append(time.monotonic())
        return answer_of(address, request, size, patience)

    psycopg.generators.connect = counted
    ping._answer = asked  # noqa: SLF001
