"""Statements outside of any transaction on a driver's connection. That is a switch in the driver: nothing is sent."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

__all__ = ["autocommit", "autocommit_async"]


@contextlib.contextmanager
def autocommit(connection: Any) -> Iterator[None]:
    """Have psycopg or psycopg2 begin no transaction on `connection` meanwhile."""
    if connection.autocommit:
        yield
        return
    connection.autocommit = True
    try:
        yield
    finally:
        if not connection.closed:
            connection.autocommit = False


@contextlib.asynccontextmanager
async def autocommit_async(connection: Any) -> AsyncIterator[None]:
    """Do the same as :func:`autocommit` on psycopg's AsyncConnection."""
    if connection.autocommit:
        yield
        return
    await connection.set_autocommit(True)
    try:
        yield
    finally:
        if not connection.closed:
            await connection.set_autocommit(False)
