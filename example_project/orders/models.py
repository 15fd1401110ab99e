"""What the shop sells, and what was ordered."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models
from django.db.models.functions import Now
from django.urls import reverse

from example_project.orders.functions import ServerAddress, Timeline

__all__ = ["Order", "OrderLine", "Product"]


class Product(models.Model):
    """Something on the shelf.

    :ivar stock: pieces left; the database itself refuses to go below zero (a positive field is a check constraint)
    """

    name = models.CharField(max_length=80, unique=True)
    price = models.DecimalField(max_digits=8, decimal_places=2)
    stock = models.PositiveIntegerField()

    class Meta:
        ordering: ClassVar[list[str]] = ["name"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(condition=models.Q(price__gte=0), name="product_price_not_negative"),
        ]

    def __str__(self) -> str:
        return self.name


class Order(models.Model):
    """An order, and the server that stored it.

    :ivar reference: what the customer calls the order. It is theirs, so it is not unique here. (That is also
        what lets a test count: with a unique index a write that ran twice would look like an error instead.)
    :ivar server: the address of the server that stored it, by its own word
    :ivar timeline: the timeline that server was on
    """

    reference = models.UUIDField(default=uuid.uuid4, db_index=True)
    customer = models.CharField(max_length=80)
    total = models.DecimalField(max_digits=10, decimal_places=2)
    placed_at = models.DateTimeField(db_default=Now(), db_index=True)
    server = models.GenericIPAddressField(null=True, db_default=ServerAddress())
    timeline = models.IntegerField(db_default=Timeline())

    class Meta:
        ordering: ClassVar[list[str]] = ["-placed_at", "-pk"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(condition=models.Q(total__gte=0), name="order_total_not_negative"),
        ]

    def __str__(self) -> str:
        return f"order {self.pk} of {self.customer}"

    def get_absolute_url(self) -> str:
        """Return the address of the order's page."""
        return reverse("order", args=[self.pk])


class OrderLine(models.Model):
    """So many pieces of one product in an order, at the price of that moment."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="lines")
    product = models.ForeignKey(Product, on_delete=models.PROTECT, related_name="lines")
    quantity = models.PositiveIntegerField()
    price = models.DecimalField(max_digits=8, decimal_places=2)

    class Meta:
        ordering: ClassVar[list[str]] = ["pk"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(condition=models.Q(quantity__gte=1), name="line_quantity_positive"),
            models.UniqueConstraint(fields=["order", "product"], name="line_once_for_each_product"),
        ]

    def __str__(self) -> str:
        return f"{self.quantity} x {self.product}"
