"""The HTML pages of the shop."""

from __future__ import annotations

from django.db import connections, transaction
from django.db.models import Sum
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_POST, require_safe

from django_backend.router import alias_for_reads
from example_project.orders.forms import OrderForm
from example_project.orders.models import Order, Product
from example_project.orders.services import OutOfStock, UnknownProduct, place_order

__all__ = ["order_detail", "order_list", "place"]

_SHOWN = 25


@transaction.non_atomic_requests
@require_safe
def order_list(request: HttpRequest) -> HttpResponse:
    """Show the newest orders and the stock, read from a replica where there is one."""
    return _page(request, OrderForm())


@require_POST
def place(request: HttpRequest) -> HttpResponse:
    """Place an order and show it, or show the form again with what is wrong."""
    form = OrderForm(request.POST)
    if form.is_valid():
        wanted = form.cleaned_data
        try:
            order = place_order(wanted["customer"], {wanted["product"].pk: wanted["quantity"]})
        except (OutOfStock, UnknownProduct) as exc:
            form.add_error("quantity", str(exc))
            return _page(request, form, status=409)
        return HttpResponseRedirect(order.get_absolute_url())
    return _page(request, form, status=400)


@transaction.non_atomic_requests
@require_safe
def order_detail(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one order.

    Whoever has just ordered finds it, also while replicas are behind: that is what ``CausalMiddleware`` is for.
    """
    orders = Order.objects.prefetch_related("lines__product")
    return render(request, "orders/detail.html", {"order": get_object_or_404(orders, pk=pk)})


def _page(request: HttpRequest, form: OrderForm, status: int = 200) -> HttpResponse:
    # Django leaves out a model's ordering where it groups.
    newest = Order.objects.annotate(pieces=Sum("lines__quantity")).order_by("-placed_at", "-pk")
    orders = list(newest[:_SHOWN])
    context = {"orders": orders, "products": list(Product.objects.all()), "form": form, "reader": _reader()}
    return render(request, "orders/list.html", context, status=status)


def _reader() -> str:
    """Return the address of the server that the page's reads went to."""
    with connections[alias_for_reads(Order)].cursor() as cursor:
        cursor.execute("SELECT host(inet_server_addr())")
        row = cursor.fetchone()
    return str(row[0]) if row and row[0] else "a local socket"
