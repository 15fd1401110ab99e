"""What the shop does, apart from how it is asked: the HTML pages, the API and the demo's clients share this."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import F

from example_project.orders.models import Order, OrderLine, Product

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OutOfStock", "UnknownProduct", "place_order"]


class UnknownProduct(Exception):  # noqa: N818 - the shop's own words
    """There is no such product.

    :param pk: the product asked for
    """

    def __init__(self, pk: int) -> None:
        super().__init__(f"there is no product {pk}")
        self.pk = pk


class OutOfStock(Exception):  # noqa: N818 - the shop's own words
    """Fewer pieces are left than were asked for.

    :param product: the product
    :param wanted: pieces asked for
    """

    def __init__(self, product: Product, wanted: int) -> None:
        super().__init__(f"only {product.stock} of {product.name} left, not {wanted}")
        self.product = product
        self.wanted = wanted


def place_order(customer: str, quantities: Mapping[int, int], reference: uuid.UUID | None = None) -> Order:
    """Take the pieces from stock and store the order with its lines: all of it or nothing.

    :param customer: who orders
    :param quantities: pieces by the primary key of the product; at least one
    :param reference: what the customer calls the order
    :raises UnknownProduct: when a product does not exist
    :raises OutOfStock: when a product has too few pieces left
    """
    if not quantities:
        raise ValueError("an order has at least one line")
    # Inside atomic() the router sends reads to the primary too: prices and stock are not a replica's.
    with transaction.atomic():
        # Always in the same order, so that two orders of the same products cannot wait for each other.
        taken = [(_take(pk, quantities[pk]), quantities[pk]) for pk in sorted(quantities)]
        order = Order.objects.create(
            reference=reference or uuid.uuid4(),
            customer=customer,
            total=sum((product.price * quantity for product, quantity in taken), Decimal()),
        )
        OrderLine.objects.bulk_create(
            OrderLine(order=order, product=product, quantity=quantity, price=product.price)
            for product, quantity in taken
        )
    return order


def _take(pk: int, quantity: int) -> Product:
    taken = Product.objects.filter(pk=pk, stock__gte=quantity).update(stock=F("stock") - quantity)
    try:
        product = Product.objects.get(pk=pk)
    except Product.DoesNotExist:
        raise UnknownProduct(pk) from None
    if not taken:
        raise OutOfStock(product, quantity)
    return product
