"""The JSON API of the shop."""

from __future__ import annotations

import json
import uuid
from typing import Any

from django.db import router, transaction
from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_safe

from example_project.orders.models import Order, OrderLine, Product
from example_project.orders.services import OutOfStock, UnknownProduct, place_order

__all__ = ["order", "orders", "stock"]

_SHOWN = 50
_MOST_PIECES = 1_000_000
_LONGEST_NAME = 80


# No cookie identifies anybody here, so no other site could misuse one.
@csrf_exempt
@require_http_methods(["GET", "HEAD", "POST"])
def orders(request: HttpRequest) -> JsonResponse:
    """List the newest orders (GET), or place one (POST).

    The body of a POST: ``{"customer": "Ada", "lines": [{"product": 1, "quantity": 2}], "reference": UUID}``,
    the reference being optional. Answers 201; 400 for a body that is not so; 404 for an unknown product;
    409 when the stock does not suffice.
    """
    if request.method == "POST":
        return _place(request)
    newest = Order.objects.prefetch_related("lines__product")[:_SHOWN]
    return JsonResponse({"orders": [_as_json(order) for order in newest]})


@transaction.non_atomic_requests
@require_safe
def order(request: HttpRequest, pk: int) -> JsonResponse:
    """Return one order, read from the primary: who has just placed it must find it."""
    placed = Order.objects.using(router.db_for_write(Order)).prefetch_related("lines__product")
    return JsonResponse(_as_json(get_object_or_404(placed, pk=pk)))


@transaction.non_atomic_requests
@require_safe
def stock(request: HttpRequest) -> JsonResponse:
    """Return what is left of every product."""
    rows = Product.objects.values("id", "name", "price", "stock")
    return JsonResponse({"products": list(rows)})


def _place(request: HttpRequest) -> JsonResponse:
    try:
        customer, quantities, reference = _wish(json.loads(request.body))
    except (ValueError, RecursionError) as exc:
        return JsonResponse({"error": str(exc)}, status=400)
    try:
        placed = place_order(customer, quantities, reference)
    except UnknownProduct as exc:
        return JsonResponse({"error": str(exc)}, status=404)
    except OutOfStock as exc:
        return JsonResponse({"error": str(exc)}, status=409)
    return JsonResponse(_as_json(placed), status=201)


def _wish(body: Any) -> tuple[str, dict[int, int], uuid.UUID | None]:
    """Return customer, quantities and reference of a request's body.

    :raises ValueError: telling what is wrong with it
    """
    if not isinstance(body, dict):
        raise ValueError("the body must be an object")  # noqa: TRY004 - one error for every bad body
    customer, lines, reference = body.get("customer"), body.get("lines"), body.get("reference")
    if not isinstance(customer, str) or not 0 < len(customer) <= _LONGEST_NAME or "\0" in customer:
        raise ValueError(f"customer must be a text of 1 to {_LONGEST_NAME} characters")
    if not isinstance(lines, list) or not lines:
        raise ValueError("lines must be a list that is not empty")
    quantities: dict[int, int] = {}
    for line in lines:
        product, quantity = (line.get("product"), line.get("quantity")) if isinstance(line, dict) else (None, None)
        if type(product) is not int or not 0 < product < 2**63:
            raise ValueError("product must be the number of a product")
        if type(quantity) is not int or not 0 < quantity <= _MOST_PIECES:
            raise ValueError(f"quantity must be a whole number from 1 to {_MOST_PIECES}")
        if product in quantities:
            raise ValueError(f"product {product} is there twice")
        quantities[product] = quantity
    if reference is None:
        return customer, quantities, None
    if not isinstance(reference, str):
        raise ValueError("reference must be a UUID")  # noqa: TRY004 - see above
    return customer, quantities, uuid.UUID(reference)


def _as_json(order: Order) -> dict[str, Any]:
    return {
        "id": order.pk,
        "reference": str(order.reference),
        "customer": order.customer,
        "total": str(order.total),
        "placed_at": order.placed_at.isoformat(),
        "server": order.server,
        "timeline": order.timeline,
        "lines": [_line_as_json(line) for line in order.lines.all()],
    }


def _line_as_json(line: OrderLine) -> dict[str, Any]:
    return {
        "product": line.product_id,
        "name": line.product.name,
        "quantity": line.quantity,
        "price": str(line.price),
    }
