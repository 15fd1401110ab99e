"""The table of reports. Django owns the schema; the SQLAlchemy job maps the same table (``tables.py``)."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from example_project.orders.functions import ServerAddress, Timeline

__all__ = ["SalesReport"]


class SalesReport(models.Model):
    """How much was sold up to a moment.

    :ivar reference: the run of the job that stored it; not unique, for the reason given at ``Order.reference``
    :ivar server: the address of the server that stored it, by its own word
    :ivar timeline: the timeline that server was on
    """

    reference = models.UUIDField(default=uuid.uuid4, db_index=True)
    orders = models.PositiveIntegerField()
    revenue = models.DecimalField(max_digits=14, decimal_places=2)
    made_at = models.DateTimeField(db_default=Now(), db_index=True)
    server = models.GenericIPAddressField(null=True, db_default=ServerAddress())
    timeline = models.IntegerField(db_default=Timeline())

    class Meta:
        ordering: ClassVar[list[str]] = ["-made_at", "-pk"]

    def __str__(self) -> str:
        return f"{self.orders} orders, {self.revenue}"
