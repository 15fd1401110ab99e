from __future__ import annotations

from django.db import models


class Customer(models.Model):
    name = models.TextField()

    class Meta:
        app_label = "shop"

    def __str__(self) -> str:
        return self.name


class Order(models.Model):
    customer = models.ForeignKey(Customer, models.CASCADE, related_name="orders")
    note = models.TextField()

    class Meta:
        app_label = "shop"

    def __str__(self) -> str:
        return self.note
