"""Sales reports."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, ClassVar

import django.db.models.functions.datetime
from django.db import migrations, models

import example_project.orders.functions

if TYPE_CHECKING:
    from django.db.migrations.operations.base import Operation


class Migration(migrations.Migration):
    """Create the table of reports."""

    initial = True

    dependencies: ClassVar[list[tuple[str, str]]] = []

    operations: ClassVar[list[Operation]] = [
        migrations.CreateModel(
            name="SalesReport",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("reference", models.UUIDField(db_index=True, default=uuid.uuid4)),
                ("orders", models.PositiveIntegerField()),
                ("revenue", models.DecimalField(decimal_places=2, max_digits=14)),
                ("made_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), db_index=True)),
                (
                    "server",
                    models.GenericIPAddressField(
                        db_default=example_project.orders.functions.ServerAddress(), null=True
                    ),
                ),
                ("timeline", models.IntegerField(db_default=example_project.orders.functions.Timeline())),
            ],
            options={
                "ordering": ["-made_at", "-pk"],
            },
        ),
    ]
