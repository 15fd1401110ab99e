"""SQLAlchemy's test suite finds here how to make databases and schemas: as for every PostgreSQL dialect."""

from __future__ import annotations

from sqlalchemy.dialects.postgresql import provision

__all__ = ["provision"]
