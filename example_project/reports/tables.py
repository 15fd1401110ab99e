"""The two tables the job uses, as SQLAlchemy sees them; defaults are the database's, set by Django's migrations."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, Integer, MetaData, Numeric, Table, Uuid
from sqlalchemy.dialects.postgresql import INET

__all__ = ["orders", "reports"]

_metadata = MetaData()

orders = Table(
    "orders_order",
    _metadata,
    Column("id", BigInteger, primary_key=True),
    Column("total", Numeric(10, 2), nullable=False),
)
reports = Table(
    "reports_salesreport",
    _metadata,
    Column("id", BigInteger, primary_key=True),
    Column("reference", Uuid, nullable=False),
    Column("orders", Integer, nullable=False),
    Column("revenue", Numeric(14, 2), nullable=False),
    Column("made_at", DateTime(timezone=True)),
    Column("server", INET),
    Column("timeline", Integer),
)
