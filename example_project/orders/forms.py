"""The order form of the HTML page."""

from __future__ import annotations

from django import forms

from example_project.orders.models import Product

__all__ = ["OrderForm"]


class OrderForm(forms.Form):
    """One product, some pieces."""

    customer = forms.CharField(max_length=80)
    product = forms.ModelChoiceField(Product.objects.all(), empty_label=None)
    quantity = forms.IntegerField(min_value=1, max_value=1000, initial=1)
