"""The reporting job: reads on a replica, stores on the primary. Plain SQLAlchemy, no Django."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine, Insert, Row, Select, create_engine, func, insert, select

from example_project.reports.tables import orders, reports

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

__all__ = ["Report", "database_url", "figures", "make_report", "new_report", "reader_engine", "writer_engine"]


@dataclass(frozen=True, slots=True)
class Report:
    """A stored report.

    :param orders: orders counted
    :param revenue: the sum of their totals
    :param server: the address of the server that stored it, by its own word
    :param timeline: the timeline that server was on
    """

    orders: int
    revenue: Decimal
    server: str | None
    timeline: int

    @classmethod
    def from_row(cls, row: Row[Any]) -> Report:
        """Return what :func:`new_report` returned."""
        return cls(row.orders, row.revenue, None if row.server is None else str(row.server), row.timeline)


def database_url(target: str, environ: Mapping[str, str] = os.environ) -> URL:
    """Return the URL of the shop's database; the cluster itself is in ``PATRONI_API_URL``.

    :param target: which servers are wanted, as ``patroni_target`` takes it
    :param environ: where ``PGDATABASE``, ``PGUSER`` and ``PGPASSWORD`` are
    """
    return URL.create(
        "postgresql+patroni",
        username=environ.get("PGUSER", "app"),
        password=environ.get("PGPASSWORD") or None,
        database=environ.get("PGDATABASE", "app"),
        query={"patroni_target": target, "application_name": "reports"},
    )


def writer_engine(**options: Any) -> Engine:
    """Return an engine on the primary."""
    return create_engine(database_url("primary"), **options)


def reader_engine(**options: Any) -> Engine:
    """Return an engine on the replicas, or the primary while there is none."""
    return create_engine(database_url("replica_preferred"), **options)


def figures() -> Select[int, Decimal]:
    """Return the statement that counts orders and sums up their totals."""
    return select(func.count().label("orders"), func.coalesce(func.sum(orders.c.total), 0).label("revenue"))


def new_report(count: int, revenue: Decimal, reference: uuid.UUID) -> Insert:
    """Return the statement that stores a report and gives it back as the server stored it."""
    values = {"reference": reference, "orders": count, "revenue": revenue}
    columns = (reports.c.orders, reports.c.revenue, reports.c.server, reports.c.timeline)
    return insert(reports).values(values).returning(*columns)


def store(connection: Connection, count: int, revenue: Decimal, reference: uuid.UUID) -> Report:
    """Store a report on a connection to the primary."""
    return Report.from_row(connection.execute(new_report(count, revenue, reference)).one())


def make_report(reader: Engine, writer: Engine) -> Report:
    """Do the job once: aggregate on a replica, store the result on the primary."""
    with reader.connect() as connection:
        count, revenue = connection.execute(figures()).one()
    with writer.begin() as connection:
        return store(connection, count, revenue, uuid.uuid4())
