"""The shop's tests: ``python example_project/manage.py test example_project``, on any cluster."""

# ruff: noqa: PT009, PT027 - run by Django's test runner, not by pytest

from __future__ import annotations

import json
import uuid
from decimal import Decimal
from typing import Any

from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.core.management import call_command
from django.db import IntegrityError, transaction
from django.test import TransactionTestCase
from django.urls import reverse

from example_project.orders.models import Order, OrderLine, Product
from example_project.orders.services import OutOfStock, UnknownProduct, place_order


class ShopTestCase(TransactionTestCase):
    """Two products on the shelves, three of the first and ten of the second."""

    def setUp(self) -> None:
        """Fill the shelves."""
        self.lamp = Product.objects.create(name="Lamp", price=Decimal("31.00"), stock=3)
        self.lens = Product.objects.create(name="Lens", price=Decimal("14.90"), stock=10)

    def left(self, product: Product) -> int:
        """Return how many pieces are left."""
        return Product.objects.using("default").get(pk=product.pk).stock


class PlaceOrderTests(ShopTestCase):
    """All of an order, or nothing."""

    def test_takes_the_pieces_from_stock(self) -> None:
        """The total is right, and stock and lines agree."""
        order = place_order("Ada", {self.lamp.pk: 2, self.lens.pk: 1})
        self.assertEqual(order.total, Decimal("76.90"))
        self.assertEqual((self.left(self.lamp), self.left(self.lens)), (1, 9))
        lines = OrderLine.objects.filter(order=order).values_list("product__name", "quantity")
        self.assertCountEqual(lines, [("Lamp", 2), ("Lens", 1)])

    def test_knows_the_server_that_stored_it(self) -> None:
        """The server says so itself, in the INSERT's answer."""
        order = place_order("Ada", {self.lamp.pk: 1})
        self.assertTrue(order.server)
        self.assertGreaterEqual(order.timeline, 1)

    def test_is_undone_when_the_stock_does_not_suffice(self) -> None:
        """What was taken already goes back."""
        with self.assertRaises(OutOfStock):
            place_order("Ada", {self.lamp.pk: 1, self.lens.pk: 11})
        self.assertEqual((self.left(self.lamp), self.left(self.lens)), (3, 10))
        self.assertFalse(Order.objects.exists())

    def test_refuses_an_unknown_product(self) -> None:
        """It is not simply out of stock."""
        with self.assertRaises(UnknownProduct):
            place_order("Ada", {self.lamp.pk: 1, 10**6: 1})
        self.assertEqual(self.left(self.lamp), 3)

    def test_refuses_an_order_of_nothing(self) -> None:
        """An order has lines."""
        with self.assertRaises(ValueError):
            place_order("Ada", {})

    def test_the_database_itself_keeps_stock_above_zero(self) -> None:
        """Also when somebody forgets to ask."""
        with self.assertRaises(IntegrityError), transaction.atomic():
            Product.objects.filter(pk=self.lamp.pk).update(stock=-1)


class PageTests(ShopTestCase):
    """The HTML pages."""

    def order(self, **fields: Any) -> Any:
        """Send the form."""
        form = {"customer": "Ada", "product": self.lamp.pk, "quantity": 1, **fields}
        return self.client.post(reverse("place"), form)

    def test_an_order_is_shown_to_whom_placed_it(self) -> None:
        """And in the list."""
        answer = self.client.post(
            reverse("place"), {"customer": "Ada <3", "product": self.lamp.pk, "quantity": 2}, follow=True
        )
        self.assertContains(answer, "Ada &lt;3")
        self.assertContains(answer, "62.00")
        self.assertContains(self.client.get(reverse("orders")), "Ada &lt;3")

    def test_the_newest_order_comes_first(self) -> None:
        """Also on the page, which adds up each order's pieces."""
        placed = [place_order(customer, {self.lens.pk: 1}) for customer in ("Ada", "Grace", "Mary")]
        shown = self.client.get(reverse("orders")).context["orders"]
        self.assertEqual([order.pk for order in shown], [order.pk for order in reversed(placed)])

    def test_too_much_is_refused_with_words(self) -> None:
        """The form comes back."""
        answer = self.order(quantity=4)
        self.assertContains(answer, "only 3 of Lamp left, not 4", status_code=409)

    def test_a_wrong_form_comes_back(self) -> None:
        """Nothing is taken."""
        self.assertContains(self.order(quantity=0), "greater than or equal to 1", status_code=400)
        self.assertEqual(self.left(self.lamp), 3)

    def test_empty_shelves_are_explained(self) -> None:
        """So that a new visitor knows what to do."""
        Product.objects.all().delete()
        self.assertContains(self.client.get(reverse("orders")), "manage.py seed")

    def test_reports_are_there_before_the_first(self) -> None:
        """The page says how to make one."""
        self.assertContains(self.client.get(reverse("reports")), "No reports yet")

    def test_seed_fills_up(self) -> None:
        """Twice is as good as once."""
        for stock in (5, 7):
            call_command("seed", stock=stock, verbosity=0)
        self.assertEqual(Product.objects.get(name="Star chart").stock, 7)


