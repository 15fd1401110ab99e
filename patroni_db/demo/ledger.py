"""What the surviving primary has: every write of the clients, and whether the shop's books balance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from patroni_db.demo.history import Row

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Books", "read_ledger", "stock_left"]

# The tables are those of the example project.
_ROWS = """
    SELECT reference::text, host(server), timeline FROM orders_order
    UNION ALL
    SELECT reference::text, host(server), timeline FROM reports_salesreport
"""
_STOCK = "SELECT coalesce(sum(stock), 0)::bigint FROM orders_product"
_SOLD = "SELECT coalesce(sum(quantity), 0)::bigint FROM orders_orderline"
_ORDERS = "SELECT count(*) FROM orders_order"
_HALF = """
    SELECT count(*) FROM orders_order o
    WHERE o.total IS DISTINCT FROM (SELECT sum(l.quantity * l.price) FROM orders_orderline l WHERE l.order_id = o.id)
"""


@dataclass(frozen=True, slots=True)
class Books:
    """Whether orders, lines and stock agree: each order was one transaction over three tables.

    :param orders: orders stored
    :param half_written: orders whose lines do not add up to their total
    :param sold: pieces in all lines
    :param stock_before: pieces on the shelves before the first order
    :param stock_after: pieces on the shelves now
    """

    orders: int
    half_written: int
    sold: int
    stock_before: int
    stock_after: int

    @property
    def balanced(self) -> bool:
        """Whether what was sold is what is gone, and no order is half there."""
        return self.stock_before - self.sold == self.stock_after and self.half_written == 0


def stock_left(conninfo: str) -> int:
    """Return how many pieces are on the shelves.

    :param conninfo: a connection string of the primary
    """
    with psycopg.connect(conninfo) as connection:
        return _number(connection, _STOCK)


def read_ledger(conninfo: str, nodes: Mapping[str, str], stock_before: int) -> tuple[tuple[Row, ...], Books]:
    """Return all writes that are stored, and the books, as of one moment.

    :param conninfo: a connection string of the primary
    :param nodes: names of the nodes by address
    :param stock_before: pieces on the shelves before the first order
    """
    with psycopg.connect(conninfo) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        found = connection.execute(_ROWS).fetchall()
        rows = tuple(Row(reference, nodes.get(server or "", server), timeline) for reference, server, timeline in found)
        books = Books(
            orders=_number(connection, _ORDERS),
            half_written=_number(connection, _HALF),
            sold=_number(connection, _SOLD),
            stock_before=stock_before,
            stock_after=_number(connection, _STOCK),
        )
    return rows, books


def _number(connection: psycopg.Connection[tuple[object, ...]], query: str) -> int:
    row = connection.execute(query).fetchone()
    if row is None or not isinstance(row[0], int):
        raise TypeError(f"not a number: {row!r}")
    return row[0]
