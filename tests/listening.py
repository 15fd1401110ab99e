"""What a driver has kept for an application that listens."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

__all__ = ["heard_by", "psycopg_must_keep_notifications"]


def heard_by(connection: Any, timeout: float = 0.1) -> list[str]:
    """Return the payloads of notifications on a connection of psycopg or psycopg2, in the order in which they came."""
    if hasattr(connection, "pgconn"):
        psycopg_must_keep_notifications()
        return [told.payload for told in connection.notifies(timeout=timeout)]
    return [told.payload for told in connection.notifies]


def psycopg_must_keep_notifications() -> None:
    """Skip with a psycopg that loses those that come while nobody iterates, as it did before 3.2.4."""
    if tuple(int(number) for number in psycopg.__version__.split(".")[:3]) < (3, 2, 4):
        pytest.skip("this psycopg loses notifications itself")