class ApiTests(ShopTestCase):
    """The JSON API."""

    def post(self, body: Any) -> Any:
        """Send JSON, or what only looks like it."""
        text = body if isinstance(body, (str, bytes)) else json.dumps(body)
        return self.client.post(reverse("api-orders"), text, content_type="application/json")

    def test_an_order_is_placed_and_found(self) -> None:
        """By its id and in the list, with the reference the customer gave."""
        reference = str(uuid.uuid4())
        lines = [{"product": self.lens.pk, "quantity": 3}]
        placed = self.post({"customer": "Ada", "lines": lines, "reference": reference})
        self.assertEqual(placed.status_code, 201)
        order = placed.json()
        self.assertEqual((order["reference"], order["total"]), (reference, "44.70"))
        self.assertEqual(self.client.get(reverse("api-order", args=[order["id"]])).json(), order)
        self.assertEqual(self.client.get(reverse("api-orders")).json(), {"orders": [order]})
        self.assertEqual(self.client.get(reverse("api-stock")).json()["products"][1]["stock"], 7)

    def test_what_cannot_be_is_refused(self) -> None:
        """404 for what is not there, 409 for what is not left."""
        self.assertEqual(self.post({"customer": "Ada", "lines": [{"product": 9**9, "quantity": 1}]}).status_code, 404)
        much = self.post({"customer": "Ada", "lines": [{"product": self.lamp.pk, "quantity": 4}]})
        self.assertEqual((much.status_code, much.json()["error"]), (409, "only 3 of Lamp left, not 4"))
        self.assertEqual(self.client.get(reverse("api-order", args=[1])).status_code, 404)

    def test_nonsense_is_refused_with_words(self) -> None:
        """Never a 500."""
        line = {"product": self.lamp.pk, "quantity": 1}
        nonsense: tuple[Any, ...] = (
            "",
            "{",
            b"\xff",
            "[" * 100_000,
            [],
            {},
            {"customer": "", "lines": [line]},
            {"customer": "a\0b", "lines": [line]},
            {"customer": "x" * 81, "lines": [line]},
            {"customer": "Ada", "lines": []},
            {"customer": "Ada", "lines": [3]},
            {"customer": "Ada", "lines": [line, line]},
            {"customer": "Ada", "lines": [{**line, "quantity": True}]},
            {"customer": "Ada", "lines": [{**line, "quantity": -1}]},
            {"customer": "Ada", "lines": [{**line, "product": 2**70}]},
            {"customer": "Ada", "lines": [line], "reference": "x"},
            {"customer": "Ada", "lines": [line], "reference": 5},
        )
        for body in nonsense:
            with self.subTest(body=str(body)[:60]):
                answer = self.post(body)
                self.assertEqual(answer.status_code, 400)
                self.assertTrue(answer.json()["error"])
        self.assertEqual(self.left(self.lamp), 3)


class CacheTests(ShopTestCase):
    """The cache and the sessions that are kept in the database."""

    def tearDown(self) -> None:
        """Empty the cache's table: it is no model's, so the tests' own flush leaves it."""
        cache.clear()

    def test_the_cache_keeps_what_it_was_given(self) -> None:
        """With all its methods, in a transaction and outside of one."""
        self.assertIsNone(cache.get("lamps"))
        cache.set_many({"lamps": 3, "lenses": 10})
        self.assertEqual(cache.get_many(["lamps", "lenses", "charts"]), {"lamps": 3, "lenses": 10})
        self.assertTrue(cache.has_key("lamps"))
        self.assertEqual((cache.incr("lamps"), cache.get("lamps")), (4, 4))
        self.assertFalse(cache.add("lamps", 1))
        with transaction.atomic():
            self.assertEqual(cache.get_or_set("charts", 7), 7)
            self.assertTrue(cache.touch("charts", 60))
        self.assertTrue(cache.delete("charts"))
        cache.set("lamps", 0, timeout=-1)
        self.assertIsNone(cache.get("lamps"))

    def test_a_session_outlives_its_cache(self) -> None:
        """It is in the cache and in a table of its own."""
        session = self.client.session
        session["customer"] = "Ada"
        session.save()
        self.assertEqual(self.client.session["customer"], "Ada")
        cache.clear()
        self.assertEqual(self.client.session["customer"], "Ada")
        self.assertTrue(Session.objects.exists())
        session.flush()
        self.assertFalse(Session.objects.exists())

    def test_the_caches_table_is_made_once_and_on_the_primary(self) -> None:
        """Commands that ask the router about it get an answer, also about the replicas."""
        for database in ("default", "replica"):
            call_command("createcachetable", database=database, verbosity=0)
