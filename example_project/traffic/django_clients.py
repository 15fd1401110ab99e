"""Django's clients: they place and list orders, as the shop's pages do."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from django.db import close_old_connections

from example_project.orders.functions import ServerAddress
from example_project.orders.models import Order, Product
from example_project.orders.services import place_order
from example_project.traffic.lanes import Stored

if TYPE_CHECKING:
    import uuid

__all__ = ["DjangoReader", "DjangoWriter"]

_LISTED = 20


class DjangoWriter:
    """Places orders of one or two products."""

    def __init__(self) -> None:
        self._products = sorted(Product.objects.values_list("pk", flat=True))
        self._turn = itertools.count()

    def write(self, reference: uuid.UUID) -> Stored:
        """Place an order."""
        # What the handler does around every request; work outside of requests has to do it itself.
        close_old_connections()
        turn = next(self._turn)
        count = len(self._products)
        quantities = {self._products[turn % count]: 1, self._products[turn * 3 % count]: 2}
        order = place_order("the demo", quantities, reference)
        return Stored(order.server, order.timeline)


class DjangoReader:
    """Lists the newest orders, on a replica by the router's choice."""

    def read(self) -> str | None:
        """Read the list with the orders' lines."""
        close_old_connections()
        newest = list(Order.objects.annotate(reader=ServerAddress())[:_LISTED])
        if newest:
            return newest[0].reader
        return Product.objects.annotate(reader=ServerAddress()).values_list("reader", flat=True).first()
