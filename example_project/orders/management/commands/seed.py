"""``manage.py seed``: put something on the shelves."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import transaction

from example_project.orders.models import Product

_CATALOGUE = {
    "Binoculars 8x42": "129.00",
    "Elephant, carved": "38.50",
    "Field notebook": "7.20",
    "Hand lens 10x": "14.90",
    "Hurricane lamp": "31.00",
    "Pith helmet": "46.00",
    "Star chart": "18.75",
    "Travelling clock": "64.40",
}


class Command(BaseCommand):
    """Create the catalogue where it is missing, and fill up its stock."""

    help = "Create the shop's catalogue and fill up its stock."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add ``--stock``."""
        parser.add_argument("--stock", type=int, default=1000, help="pieces of each product (default: 1000)")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it in one transaction."""
        with transaction.atomic():
            for name, price in _CATALOGUE.items():
                Product.objects.update_or_create(
                    name=name, defaults={"price": Decimal(price), "stock": options["stock"]}
                )
        self.stdout.write(f"{len(_CATALOGUE)} products, {options['stock']} of each")
