from __future__ import annotations

from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
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


class Label(models.Model):
    # This app has no migrations, so its tables are made before those of contenttypes.
    content_type = models.ForeignKey(ContentType, models.CASCADE, db_constraint=False)
    object_id = models.BigIntegerField()
    labelled = GenericForeignKey()

    class Meta:
        app_label = "shop"

    def __str__(self) -> str:
        return str(self.pk)


class Shelf(models.Model):
    name = models.TextField(default="")
    labels = GenericRelation(Label)

    class Meta:
        app_label = "shop"

    def __str__(self) -> str:
        return self.name


class Book(models.Model):
    title = models.TextField(default="")
    shelf = models.ForeignKey(Shelf, models.SET_NULL, null=True, related_name="books")
    shown_on = models.ManyToManyField(Shelf, related_name="shown")

    class Meta:
        app_label = "shop"

    def __str__(self) -> str:
        return self.title


class Comic(Book):
    drawn_by = models.TextField(default="")

    class Meta:
        app_label = "shop"
